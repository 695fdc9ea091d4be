"""The cost of an append is constant from run 1 to run 1,000: statements, rows read and engine steps."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from samples import a_run, a_small_run, load_session, statements

from kern_nb.db import SessionStore, SqliteDb
from kern_nb.records import Message, ToolCall

LENGTHS = (1, 100, 1000)


def live_run(store: SessionStore) -> None:
    """Write a run like an agent."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="x")])
    call = ToolCall(tool_call_id="c", tool_name="t")
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content="y")])
    store.finish_run(run.run_id, output="z", session_state={"n": 1})


WORK: dict[str, Callable[[SessionStore], Any]] = {
    "append_run": lambda store: store.append_run("chat", a_run()),
    "append_run with a state": lambda store: store.append_run("chat", a_run(session_state={"n": 1})),
    "a live run": live_run,
    "branch": lambda store: store.branch("chat"),
    "branch after run 0": lambda store: store.branch("chat", after=0),
    "branch within run 0": lambda store: store.branch("chat", after=(0, 1)),
    "rename": lambda store: store.rename_session("chat", "title"),
    "score": lambda store: store.add_score("chat", "reward", 1.0),
    "history of 3 runs": lambda store: store.history("chat", last_runs=3),
    "history of 5 messages": lambda store: store.history("chat", last_messages=5),
}


def lengthen(store: SessionStore, length: int) -> None:
    """Extend a session to a number of runs in batches."""
    there = len(store.runs_df("chat"))
    session = load_session(store, "chat").model_copy(
        update={"runs": [a_small_run(f"{i}") for i in range(there, length)]}
    )
    store.save_session(session)


def test_statements_and_rows_do_not_grow_with_session(store):
    """Appends, live runs, branches, titles, scores and histories, counted at three lengths."""
    store.append_run("chat", a_small_run(session_state={"n": 0}))
    for work in WORK.values():  # what is done once for a store or a connection is done now
        work(store)
    costs: dict[str, list[tuple[int, int]]] = {}
    for length in LENGTHS:
        lengthen(store, length)
        for name, work in WORK.items():
            with statements(store) as heard:
                work(store)
            costs.setdefault(name, []).append((len(heard), heard.rows))

    assert {name: sorted(set(result)) for name, result in costs.items() if len(set(result)) > 1} == {}
    assert costs["append_run"][0][0] <= 8
    assert costs["branch"][0][1] <= 8


def test_append_reads_no_earlier_rows(store):
    """No statement reads messages, tool calls or other runs; each write targets one table."""
    store.append_run("chat", a_run())
    with statements(store) as heard:
        store.append_run("chat", a_run())
    reads = [statement for statement in heard if statement.lstrip().upper().startswith("SELECT")]

    assert [statement for statement in reads if "_messages" in statement or "_tool_calls" in statement] == []
    assert heard.rows <= 3


def test_branch_reads_no_messages(store):
    """Except for a branch within a run, whose message must exist."""
    for i in range(3):
        store.append_run("chat", a_run(f"{i}"))
    for place in ({}, {"after": 1}, {"before": 2}):
        with statements(store) as heard:
            store.branch("chat", **place)
        assert heard.about("_messages") == []
        assert [s for s in heard if s.lstrip().upper().startswith("INSERT") and "_runs" in s] == []


@pytest.fixture
def sqlite_store(tmp_path) -> Iterator[SqliteDb]:
    """SQLite reports the steps of its virtual machine: an exact measure of work."""
    with SqliteDb(tmp_path / "s.db") as store:
        yield store


@contextlib.contextmanager
def steps(store: SqliteDb) -> Iterator[list[int]]:
    """Count the steps of SQLite's virtual machine on the store's connections."""
    counted = [0]
    connections: list[sqlite3.Connection] = []

    def count() -> int:
        counted[0] += 1
        return 0

    def listen(connection: sa.Connection, *args: Any) -> None:
        raw: Any = connection.connection.driver_connection
        if raw not in connections:
            connections.append(raw)
            raw.set_progress_handler(count, 1)

    sa.event.listen(store.engine, "before_cursor_execute", listen)
    try:
        yield counted
    finally:
        sa.event.remove(store.engine, "before_cursor_execute", listen)
        for raw in connections:
            raw.set_progress_handler(None, 0)


def test_engine_steps_do_not_grow_with_session(sqlite_store):
    """Hidden scans would be counted: with ten times the runs an append or branch takes at most a few more steps."""
    store = sqlite_store
    store.append_run("chat", a_small_run(session_state={"n": 0}))
    costs: dict[str, list[int]] = {}
    for length in LENGTHS:
        lengthen(store, length)
        for name, work in WORK.items():
            work(store)
            with steps(store) as counted:
                work(store)
            costs.setdefault(name, []).append(counted[0])

    assert all(result[0] > 50 for result in costs.values()), "nothing was counted"
    assert {name: result for name, result in costs.items() if max(result) > 1.25 * min(result)} == {}


def test_engine_steps_do_not_grow_with_store(sqlite_store):
    """Neither do they grow with the number of other sessions; nor for a page of the session list."""
    store = sqlite_store
    work = WORK | {"list": lambda store: store.list_sessions(limit=5), "get": lambda store: store.get_session("small")}
    store.append_run("small", a_small_run())
    costs: dict[str, list[int]] = {}
    for sessions in (20, 400):
        store.write(lambda connection, n=sessions: fill(connection, store, n))
        store.append_run("chat", a_small_run(session_state={"n": 0}))
        for name, part in work.items():
            part(store)
            with steps(store) as counted:
                part(store)
            costs.setdefault(name, []).append(counted[0])

    assert {name: result for name, result in costs.items() if max(result) > 1.25 * min(result)} == {}


def fill(connection: sa.Connection, store: SessionStore, n: int) -> None:
    """Insert many sessions of one run directly into the tables."""
    t = store.tables
    sessions = [{"session_id": f"{n} {i}", "session_type": "agent", "created_at": i} for i in range(n)]
    store.insert_rows(connection, t.sessions, sessions)
    runs = [
        {
            "session_id": s["session_id"],
            "run_index": 0,
            "run_id": s["session_id"],
            "run_type": "agent",
            "status": "COMPLETED",
        }
        for s in sessions
    ]
    store.insert_rows(connection, t.runs, runs)
