"""The steps of runs, a tool call or a model's answer each, and what they took; the tools, by how their calls ended.

A source may state what a tool call took. Where it does not, and of every answer of a model, the time that passed
between two messages is taken: from the message that asks for the call to the one that has its result, from the message
before an answer to the answer. That is what a person waited, more than the work itself, and is told apart: ``timed`` is
"gap".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb.analysis.dataframe import build_frame
from kern_nb.analysis.digest.dataset import COUNT, NUMBER, TEXT
from kern_nb.db.columns import Kind
from kern_nb.db.mapping import ANSWERS

if TYPE_CHECKING:
    import pandas as pd

MOST = 10
"""So many steps are the longest."""

STATED, GAP, BOTH = "stated", "gap", "both"
TOOL, ANSWER, STEP = "tool call", "answer", "step"

_COLUMNS: dict[str, Kind] = {
    "place": "text",
    "kind": "text",
    "name": "text",
    "duration_s": "number",
    "timed": "text",
    "status": "text",
}


def timed_calls(messages: pd.DataFrame, tool_calls: pd.DataFrame) -> pd.DataFrame:
    """The agent's tool calls with ``timed`` beside ``duration_s``: stated, or the gap to the result, or missing."""
    calls = tool_calls[tool_calls["caller"] != "user"].reset_index(drop=True)
    results = messages[messages["role"].isin(ANSWERS)]
    asked = _at(calls, messages, "message_index")
    ended = _at(calls, results, "tool_call_id")
    return _timed(calls, calls["duration_s"], calls["created_at"].fillna(asked), ended)


def _at(calls: pd.DataFrame, messages: pd.DataFrame, column: str) -> pd.Series[pd.Timestamp]:
    """When the first message of each call's run was written that has the same value in a column."""

    def keys(df: pd.DataFrame) -> pd.Series[str]:
        return df["run_id"] + "/" + df[column].astype(TEXT)

    return _looked_up(keys(calls), messages["created_at"].set_axis(keys(messages)))


def _looked_up(keys: pd.Series[str], times: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """The time of each key, the first where there are several; missing where there is none."""
    first = times[times.index.notna() & ~times.index.duplicated()]
    return first.reindex(keys).set_axis(keys.index)


def _timed(
    df: pd.DataFrame, stated: pd.Series[float], begun: pd.Series[pd.Timestamp], ended: pd.Series[pd.Timestamp]
) -> pd.DataFrame:
    """With what each row took. Clocks that run backwards say nothing."""
    gap = (ended - begun).dt.total_seconds().astype(NUMBER)
    gap = gap.mask(gap < 0)
    is_gap = stated.isna() & gap.notna()
    timed = stated.notna().map({True: STATED, False: None}).astype(TEXT).mask(is_gap, GAP)
    return df.assign(duration_s=stated.fillna(gap), timed=timed)


def _answers(runs: pd.DataFrame, messages: pd.DataFrame) -> pd.DataFrame:
    """The agents' messages with what passed since the message before; copies of an earlier run's are left out."""
    begun = _looked_up(messages["run_id"], runs.set_index("run_id")["created_at"])
    own = messages[~(messages["created_at"] < begun).fillna(False)]
    before = own.groupby("run_id")["created_at"].shift(1)
    nothing = own["created_at"].isna().map({True: None, False: None}).astype(NUMBER)
    answers = _timed(own, nothing, before, own["created_at"])
    return answers[answers["role"] == "assistant"].rename(columns={"model": "name"})


def longest(runs: pd.DataFrame, messages: pd.DataFrame, calls: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """The steps that took longest; see `kern_nb.analysis.digest.Digest.longest`.

    Args:
        runs: One row a run.
        messages: One row a message.
        calls: What `timed_calls` gives.
        most: How many.
    """
    answers = _answers(runs, messages)
    # A workflow's step that is a function has no messages; what it took is its run's.
    silent = runs[runs["parent_run_id"].notna() & ~runs["run_id"].isin(messages["run_id"])]
    silent = silent.assign(timed=STATED, name=silent["agent_id"])
    kinds = (
        (TOOL, calls.rename(columns={"tool_name": "name"})),
        (ANSWER, answers),
        (STEP, silent),
    )
    kept = ["session_id", "run_index", "message_index", "name", "duration_s", "timed", "status"]
    found = []
    for kind, df in kinds:
        slow = df[df["duration_s"].notna()].sort_values("duration_s", ascending=False, kind="stable").head(most)
        found += [(kind, *row) for row in slow.reindex(columns=kept).astype(object).itertuples(index=False, name=None)]
    found.sort(key=lambda row: -row[5])
    made = [(_place(*row[1:4]), row[0], *row[4:]) for row in found[:most]]
    return build_frame(made, _COLUMNS)


def _place(session_id: str, run_index: int, message_index: int) -> str:
    import pandas as pd

    return f"{session_id}/{run_index}" + ("" if pd.isna(message_index) else f".{message_index}")


def _kind(told: set[str]) -> str | None:
    return BOTH if len(told) > 1 else next(iter(told), None)


def by_tool(calls: pd.DataFrame) -> pd.DataFrame:
    """One row a tool; see `kern_nb.analysis.digest.Digest.tools`. ``calls`` is what `timed_calls` gives."""
    import pandas as pd

    calls = calls.assign(
        tool_name=calls["tool_name"].fillna(""),
        failed=calls["status"] == "failed",
        unknown=calls["status"].isin(["unknown", "started"]),
    )
    by = calls.groupby("tool_name", sort=True)
    kinds = pd.Series({tool: _kind(set(told.dropna())) for tool, told in by["timed"]}, dtype=TEXT)
    made = pd.DataFrame(
        {
            "calls": by.size().astype(COUNT),
            "failed": by["failed"].sum().astype(COUNT),
            "unknown": by["unknown"].sum().astype(COUNT),
            "median_duration_s": by["duration_s"].median().astype(NUMBER),
            "total_duration_s": by["duration_s"].sum(min_count=1).astype(NUMBER),
            "timed": kinds,
        }
    )
    made = made.rename_axis("tool_name").reset_index().astype({"tool_name": TEXT})
    return made.sort_values(["calls", "tool_name"], ascending=[False, True], kind="stable", ignore_index=True)
