"""The DuckDB engine (the default): one file, native Arrow columns, shared between processes by a `Lease`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
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
from kern_nb.db.checkouts import Cursor
from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text
from kern_nb.db.database import BUSY_TIMEOUT_S
from kern_nb.db.disk_space import is_disk_full
from kern_nb.db.group_commit import GroupWriter
from kern_nb.db.lease import Lease, shared_lease
from kern_nb.db.schema import SESSION_TABLE, shared_tables
from kern_nb.db.statement_cache import create_engine
from kern_nb.db.store import SessionStore
from kern_nb.db.views import VIEWS
from kern_nb.errors import KernError, QueryFailed, QueryRefused, StoreUnavailable

T = TypeVar("T")

# Up to this many rows a VALUES list is faster than an Arrow table (measured with 20 columns).
FEW_ROWS = 25
_BATCH_ROWS = 100_000
_MAX_LARGEST = 1_000_000  # DuckDB's own limit of n in `max(column, n)`
_IS_DUCKDB_1 = duckdb.__version__.startswith("1.")


class DuckDb(SessionStore):
    """A store in one DuckDB file.

    Args:
        db_file: The file; created at the first write, with its folders.
        session_table: The name of the session table.
        read_only: Refuse writes, and share the file with other readers.
        timeout: Seconds to wait for another process before `StoreBusy`.

    Example:
        >>> DuckDb("data/sessions.duckdb").exists()  # no file is created before the first write
        False
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
        self.db_file = Path(db_file).absolute()  # a notebook may change its working directory
        self.timeout = timeout
        self._lease = shared_lease(self.db_file, read_only=read_only)
        self._intent = threading.local()  # of this thread's next checkout, see `_check_out`
        super().__init__(f"duckdb:///{db_file}", shared_tables(session_table, indexed=False), read_only=read_only)

    def is_there(self) -> bool:
        """Whether the file exists."""
        return self.db_file.exists()

    def exists(self) -> bool:
        """Whether the store's tables exist. A file that is not known to be a store is opened read-only.

        Opened for writing, DuckDB would merge the file's write-ahead log into it.
        """
        if self._found or not self.is_there():
            return super().exists()
        file = file_descriptors.file_id(self.db_file)
        self._intent.probe = _store_files.get(self._lease) != file
        try:
            exists = super().exists()
        finally:
            self._intent.probe = False
            self._lease.close(only_probe=True)
        if exists:
            _store_files[self._lease] = file
        return exists

    def _create(self) -> None:
        if not self.is_there():
            files.create_folders(self.db_file)
            with self.connect(write=True):  # creates an empty file, and leaves it open for a writer
                files.make_private(self.db_file)
        super()._create()
        _store_files[self._lease] = file_descriptors.file_id(self.db_file)

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine whose connections are checked out of the lease."""
        # A connection is closed when it is returned, which rolls back.
        engine = create_engine(
            "duckdb://", creator=self._check_out, poolclass=sa.pool.NullPool, pool_reset_on_return=None
        )

        @sa.event.listens_for(engine, "commit")
        def commit(connection: Connection) -> None:
            if connection.get_execution_options().get("kern_write"):
                self._before_commit()

        @sa.event.listens_for(engine, "do_execute")
        def execute_to_arrow(_: Any, statement: str, parameters: Any, context: Any) -> bool:
            if not context.execution_options.get("kern_arrow"):
                return False
            cursor: Cursor = context.root_connection.connection.driver_connection.driver
            context.kern_arrow = cursor.run(lambda raw: _arrow_result(raw, statement, parameters).to_arrow_table())
            return True

        return engine

    def _before_commit(self) -> None:
        """Make the log, which DuckDB would create world-readable, as private as the file."""
        files.create_beside(self.db_file, ".wal")

    def _check_out(self) -> duckdb_sqlalchemy.ConnectionWrapper:
        write, probe = (getattr(self._intent, name, False) for name in ("write", "probe"))
        return _CheckedOut(self._lease.acquire(self.timeout, write=write, probe=probe and not write))

    @contextmanager
    def _begin(self, *, write: bool) -> Iterator[Connection]:
        """Begin with one writer at a time in this process; the file excludes other processes."""
        self._intent.write = write  # for `_check_out`, which SQLAlchemy calls in this thread
        with super()._begin(write=write) as connection:
            self._intent.write = False
            yield connection

    def _small_transaction(self, work: Callable[[Connection], T]) -> T:
        """Commit with other threads' small writes: a commit waits for the disk, and the file admits one writer."""
        return self._group.write(work)

    @cached_property
    def _group(self) -> GroupWriter:
        return GroupWriter(self._transaction)

    def close(self) -> None:
        """Release the file."""
        super().close()
        self._lease.close()

    def insert(self, table: sa.Table) -> Any:
        """An INSERT with PostgreSQL's ON CONFLICT, which DuckDB supports."""
        return insert(table)

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert a few rows as one VALUES list, many as one Arrow table: DuckDB runs an executemany row by row."""
        if not rows:
            return
        names = [c.name for c in table.columns if c.name in rows[0]]
        columns = [_encode(table.c[name], list(map(itemgetter(name), rows)), connection.dialect) for name in names]
        preparer = connection.dialect.identifier_preparer
        insert_into = f"INSERT INTO {preparer.format_table(table)} ({', '.join(preparer.quote(n) for n in names)})"
        if len(rows) <= FEW_ROWS:
            placeholders = f"({', '.join('?' * len(names))})"
            values = tuple(value for row in zip(*columns, strict=True) for value in row)
            connection.exec_driver_sql(f"{insert_into} VALUES {', '.join([placeholders] * len(rows))}", values)
            return
        cursor: Cursor = connection.connection.driver_connection.driver  # type: ignore[union-attr]
        types = [_ARROW_TYPES.get(type(table.c[name].type), pa.string()) for name in names]
        arrays = [_arrow_array(column, type_) for column, type_ in zip(columns, types, strict=True)]
        cursor.register("kern_new_rows", pa.table(arrays, names=names))
        try:
            connection.exec_driver_sql(f"{insert_into} SELECT * FROM kern_new_rows")  # noqa: S608 - quoted names
        finally:
            cursor.unregister("kern_new_rows")

    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """Run a query; its columns as DuckDB returns them."""
        with self.connect() as connection:
            result = connection.execute(query, execution_options={"kern_arrow": True})
            return result.context.kern_arrow  # type: ignore[attr-defined]

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """Run one SELECT in a read-only transaction, on an instance without access to files."""
        cursor = self._lease.acquire(self.timeout)
        try:
            return cursor.run(lambda raw: self._read_sql(raw, text, params))
        except duckdb.PermissionException as error:
            raise QueryRefused(str(error), "SQL on a store can read its views only.") from error
        except KernError:
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's, if the query fails after some rows
            raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
        finally:
            cursor.close()

    def _read_sql(self, raw: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]) -> pa.Table:
        # Fully qualified: the temporary views are in a schema of the same name as the tables.
        database = raw.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        schema = sa.quoted_name(f"{database}.main", quote=False)
        duckdb_sql.require_select(raw, text, [*VIEWS, *duckdb_sql.list_tables(raw, database)])
        for statement in user_sql.create_view_statements(self, self.engine.dialect, schema):
            raw.execute(statement)
        raw.execute("BEGIN TRANSACTION READ ONLY")
        try:
            with _arrow_result(raw, text, dict(params) or None).to_arrow_reader(_BATCH_ROWS) as reader:
                return user_sql.read_table(reader)
        finally:
            raw.execute("ROLLBACK")

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """The n-th largest value of one column, which saves sorting all columns of all rows."""
        if n >= _MAX_LARGEST:
            return None
        return sa.func.list_min(sa.func.max(column, sa.literal_column(str(int(n)))))

    def require_harmless(self, connection: Connection) -> None:
        """Refuse a file in which a macro replaces a function of DuckDB, or a view a table."""
        raw = connection.connection.driver_connection.driver  # type: ignore[union-attr]
        names = [table.name for table in self.tables.metadata.sorted_tables]
        duckdb_sql.require_safe_catalog(raw, "kern_store", names, self.url)

    def is_conflict(self, error: Exception) -> bool:
        """Whether two transactions of one process changed the same row."""
        cause = getattr(error, "orig", error)
        failed = isinstance(cause, duckdb.TransactionException)
        return failed and not is_disk_full(cause) and "Could not" not in str(cause)

    def translate_error(self, error: Exception) -> BaseException | None:
        """Convert DuckDB's other errors: changed tables, damaged values, too little memory."""
        cause = getattr(error, "orig", error)
        explanation = super().translate_error(error)
        if explanation is not None or not isinstance(cause, duckdb.Error) or self.is_conflict(error):
            return explanation
        changed = isinstance(cause, (duckdb.CatalogException, duckdb.BinderException))
        hint = "Its tables were changed while it was open. Attach it again." if changed else "Run store.check()."
        return StoreUnavailable(f"{self.url}: {str(cause).strip().splitlines()[0]}", hint)


