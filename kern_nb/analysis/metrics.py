"""The metrics of a conversation (counts, tokens, cost, time, scores), and which of two values is better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.db.columns import RUNS
from kern_nb.text.metrics import to_records

if TYPE_CHECKING:
    from kern_nb.analysis.conversation import Conversation

COUNTS = ("n_runs", *(column.name for column in RUNS if column.kind == "count" and column.name != "run_index"))
TOTALS = (*COUNTS, "cost", "duration_s")

RUN_TOTALS = ("total_tokens", "cost", "duration_s")
"""The totals of a run that `compute_run_totals` returns."""

_MESSAGE_SUMS = ("input_tokens", "output_tokens", "cost")
_LOWER_IS_BETTER = frozenset(
    {"total_tokens", "input_tokens", "output_tokens", "reasoning_tokens", "cache_write_tokens", "cost", "duration_s"}
    | {"n_tool_errors", "tokens", "time", "tool_errors"}
)
"""The totals with a direction. Others (messages, tool calls, tokens read from a cache) may be good or bad."""


def compute_totals(conversation: Conversation) -> dict[str, float | None]:
    """Return the totals by column name, then the scores by `score_metric`; None where unknown.

    A branch includes what it inherits; of a run that it inherits in part, the tokens and cost of that part's messages.
    The duration of a whole session is the stated one, else the sum over its runs. Members' runs are included, but their
    time is within that of the run they belong to.
    """
    runs, session = _fill_from_messages(conversation), conversation.session
    totals: dict[str, float | None] = {"n_runs": len(runs)}
    totals |= {name: _to_float(runs[name].sum(min_count=1)) for name in TOTALS[1:]}
    totals["n_messages"] = len(conversation.messages)
    if totals["cost"] == 0 and totals["total_tokens"]:  # free runs beside runs of unknown cost
        totals["cost"] = None
    roots = runs[~runs["parent_run_id"].isin(runs["run_id"])]
    totals["duration_s"] = _to_float(roots["duration_s"].sum(min_count=1))
    if conversation.reference.run_index is None and pd.isna(session["parent_session_id"]):
        stated, tokens = (_to_float(session[name]) for name in ("duration_s", "total_tokens"))
        # The session excludes the time and tokens of runs that it copied: where they differ, the sum is right.
        if stated is not None and tokens == totals["total_tokens"]:
            totals["duration_s"] = stated
    scores = conversation.scores.groupby("name", sort=True)["value"].mean()
    return totals | {score_metric(str(name)): _to_float(value) for name, value in scores.items()}


def compute_run_totals(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the run id, run index and `RUN_TOTALS` of each top-level run in order, with those of its members' runs.

    A run that a branch point cuts is left out: nothing is known of it as a whole.
    """
    runs, session = _fill_from_messages(conversation), conversation.session
    records = {row["run_id"]: row for row in to_records(runs)}
    is_cut = not pd.isna(session["parent_session_id"]) and not pd.isna(session["fork_message_index"])
    totals: dict[str, dict[str, Any]] = {}
    for run_id, row in records.items():
        root, visited = row, {run_id}
        while root["parent_run_id"] in records and root["parent_run_id"] not in visited:
            visited.add(root["parent_run_id"])
            root = records[root["parent_run_id"]]
        if root["run_id"] not in totals:
            totals[root["run_id"]] = {name: root[name] for name in ("run_id", "run_index", *RUN_TOTALS)}
        if root is not row:  # its time is within that of the root
            for name in RUN_TOTALS[:-1]:
                known = [value for value in (totals[root["run_id"]][name], row[name]) if value is not None]
                totals[root["run_id"]][name] = sum(known) if known else None
    cut_index = session["fork_run_index"] if is_cut else None
    return [run for run in totals.values() if run["run_index"] != cut_index]


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


def _to_float(value: Any) -> float | None:
    return None if pd.isna(value) or not math.isfinite(value) else float(value)


def score_metric(score: str) -> str:
    """Return the metric name of a score: its own, or ``score.cost`` where a total has that name."""
    return f"score.{score}" if score in TOTALS else score


def better_side(metric: str, low: float | None, high: float | None, *, is_score: bool) -> str | None:
    """Return the better side by the interval of the difference b - a: "a", "b", or "neither" where it contains 0.

    Scores are better when higher. None where there is no interval, or the metric has no direction.
    """
    if low is None or high is None or not (is_score or metric in _LOWER_IS_BETTER):
        return None
    if low <= 0 <= high:
        return "neither"
    return "b" if (low > 0 if is_score else low < 0) else "a"
