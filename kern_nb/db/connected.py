"""`Connected`: a store's way to its database. Transactions, retries, the schema; what an engine's file must provide.

Nothing here knows what a session is.
"""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import schema
from kern_nb.db.schema import Tables
from kern_nb.db.space import unavailable
from kern_nb.errors import KernError, ReadOnlyStore, StoreBusy, StoreUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

    from kern_nb.db.store import SessionStore

T = TypeVar("T")

_TRIES = 12
_stores: weakref.WeakSet[Connected] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child opens connections of its own; the parent's stay the parent's."""
    for store in _stores:
        store.engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Connected(ABC):
    """A database with a workload's tables. Nothing is written, and no file made, before the first write.

    Attributes:
        url: Where it is, without any password.
        tables: The SQLAlchemy tables.
        read_only: Whether writes are refused.
    """

    def __init__(self, url: str, tables: Tables, *, read_only: bool = False) -> None:
        self.url = url
        self.tables = tables
        self.read_only = read_only
        self._found = False
        _stores.add(self)

    def __repr__(self) -> str:
        """The engine and the place."""
        return f"<{type(self).__name__} {self.url}{' (read-only)' if self.read_only else ''}>"

    def __enter__(self) -> Self:
        """Close the store at the end of the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store."""
        self.close()

    # What differs between engines -------------------------------------------------------------------------------------

    most_added_up: int | None = 10_000
    """So many sessions at most are ordered by a total, which is added up first: ten times as many take SQLite a second,
    at every page. None where there is no such limit."""

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, made at first use."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """The engine's INSERT with ON CONFLICT."""

    @abstractmethod
    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert many rows as fast as the engine can."""

    @abstractmethod
    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """The result of a query as Arrow columns, in the store's own encoding."""

    @abstractmethod
    def run_sql(self, query: str, params: Mapping[str, Any]) -> pa.Table:
        """The result of a person's SQL over the views, which can only read."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Whether a transaction failed only because of another one, and may be tried again."""

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, locking its rows where several transactions write at once."""
        return query

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """An aggregate, the n-th largest value of a column, where the engine has no index to find a page's rows by."""
        return None

    def is_there(self) -> bool:
        """Whether there is a file or database to look into; never makes one."""
        return True

    def close(self) -> None:
        """Let go of the file or the connections. A later call opens the store again."""
        self.engine.dispose()

    def reopen(self) -> None:
        """Let go of the store, and look for its tables again: its server may have come back, its file be another one.

        Raises:
            StoreUnavailable: there is no file.
        """
        self.close()
        if self._found and not self.is_there():
            raise StoreUnavailable(f"{self.url} is still gone.", "Put its file back, or attach another.")
        self._found = False
        self.exists()

    # Transactions -----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the store's tables are there.

        Raises:
            SchemaTooNew, ForeignLayout: they are there and are not ours to use.
            StoreUnavailable: they were there, and the file is not any more.
        """
        if not self.is_there():
            if self._found:
                raise StoreUnavailable(f"{self.url} is gone: its file was removed.", "Attach it again to start anew.")
            return False
        if not self._found:
            with self.connect() as connection:
                found = schema.version(connection, self.tables)
            if found is not None and found < schema.SCHEMA_VERSION:
                self._upgrade(found)
            self._found = found is not None
        return self._found

    def _upgrade(self, found: int) -> None:
        if self.read_only:
            raise ReadOnlyStore(
                f"{self.url} is of schema version {found}, this kern_nb reads version {schema.SCHEMA_VERSION}.",
                "Open it once without read_only=True: it is upgraded in place.",
            )
        self._transaction(lambda connection: schema.create(connection, self.tables))

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """A connection in a transaction, with what the driver says of a lost store turned into our error."""
        engine = self.engine.execution_options(kern_write=True) if write else self.engine
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.StatementError as error:
            if isinstance(error.orig, KernError):  # a value that the codec refused
                raise error.orig from None
            if not isinstance(error, sa.exc.OperationalError) or self.is_conflict(error):
                raise
            raise unavailable(self.url, error.orig, getattr(self, "db_file", None)) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read records; before the first write, to an empty store."""
        source = self._source()
        with source.connect() as connection:
            if source is not self and self.tables.metadata.schema:  # its tables are in no schema
                connection.execution_options(schema_translate_map={self.tables.metadata.schema: None})
            yield connection

    def _source(self) -> Self | SessionStore:
        """The store itself, or an empty one in its place before its tables exist."""
        if self.exists():
            return self
        from kern_nb.db.memory import empty_store

        return empty_store(self.tables.name)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run one writing transaction; again where another one was in the way.

        Raises:
            ReadOnlyStore: the store was opened to be read.
        """
        if self.read_only:
            raise ReadOnlyStore(f"{self.url} is open read-only; nothing was written.", "Attach it without --read-only.")
        if not self.exists():
            self._transaction(lambda connection: schema.create(connection, self.tables))
            self._found = True
        return self._transaction(work)

    def _busy(self, error: Exception) -> Exception:
        """What is raised in the end where other writers were in the way each time."""
        if not isinstance(error, sa.exc.OperationalError):
            return error
        reason = str(error.orig).strip().splitlines()[0]
        return StoreBusy(f"{self.url} is busy: {reason}.", "Another process writes to it; try again when it is done.")

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(_TRIES):
            try:
                with self.connect(write=True) as connection:
                    return work(connection)
            except KernError:
                raise
            except Exception as error:
                if not self.is_conflict(error):
                    raise
                if attempt == _TRIES - 1:
                    raise self._busy(error) from error
                time.sleep(0.002 * 2 ** min(attempt, 7))
        raise AssertionError("unreachable")
