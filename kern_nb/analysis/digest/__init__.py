"""`digest`: a summary of runs or sessions that is computed without a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from kern_nb import store_registry
from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, build_frame
from kern_nb.analysis.digest.dataset import DigestRows, read_rows
from kern_nb.analysis.digest.steps import aggregate_by_tool, longest_steps, time_calls
from kern_nb.analysis.metrics import TOTALS, score_metric
from kern_nb.analysis.selection import SessionFilter, select_sessions
from kern_nb.db.columns import Kind
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kern_nb.analysis.plots import Plot
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import TimeLike

__all__ = ["Digest", "digest"]

_OUTLIER_METRICS = ("total_tokens", "cost", "duration_s", "n_tool_calls")
_FENCE = 1.5
_MIN_ITEMS = 8
"""Quartiles of fewer items say little."""


def digest(
    *references: ReferenceLike,
    store: SessionStore | str | None = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
) -> Digest:
    """Compute what `kern_nb.summarize` returns without a model; see there for arguments and errors."""
    store = store_registry.find(store)
    filters = SessionFilter(where=where, agent_id=agent_id, since=since, until=until)
    rows = read_rows(store, select_sessions(store, references, filters, user_id))
    return Digest(rows, "" if references else str(filters))


@dataclass(frozen=True, repr=False, eq=False)
class Digest(DisplayMixin):
    """A digest of a run, a session, or several of either.

    A single item includes what a branch inherits. Several sessions count with their own rows, and a run that another
    item includes counts there: nothing is counted twice. A run includes its members' runs. Tokens, cost and tool calls
    are the agent's, without those of a simulated user. Unknown values are missing.

    Attributes:
        rows: The rows it is computed from; ``rows.runs``, ``rows.messages`` and ``rows.tool_calls`` are frames.
        filters: The filters that selected the sessions, as text; empty for references.
    """

    _view = "kern_nb.views.digest:digest"

    rows: DigestRows
    filters: str = ""

    @property
    def items(self) -> pd.DataFrame:
        """One row an item.

        ``item`` (its reference), ``session_id``, ``run_index`` (missing for a session), ``status`` (of the latest run),
        ``asked`` (the first input), ``n_asked`` (the number of inputs), ``output`` (the latest), ``error`` (of the
        latest run), ``created_at`` (the start of the first run), and the totals, named as in `metrics`.
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
        """The first input; None where it is unknown, or there are several items."""
        return self._only("asked")

    @property
    def status(self) -> str | None:
        """The status of the latest run; None for several items."""
        return self._only("status")

    @property
    def output(self) -> str | None:
        """The latest output; None for several items."""
        return self._only("output")

    @property
    def error(self) -> str | None:
        """The error of the latest run; None for several items."""
        return self._only("error")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a metric, named as in `Comparison.metrics`.

        ``metric``, ``value`` (the sum over the items; of a score, the mean), ``median`` (over the items), ``n_known``
        (the number of items with a known value; the others are left out). A score with the name of a total is
        ``score.cost``.
        """
        counted = self.items[self.rows.counted.to_numpy()]
        rows: list[tuple[Any, ...]] = [
            (name, values.sum(min_count=1), values.median(), int(values.count()))
            for name, values in counted[list(TOTALS)].items()
        ]
        scores = self.scores[self.scores["item"].isin(counted["item"])]
        for score, values in scores.groupby("name", sort=True)["value"]:
            rows.append((score_metric(str(score)), values.mean(), values.median(), int(values.count())))
        return build_frame(rows, {"metric": "text", "value": "number", "median": "number", "n_known": "count"})

    @cached_property
    def tools(self) -> pd.DataFrame:
        """One row a tool, by the number of calls.

        ``tool_name``, ``calls``, ``failed``, ``unknown`` (calls of unknown outcome), ``median_duration_s``,
        ``total_duration_s``, and ``timed``: whether durations are "stated", the "gap" between messages, or "both".
        """
        return aggregate_by_tool(self._calls)

    @cached_property
    def longest(self) -> pd.DataFrame:
        """The ten longest tool calls and model answers, the longest first.

        ``place`` (the reference, ``chat/2.5``), ``kind`` ("tool call"; "answer"; or "step", a workflow's step that is a
        function), ``name`` (of the tool, model or function), ``duration_s``, ``timed`` ("stated", or "gap": the time
        between two messages), ``status`` (of a tool call or step).
        """
        return longest_steps(self.rows.runs, self.rows.messages, self._calls)

    @cached_property
    def by_status(self) -> pd.DataFrame:
        """One row a status: ``status``, ``n_items``, and the medians of tokens, cost, seconds and tool calls."""
        by_status = self.items.groupby("status", dropna=False, sort=True)
        frame = by_status[list(_OUTLIER_METRICS)].median().astype(NUMBER)
        frame.insert(0, "n_items", by_status.size().astype(COUNT))
        frame = frame.reset_index().sort_values("n_items", ascending=False, kind="stable", ignore_index=True)
        return frame.astype({"status": TEXT})

    @cached_property
    def outliers(self) -> pd.DataFrame:
        """Items beyond the quartiles of their status by more than 1.5 times the interquartile range.

        ``item``, ``status``, ``metric`` (total_tokens, cost, duration_s, n_tool_calls), ``value``, ``median`` (of the
        items of its status), the farthest first; none where a status has fewer than eight items. Source of the rule:
        Tukey, "Exploratory Data Analysis", 1977.
        """
        outliers: list[tuple[Any, ...]] = []
        for status, group in self.items.groupby("status", dropna=False, sort=True):
            for metric in _OUTLIER_METRICS:
                values = group[metric].astype(NUMBER)
                if values.count() < _MIN_ITEMS:
                    continue
                low, median, high = (float(values.quantile(q)) for q in (0.25, 0.5, 0.75))
                reach = _FENCE * (high - low)
                is_outlier = ((values < low - reach) | (values > high + reach)).fillna(False).astype(bool)
                for item, value in zip(group.loc[is_outlier, "item"], values[is_outlier], strict=True):
                    distance = abs(value - median) / (high - low) if high > low else float("inf")
                    outliers.append((distance, item, status, metric, float(value), median))
        outliers.sort(key=lambda row: -row[0])
        kinds: dict[str, Kind] = dict.fromkeys(("item", "status", "metric"), "text")
        return build_frame([row[1:] for row in outliers], kinds | {"value": "number", "median": "number"})

    @property
    def n_user_calls(self) -> int:
        """The number of tool calls of a simulated user, which are left out."""
        return int((self.rows.tool_calls["caller"] == "user").sum())

    def plot(self, of: Literal["runs", "tools"] | None = None) -> Plot:
        """Plot tokens, cost and time over the runs, or the use of the tools; where None, the runs of a single item."""
        from kern_nb.analysis import plots

        of = of or ("runs" if len(self.items) == 1 else "tools")
        return plots.over_runs(self.rows.runs) if of == "runs" else plots.tool_use(self.rows.tool_calls)

    @cached_property
    def _calls(self) -> pd.DataFrame:
        return time_calls(self.rows.messages, self.rows.tool_calls)

    def _only(self, column: str) -> str | None:
        value = self.items[column].iloc[0] if len(self.items) == 1 else None
        return None if pd.isna(value) else str(value)
