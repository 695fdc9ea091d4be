"""DuckDB: the default engine. One file, columns handed over natively; shared between processes by a `Lease`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import duckdb
import duckdb_sqlalchemy
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb import files
from kern_nb.db import codec, duckdb_sql, file_descriptors, user_sql
from kern_nb.db.disk_space import is_full
from kern_nb.db.group_commit import GroupWriter
from kern_nb.db.lease import Cursor, Lease, lease_of
from kern_nb.db.schema import SESSION_TABLE, Flag, Real, Tables, Text, Whole
from kern_nb.db.store import SessionStore
from kern_nb.db.views import VIEWS
from kern_nb.errors import KernError, QueryFailed, QueryRefused, StoreUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
# Up to here a VALUES list is faster than handing over an Arrow table (measured with 20 columns).
FEW_ROWS = 25
_BATCH_ROWS = 100_000
_MOST_LARGEST = 1_000_000
"""DuckDB's own limit of n largest values."""


class DuckDb(SessionStore):
    """A store in one DuckDB file.

    Args:
        db_file: The file; made at the first write.
        session_table: The name of the sessions' table.
        read_only: Refuse writes, and open the file so that other readers may too.
        timeout: Seconds to wait for another process before `StoreBusy`.
    """

    readers_share = False
    most_added_up = None  # a column store adds up 100,000 in a tenth of a second

    def __init__(
        self,
        db_file: str | Path = "sessions.duckdb",
        *,
        session_table: str = SESSION_TABLE,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.db_file = Path(db_file).absolute()  # a notebook may change its folder
        self.timeout = timeout
        self._lease = lease_of(self.db_file, read_only=read_only)
        super().__init__(f"duckdb:///{db_file}", Tables(session_table, indexed=False), read_only=read_only)

    def is_there(self) -> bool:
        """Whether the file is there."""
        return self.db_file.exists()

    def exists(self) -> bool:
        """Whether the store's tables are there. A file that is not known to be ours is looked into read-only.

        Opened to be written, DuckDB would put the file's write-ahead log into it.
        """
        if self._found or not self.is_there():
            return super().exists()
        file = file_descriptors.file_id(self.db_file)
        self._intent.look = _ours.get(self._lease) != file
        try:
            there = super().exists()
        finally:
            self._intent.look = False
            self._lease.end_look()
        if there:
            _ours[self._lease] = file
        return there

    def _create(self) -> None:
        if not self.is_there():
            with super().connect():  # makes the file, with nothing in it yet
                files.make_private(self.db_file)
        super()._create()
        _ours[self._lease] = file_descriptors.file_id(self.db_file)

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine whose connections are lent by the lease."""
        # A connection is closed when it comes back, which rolls back: no need to do so before.
        engine = sa.create_engine(
            "duckdb://", creator=self._lend, poolclass=sa.pool.NullPool, pool_reset_on_return=None
        )

        @sa.event.listens_for(engine, "commit")
        def commit(connection: Connection) -> None:
            if connection.get_execution_options().get("kern_write"):
                self._before_commit()

        return engine

    def _before_commit(self) -> None:
        """Have the log, which DuckDB makes now and would let everyone read, as private as the file."""
        files.create_beside(self.db_file, ".wal")

    def _lend(self) -> duckdb_sqlalchemy.ConnectionWrapper:
        write, look = (getattr(self._intent, name, False) for name in ("write", "look"))
        return _Lent(self._lease.acquire(self.timeout, write=write, look=look and not write))

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """One writer at a time in this process; other processes are kept out by the file."""
        self._intent.write = write  # for `_lend`, which SQLAlchemy calls in this thread
        with super().connect(write=write) as connection:
            self._intent.write = False
            yield connection

    def _small_transaction(self, work: Callable[[Connection], T]) -> T:
        """A commit waits for the disk, and the file admits one writer: those who wait commit together."""
        return self._group.write(work)

    @cached_property
    def _group(self) -> GroupWriter:
        return GroupWriter(self._transaction)

    @cached_property
    def _intent(self) -> threading.local:
        return threading.local()

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()
        self._lease.close()

    def insert(self, table: sa.Table) -> Any:
        """DuckDB shares PostgreSQL's ON CONFLICT."""
        return insert(table)

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """A few rows go in as one VALUES list, many as one Arrow table: DuckDB runs an executemany row by row."""
        if not rows:
            return
        names = [c.name for c in table.columns if c.name in rows[0]]
        columns = [_encoded(table.c[name], [row[name] for row in rows], connection.dialect) for name in names]
        quoted = connection.dialect.identifier_preparer
        into = f"INSERT INTO {quoted.format_table(table)} ({', '.join(quoted.quote(n) for n in names)})"
        if len(rows) <= FEW_ROWS:
            one = f"({', '.join('?' * len(names))})"
            values = tuple(value for row in zip(*columns, strict=True) for value in row)
            connection.exec_driver_sql(f"{into} VALUES {', '.join([one] * len(rows))}", values)
            return
        raw: Cursor = connection.connection.driver_connection.driver  # type: ignore[union-attr]
        kinds = [_ARROW_TYPES.get(type(table.c[name].type), pa.string()) for name in names]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        raw.register("kern_new_rows", pa.table(arrays, names=names))
        try:
            connection.exec_driver_sql(f"{into} SELECT * FROM kern_new_rows")  # noqa: S608 - the names are the table's
        finally:
            raw.unregister("kern_new_rows")

    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """The columns as DuckDB has them."""
        with self.connect() as connection:
            result = connection.execution_options(duckdb_arrow=True).execute(query)
            return result.arrow  # type: ignore[attr-defined]

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT, in a read-only transaction, on an instance that has no access to files."""
        cursor = self._lease.acquire(self.timeout)
        try:
            return cursor.run(lambda raw: self._read_sql(raw, text, params))
        except duckdb.PermissionException as error:
            raise QueryRefused(str(error), "A store's SQL reaches its views only.") from error
        except KernError:
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's, where it fails after some rows
            raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
        finally:
            cursor.close()

    def _read_sql(self, raw: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]) -> pa.Table:
        # Named in full: the temporary views stand in a schema of the same name as the tables.
        database = raw.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        schema = sa.quoted_name(f"{database}.main", quote=False)
        duckdb_sql.require_reading(raw, text, [*VIEWS, *duckdb_sql.base_tables(raw, database)])
        for statement in user_sql.view_statements(self, self.engine.dialect, schema):
            raw.execute(statement)
        raw.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return user_sql.bounded_table(raw.execute(text, dict(params) or None).to_arrow_reader(_BATCH_ROWS))
        finally:
            raw.execute("ROLLBACK")

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """Found on the one column, it spares reading all columns of all rows to keep the top n."""
        if n >= _MOST_LARGEST:
            return None
        return sa.func.list_min(sa.func.max(column, sa.literal_column(str(int(n)))))

    def require_harmless(self, connection: Connection) -> None:
        """No macro of the file may stand for a function of DuckDB's, no view for a table."""
        raw = connection.connection.driver_connection.driver  # type: ignore[union-attr]
        names = [table.name for table in self.tables.metadata.sorted_tables]
        duckdb_sql.require_harmless(raw, "kern_store", names, self.url)

    def is_conflict(self, error: Exception) -> bool:
        """Two transactions of one process changed the same row."""
        cause = getattr(error, "orig", error)
        return isinstance(cause, duckdb.TransactionException) and not is_full(cause) and "Could not" not in str(cause)

    def translate_error(self, error: Exception) -> BaseException | None:
        """DuckDB's other errors: tables that changed under the store, damaged values, too little memory."""
        cause = getattr(error, "orig", error)
        known = super().translate_error(error)
        if known is not None or not isinstance(cause, duckdb.Error) or self.is_conflict(error):
            return known
        changed = isinstance(cause, (duckdb.CatalogException, duckdb.BinderException))
        hint = "Its tables were changed while it was open. Attach it again." if changed else "Look at store.check()."
        return StoreUnavailable(f"{self.url}: {str(cause).strip().splitlines()[0]}", hint)


# The file in which each lease saw tables of ours.
_ours: WeakKeyDictionary[Lease, tuple[int, int]] = WeakKeyDictionary()


class _Lent(duckdb_sqlalchemy.ConnectionWrapper):
    """A connection on loan, as SQLAlchemy uses it."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor)  # type: ignore[arg-type]
        self.driver = cursor

    def rollback(self) -> None:
        """Roll back, unless the transaction is the parent's of this forked process."""
        if not self.driver.inherited:
            super().rollback()

    def close(self) -> None:
        """Give it back to the lease."""
        self.driver.close()


_ARROW_TYPES = {Whole: pa.int64(), Real: pa.float64(), sa.LargeBinary: pa.binary(), Flag: pa.bool_()}


def _encoded(column: sa.Column[Any], values: list[Any], dialect: sa.Dialect) -> list[Any]:
    """The values as they are stored."""
    kind = column.type
    if not isinstance(kind, sa.types.TypeDecorator):
        return values
    if isinstance(kind, Text):
        # Few texts need encoding: whether any does is asked of all at once.
        together = "".join(filter(None, values))
        if codec.encode_text(together) is together:
            return values
    encode = kind.process_bind_param
    return [None if value is None else encode(value, dialect) for value in values]
