"""Fixtures of the conformance tests: other processes, and an empty store of every engine at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Worker

    from kern_nb.db import SessionStore


@contextlib.contextmanager
def stores_of_every_engine(folder: Path, postgres_url: str) -> Iterator[dict[str, SessionStore]]:
    """Empty stores by the engine's name; all are closed at the end."""
    from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SqliteDb

    stores = {
        "duckdb": DuckDb(folder / "s.duckdb"),
        "sqlite": SqliteDb(folder / "s.db"),
        "postgres": PostgresDb(postgres_url),
        "memory": InMemoryDb(),
    }
    with contextlib.ExitStack() as stack:
        for store in stores.values():
            stack.callback(store.close)
        yield stores


@pytest.fixture
def every_store(tmp_path: Path, postgres_database_url: str) -> Iterator[dict[str, SessionStore]]:
    """An empty store of each engine, by the engine's name."""
    with stores_of_every_engine(tmp_path, postgres_database_url) as stores:
        yield stores


@pytest.fixture(scope="module")
def shared_stores(
    tmp_path_factory: pytest.TempPathFactory, shared_postgres_database_url: str
) -> Iterator[dict[str, SessionStore]]:
    """A store of each engine for the tests of a module, which fill it once and then only read."""
    with stores_of_every_engine(tmp_path_factory.mktemp("shared"), shared_postgres_database_url) as stores:
        yield stores


@pytest.fixture
def other_store(store: SessionStore, store_factory: Callable[[], SessionStore], engine_name: str) -> SessionStore:
    """A second store on the same database, as in another notebook; in memory the same store."""
    return store if engine_name == "memory" else store_factory()


@pytest.fixture(scope="session")
def started_workers() -> Iterator[list[Worker]]:
    """The processes started so far: starting one takes longer than most tests."""
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.stop()


@pytest.fixture
def workers(started_workers: list[Worker]) -> Callable[[int], list[Worker]]:
    """``workers(4)`` returns so many idle processes. A killed one is replaced."""
    from processes import Worker

    def start(n: int) -> list[Worker]:
        for worker in started_workers:
            if worker.busy:  # a test ended before it did
                worker.kill()
        alive = [worker for worker in started_workers if worker.process.poll() is None]
        alive += [Worker() for _ in range(n - len(alive))]
        started_workers[:] = alive
        return [worker.ready() for worker in alive[:n]]

    return start
