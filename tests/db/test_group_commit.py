"""DuckDB: concurrent writes of several threads share a transaction; each gets its own result or error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from kern_nb.db import DuckDb
from kern_nb.errors import OwnerMismatch, RunExists, UnstorableValue
from kern_nb.records import Message, Run

LIMIT_S = 60


@pytest.fixture
def store(tmp_path):
    with DuckDb(tmp_path / "s.duckdb") as store:
        store.append_run("alice's", Run(run_id="existing", input="x"), user_id="alice")
        yield store


def run_concurrently(store: DuckDb, works: list[Callable[[], Any]]) -> list[Future[Any]]:
    """Run writes in separate threads, all queued during another write."""
    may_end = threading.Event()
    is_writing = threading.Event()

    def hold(_: sa.Connection) -> None:
        is_writing.set()
        may_end.wait(LIMIT_S)

    with ThreadPoolExecutor(len(works) + 1) as pool:
        holding = pool.submit(store.write, hold, small=True)
        assert is_writing.wait(LIMIT_S)
        futures = [pool.submit(work) for work in works]
        queue = store._group._queue
        while len(queue) < len(works):
            threading.Event().wait(0.001)
        may_end.set()
        holding.result(LIMIT_S)
    return futures


def count_commits(store: DuckDb, works: list[Callable[[], Any]]) -> tuple[int, list[Future[Any]]]:
    """The number of committed transactions, including the one that delayed the others."""
    connections: list[object] = []

    def count(connection: sa.Connection) -> None:
        connections.append(connection)

    sa.event.listen(store.engine, "commit", count)
    try:
        futures = run_concurrently(store, works)
    finally:
        sa.event.remove(store.engine, "commit", count)
    return len(connections), futures


def append(store: DuckDb, session_id: str, **fields: Any) -> Callable[[], Run]:
    run = Run(**{"input": "x", "messages": [Message(role="user", content="x")]} | fields)
    return lambda: store.append_run(session_id, run)


def test_queued_writes_are_committed_together(store):
    """Also those of one session: each run gets its own index."""
    number, futures = count_commits(store, [append(store, "new" if n % 2 else f"{n}") for n in range(12)])

    assert number == 2
    assert sorted(f.result().run_index for f in futures if f.result().session_id == "new") == list(range(6))
    assert len(store.runs_df()) == 13
    assert store.check()


def test_failing_write_does_not_affect_the_others(store):
    """It raises its own error; the other writes are stored once."""
    works = [append(store, f"{n}") for n in range(4)]
    works.insert(1, append(store, "x", run_id="existing"))
    works.insert(3, append(store, "y", input=object()))
    works.append(lambda: store.append_run("alice's", Run(input="x"), user_id="bob"))
    _, futures = count_commits(store, works)
    errors = [type(future.exception()) for future in futures]

    assert errors.count(type(None)) == 4
    assert [errors[1], errors[3], errors[-1]] == [RunExists, UnstorableValue, OwnerMismatch]
    assert sorted(store.sessions_df().session_id) == ["0", "1", "2", "3", "alice's"]
    assert len(store.messages_df()) == 4


def test_live_runs_share_transactions(store):
    """Each step of several concurrent runs."""
    runs = [store.start_run(f"{n}", input="x") for n in range(8)]
    steps = [lambda run=run: store.append_messages(run.run_id, [Message(role="user", content="x")]) for run in runs]
    ends = [lambda run=run: store.finish_run(run.run_id, output=run.session_id) for run in runs]

    assert [count_commits(store, works)[0] for works in (steps, ends)] == [2, 2]
    assert sorted(store.runs_df(limit=None).output.dropna()) == [f"{n}" for n in range(8)]


def test_many_threads_lose_nothing(store):
    """Without explicit synchronization."""
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(append(store, f"{n % 5}")) for n in range(60)]
    assert len({(f.result().session_id, f.result().run_index) for f in futures}) == 60
    assert len(store.runs_df()) == 61


def test_nested_write_does_not_deadlock(store):
    """A custom transaction may call the store."""

    def outer(_: sa.Connection) -> Run:
        return store.append_run("within", Run(input="x"))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.write, outer, small=True).result(LIMIT_S).run_index == 0
