"""`compare`: two or more sessions, runs or branches beside each other; the first is the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.analysis.compare.pairs import Divergence, Pair
from kern_nb.analysis.conversation import Side, load
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.analysis.conversation import Comparand
    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore

__all__ = ["Comparison", "Divergence", "compare"]


def compare(*sides: Comparand, store: SessionStore | str | None = None) -> Comparison:
    """Put sessions, runs or branches beside each other.

    Args:
        *sides: Two or more, the baseline first: ``"chat"``, ``"chat/2"``, a `Session` or a `Run`; each may be a pair
            of that and the store it is in, ``("chat", "prod")``.
        store: The store of those that name none, or its name; the one in use where None.

    Returns:
        What each took beside the baseline, their turns aligned, and where they part.

    Raises:
        BadUsage: fewer than two are named.
        SessionNotFound, RunNotFound, AmbiguousReference: a name fits nothing, or several things.
    """
    if len(sides) < 2:  # noqa: PLR2004 - one alone compares with nothing
        raise BadUsage(
            f"A comparison takes two or more sessions or runs, not {len(sides)}.",
            "For example: %kern compare conversation_123 what-if",
        )
    loaded = [load(side, store) for side in sides]
    return Comparison(tuple(_told_apart(loaded)))


def _told_apart(sides: Sequence[Side]) -> Iterator[Side]:
    """The sides with labels that differ: of one name in two stores, each gets its store's; else a number."""
    names = [side.label for side in sides]
    used: Counter[str] = Counter()
    stores = {id(side.store) for side in sides}
    for side in sides:
        label = side.label
        if names.count(label) > 1 and len(stores) > 1:
            label = f"{label} in {store_registry.name_of(side.store)}"
        used[label] += 1
        yield replace(side, label=label if used[label] == 1 else f"{label} ({used[label]})")


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(DisplayMixin):
    """Sessions or runs beside a baseline. In the frames the baseline is ``a`` and the other is ``b``.

    Of three or more, each of the frames begins with a column ``contender`` that says which side is ``b``, and has the
    rows of all of them, one contender after the other.

    Attributes:
        sides: What is compared, the baseline first.
    """

    _view = "kern_nb.views.comparison:comparison"

    sides: tuple[Side, ...]

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Each of the others beside the baseline."""
        return tuple(Pair(self.sides[0], side) for side in self.sides[1:])

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What each took.

        One row a metric: ``metric`` (a column of ``runs_df``, or the name of a score; ``score.cost`` where both have a
        name), ``a``, ``b``, ``delta`` (b - a), ``delta_pct`` (of a, in percent), ``better``: a, b or neither; missing
        where no direction is declared or a value is unknown. Fewer tokens, errors and seconds and less cost are better;
        so are higher scores. A branch counts with all that it inherits. Metrics that are known of neither are left out.
        Tokens and cost are the agent's.
        """
        return self._stacked(lambda pair: pair.metrics)

    @cached_property
    def turns(self) -> pd.DataFrame:
        """The conversations, aligned.

        One row a turn: ``turn`` from 0, ``status`` (matched, changed, only in a, only in b), ``shared`` (it is the same
        row in both, which they inherit), ``role``; then for each side where it stands (``a``, as ``chat/2.5``), what it
        says (``a_text``) and which tools it calls (``a_calls``, with what they return where no message has that).
        Calls that no message made are a turn before their run's answer. Matched turns say and call the same; ids and
        times do not count.
        """
        return self._stacked(lambda pair: pair.turns)

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """The tool calls in their order, aligned.

        One row a call: ``status`` as in `turns` (matched calls have the same arguments, changed ones call the same
        tool), ``tool_name``, ``caller``; for each side where it stands, ``a_args``, ``a_status``, ``a_result`` and
        ``a_duration_s``.
        """
        return self._stacked(lambda pair: pair.tool_calls)

    @cached_property
    def divergence(self) -> Divergence | None:
        """The first place where any of them parts from the baseline; None where all say the same to the end."""
        found = [pair.divergence for pair in self.pairs if pair.divergence is not None]
        return min(found, key=lambda one: one.turn, default=None)

    @property
    def df(self) -> pd.DataFrame:
        """The metrics."""
        return self.metrics

    def plot(self) -> Plot:
        """The metrics as bars: how far each is from the baseline."""
        from kern_nb.analysis import plots

        return plots.comparison(self.metrics)

    def _stacked(self, frame_of: Callable[[Pair], pd.DataFrame]) -> pd.DataFrame:
        if len(self.pairs) == 1:
            return frame_of(self.pairs[0])
        import pandas as pd

        frames = []
        for pair in self.pairs:
            frame = frame_of(pair)
            named = pd.Series(pair.b.label, index=frame.index, name="contender", dtype="string")
            frames.append(pd.concat([named, frame], axis=1))
        return pd.concat(frames, ignore_index=True)
