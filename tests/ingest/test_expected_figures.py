"""Recorded sessions of real programs: their figures, as counted from the raw files by other code, on each engine.

A folder is imported at once, so that forks find their parents. The second import stores nothing.
"""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from kern_nb.db import open_store

# The files of each group, and its entries of EXPECTED_FORMATS.json.
GROUPS = {
    "codex": ["codex/*.jsonl"],
    "opencode database": ["opencode/opencode.db"],
    "opencode exports": ["opencode/ses_*.json"],
    "pi_v3": ["pi_v3/*.jsonl"],
    "gemini_cli": ["gemini_cli/*.jsonl"],
    "openinference agents": ["otel/openinference_agents.jsonl"],
    "pydantic_ai spans": ["otel/pydantic_ai_v5.jsonl"],
    "inspect_ai": ["inspect_ai/*.eval", "inspect_ai/*.json"],
    "langgraph": ["langgraph/checkpoints.sqlite"],
    "llm": ["llm/logs.db"],
    "atif": ["atif/trajectory.json"],
    "hf_sts": ["hf_sts/session.jsonl"],
    "chatgpt_export": ["chatgpt_export/conversations.json"],
    "claude_ai_export": ["claude_ai_export/conversations.json"],
    "jupyter_chat": ["jupyter_chat/example.chat"],
    "openhands": ["openhands/events.jsonl"],
    "swe_agent": ["swe_agent/*.traj"],
    "vscode_copilot": ["vscode_copilot/oplog.jsonl"],
}
FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")


def entries(expected, name):
    """The expected figures of a group, one entry a file; forks count their own part only."""
    if name == "opencode exports":
        return [expected["opencode/ses_*.json (both exports together)"]]
    prefixes = [pattern.partition("*")[0] for pattern in GROUPS[name]]
    suffixes = [pattern.rpartition("*")[2] for pattern in GROUPS[name]]
    return [
        entry
        for path, entry in expected.items()
        if any(path.startswith(p) and path.endswith(s) for p, s in zip(prefixes, suffixes, strict=True))
        and "together" not in path
    ]


def total(values):
    """The sum of the values that are stated; None if none is."""
    stated = [value for value in values if value is not None]
    return sum(stated) if stated else None


def tokens(entry, name):
    """Tokens in the meaning of the frames: with cached ones, with reasoning."""
    value = entry.get(name)
    if value is None:
        return None
    if name == "input_tokens" and entry.get("input_includes_cache") is False:
        return value + (entry.get("cache_read_tokens") or 0) + (entry.get("cache_write_tokens") or 0)
    if name == "output_tokens" and entry.get("output_includes_reasoning") is False:
        return value + (entry.get("reasoning_tokens") or 0)
    return value


def stated_cost(entry):
    """The cost; 0 beside tokens is unknown."""
    return entry.get("cost") or None


def column_sum(series):
    value = series.sum(min_count=1)
    return None if pd.isna(value) else value


@pytest.fixture(scope="module")
def expected(shared_data):
    return json.loads((shared_data / "EXPECTED_FORMATS.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["duckdb", "sqlite", "postgres"])
def small_store(request, tmp_path):
    if request.param == "postgres":
        target = request.getfixturevalue("postgres_database_url")
    else:
        target = tmp_path / {"duckdb": "s.duckdb", "sqlite": "s.db"}[request.param]
    with open_store(target) as store:
        yield store


@pytest.mark.parametrize("name", GROUPS)
def test_figures_of_recorded_sessions(small_store, shared_data, expected, name, tmp_path):
    folder = tmp_path / "recorded"
    folder.mkdir()
    for pattern in GROUPS[name]:
        for file in shared_data.glob(pattern):
            shutil.copy(file, folder)
    report = small_store.ingest(folder, progress=False)
    before = {frame: getattr(small_store, frame)() for frame in FRAMES}
    again = small_store.ingest(folder, progress=False)
    sessions, runs, calls = before["sessions_df"], before["runs_df"], before["tool_calls_df"]
    figures = entries(expected, name)

    assert figures
    assert report.errors == []
    assert (again.sessions, again.runs) == (0, 0)
    for frame, rows in before.items():
        pd.testing.assert_frame_equal(getattr(small_store, frame)(), rows)

    ids = {session_id for entry in figures for session_id in entry.get("session_ids") or () if session_id}
    assert ids <= set(sessions["session_id"])
    branches = {
        (b["session"], b["parent"], b["fork_run_index_0based"]) for e in figures for b in e["branches"] if "parent" in b
    }
    forks = sessions[sessions["parent_session_id"].notna()]
    stored = set(zip(forks["session_id"], forks["parent_session_id"], forks["fork_run_index"], strict=True))
    assert branches <= stored
    main_runs = runs[runs["parent_run_id"].isna()]
    assert len(main_runs) == sum(entry["runs"] for entry in figures)
    assert len(calls) == sum(entry.get("tool_calls", entry.get("tool_calls_in_history", 0)) for entry in figures)
    assert column_sum(runs["input_tokens"]) == total(tokens(entry, "input_tokens") for entry in figures)
    assert column_sum(runs["output_tokens"]) == total(tokens(entry, "output_tokens") for entry in figures)
    cost = column_sum(runs["cost"])
    expected_cost = total(stated_cost(entry) for entry in figures)
    assert (cost is None) == (expected_cost is None)
    assert cost is None or cost == pytest.approx(expected_cost)
