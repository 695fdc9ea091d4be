"""A pytest plugin for the tests of langgraph-checkpoint-sqlite: `KernSaver` in place of its own savers.

It replaces `SqliteSaver` and `AsyncSqliteSaver` before the tests are imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import langgraph.checkpoint.sqlite
import langgraph.checkpoint.sqlite.aio
import pytest

from kern_nb.bridges.langgraph import KernSaver
from kern_nb.db import SqliteDb

_opened: list[str] = []


@contextmanager
def _open(target: str) -> Iterator[KernSaver]:
    _opened.append(target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db" if target == ":memory:" else Path(target).with_suffix(".kern.db")
        with SqliteDb(path) as store:
            yield KernSaver(store)


class StoredSaver(KernSaver):
    """A `KernSaver` that is opened as a `SqliteSaver`."""

    @staticmethod
    @contextmanager
    def from_conn_string(conn_string: str) -> Iterator[KernSaver]:
        """Open a store beside the file."""
        with _open(conn_string) as saver:
            yield saver


class AsyncStoredSaver(KernSaver):
    """A `KernSaver` that is opened as an `AsyncSqliteSaver`."""

    @staticmethod
    @asynccontextmanager
    async def from_conn_string(conn_string: str) -> AsyncIterator[KernSaver]:
        """Open a store beside the file."""
        with _open(conn_string) as saver:
            yield saver


langgraph.checkpoint.sqlite.SqliteSaver = StoredSaver  # type: ignore[misc]
langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver = AsyncStoredSaver  # type: ignore[misc]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Record whether a test has used our store: others are not counted."""
    if _opened:
        item.user_properties.append(("store", "sqlite"))
    _opened.clear()
