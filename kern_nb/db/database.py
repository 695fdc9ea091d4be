"""`Connected`: a store's way to its database. Transactions, retries, the schema; what an engine's file must provide.

Nothing here knows what a session is.
"""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.control_characters import escape_controls
from kern_nb.db import damaged_rows, schema
from kern_nb.db.disk_space import unavailable
from kern_nb.db.schema import Tables, UnreadableCell
from kern_nb.db.statements import Statements
from kern_nb.errors import KernError, ReadOnlyStore, StoreBusy, StoreUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

    from kern_nb.db.store import SessionStore

T = TypeVar("T")

_TRIES = 12
_stores: weakref.WeakSet[Connected] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child opens connections of its own; the parent's stay the parent's."""
    for store in list(_stores):
        store.after_fork()


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
        self.run_keys: OrderedDict[str, tuple[str, int]] = OrderedDict()  # see `appending.find_run`
        _stores.add(self)

    def __repr__(self) -> str:
        """The engine and the place."""
        return escape_controls(f"<{type(self).__name__} {self.url}{' (read-only)' if self.read_only else ''}>")

    def __enter__(self) -> Self:
        """Close the store at the end of the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store."""
        self.close()

    timeout: float = 30.0
    """Seconds that a transaction is tried again while others are in its way, before `StoreBusy`."""

    @property
    def database(self) -> str:
        """What tells one database from another: ``url``, which masks some of it, is only to be shown."""
        return self.url

    # What differs between engines -------------------------------------------------------------------------------------

    most_added_up: int | None = 10_000
    """So many sessions at most are ordered by a total, which is added up first: ten times as many take SQLite a second,
    at every page. None where there is no such limit."""

    readers_share = True
    """Whether others may write while a long reading transaction is open."""

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, made at first use."""

    @cached_property
    def statements(self) -> Statements:
        """The statements that write runs."""
        return Statements(self)

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

    def explain(self, error: Exception) -> BaseException | None:
        """What to raise in place of an error of the driver's; None for one that is not about the store."""
        if isinstance(error, sa.exc.StatementError) and isinstance(error.orig, KernError):
            return error.orig  # a value that the codec refused
        if not isinstance(error, sa.exc.OperationalError):
            return None
        return unavailable(self.url, error.orig, getattr(self, "db_file", None))

    def locked(self, query: sa.Select[Any], of: sa.Table | None = None) -> sa.Select[Any]:
        """The query, locking its rows (those ``of`` one table) where several transactions write at once."""
        return query

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """An aggregate, the n-th largest value of a column, where the engine has no index to find a page's rows by."""
        return None

    def require_harmless(self, connection: Connection) -> None:  # noqa: B027 - engines without files have no such thing
        """Check that a file's author put nothing in place of our tables and of what our statements call.

        Raises:
            NotAStore: they did.
        """

    def is_there(self) -> bool:
        """Whether there is a file or database to look into; never makes one."""
        return True

    def has_tables(self) -> bool:
        """Whether it may have tables of ours, before a connection is opened that could change another program's file.

        Raises:
            ForeignLayout: it has tables, and none of ours.
        """
        return True

    def locate_tables(self, connection: Connection) -> None:  # noqa: B027 - most engines have one schema
        """Find the schema that the tables are in, where the engine has several."""

    def close(self) -> None:
        """Let go of the file or the connections. A later call opens the store again."""
        self.engine.dispose()

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them."""
        if "engine" in vars(self):  # it is made at first use
            self.engine.dispose(close=False)

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
        """Whether the store's tables are there. Another program's database is left as it is, to the last byte.

        Raises:
            SchemaTooNew: a newer kern_nb wrote them.
            ForeignLayout: the database has tables and none of ours, or has another program's under one of our names.
            StoreUnavailable: they were there, and the file is not any more.
        """
        if not self.is_there():
            if self._found:
                raise StoreUnavailable(f"{self.url} is gone: its file was removed.", "Attach it again to start anew.")
            return False
        if not self._found:
            if not self.has_tables():
                return False
            with self.connect() as connection:
                self.locate_tables(connection)
                self.require_harmless(connection)
                found = schema.version(connection, self.tables, **self._naming())
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
        self._create()

    def _create(self) -> None:
        self._transaction(lambda connection: schema.create(connection, self.tables, **self._naming()))

    def _naming(self) -> dict[str, Any]:
        """What a look at the schema is told: whoever names a ``session_table`` agrees to ours beside others' tables."""
        named = self.tables.name != schema.SESSION_TABLE
        return {"beside_others": named and not self.read_only, "database": self.url}

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """A connection in a transaction; what the driver raises becomes an error of ours.

        Raises:
            StoreBusy: another process had the store locked. A writer gets the driver's error, to try again.
            StoreUnavailable: it cannot be reached.
        """
        engine = self.engine.execution_options(kern_write=write)
        try:
            with engine.begin() as connection:
                yield connection
        except KernError:
            raise
        except UnreadableCell as error:
            raise damaged_rows.error_of(self, error) from error
        except Exception as error:
            if write and self.is_conflict(error):
                raise
            cause = self._busy(error) if self.is_conflict(error) else self.explain(error)
            if cause is None or cause is error:
                raise
            raise cause from (error if isinstance(cause, KernError) else None)

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

    def write(self, work: Callable[[Connection], T], *, small: bool = False) -> T:
        """Run one writing transaction; again where another one was in the way.

        A ``small`` one may share its transaction with those of other threads, where the engine gains by that.

        Raises:
            ReadOnlyStore: the store was opened to be read.
        """
        if self.read_only:
            raise ReadOnlyStore(f"{self.url} is open read-only; nothing was written.", "Attach it without --read-only.")
        if not self.exists():
            self._create()
            self._found = True
        return self._small_transaction(work) if small else self._transaction(work)

    def _busy(self, error: Exception) -> Exception:
        """What is raised in the end where other writers were in the way each time."""
        if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.OperationalError):
            cause = self.explain(error)
            return cause if isinstance(cause, Exception) else error
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return StoreBusy(f"{self.url} is busy: {reason}.", "Another process writes to it; try again when it is done.")

    def _small_transaction(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self.timeout
        for attempt in range(_TRIES):
            try:
                with self.connect(write=True) as connection:
                    return work(connection)
            except KernError:
                raise
            except Exception as error:
                if not self.is_conflict(error):
                    raise
                if attempt == _TRIES - 1 or time.monotonic() >= deadline:
                    raise self._busy(error) from error
                time.sleep(0.002 * 2 ** min(attempt, 7))
        raise AssertionError("unreachable")
