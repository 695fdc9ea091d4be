"""The in-memory engine: DuckDB without a file, for tests and demos."""

from __future__ import annotations

import threading
from functools import cache

from sqlalchemy.engine import Connection

from kern_nb.db.duckdb import DuckDb
from kern_nb.db.lease import Lease
from kern_nb.db.schema import SESSION_TABLE, shared_tables
from kern_nb.db.store import SessionStore


class InMemoryDb(DuckDb):
    """A new store in the memory of this process, deleted when it is closed or the process ends.

    Args:
        session_table: The name of the session table.

    Example:
        >>> store = InMemoryDb()
        >>> store.url
        'duckdb:///:memory:'
    """

    def __init__(self, *, session_table: str = SESSION_TABLE) -> None:
        self._lease = Lease(":memory:")
        self._intent = threading.local()
        SessionStore.__init__(self, "duckdb:///:memory:", shared_tables(session_table, indexed=False))

    has_heartbeats = False

    def is_there(self) -> bool:
        """Whether the database exists: always."""
        return True

    def require_harmless(self, connection: Connection) -> None:
        """Do nothing: no other program can have created it."""

    def exists(self) -> bool:
        """Whether the store's tables exist."""
        return super(DuckDb, self).exists()

    def _create(self) -> None:
        super(DuckDb, self)._create()

    def _before_commit(self) -> None:
        """Do nothing: memory has no log."""

    def reopen(self) -> None:
        """Do nothing: the data exists only here."""


@cache
def empty_store(session_table: str) -> InMemoryDb:
    """An empty store, read in place of a store without tables, so that its frames have their columns."""
    store = InMemoryDb(session_table=session_table)
    store.write(lambda _: None)
    store.read_only = True
    return store
