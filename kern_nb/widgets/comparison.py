"""`ComparisonView`: a comparison to move about in. Two columns, aligned; what is the same is folded."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.text import formatting, worddiff
from kern_nb.views.comparison import SIGNS, comparison_html, headline, label, metrics_html
from kern_nb.widgets.base import Widget
from kern_nb.widgets.rpc import call

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison
    from kern_nb.analysis.compare.pairs import Pair
    from kern_nb.analysis.conversation import Comparand
    from kern_nb.db import SessionStore

MOST_ROWS = 50
"""The most turns that are sent at once."""

_MOST_STRETCHES = 2_000
_LONGEST = 400_000
_PLACE = 60


def view(*sides: Comparand, store: SessionStore | str | None = None) -> ComparisonView:
    """Compare sessions or runs, to move about in; arguments and errors as for `kern_nb.compare`."""
    from kern_nb.analysis.compare import compare

    return ComparisonView(compare(*sides, store=store))


class ComparisonView(Widget, script="comparison"):
    """A comparison, side by side.

    Attributes:
        comparison: What is compared, with its frames.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        super().__init__(comparison.sides[0].store)

    def __repr__(self) -> str:
        """Who is compared."""
        return f"<ComparisonView {' | '.join(label(side.label) for side in self.comparison.sides)}>"

    def still(self) -> str:
        """The comparison as it stands without a kernel."""
        return comparison_html(self.comparison)

    @call
    def start(self) -> dict[str, Any]:
        """The sides, what each took, and which of them can be put beside the baseline."""
        names = [formatting.escape_controls(label(side.label)) for side in self.comparison.sides]
        return {"baseline": names[0], "contenders": names[1:], "metrics": metrics_html(self.comparison)}

    @call
    def stretches(self, contender: int) -> dict[str, Any]:
        """A pair as stretches of turns that are the same, or differ; where the first one begins that differs.

        Each is ``[first turn, number of turns, whether they are the same, how many are inherited]``.
        """
        pair = self._pair(contender)
        found = []
        for same, group in groupby(self._turns(contender), key=lambda row: row["status"] == "matched"):
            part = list(group)
            found.append([part[0]["turn"], len(part), same, sum(bool(row["shared"]) for row in part)])
        parts = next((turn for turn, _, same, _ in found if not same), None)
        unseen = sum(number for _, number, _, _ in found[_MOST_STRETCHES:])
        said = formatting.escape_controls(headline(pair))
        return {"said": said, "stretches": found[:_MOST_STRETCHES], "parts": parts, "unseen": unseen}

    @call
    def rows(self, contender: int, first: int, number: int) -> list[dict[str, Any]]:
        """Some turns, each with both sides; of texts that changed, the words of one side alone are marked."""
        some = self._turns(contender)[max(0, first) : max(0, first) + min(number, MOST_ROWS)]
        return [_row(row) for row in some]

    @call
    def whole(self, contender: int, turn: int, side: str) -> str:
        """The whole text of a turn on one side."""
        turns = self._turns(contender)
        if side not in ("a", "b") or not 0 <= turn < len(turns):
            raise BadUsage(f"There is no turn {turn} of side {side!r}.", "Run the cell again.")
        text = formatting.escape_controls(
            "\n".join(filter(None, (turns[turn][f"{side}_text"], turns[turn][f"{side}_calls"])))
        )
        left = len(text) - _LONGEST
        return text if left <= 0 else f"{text[:_LONGEST]}… {formatting.format_count(left)} more characters"

    def _pair(self, contender: int) -> Pair:
        if not 0 <= contender < len(self.comparison.pairs):
            raise BadUsage(f"There is no contender {contender}.", "Run the cell again.")
        return self.comparison.pairs[contender]

    def _turns(self, contender: int) -> list[dict[str, Any]]:
        return self._pair(contender).rows


def _row(row: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"turn": row["turn"], "status": row["status"], "sign": SIGNS[row["status"]]}
    made["role"] = formatting.escape_controls(formatting.truncate(row["role"] or "", 20))
    texts = _pieces(row, "text")
    calls = _pieces(row, "calls")
    for n, side in enumerate("ab"):
        place = row[side]
        made[side] = place and {
            "place": formatting.escape_controls(formatting.truncate(place, _PLACE)),
            "text": texts[n],
            "calls": calls[n],
            "cut": len(row[f"{side}_text"] or "") + len(row[f"{side}_calls"] or "") > worddiff.MAX_LENGTH,
        }
    return made


def _pieces(row: dict[str, Any], what: str) -> tuple[list[worddiff.Piece], list[worddiff.Piece]]:
    a, b = row[f"a_{what}"] or "", row[f"b_{what}"] or ""
    if row["status"] == "changed":
        return worddiff.diff(a, b)
    return worddiff.preview(a), worddiff.preview(b)
