"""`compare`: sessions, runs or branches beside a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from kern_nb import store_registry
from kern_nb.analysis.compare.pairs import Divergence, Pair
from kern_nb.analysis.conversation import Conversation, load_conversation
from kern_nb.analysis.dataframe import stack_frames
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.analysis.conversation import Comparand
    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore

__all__ = ["Comparison", "Divergence", "compare"]


def compare(*sides: Comparand, store: SessionStore | str | None = None) -> Comparison:
    """Compare sessions, runs or branches with a baseline.

    Args:
        *sides: Two or more, the baseline first: ``"chat"``, ``"chat/2"``, a `Session` or a `Run`; each may be a pair
            with its store, ``("chat", "prod")``.
        store: The store, or its name, for sides without one; the current store where None.

    Returns:
        The metrics of each beside the baseline, the aligned turns and tool calls, and the first divergence.

    Raises:
        BadUsage: There are fewer than two sides, or a side is not a stored session or run.
        SessionNotFound: No session matches a reference.
        RunNotFound: A session has no such run.
        AmbiguousReference: Several sessions match a reference.
        NoStore: No store has that name, or there is no current store.

    Example:
        >>> from kern_nb import InMemoryDb, Run, compare
        >>> store = InMemoryDb()
        >>> _ = store.append_run("chat", Run(input="Where is my parcel?", output="Which order?"))
        >>> _ = store.append_run("what-if", Run(input="Where is my parcel?", output="It was shipped."))
        >>> comparison = compare("chat", "what-if", store=store)
        >>> comparison.turns[["status", "a_text", "b_text"]].to_dict("records")[1]
        {'status': 'changed', 'a_text': 'Which order?', 'b_text': 'It was shipped.'}
        >>> comparison.divergence.a, comparison.divergence.b
        ('chat/0', 'what-if/0')
    """
    if len(sides) < 2:  # noqa: PLR2004 - a baseline and a contender
        raise BadUsage(
            f"compare takes two or more sessions or runs, got {len(sides)}.",
            "For example: %kern compare conversation_123 what-if",
        )
    conversations = [load_conversation(side, store) for side in sides]
    return Comparison(tuple(_with_unique_labels(conversations)))


def _with_unique_labels(sides: Sequence[Conversation]) -> Iterator[Conversation]:
    """Add the store to labels that two stores have in common, and a number to those that are still equal."""
    labels = [side.label for side in sides]
    used: Counter[str] = Counter()
    stores = {id(side.store) for side in sides}
    for side in sides:
        label = side.label
        if labels.count(label) > 1 and len(stores) > 1:
            label = f"{label} in {store_registry.name_of(side.store)}"
        used[label] += 1
        yield replace(side, label=label if used[label] == 1 else f"{label} ({used[label]})")


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(DisplayMixin):
    """Sessions or runs beside a baseline. In the frames ``a`` is the baseline and ``b`` a contender.

    With two or more contenders, the frames are stacked, and a first column ``contender`` has the label of ``b``.

    Attributes:
        sides: The sessions or runs, the baseline first.
    """

    _view = "kern_nb.views.comparison:comparison"

    sides: tuple[Conversation, ...]

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Each contender beside the baseline."""
        return tuple(Pair(self.sides[0], side) for side in self.sides[1:])

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a metric that is known of a side.

        ``metric`` (a column of ``runs_df``, or the name of a score; ``score.cost`` where a column has that name),
        ``a``, ``b``, ``delta`` (b - a), ``delta_pct`` (percent of a), and ``better``: "a", "b" or "neither"; missing
        where the metric has no direction or a value is unknown. Fewer tokens, errors and seconds and less cost are
        better; so are higher scores. A branch includes what it inherits; tokens and cost are the agent's. Between
        branches with different numbers of runs, totals have no better side: see `runs`.
        """
        return self._stack(lambda pair: pair.metrics)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The top-level runs side by side, by their position.

        ``run`` from 0, ``shared`` (both inherit the same run), the references ``a`` and ``b`` (missing after the end of
        a side), and for each side ``total_tokens``, ``cost`` and ``duration_s`` (``a_total_tokens``), members' runs
        included. A run that a branch point cuts is left out.
        """
        return self._stack(lambda pair: pair.runs)

    @cached_property
    def turns(self) -> pd.DataFrame:
        """The aligned messages, one row a turn.

        ``turn`` from 0, ``status`` (matched, changed, only in a, only in b), ``shared`` (both inherit the same row),
        ``role``; then for each side its reference (``a``, as ``chat/2.5``), text (``a_text``) and tool calls
        (``a_calls``, with the results that no message has). Calls without a message form a turn before their run's
        answer. Matched turns have equal content and calls; ids and times do not count.
        """
        return self._stack(lambda pair: pair.turns)

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """The aligned tool calls in order, one row a call.

        ``status`` as in `turns` (matched calls have equal arguments, changed ones only the same tool), ``tool_name``,
        ``caller``; then for each side its reference (``a``), ``a_args``, ``a_status``, ``a_result`` and
        ``a_duration_s``.
        """
        return self._stack(lambda pair: pair.tool_calls)

    @cached_property
    def divergence(self) -> Divergence | None:
        """The first turn where a contender differs from the baseline; None where all are equal."""
        divergences = [pair.divergence for pair in self.pairs if pair.divergence is not None]
        return min(divergences, key=lambda divergence: divergence.turn, default=None)

    @property
    def df(self) -> pd.DataFrame:
        """The metrics."""
        return self.metrics

    def plot(self) -> Plot:
        """Plot the metrics: the difference from the baseline in percent."""
        from kern_nb.analysis import plots

        return plots.comparison(self.metrics)

    def _stack(self, frame_of: Callable[[Pair], pd.DataFrame]) -> pd.DataFrame:
        frames = [frame_of(pair) for pair in self.pairs]
        return stack_frames(frames, "contender", (pair.b.label for pair in self.pairs))
