"""`cost` and `Costs`: a table of what was spent, by any label of a response or of its session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from kern_nb import store_registry
from kern_nb.analysis.costs.prices import TOKENS, estimate_costs
from kern_nb.analysis.costs.responses import read_responses, save_estimates
from kern_nb.analysis.groups.keys import LabelReader
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from datetime import datetime

    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore

PERIODS = {"day": "D", "week": "W-SUN", "month": "M", "year": "Y"}
_OF_RESPONSES = ("model", "model_provider", "session_id")


@dataclass(frozen=True, repr=False, eq=False)
class Costs(DisplayMixin):
    """What model responses cost.

    Attributes:
        by: The names of the groups.
        df: One row a group: the columns of ``by``, n_responses, the token columns, stated, estimated, cost (the sum of
            both, missing if neither is known) and unknown_tokens (input and output tokens of unknown cost).
        n_saved: The number of estimates that were stored.
    """

    _view: ClassVar[str] = "kern_nb.views.costs:costs"

    by: tuple[str, ...]
    df: pd.DataFrame
    n_saved: int = 0

    def plot(self) -> Plot:
        """Plot the cost of each group, stated and estimated."""
        from kern_nb.analysis.plots.costs import cost_plot

        return cost_plot(self)


def cost(
    store: str | SessionStore | None = None,
    *,
    by: str | Sequence[str] = "model",
    where: Mapping[str, Any] | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    save: bool = False,
) -> Costs:
    """Sum what was spent: costs that the source states, and estimates where it states tokens only.

    Estimates are in US dollars, from the list prices of genai-prices at the time of the response, by kind of token. A
    stated cost stays as it is; without a listed price the cost is unknown, never 0. Inherited messages count in the
    session that has them.

    Args:
        store: A store or its name; the current store where None.
        by: Names of groups: model, model_provider, day, week, month, year, a column of ``sessions_df``, or a key of the
            sessions' metadata.
        where: Labels of the sessions to include, by name, as in `compare_groups`.
        since: Only sessions created at or after this time.
        until: Only sessions created before this time.
        user_id: Only sessions of this user.
        agent_id: Only sessions of this agent.
        save: Whether to store the estimates: then frames have them, with the ``cost_source`` estimated.

    Returns:
        The costs, which display themselves; their data is in ``df``.

    Raises:
        BadUsage: No session matches, or none has a value for a name.
        NoStore: No store has that name, or there is no current store.
        ReadOnlyStore: The estimates cannot be saved.

    Example:
        >>> from kern_nb import InMemoryDb, Run, Usage, cost
        >>> store = InMemoryDb()
        >>> usage = Usage(input_tokens=1_000_000, output_tokens=0)
        >>> _ = store.append_run("chat", Run(input="Hi", model="gpt-4.1", usage=usage))
        >>> cost(store, by="model").df[["model", "stated", "estimated"]].to_dict("records")
        [{'model': 'gpt-4.1', 'stated': 0.0, 'estimated': 2.0}]
    """
    names = (by,) if isinstance(by, str) else tuple(by)
    if not names:
        raise BadUsage("by must name a group.", 'For example: by=["model", "day"]')
    store = store_registry.find(store)
    filters = {"since": since, "until": until, "user_id": user_id, "agent_id": agent_id}
    reader = LabelReader(store, ["session_id"], filters, where)
    responses = read_responses(store)
    responses = responses[responses["session_id"].isin(reader.sessions.index)].reset_index(drop=True)
    estimates = estimate_costs(responses[responses["cost"].isna()]).reindex(responses.index)
    n_saved = save_estimates(store, responses, estimates) if save else 0
    groups = {name: _read_group(name, responses, reader) for name in names}
    return Costs(names, _sum_groups(names, responses, estimates, groups), n_saved)


def _read_group(name: str, responses: pd.DataFrame, reader: LabelReader) -> pd.Series[Any]:
    if name in PERIODS:
        periods = responses["created_at"].dt.tz_convert(None).dt.to_period(PERIODS[name])
        labels: pd.Series[Any] = periods.dt.start_time.dt.strftime("%Y-%m-%d")
    elif name in _OF_RESPONSES:
        labels = responses[name]
    else:
        labels = responses["session_id"].map(reader.read_labels(name).texts)
    return labels.astype("string")


def _sum_groups(
    names: tuple[str, ...], responses: pd.DataFrame, estimates: pd.Series[float], groups: Mapping[str, pd.Series[Any]]
) -> pd.DataFrame:
    is_estimate = responses["cost_source"].eq("estimated").fillna(value=False).astype(bool)
    stated, known = responses["cost"].mask(is_estimate), responses["cost"].astype("Float64")
    estimated = responses["cost"].where(is_estimate).astype("Float64").fillna(estimates.astype("Float64"))
    tokens = responses[list(TOKENS)]
    spent = tokens["input_tokens"].fillna(0) + tokens["output_tokens"].fillna(0)
    is_unknown = known.isna() & estimates.isna()
    values = pd.DataFrame(
        {
            **groups,
            "n_responses": 1,
            **{name: tokens[name] for name in TOKENS},
            "stated": stated.astype("Float64"),
            "estimated": estimated,
            "unknown_tokens": spent.where(is_unknown, 0),
            "is_known": ~is_unknown,
        }
    )
    sums = {name: "sum" for name in values.columns if name not in names}
    df = values.groupby(list(names), dropna=False, sort=True).agg(sums).reset_index()
    total = df["stated"] + df["estimated"]
    total = total.mask((total == 0) & ((df["unknown_tokens"] > 0) | (df["is_known"] == 0)))
    df.insert(list(df.columns).index("unknown_tokens"), "cost", total)
    df = df.drop(columns="is_known")
    periods = [name for name in names if name in PERIODS]
    order, ascending = ([*periods, "cost"], [True] * len(periods) + [False])
    return df.sort_values(order, ascending=ascending, kind="stable", ignore_index=True)
