"""Trajectories of tau-bench: sessions by task and trial, rewards, calls whose ids repeat, and what is only in a name."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest
from mutations import mistyped, truncated


@pytest.fixture
def store(tmp_path):
    """A SQLite store."""
    from kern_nb.db import SqliteDb

    store = SqliteDb(tmp_path / "s.db")
    yield store
    store.close()


def record(task, trial, **other):
    function = {"name": "find_boat", "arguments": '{"name": "Ida"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    traj = [
        {"role": "system", "content": "# Rules"},
        {"role": "user", "content": "Where is my boat?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "function_call": None},
        {"role": "tool", "tool_call_id": "call_1", "name": "find_boat", "content": "Error: no boat"},
        {"role": "assistant", "content": "It is gone."},
        {"role": "user", "content": "###STOP###"},
    ]
    reward = {"reward": 0.5, "info": {"r_actions": 0.5, "gt_data_hash": "x"}, "actions": []}
    info = {"task": {"user_id": "ann"}, "source": "user", "user_cost": 0.25, "reward_info": reward}
    return {"task_id": task, "reward": 0.5, "trial": trial, "info": info, "traj": traj} | other


def write(path, value):
    path.write_text(json.dumps(value, indent=1))
    return path


def test_a_record_is_a_session(store, tmp_path):
    """Of a task and a trial; the ids of calls repeat between trials."""
    path = write(tmp_path / "blue-7b-retail.json", [record(3, 0), record(3, 1), record("4", 0)])
    report = store.ingest(path, progress=False)
    session = store.get_session("blue-7b-retail/3/1")
    calls, scores = store.tool_calls_df(), store.scores_df()

    assert (report.sessions, report.runs, report.messages, report.errors) == (3, 6, 18, [])
    assert session.metadata["task_id"] == "3"
    assert (session.metadata["trial"], session.metadata["user_cost"]) == (1, 0.25)
    assert (session.metadata["model"], session.metadata["domain"]) == ("blue-7b", "retail")
    assert session.agent_data["tau_bench"]["task"] == {"user_id": "ann"}
    assert calls["result"].tolist() == ["Error: no boat"] * 3
    assert store.get_run(session.runs[0].run_id).tool_calls[0].args == {"name": "Ida"}
    result = session.runs[0].messages[3]
    assert (result.is_error, result.extra) == (None, {"error_inferred": True})
    assert set(zip(scores["name"], scores["value"], strict=True)) == {("reward", 0.5), ("reward.r_actions", 0.5)}


def test_ids_and_trajectories_that_are_missing(store, tmp_path):
    """The first record need not be intact; a column of numbers has floats; a failed task has a reward."""
    records = [None, record(3.0, 0), record(4, None), record(5, 0, traj=None)]
    report = store.ingest(write(tmp_path / "x.json", records), progress=False)
    assert (report.sessions, len(report.errors)) == (3, 1)
    assert sorted(store.sessions_df()["session_id"]) == ["x/3/0", "x/4/0", "x/5/0"]
    assert (store.scores_df()["name"] == "reward").sum() == 3


def test_a_compressed_file_has_the_same_sessions(store, tmp_path):
    path = write(tmp_path / "blue-7b-retail.json", [record(1, 0)])
    store.ingest(path, progress=False)
    (tmp_path / "gz").mkdir()
    compressed = tmp_path / "gz" / f"{path.name}.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert store.ingest(compressed, progress=False).skipped == 1
    [metadata] = store.sessions_df()["metadata"].map(json.loads)
    assert (metadata["model"], metadata["experiment"]) == ("blue-7b", "blue-7b-retail")


def test_times_usage_and_cost_are_unknown(store, tmp_path):
    """The simulated user's cost is not the agent's."""
    store.ingest(write(tmp_path / "x.json", [record(1, 0)]), progress=False)
    sessions, runs = store.sessions_df(), store.runs_df()
    for frame, names in ((sessions, ("created_at", "cost", "input_tokens")), (runs, ("created_at", "model", "cost"))):
        assert frame[list(names)].isna().all(axis=None)


def test_a_second_import_skips_every_session(store, tmp_path):
    path = write(tmp_path / "x.json", [record(1, 0), record(1, 0), record(2, 0, traj=[])])
    assert store.ingest(path, progress=False).sessions == 3
    before = store.messages_df()
    assert store.ingest(path, progress=False).skipped == 3
    pd.testing.assert_frame_equal(store.messages_df(), before)


def test_the_name_of_a_result_states_the_models(store, tmp_path):
    """Of the agent and of the simulated user."""
    name = "tool-calling-blue-7b-0.0_range_0-5_user-red-9b-llm_0101093000.json"
    store.ingest(write(tmp_path / name, [record(1, 0)]), progress=False)
    metadata = json.loads(store.sessions_df()["metadata"][0])
    assert [metadata[key] for key in ("model", "user_model", "user_strategy")] == ["blue-7b", "red-9b", "llm"]


def test_an_error_ends_the_last_run(store, tmp_path):
    info = {"error": "the model stopped", "traceback": "Traceback"}
    store.ingest(write(tmp_path / "x.json", [record(1, 0, info=info)]), progress=False)
    run = store.get_session("x/1/0").runs[-1]
    assert (run.status, run.error) == ("ERROR", "the model stopped")


def test_outputs_of_tools_as_text_start_no_run(store, tmp_path):
    """An agent that only writes text receives them as user messages."""
    traj = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Action: {}"},
        {"role": "user", "content": "API output: 5"},
        {"role": "assistant", "content": "Five."},
    ]
    assert store.ingest(write(tmp_path / "x.json", [record(1, 0, traj=traj)]), progress=False).runs == 1


@pytest.mark.parametrize("value", [[], [{"traj": []}], [{"task_id": 1, "reward": 1}], {"task_id": 1, "traj": []}])
def test_neighbouring_layouts_are_not_taken(value, tmp_path):
    from kern_nb.ingest.registry import get_importer
    from kern_nb.ingest.source import Source

    path = write(tmp_path / "x.json", value)
    assert not get_importer("tau_bench").recognizes(Source(path, path.name))


def test_damage_never_stops_an_import(tmp_path):
    """Truncated files and values of wrong types: the other record is stored."""
    from kern_nb.db import InMemoryDb

    store, path = InMemoryDb(), tmp_path / "x.json"
    for value in mistyped(record(1, 0), 100):
        store.ingest(write(path, [record(9, 0), value]), progress=False)
    assert store.get_session("x/9/0").runs
    whole = write(path, [record(9, 0), record(1, 0)]).read_bytes()
    for data in truncated(whole, 50):
        path.write_bytes(data)
        store.ingest(path, "tau_bench", progress=False)
