"""`Database`: connections, transactions, retries and the schema of a store, and what each engine implements.

It has no methods for sessions or runs.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.control_characters import escape_controls
from kern_nb.db import damaged_rows, heartbeats, schema, schema_versions
from kern_nb.db.column_types import UnreadableCell
from kern_nb.db.disk_space import unavailable_error
from kern_nb.db.pools import raise_interrupt
from kern_nb.db.schema import Tables
from kern_nb.db.statements import Statements
from kern_nb.db.transactions import OpenTransaction
from kern_nb.errors import BadUsage, KernError, ReadOnlyStore, StoreBusy, StoreUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
_MAX_TRIES = 12
_stores: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    """Let a forked child open its own connections and leave the parent's alone."""
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Database(ABC):
    """A database with the tables of a workload. Before the first write, no file is created and nothing is written.

    Attributes:
        url: The URL, without a password.
        tables: The SQLAlchemy tables.
        read_only: Whether writes are refused.
    """

    def __init__(self, url: str, tables: Tables, *, read_only: bool = False) -> None:
        self.url = url
        self.tables = tables
        self.read_only = read_only
        self._found = False
        self.run_keys: OrderedDict[str, tuple[str, int]] = OrderedDict()  # see `open_runs.find_run_key`
        self._thread = threading.local()  # ``transaction``: the one that this thread began last
        _stores.add(self)

    def __repr__(self) -> str:
        return escape_controls(f"<{type(self).__name__} {self.url}{' (read-only)' if self.read_only else ''}>")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    timeout: float = BUSY_TIMEOUT_S
    """Seconds to retry a transaction that conflicts with others, before `StoreBusy`."""

    @property
    def database(self) -> str:
        """A unique name of the database; ``url``, which masks a part, is for display."""
        return self.url

    # Per engine -------------------------------------------------------------------------------------------------------

    most_added_up: int | None = 10_000
    """The most sessions that can be sorted by a total, which is computed first: SQLite needs a second for ten times as
    many, at every page. None for no limit."""

    has_heartbeats = True
    """Whether another process can read the runs that this one writes."""

    readers_share = True
    """Whether others may write while a long reading transaction is open."""

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, created at first use."""

    @cached_property
    def statements(self) -> Statements:
        """The prepared statements that write runs."""
        return Statements(self)

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """The engine's INSERT with ON CONFLICT."""

    @abstractmethod
    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert many rows as fast as the engine can."""

    @abstractmethod
    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """The result of a query as an Arrow table, in the store's encoding."""

    @abstractmethod
    def run_sql(self, query: str, params: Mapping[str, Any]) -> pa.Table:
        """The result of a user's read-only SQL over the views."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Whether a transaction failed because of a concurrent one, and may be retried."""

    def translate_error(self, error: Exception) -> BaseException | None:
        """The error to raise in place of a driver's; None if it is not about the store."""
        if isinstance(error, sa.exc.StatementError) and isinstance(error.orig, KernError):
            return error.orig  # a value that the codec rejected
        if not isinstance(error, sa.exc.OperationalError):
            return None
        return unavailable_error(self.url, error.orig, getattr(self, "db_file", None))

    def lock_imports(self, connection: Connection) -> None:  # noqa: B027 - the others have one writer at a time
        """Let other imports into these tables wait until the transaction ends, on an engine with concurrent writers.

        Each compares what it imports with what is stored.
        """

    def locked(self, query: sa.Select[Any], of: sa.Table | None = None) -> sa.Select[Any]:
        """The query with row locks (on one table, with ``of``), on an engine with concurrent writers."""
        return query

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """An aggregate for the n-th largest value of a column, on an engine without an index to find a page's rows."""
        return None

    def require_harmless(self, connection: Connection) -> None:  # noqa: B027 - only engines with files need it
        """Check that a file does not replace our tables or the functions that our statements call.

        Raises:
            NotAStore: It does.
        """

    def is_there(self) -> bool:
        """Whether the file or database exists; does not create it."""
        return True

    def has_tables(self) -> bool:
        """Whether it may have our tables; called before a connection that could change another program's file.

        Raises:
            ForeignLayout: It has tables, and none of ours.
        """
        return True

    def locate_tables(self, connection: Connection) -> None:  # noqa: B027 - most engines have one schema
        """Find the schema of the tables, on an engine with several."""

    def close(self) -> None:
        """Close the file or the connections. A later call opens the store again."""
        heartbeats.forget(self)
        self.engine.dispose()

    def after_fork(self) -> None:
        """Drop the parent's connections in a forked child, without closing them."""
        if "engine" in vars(self):  # it is created at first use
            self.engine.dispose(close=False)

    def reopen(self) -> None:
        """Close the store and look for its tables again: its server may have restarted, its file may be another one.

        Raises:
            StoreUnavailable: The file does not exist.
        """
        self.close()
        if self._found and not self.is_there():
            raise StoreUnavailable(f"{self.url} does not exist.", "Restore its file, or attach another store.")
        self._found = False
        self.exists()

    # Transactions -----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the store's tables exist. Another program's database is not changed, not even by a byte.

        Raises:
            SchemaTooNew: A newer kern_nb wrote them.
            ForeignLayout: The database has tables and none of ours, or another program's with one of our names.
            StoreUnavailable: The file was removed since.
        """
        if not self.is_there():
            if self._found:
                raise StoreUnavailable(f"{self.url} was removed.", "Attach it again to create a new store.")
            return False
        if not self._found:
            if not self.has_tables():
                return False
            with self.connect() as connection:
                self.locate_tables(connection)
                self.require_harmless(connection)
                version = schema_versions.read_version(connection, self.tables, **self._schema_options())
            if version is not None and version < schema_versions.SCHEMA_VERSION:
                self._upgrade(version)
            self._found = version is not None
        return self._found

    def _upgrade(self, version: int) -> None:
        if self.read_only:
            raise ReadOnlyStore(
                f"{self.url} has schema version {version}; "
                f"this kern_nb reads version {schema_versions.SCHEMA_VERSION}.",
                "Open it once without read_only=True to upgrade it in place.",
            )
        self._create()

    def _create(self) -> None:
        self._transaction(
            lambda connection: schema_versions.create_tables(connection, self.tables, **self._schema_options())
        )

    def _schema_options(self) -> dict[str, Any]:
        """Options for `schema`: with a ``session_table`` of their own, a user allows our tables beside others'."""
        has_custom_name = self.tables.name != schema.SESSION_TABLE
        return {"beside_others": has_custom_name and not self.read_only, "database": self.url}

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """A connection in a transaction: the open one of this thread, or a new one. The driver's errors are translated.

        Raises:
            StoreBusy: Another process has locked the store. A writer gets the driver's error, to retry.
            StoreUnavailable: It cannot be reached.
            TransactionFailed: A call in the open transaction failed before.
        """
        shared = self._open_transaction()
        try:
            with self._begin(write=write) if shared is None else shared.connection(write=write) as connection:
                yield connection
        except Exception as error:
            if write and shared is None and self.is_conflict(error):
                raise
            self._raise_translated(error)

    @contextmanager
    def _begin(self, *, write: bool) -> Iterator[Connection]:
        """A connection in a transaction of its own."""
        # Not options of the engine: each copy of it requests a logger, and Ctrl-C may leave the lock of the logging
        # module acquired forever.
        with (
            raise_interrupt(),
            self.engine.connect() as connection,
            connection.execution_options(kern_write=write).begin(),
        ):
            try:
                yield connection
            except Exception:
                raise
            except BaseException:
                # The traceback, which IPython keeps, may keep a statement: SQLite could not commit on this connection.
                connection.invalidate()
                raise

    def _raise_translated(self, error: Exception) -> NoReturn:
        """Raise the error to show in place of a driver's; called where it is handled."""
        if isinstance(error, KernError):
            raise error
        if isinstance(error, UnreadableCell):
            raise damaged_rows.damaged_row_error(self, error) from error
        cause = self._busy(error) if self.is_conflict(error) else self.translate_error(error)
        if cause is None or cause is error:
            raise error
        raise cause from (error if isinstance(cause, KernError) else None)

    def _open_transaction(self) -> OpenTransaction | None:
        """The transaction that the calls of this thread share; see `transaction`."""
        reference: weakref.ref[OpenTransaction] | None = getattr(self._thread, "transaction", None)
        transaction = reference() if reference is not None else None
        return transaction if transaction is not None and transaction.is_current() else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let all calls of this thread in a block share one transaction.

        What they write is committed together at the end of the block, and rolled back if an exception leaves it. They
        read what they have written; others do not, until the end. A block within the block is the same transaction. A
        run that is written as it happens costs about as much as one `append_run`.

        Other writers, those of other threads included, wait until the end, on DuckDB readers in other processes, too:
        no block waits for a model, a person, another thread (an agent's run is one) or an ``await``. The function that
        begins the block ends it. A conflict with another writer is not retried, since only the whole block could be:
        the call raises `StoreBusy`. After a call that failed to write, the block can only be left.

        Raises:
            ReadOnlyStore: The store is open read-only.
            StoreBusy: Another transaction conflicts with this one.
            TransactionFailed: A call in it failed, and the exception did not leave the block; nothing is stored.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> store = InMemoryDb()
            >>> with store.transaction():
            ...     run = store.start_run("chat", input="Hello")
            ...     end = store.finish_run(run.run_id, output="Hi!")
            >>> store.get_session("chat").runs
            [<Run chat/0 COMPLETED, 0 messages, 0 tool calls: 'Hi!'>]
        """
        outer = self._open_transaction()
        if outer is not None:
            with outer.nested():
                yield
            return
        self._prepare_write()
        block_error: BaseException | None = None
        try:
            with self._begin(write=True) as connection:
                transaction = OpenTransaction(self.url, connection)
                try:
                    self._thread.transaction = weakref.ref(transaction)  # a block that is dropped is rolled back
                    yield
                    transaction.require_intact()
                except BaseException as error:
                    block_error = error
                    self.run_keys.clear()  # those of runs that are rolled back
                    raise
                finally:
                    transaction.end()
        except Exception as error:
            if error is block_error:
                raise
            self._raise_translated(error)

    def require_committed(self, name: str) -> None:
        """Check that a call, which would not see what an open transaction of this thread has written, is outside of it.

        Raises:
            BadUsage: A transaction is open.
        """
        if self._open_transaction() is not None:
            raise BadUsage(
                f"{name} reads what is committed, and a transaction is open.",
                f"Call {name} after the `with store.transaction()` block; frames can be read in it.",
            )

    @contextmanager
    def read_connection(self) -> Iterator[Connection]:
        """A connection to read records, before the first write those of an empty store."""
        source = self._source()
        with source.connect() as connection:
            if source is not self and self.tables.metadata.schema:  # its tables have no schema
                connection.execution_options(schema_translate_map={self.tables.metadata.schema: None})
            yield connection

    def _source(self) -> Database:
        """The store itself, or an empty one before its tables exist."""
        return self if self.exists() else self._empty_store()

    @abstractmethod
    def _empty_store(self) -> Database:
        """A store without rows, with tables of the same name."""

    def write(self, work: Callable[[Connection], T], *, small: bool = False) -> T:
        """Run a write transaction; retry it after a conflict. In `transaction`, run in the open one, once.

        A ``small`` one may share its transaction with those of other threads, if that is faster on the engine.

        Raises:
            ReadOnlyStore: The store is open read-only.
            StoreBusy: Each try conflicted with another transaction.
        """
        shared = self._open_transaction()
        if shared is not None:  # not retried: what was written before would be missing
            with self.connect(write=True) as connection:
                return work(connection)
        self._prepare_write()
        return self._small_transaction(work) if small else self._transaction(work)

    def _prepare_write(self) -> None:
        """Check that the store may be written, and create it before the first write."""
        if self.read_only:
            raise ReadOnlyStore(f"{self.url} is open read-only; nothing was written.", "Attach it without --read-only.")
        if not self.exists():
            self._create()
            self._found = True

    def _busy(self, error: Exception) -> Exception:
        """The error to raise when each try conflicted with other writers."""
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return StoreBusy(f"{self.url} is busy: {reason}.", "Another process writes to it; retry when it has finished.")

    def _small_transaction(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self.timeout
        for attempt in range(_MAX_TRIES):
            try:
                with self.connect(write=True) as connection:
                    return work(connection)
            except KernError:
                raise
            except Exception as error:
                if not self.is_conflict(error):
                    raise
                if attempt == _MAX_TRIES - 1 or time.monotonic() >= deadline:
                    raise self._busy(error) from error
                time.sleep(0.002 * 2 ** min(attempt, 7))
        raise AssertionError("unreachable")
