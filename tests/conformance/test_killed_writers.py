"""A kill at any instant loses at most the write in progress; open runs are reported."""

from __future__ import annotations

import time

import pytest
from samples import a_small_run, load_session, message_contents

from kern_nb.db import open_store
from kern_nb.errors import RunClosed


def test_run_killed_between_start_and_finish_is_stored(persistent_target, workers):
    """The store opens, the run has its messages so far, and its session accepts further runs."""
    worker = workers(1)[0]
    run_id = worker.do("begin", target=persistent_target, session_id="chat", messages=3)
    worker.kill()
    with open_store(persistent_target) as store:
        run = load_session(store, "chat").runs[0]

        assert (run.run_id, run.status, run.input) == (run_id, "RUNNING", "unfinished")
        assert message_contents(run.messages) == ["message 0", "message 1", "message 2", None]
        assert [(call.tool_name, call.status) for call in run.tool_calls] == [("delete_everything", "started")]
        assert store.append_run("chat", a_small_run("next")).run_index == 1
        assert message_contents(store.history("chat")) == ["next", "answer to next"]


def test_killed_run_is_reported_and_repaired(persistent_target, workers):
    """The run as interrupted, its tool as unknown: it may have had effects, and is not run again."""
    worker = workers(1)[0]
    run_id = worker.do("begin", target=persistent_target, session_id="chat", messages=1)
    worker.kill()
    with open_store(persistent_target) as store:
        report = store.check()
        assert not report
        assert [(finding.kind, finding.session_id, finding.run_id) for finding in report.problems] == [
            ("interrupted", "chat", run_id)
        ]
        assert load_session(store, "chat").runs[0].status == "RUNNING"

        assert store.check(repair=True)
        run = load_session(store, "chat").runs[0]
        assert run.status == "INTERRUPTED"
        assert message_contents(run.messages) == ["message 0", None]
        assert [call.status for call in run.tool_calls] == ["unknown"]
        assert store.tool_calls_df().is_error.isna().all()
        with pytest.raises(RunClosed, match="INTERRUPTED"):
            store.finish_run(run_id, output="late")
        assert store.check().problems == []


def test_run_of_a_living_process_is_not_reported(persistent_target, workers):
    """Neither of another process nor of this one."""
    worker = workers(1)[0]
    worker.do("begin", target=persistent_target, session_id="theirs", messages=1)
    with open_store(persistent_target) as store:
        store.start_run("ours", input="x")

        assert store.check(repair=True).problems == []
        assert store.runs_df().status.tolist() == ["RUNNING", "RUNNING"]


def test_writer_killed_in_a_burst_of_runs_loses_no_acknowledged_run(persistent_target, workers):
    """Every run with an assigned index is stored completely, and no index is missing."""
    for attempt, seconds in enumerate((0.15, 0.3)):
        worker = workers(1)[0]
        worker.begin("append", target=persistent_target, session_id="chat", name=f"a{attempt}", runs=10**6, aloud=True)
        assert "appended" in worker.hear()
        time.sleep(seconds)
        acknowledged = {f"a{attempt} 0"} | {event["appended"] for event in worker.kill() if "appended" in event}
        with open_store(persistent_target) as store:
            runs = store.runs_df("chat")
            messages = store.messages_df("chat")

            assert acknowledged <= set(runs.input)
            assert len(set(runs.input) - acknowledged) <= attempt * 10**6 + 1
            assert runs.run_index.tolist() == list(range(len(runs)))
            assert (runs.n_messages == 4).all()
            assert (runs.n_tool_calls == 1).all()
            assert len(messages) == 4 * len(runs)
            assert store.check()
            assert store.append_run("chat", a_small_run()).run_index == len(runs)
            store.delete_session("chat")


def test_writer_killed_in_a_burst_of_messages_loses_at_most_one(persistent_target, workers):
    """All acknowledged messages are stored, in order and without a gap."""
    with open_store(persistent_target) as store:
        run = store.start_run("chat", input="x")
    worker = workers(1)[0]
    worker.begin("write_messages", target=persistent_target, run_id=run.run_id)
    assert worker.hear() == {"written": 0}
    time.sleep(0.3)
    acknowledged = max([0, *(event["written"] for event in worker.kill() if "written" in event)])
    with open_store(persistent_target) as store:
        stored = load_session(store, "chat").runs[0].messages

        assert len(stored) in (acknowledged + 1, acknowledged + 2)
        assert message_contents(stored) == [f"message {i}" for i in range(len(stored))]
        store.finish_run(run.run_id, output="by another process")
        assert load_session(store, "chat").runs[0].status == "COMPLETED"


def test_store_works_after_its_first_writer_was_killed(persistent_target, workers):
    """Also while it created the tables."""
    for i, delay in enumerate((0.0, 0.005, 0.02, 0.05)):
        worker = workers(1)[0]
        worker.begin("make", target=persistent_target, name=f"killed {i}", start=0.0)
        time.sleep(delay)
        worker.kill()
        with open_store(persistent_target) as store:
            store.append_run("chat", a_small_run())
            assert len(load_session(store, "chat").runs) == i + 1
            assert store.check()
