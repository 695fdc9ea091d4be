"""In memory: DuckDB without a file. Gone when the process ends; for tests and demos."""

from __future__ import annotations

from functools import cache

from sqlalchemy.engine import Connection

from kern_nb.db.duckdb import BUSY_TIMEOUT_S, DuckDb
from kern_nb.db.lease import Lease
from kern_nb.db.schema import SESSION_TABLE, Tables
from kern_nb.db.store import SessionStore


class InMemoryDb(DuckDb):
    """A store of its own in this process's memory.

    Args:
        session_table: The name of the sessions' table.
    """

    def __init__(self, *, session_table: str = SESSION_TABLE) -> None:
        self.timeout = BUSY_TIMEOUT_S
        self._lease = Lease(":memory:")
        SessionStore.__init__(self, "duckdb:///:memory:", Tables(session_table, indexed=False))

    def is_there(self) -> bool:
        """Memory always is."""
        return True

    def require_harmless(self, connection: Connection) -> None:
        """Nothing: nobody else made it."""

    def exists(self) -> bool:
        """Whether the store's tables are there."""
        return super(DuckDb, self).exists()

    def _create(self) -> None:
        super(DuckDb, self)._create()

    def _before_commit(self) -> None:
        """Nothing: memory has no log."""

    def reopen(self) -> None:
        """Nothing: there is nowhere it could be read from again."""


@cache
def empty_store(session_table: str) -> InMemoryDb:
    """What a store without tables is read from, so that its frames have their columns."""
    store = InMemoryDb(session_table=session_table)
    store.write(lambda _: None)
    store.read_only = True
    return store
