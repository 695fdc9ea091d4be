"""What a session or a run took, in numbers: counts, tokens, cost, time, scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.analysis.conversation import Side

_SUMS = (
    "n_tool_calls",
    "n_tool_errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost",
)
_NAMES = ("n_runs", "n_messages", *_SUMS, "duration_s")
_OF_MESSAGES = ("input_tokens", "output_tokens", "cost")


def totals(side: Side) -> dict[str, float | None]:
    """Its totals by the names of the frames' columns, then its scores by theirs (see `metric_of`); None where unknown.

    What a branch inherits counts as what it saw: of a run that it inherits a part of, the tokens and the cost of that
    part's messages. The time of a whole session is what its source states, else the sum of its runs. Members' runs
    count with the run they belong to.
    """
    runs = _with_messages(side)
    alone = runs[~runs["parent_run_id"].isin(runs["run_id"])]  # a member's time is within that of the run it serves
    found: dict[str, float | None] = {"n_runs": len(runs), "n_messages": len(side.messages)}
    found |= {name: _sum(runs[name]) for name in _SUMS}
    if found["cost"] == 0 and found["total_tokens"]:  # of a run that cost nothing beside those whose price nobody knew
        found["cost"] = None
    found["duration_s"] = _sum(alone["duration_s"])
    if side.place.run_index is None and _missing(side.session["parent_session_id"]):
        stated, tokens = (_known(side.session[name]) for name in ("duration_s", "total_tokens"))
        # Of runs that a branch keeps a copy of the session does not count the time, nor the tokens: the parent does.
        if stated is not None and tokens == found["total_tokens"]:
            found["duration_s"] = stated
    scores = side.scores.groupby("name", sort=True)["value"].mean()
    return found | {metric_of(str(name)): _known(value) for name, value in scores.items()}


def metric_of(score: str) -> str:
    """The name of a score among the metrics: its own, ``score.cost`` where a total has that."""
    return f"score.{score}" if score in _NAMES else score


def _with_messages(side: Side) -> pd.DataFrame:
    """The runs, with what their messages add up to where nothing is stated for the run."""
    runs = side.runs.copy()
    agents = side.messages[side.messages["role"] != "user"]
    sums = agents.groupby("run_id")[list(_OF_MESSAGES)].sum(min_count=1)
    for name in _OF_MESSAGES:
        runs[name] = runs[name].fillna(runs["run_id"].map(sums[name]).astype(runs[name].dtype))
    both = runs[["input_tokens", "output_tokens"]].sum(axis=1, min_count=1)
    runs["total_tokens"] = runs["total_tokens"].fillna(both.astype("Int64"))
    return runs


def _sum(values: pd.Series[Any]) -> float | None:
    return _known(values.sum(min_count=1))


def _known(value: Any) -> float | None:
    return None if _missing(value) or not math.isfinite(value) else float(value)


def _missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))
