"""Open runs of other hosts are left alone as long as their process sends heartbeats, and interrupted when it is silent."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from samples import a_small_run

from kern_nb.db import heartbeats
from kern_nb.db.process_identity import current_process
from kern_nb.db.sql_expressions import current_micros
from kern_nb.errors import AlreadyClaimed, RunClosed
from kern_nb.records import Message, ToolCall

ELSEWHERE = "other-host:4711:123/other-boot/4026531836-4026531834/other-machine"
MINUTE = 60_000_000


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats come many times a second, from a thread of their own: that of earlier tests waits longer."""
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.05)
    monkeypatch.setattr(heartbeats, "_heartbeats", heartbeats._Heartbeats())


def set_run(store, run_id, **values):
    """Set columns of a run."""
    r = store.tables.runs
    store.write(lambda connection: connection.execute(r.update().where(r.c.run_id == run_id).values(**values)))


def silence_of(store, run_id):
    """The microseconds since the last heartbeat of a run; None if it had none."""
    r = store.tables.runs
    with store.connect() as connection:
        return connection.execute(sa.select(current_micros() - r.c.heartbeat_at).where(r.c.run_id == run_id)).scalar()


def a_run_elsewhere(store, silence):
    """An open run of another host with a tool that has started, whose last heartbeat was a time ago; its id."""
    run = store.start_run("chat", input="x")
    call = ToolCall(tool_call_id="call", tool_name="send")
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
    at = None if silence is None else current_micros() - silence
    set_run(store, run.run_id, process=ELSEWHERE, heartbeat_at=at)
    return run.run_id


@pytest.mark.parametrize("silence", [None, 0, 4 * MINUTE, -60 * MINUTE])
def test_a_run_elsewhere_with_heartbeats_is_not_interrupted(store, silence):
    """Nor claimed; one without heartbeats, as of an earlier version, may be alive, too."""
    run_id = a_run_elsewhere(store, silence)
    assert [problem.kind for problem in store.check().problems] == ["running elsewhere"]
    assert not store.check(repair=True)
    with pytest.raises(AlreadyClaimed, match="other-host"):
        store.claim_run(run_id)
    store.append_messages(run_id, [Message(role="tool", tool_call_id="call", content="sent")])
    store.finish_run(run_id, output="done")

    assert store.get_run(run_id).status == "COMPLETED"


def test_a_run_of_a_silent_process_is_interrupted(store):
    """By a repair, which says why; its process learns it when it writes again, and its tool is unknown."""
    run_id = a_run_elsewhere(store, 6 * MINUTE)
    [problem] = store.check().problems
    assert problem.kind == "interrupted"
    assert "other-host has been silent for 36" in problem.detail
    assert store.get_run(run_id).status == "RUNNING"
    assert store.check(repair=True)
    run = store.get_run(run_id)
    assert (run.status, run.tool_calls[0].status) == ("INTERRUPTED", "unknown")
    with pytest.raises(RunClosed):
        store.append_messages(run_id, [Message(role="tool", tool_call_id="call", content="sent")])


def test_a_run_of_a_silent_process_is_claimed_once(store, other_store):
    """The claim is a heartbeat of its own."""
    run_id = a_run_elsewhere(store, 6 * MINUTE)
    run = store.claim_run(run_id)
    assert (run.status, run.tool_calls[0].status) == ("RUNNING", "unknown")
    assert silence_of(store, run_id) < MINUTE
    with pytest.raises(AlreadyClaimed):
        other_store.claim_run(run_id)


def test_a_process_that_can_be_seen_needs_no_heartbeat(store):
    """This one is alive, whatever its last heartbeat; one that is gone is gone at once."""
    run = store.start_run("chat", input="x")
    set_run(store, run.run_id, heartbeat_at=current_micros() - 60 * MINUTE)
    assert store.check()
    own = current_process().split(":")
    set_run(store, run.run_id, process=":".join([own[0], str(2**22 + 1), own[2]]), heartbeat_at=current_micros())

    assert [problem.kind for problem in store.check().problems] == ["interrupted"]


def test_heartbeats_come_while_a_run_is_open(store, quick, engine_name):
    """From its start to its end, also of a claimed run; only the run's own process sends them. Then the thread ends."""
    assert store.append_run("chat", a_small_run())
    open_run, foreign = store.start_run("chat", input="x"), a_run_elsewhere(store, 60 * MINUTE)
    resumed = store.start_run("chat", input="y")
    store.finish_run(resumed.run_id, status="ERROR")
    store.claim_run(resumed.run_id)
    assert silence_of(store, open_run.run_id) < MINUTE
    for run in (open_run, resumed):
        set_run(store, run.run_id, heartbeat_at=current_micros() - 60 * MINUTE)
    if engine_name == "memory":  # no other process reads it
        time.sleep(0.3)
        assert silence_of(store, open_run.run_id) > MINUTE
        return

    wait_until(lambda: all(silence_of(store, run.run_id) < MINUTE for run in (open_run, resumed)))
    assert silence_of(store, foreign) > MINUTE
    for run in (open_run, resumed):
        store.finish_run(run.run_id)
    wait_until(lambda: store not in heartbeats._heartbeats._runs)


def test_a_closed_store_gets_no_heartbeats(store, quick):
    """It is not opened again."""
    run = store.start_run("chat", input="x")
    store.close()
    assert store not in heartbeats._heartbeats._runs
    if store.has_heartbeats:
        set_run(store, run.run_id, heartbeat_at=current_micros() - 60 * MINUTE)
        time.sleep(0.3)
        assert silence_of(store, run.run_id) > MINUTE


def wait_until(condition):
    """Wait until a condition is true, for a few seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
