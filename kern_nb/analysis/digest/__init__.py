"""`digest`: what was asked, how it ended, what it took, of a run, a session or many; computed, no model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from kern_nb import store_registry
from kern_nb.analysis.dataframe import framed
from kern_nb.analysis.digest.dataset import COUNT, NUMBER, TEXT, TOTALS, Gathered, gathered
from kern_nb.analysis.selection import Fitting, chosen
from kern_nb.analysis.totals import metric_of
from kern_nb.db.columns import Kind
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from kern_nb.analysis.conversation import Named
    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import When

__all__ = ["Digest", "digest"]

_LOOKED_AT = ("total_tokens", "cost", "duration_s", "n_tool_calls")
"""What an outlier may be one in."""

_FENCE = 1.5
_FEWEST = 8
"""Of fewer items, quartiles say little."""


def digest(
    *references: Named,
    store: SessionStore | str | None = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: When | None = None,
    until: When | None = None,
) -> Digest:
    """What `kern_nb.summarize` gives without a model; see there."""
    found = store_registry.find(store)
    fitting = Fitting(where=where, agent_id=agent_id, since=since, until=until)
    places = chosen(found, references, fitting, user_id)
    return Digest(gathered(found, places), "" if references else str(fitting))


@dataclass(frozen=True, repr=False, eq=False)
class Digest(DisplayMixin):
    """A digest of a run, a session, or several of either.

    One alone is digested with all it sees, a branch with what it inherits. Of several, sessions count with their own
    rows, and a run that is within another item counts there: nothing is counted twice. A run's members' runs count with
    it. Tokens, cost and tool calls are the agent's: a simulated user's are left out. What nobody knows is missing.

    Attributes:
        rows: The rows it is computed from; ``rows.runs``, ``rows.messages`` and ``rows.tool_calls`` are frames.
        fitting: Which sessions were asked for, in words; empty where they were named.
    """

    _view = "kern_nb.views.digest:digest"

    rows: Gathered
    fitting: str = ""

    @property
    def items(self) -> pd.DataFrame:
        """One row an item.

        ``item`` (as a person writes it), ``session_id``, ``run_index`` (missing where it is a session), ``status`` (of
        its latest run), ``asked`` (its first input), ``n_asked`` (how many inputs it has), ``output`` (its latest),
        ``error`` (of its latest run), ``created_at`` (when its first run began), and its totals, named as in `metrics`.
        """
        return self.rows.items

    @property
    def df(self) -> pd.DataFrame:
        """The items."""
        return self.items

    @property
    def scores(self) -> pd.DataFrame:
        """One row an item and score: ``item``, ``name``, ``value`` (the mean of its ratings)."""
        return self.rows.scores

    @property
    def asked(self) -> str | None:
        """What was asked first; None where nobody knows, and of several items. Likewise those that follow."""
        return self._only("asked")

    @property
    def status(self) -> str | None:
        """How it ended: the status of the latest run."""
        return self._only("status")

    @property
    def output(self) -> str | None:
        """The latest output, of whichever run."""
        return self._only("output")

    @property
    def error(self) -> str | None:
        """The error of the latest run."""
        return self._only("error")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What it took.

        One row a metric, named as in `Comparison.metrics`: ``metric``, ``value`` (the sum over the items, of a score
        the mean), ``median`` (over the items), ``n_known`` (of how many items it is known; the others are left out).
        A score of a total's name is ``score.cost``.
        """
        counted = self.items[self.rows.counted.to_numpy()]
        made: list[tuple[Any, ...]] = []
        for name in TOTALS:
            values = counted[name]
            made.append((name, values.sum(min_count=1), values.median(), int(values.count())))
        of_counted = self.scores[self.scores["item"].isin(counted["item"])]
        for score, values in of_counted.groupby("name", sort=True)["value"]:
            made.append((metric_of(str(score)), values.mean(), values.median(), int(values.count())))
        return framed(made, {"metric": "text", "value": "number", "median": "number", "n_known": "count"})

    @cached_property
    def tools(self) -> pd.DataFrame:
        """The tools, those called most first.

        ``tool_name``, ``calls``, ``failed``, ``unknown`` (calls that nobody knows to have ended), ``median_duration_s``
        and ``total_duration_s``, and ``timed``: whether durations are "stated", the "gap" between messages, or both.
        """
        from kern_nb.analysis.digest.steps import by_tool

        return by_tool(self._calls)

    @cached_property
    def longest(self) -> pd.DataFrame:
        """The slowest tool calls and answers of a model, the slowest first, ten at most.

        ``place`` (``chat/2.5``), ``kind`` ("tool call"; "answer"; or "step", a workflow's step that is a function),
        ``name`` (the tool, the model, the function), ``duration_s``, ``timed`` ("stated", or "gap": the time between
        two messages), ``status`` (of a tool call or step).
        """
        from kern_nb.analysis.digest.steps import longest

        return longest(self.rows.runs, self.rows.messages, self._calls)

    @cached_property
    def by_status(self) -> pd.DataFrame:
        """How the items ended: ``status``, ``n_items``, and the medians of tokens, cost, seconds and tool calls."""
        by = self.items.groupby("status", dropna=False, sort=True)
        made = by[list(_LOOKED_AT)].median().astype(NUMBER)
        made.insert(0, "n_items", by.size().astype(COUNT))
        made = made.reset_index().sort_values("n_items", ascending=False, kind="stable", ignore_index=True)
        return made.astype({"status": TEXT})

    @cached_property
    def outliers(self) -> pd.DataFrame:
        """Items far from those that ended alike: beyond the quartiles by more than 1.5 times what lies between them.

        ``item``, ``status``, ``metric`` (total_tokens, cost, duration_s, n_tool_calls), ``value``, ``median`` (of those
        of its status), the farthest first. Of fewer than eight that ended alike none is looked for. Source of the rule:
        Tukey, "Exploratory Data Analysis", 1977.
        """
        return _outliers(self.items)

    @property
    def n_user_calls(self) -> int:
        """How many tool calls a simulated user made, which are left out."""
        return int((self.rows.tool_calls["caller"] == "user").sum())

    def plot(self, of: Literal["runs", "tools"] | None = None) -> Plot:
        """Tokens, cost and time over the runs, or the use of the tools; of several items the tools, where None."""
        from kern_nb.analysis import plots

        of = of or ("runs" if len(self.items) == 1 else "tools")
        return plots.over_runs(self.rows.runs) if of == "runs" else plots.tool_use(self.rows.tool_calls)

    @cached_property
    def _calls(self) -> pd.DataFrame:
        from kern_nb.analysis.digest.steps import timed_calls

        return timed_calls(self.rows.messages, self.rows.tool_calls)

    def _only(self, column: str) -> str | None:
        import pandas as pd

        value = self.items[column].iloc[0] if len(self.items) == 1 else None
        return None if value is None or pd.isna(value) else str(value)


def _outliers(items: pd.DataFrame) -> pd.DataFrame:
    found: list[tuple[Any, ...]] = []
    for status, alike in items.groupby("status", dropna=False, sort=True):
        for metric in _LOOKED_AT:
            values = alike[metric].astype(NUMBER)
            if values.count() < _FEWEST:
                continue
            low, median, high = (float(values.quantile(q)) for q in (0.25, 0.5, 0.75))
            reach = _FENCE * (high - low)
            far = ((values < low - reach) | (values > high + reach)).fillna(False).astype(bool)
            for item, value in zip(alike.loc[far, "item"], values[far], strict=True):
                distance = (abs(value - median) / (high - low)) if high > low else float("inf")
                found.append((distance, item, status, metric, float(value), median))
    found.sort(key=lambda row: -row[0])
    kinds: dict[str, Kind] = {"item": "text", "status": "text", "metric": "text", "value": "number", "median": "number"}
    return framed([row[1:] for row in found], kinds)
