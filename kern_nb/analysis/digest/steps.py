"""Tool calls and model answers as timed steps, and the tools by outcome.

Where a source states no duration, and for every answer of a model, the gap between two messages is the duration: from
the message with the call to the one with its result, from the previous message to the answer. That includes waiting
time, so ``timed`` tells them apart: "stated" or "gap".
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, build_frame, iter_rows
from kern_nb.db.columns import Kind
from kern_nb.db.references import Reference
from kern_nb.records import RESULT_ROLES

_MAX_STEPS = 10
_STATED, _GAP = "stated", "gap"


def time_calls(messages: pd.DataFrame, tool_calls: pd.DataFrame) -> pd.DataFrame:
    """Return the agent's tool calls with ``duration_s`` and ``timed``."""
    calls = tool_calls[tool_calls["caller"] != "user"].reset_index(drop=True)
    results = messages[messages["role"].isin(RESULT_ROLES)]
    started = _message_times(calls, messages, "message_index")
    finished = _message_times(calls, results, "tool_call_id")
    return _add_durations(calls, calls["duration_s"], calls["created_at"].fillna(started), finished)


def _message_times(calls: pd.DataFrame, messages: pd.DataFrame, column: str) -> pd.Series[pd.Timestamp]:
    """The time of the first message of each call's run with the same value in a column."""
    keys, message_keys = (df["run_id"] + "/" + df[column].astype(TEXT) for df in (calls, messages))
    return _lookup(keys, messages["created_at"].set_axis(message_keys))


def _lookup(keys: pd.Series[str], times: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """The first time of each key; missing where it has none."""
    first = times[times.index.notna() & ~times.index.duplicated()]
    return first.reindex(keys).set_axis(keys.index)


def _add_durations(
    df: pd.DataFrame, stated: pd.Series[float], started: pd.Series[pd.Timestamp], finished: pd.Series[pd.Timestamp]
) -> pd.DataFrame:
    """Add ``duration_s`` and ``timed``. A negative gap is unknown."""
    gap = (finished - started).dt.total_seconds().astype(NUMBER)
    gap = gap.mask(gap < 0)
    timed = pd.Series(pd.NA, index=df.index, dtype=TEXT).mask(gap.notna(), _GAP).mask(stated.notna(), _STATED)
    return df.assign(duration_s=stated.fillna(gap), timed=timed)


def _time_answers(runs: pd.DataFrame, messages: pd.DataFrame) -> pd.DataFrame:
    """The agents' messages with the gap since the previous one, without copies of an earlier run's messages."""
    started = _lookup(messages["run_id"], runs.set_index("run_id")["created_at"])
    own = messages[~(messages["created_at"] < started).fillna(False)]
    previous = own.groupby("run_id")["created_at"].shift(1)
    unstated = pd.Series(pd.NA, index=own.index, dtype=NUMBER)
    answers = _add_durations(own, unstated, previous, own["created_at"])
    return answers[answers["role"] == "assistant"].rename(columns={"model": "name"})


def longest_steps(runs: pd.DataFrame, messages: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Return the longest steps, with the calls of `time_calls`; see `kern_nb.analysis.digest.Digest.longest`."""
    # A workflow's step that is a function has no messages; its duration is its run's.
    functions = runs[runs["parent_run_id"].notna() & ~runs["run_id"].isin(messages["run_id"])]
    steps = {
        "tool call": calls.rename(columns={"tool_name": "name"}),
        "answer": _time_answers(runs, messages),
        "step": functions.assign(timed=_STATED, name=functions["agent_id"]),
    }
    columns = ["session_id", "run_index", "message_index", "name", "duration_s", "timed", "status"]
    rows: list[tuple[Any, ...]] = []
    for kind, df in steps.items():
        slow = df[df["duration_s"].notna()].sort_values("duration_s", ascending=False, kind="stable").head(_MAX_STEPS)
        for *ids, name, duration, timed, status in iter_rows(slow.reindex(columns=columns), columns):
            rows.append((str(Reference(*ids)), kind, name, duration, timed, status))
    rows.sort(key=lambda row: -row[3])
    kinds: dict[str, Kind] = dict.fromkeys(("place", "kind", "name", "duration_s", "timed", "status"), "text")
    return build_frame(rows[:_MAX_STEPS], kinds | {"duration_s": "number"})


def aggregate_by_tool(calls: pd.DataFrame) -> pd.DataFrame:
    """Return one row a tool, from the result of `time_calls`; see `kern_nb.analysis.digest.Digest.tools`."""
    calls = calls.assign(
        tool_name=calls["tool_name"].fillna(""),
        failed=calls["status"] == "failed",
        unknown=calls["status"].isin(["unknown", "started"]),
    )
    by_tool = calls.groupby("tool_name", sort=True)
    tools = pd.DataFrame(
        {
            "calls": by_tool.size().astype(COUNT),
            "failed": by_tool["failed"].sum().astype(COUNT),
            "unknown": by_tool["unknown"].sum().astype(COUNT),
            "median_duration_s": by_tool["duration_s"].median().astype(NUMBER),
            "total_duration_s": by_tool["duration_s"].sum(min_count=1).astype(NUMBER),
            "timed": by_tool["timed"].first().mask(by_tool["timed"].nunique() > 1, "both").astype(TEXT),  # noqa: PD101
        }
    )
    tools = tools.rename_axis("tool_name").reset_index().astype({"tool_name": TEXT})
    return tools.sort_values(["calls", "tool_name"], ascending=[False, True], kind="stable", ignore_index=True)
