"""The totals of a conversation: counts, tokens, cost, time and scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.analysis.conversation import Conversation

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
_MESSAGE_SUMS = ("input_tokens", "output_tokens", "cost")


def compute_totals(conversation: Conversation) -> dict[str, float | None]:
    """Return the totals by column name, then the scores by `score_metric`; None where unknown.

    A branch includes what it inherits; of a run that it inherits in part, the tokens and cost of that part's messages.
    The duration of a whole session is the stated one, else the sum over its runs. Members' runs are included, but their
    time is within that of the run they belong to.
    """
    runs = _fill_from_messages(conversation)
    roots = runs[~runs["parent_run_id"].isin(runs["run_id"])]
    totals: dict[str, float | None] = {"n_runs": len(runs), "n_messages": len(conversation.messages)}
    totals |= {name: _sum(runs[name]) for name in _SUMS}
    if totals["cost"] == 0 and totals["total_tokens"]:  # free runs beside runs of unknown cost
        totals["cost"] = None
    totals["duration_s"] = _sum(roots["duration_s"])
    session = conversation.session
    if conversation.reference.run_index is None and _is_missing(session["parent_session_id"]):
        stated, tokens = (_to_float(session[name]) for name in ("duration_s", "total_tokens"))
        # The session excludes the time and tokens of runs that it copied: where they differ, the sum is right.
        if stated is not None and tokens == totals["total_tokens"]:
            totals["duration_s"] = stated
    scores = conversation.scores.groupby("name", sort=True)["value"].mean()
    return totals | {score_metric(str(name)): _to_float(value) for name, value in scores.items()}


def score_metric(score: str) -> str:
    """Return the metric name of a score: its own, or ``score.cost`` where a total has that name."""
    return f"score.{score}" if score in _NAMES else score


def _fill_from_messages(conversation: Conversation) -> pd.DataFrame:
    """Return the runs; where a run states no usage, with the sums over its messages (a run that is cut states none)."""
    runs = conversation.runs.copy()
    messages = conversation.messages[conversation.messages["role"] != "user"]
    sums = messages.groupby("run_id")[list(_MESSAGE_SUMS)].sum(min_count=1)
    for name in _MESSAGE_SUMS:
        runs[name] = runs[name].fillna(runs["run_id"].map(sums[name]).astype(runs[name].dtype))
    tokens = runs[["input_tokens", "output_tokens"]].sum(axis=1, min_count=1)
    runs["total_tokens"] = runs["total_tokens"].fillna(tokens.astype("Int64"))
    return runs


def _sum(values: pd.Series[Any]) -> float | None:
    return _to_float(values.sum(min_count=1))


def _to_float(value: Any) -> float | None:
    return None if _is_missing(value) or not math.isfinite(value) else float(value)


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))
