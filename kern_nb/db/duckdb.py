"""DuckDB: the default engine. One file, columns handed over natively; shared between processes by a `Lease`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import duckdb_sqlalchemy
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb.db import codec, query
from kern_nb.db.lease import Cursor, lease_of
from kern_nb.db.schema import Tables, Text
from kern_nb.db.space import is_full
from kern_nb.db.store import SessionStore
from kern_nb.errors import QueryFailed, QueryRefused

BUSY_TIMEOUT_S = 30.0
# Up to here a VALUES list is faster than handing over an Arrow table (measured with 20 columns).
FEW_ROWS = 25


class DuckDb(SessionStore):
    """A store in one DuckDB file.

    Args:
        db_file: The file; made at the first write.
        session_table: The name of the sessions' table.
        read_only: Refuse writes, and open the file so that other readers may too.
        timeout: Seconds to wait for another process before `StoreBusy`.
    """

    most_added_up = None  # a column store adds up 100,000 in a tenth of a second

    def __init__(
        self,
        db_file: str | Path = "sessions.duckdb",
        *,
        session_table: str = "agno_sessions",
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

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine whose connections are lent by the lease."""
        # A connection is closed when it comes back, which rolls back: no need to do so before.
        return sa.create_engine("duckdb://", creator=self._lend, poolclass=sa.pool.NullPool, pool_reset_on_return=None)

    def _lend(self) -> duckdb_sqlalchemy.ConnectionWrapper:
        return _Lent(self._lease.acquire(self.timeout, write=getattr(self._intent, "write", False)))

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """One writer at a time in this process; other processes are kept out by the file."""
        self._intent.write = write  # for `_lend`, which SQLAlchemy calls in this thread
        with super().connect(write=write) as connection:
            self._intent.write = False
            yield connection

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
        try:
            statements = duckdb.extract_statements(text)
        except duckdb.Error as error:
            raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in allowed:
            raise query.refused(text)
        cursor = self._lease.acquire(self.timeout)
        try:
            return cursor.run(lambda raw: self._read_sql(raw, text, params))
        except duckdb.PermissionException as error:
            raise QueryRefused(str(error), "A store's SQL reaches its views only.") from error
        except duckdb.Error as error:
            raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
        finally:
            cursor.close()

    def _read_sql(self, raw: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]) -> pa.Table:
        # Named in full: the temporary views stand in a schema of the same name as the tables.
        database = raw.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        schema = sa.quoted_name(f"{database}.main", quote=False)
        for statement in query.view_statements(self, self.engine.dialect, schema):
            raw.execute(statement)
        raw.execute("SET TimeZone = 'UTC'")
        raw.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return raw.execute(text, dict(params) or None).to_arrow_table()
        finally:
            raw.execute("ROLLBACK")

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """Found on the one column, it spares reading all columns of all rows to keep the top n."""
        return sa.func.list_min(sa.func.max(column, sa.literal_column(str(int(n)))))

    def is_conflict(self, error: Exception) -> bool:
        """Two transactions of one process changed the same row."""
        cause = getattr(error, "orig", error)
        return isinstance(cause, duckdb.TransactionException) and not is_full(cause) and "Could not" not in str(cause)


class _Lent(duckdb_sqlalchemy.ConnectionWrapper):
    """A connection on loan, as SQLAlchemy uses it."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor)  # type: ignore[arg-type]
        self.driver = cursor

    def close(self) -> None:
        """Give it back to the lease."""
        self.driver.close()


_ARROW_TYPES = {sa.BigInteger: pa.int64(), sa.Double: pa.float64(), sa.LargeBinary: pa.binary(), sa.Boolean: pa.bool_()}


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
