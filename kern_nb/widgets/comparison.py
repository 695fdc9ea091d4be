"""`ComparisonView`: an interactive comparison in two aligned columns, with identical turns folded."""

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

MAX_ROWS = 50  # the most turns in one answer
_MAX_STRETCHES = 2_000
_MAX_LENGTH = 400_000


def view(*sides: Comparand, store: SessionStore | str | None = None) -> ComparisonView:
    """Compare sessions or runs interactively; arguments and errors as for `kern_nb.compare`."""
    from kern_nb.analysis.compare import compare

    return ComparisonView(compare(*sides, store=store))


class ComparisonView(Widget, script="comparison"):
    """A comparison, side by side.

    Attributes:
        comparison: The comparison, with its frames.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        super().__init__(comparison.sides[0].store)

    def __repr__(self) -> str:
        return f"<ComparisonView {' | '.join(label(side.label) for side in self.comparison.sides)}>"

    def fallback_html(self) -> str:
        """Render the static comparison."""
        return comparison_html(self.comparison)

    @call
    def start(self) -> dict[str, Any]:
        """Return the names of the sides, and the table of metrics."""
        names = [formatting.escape_controls(label(side.label)) for side in self.comparison.sides]
        return {"baseline": names[0], "contenders": names[1:], "metrics": metrics_html(self.comparison)}

    @call
    def stretches(self, contender: int) -> dict[str, Any]:
        """Return a pair as stretches of identical or differing turns, and the first turn that differs.

        Each is ``[first turn, number of turns, whether they are identical, how many are inherited]``.
        """
        stretches = []
        for is_same, group in groupby(self._pair(contender).rows, key=lambda turn: turn["status"] == "matched"):
            turns = list(group)
            stretches.append([turns[0]["turn"], len(turns), is_same, sum(bool(turn["shared"]) for turn in turns)])
        return {
            "said": formatting.escape_controls(headline(self._pair(contender))),
            "stretches": stretches[:_MAX_STRETCHES],
            "parts": next((turn for turn, _, is_same, _ in stretches if not is_same), None),
            "unseen": sum(number for _, number, _, _ in stretches[_MAX_STRETCHES:]),
        }

    @call
    def rows(self, contender: int, first: int, number: int) -> list[dict[str, Any]]:
        """Return turns with both sides; in changed texts the words of one side only are marked."""
        first = max(0, first)
        return [_row(turn) for turn in self._pair(contender).rows[first : first + min(number, MAX_ROWS)]]

    @call
    def whole(self, contender: int, turn: int, side: str) -> str:
        """Return the full text of a turn on one side."""
        turns = self._pair(contender).rows
        if side not in ("a", "b") or not 0 <= turn < len(turns):
            raise BadUsage(f"No turn {turn} on side {side!r}.", "Run the cell again.")
        parts = (turns[turn][f"{side}_text"], turns[turn][f"{side}_calls"])
        text = formatting.escape_controls("\n".join(filter(None, parts)))
        n_more = len(text) - _MAX_LENGTH
        return text if n_more <= 0 else f"{text[:_MAX_LENGTH]}… {formatting.format_count(n_more)} more characters"

    def _pair(self, contender: int) -> Pair:
        if not 0 <= contender < len(self.comparison.pairs):
            raise BadUsage(f"No contender {contender}.", "Run the cell again.")
        return self.comparison.pairs[contender]


def _row(turn: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"turn": turn["turn"], "status": turn["status"], "sign": SIGNS[turn["status"]]}
    row["role"] = formatting.truncate(turn["role"] or "", 20)
    for side, text, calls in zip("ab", _pieces(turn, "text"), _pieces(turn, "calls"), strict=True):
        length = len(turn[f"{side}_text"] or "") + len(turn[f"{side}_calls"] or "")
        row[side] = turn[side] and {
            "place": formatting.truncate(turn[side], 60),
            "text": text,
            "calls": calls,
            "cut": length > worddiff.MAX_LENGTH,
        }
    return row


def _pieces(turn: dict[str, Any], part: str) -> tuple[list[worddiff.Piece], list[worddiff.Piece]]:
    a, b = turn[f"a_{part}"] or "", turn[f"b_{part}"] or ""
    if turn["status"] == "changed":
        return worddiff.diff(a, b)
    return worddiff.preview(a), worddiff.preview(b)
