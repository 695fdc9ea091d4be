"""A pytest plugin for the tests of the OpenAI Agents SDK: `KernSession` in place of the SDK's own sessions.

It replaces `SQLiteSession`, `AsyncSQLiteSession` and the list session of their tests, before the tests are imported.
What is here adapts constructors, and nothing else: a test that uses other parts of those classes fails.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import agents.extensions.memory
import agents.extensions.memory.advanced_sqlite_session  # subclasses the SDK's own session
import agents.extensions.memory.async_sqlite_session
import agents.extensions.memory.encrypt_session  # asks for the class of the session that it wraps
import agents.memory
import agents.memory.sqlite_session
import pytest

from kern_nb.bridges.openai_agents import KernSession, memory
from kern_nb.db import SessionStore, SqliteDb

_stores: dict[Path, SessionStore] = {}
_stack = contextlib.ExitStack()


def _open(db_path: str | Path) -> SessionStore:
    """The store of a file, the same as long as the test runs; each store in memory is a new file."""
    if str(db_path) == ":memory:":
        db_path = Path(_stack.enter_context(tempfile.TemporaryDirectory())) / "memory.db"
    path = Path(db_path).with_suffix(".kern.db").resolve()
    if path not in _stores:
        _stores[path] = _stack.enter_context(SqliteDb(path))
    return _stores[path]


class StoredSession(KernSession):
    """A `KernSession` that is constructed as a `SQLiteSession`."""

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = ":memory:",
        sessions_table: str = "agent_sessions",
        messages_table: str = "agent_messages",
        session_settings: Any = None,
    ) -> None:
        super().__init__(session_id, _open(db_path), session_settings=session_settings)

    def close(self) -> None:
        """The plugin closes the store."""


class AsyncStoredSession(StoredSession):
    """A `KernSession` that is constructed as an `AsyncSQLiteSession`."""

    async def close(self) -> None:  # type: ignore[override]
        """The plugin closes the store."""


class ListMethods:
    """The methods of the list session of their tests, which also read its list, on a `KernSession`."""

    def __init__(self, session_id: str = "test", history: list[Any] | None = None) -> None:
        self.session_id = session_id
        self.stored = StoredSession(session_id)
        self._ignore_ids_for_matching = False
        if history:
            memory.add_items(self.stored.store, session_id, history, None, None)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        return await self.stored.get_items(limit)

    async def add_items(self, items: list[Any]) -> None:
        await self.stored.add_items(items)

    async def pop_item(self) -> Any:
        return await self.stored.pop_item()

    async def clear_session(self) -> None:
        await self.stored.clear_session()

    @property
    def saved_items(self) -> list[Any]:
        return memory.read_items(self.stored.store, self.session_id, None, None)

    _items = saved_items


for _module in (agents, agents.memory, agents.memory.sqlite_session):
    _module.SQLiteSession = StoredSession  # type: ignore[attr-defined]
for _module in (agents.extensions.memory, agents.extensions.memory.async_sqlite_session):
    _module.AsyncSQLiteSession = AsyncStoredSession  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Replace the list session: the folder of their tests is importable now."""
    from tests.utils.simple_session import SimpleListSession

    for name, value in vars(ListMethods).items():
        if name == "__init__" or not name.startswith("__"):
            setattr(SimpleListSession, name, value)  # its subclasses have them, too


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Close the stores of a test."""
    yield
    _stores.clear()
    _stack.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Record whether a test has used our store: others are not counted."""
    if _stores:
        item.user_properties.append(("store", "sqlite"))