# The file in which each lease found the tables of a store.
_store_files: WeakKeyDictionary[Lease, file_descriptors.FileId] = WeakKeyDictionary()


def _arrow_result(raw: duckdb.DuckDBPyConnection, text: str, params: Any) -> Any:
    """Run a query; its result has `to_arrow_table` and `to_arrow_reader`.

    DuckDB 2 copies all rows of a result of ``execute``, and warns; DuckDB 1 copies all rows of a relation that has
    parameters.
    """
    return raw.execute(text, params) if _IS_DUCKDB_1 else raw.sql(text, params=params or None)


class _CheckedOut(duckdb_sqlalchemy.ConnectionWrapper):
    """A checked-out connection, as SQLAlchemy uses it."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor)  # type: ignore[arg-type]
        self.driver = cursor

    def rollback(self) -> None:
        """Roll back, unless the transaction belongs to the parent of this forked process."""
        if not self.driver.inherited:
            super().rollback()

    def close(self) -> None:
        """Return the connection to the lease."""
        self.driver.close()


_ARROW_TYPES = {Integer: pa.int64(), Real: pa.float64(), sa.LargeBinary: pa.binary(), Boolean: pa.bool_()}


_PLAIN_TYPES: dict[type, set[type]] = {
    Integer: {int, type(None)},
    Real: {float, type(None)},
    Boolean: {bool, type(None)},
}


def _is_plain(type_: Any, values: list[Any]) -> bool:
    """Whether a column of numbers needs no encoding: one test of all of them is faster than a call for each."""
    if not _PLAIN_TYPES.get(type(type_), set()).issuperset(map(type, values)):
        return False
    numbers = [value for value in values if value is not None]
    if isinstance(type_, Integer):
        return not numbers or (min(numbers) >= -(2**63) and max(numbers) < 2**63)
    return isinstance(type_, Boolean) or all(map(math.isfinite, numbers))


_NONE = {type(None)}


def _arrow_array(values: list[Any], type_: pa.DataType) -> pa.Array:
    return pa.nulls(len(values), type_) if _NONE.issuperset(map(type, values)) else pa.array(values, type_)


def _encode(column: sa.Column[Any], values: list[Any], dialect: sa.Dialect) -> list[Any]:
    type_ = column.type
    if not isinstance(type_, sa.types.TypeDecorator) or _NONE.issuperset(map(type, values)):
        return values
    if isinstance(type_, Json):
        texts = iter(codec.dumps_all([value for value in values if value is not None]))
        return [None if value is None else next(texts) for value in values]
    if isinstance(type_, Text):
        # Few texts need encoding: one test of all of them is faster.
        joined = "".join(filter(None, values))
        if codec.encode_text(joined) is joined:
            return values
    if _is_plain(type_, values):
        return values
    encode = type_.process_bind_param
    return [None if value is None else encode(value, dialect) for value in values]
