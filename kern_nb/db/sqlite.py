"""SQLite: one file, many processes (write-ahead log), one writer at a time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from kern_nb import files
from kern_nb.db import catalog, expand, query, schema, sqlite_files
from kern_nb.db.schema import SESSION_TABLE, Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import QueryFailed

BUSY_TIMEOUT_S = 30.0


def _adapted(value: Any) -> Any:
    """A parameter as SQLite has it: times as the views write them, in UTC."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return utc.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, (str, int, float, bytes, type(None))) else str(value)


_MAY = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


class SqliteDb(SessionStore):
    """A store in one SQLite file.

    Args:
        db_file: The file; made at the first write.
        session_table: The name of the sessions' table.
        read_only: Refuse writes.
        timeout: Seconds to wait for another writer.
    """

    def __init__(
        self,
        db_file: str | Path = "agent.db",
        *,
        session_table: str = SESSION_TABLE,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.db_file = Path(db_file).absolute()  # a notebook may change its folder
        self.timeout = timeout
        super().__init__(f"sqlite:///{db_file}", Tables(session_table), read_only=read_only)

    def is_there(self) -> bool:
        """Whether the file is there."""
        return self.db_file.exists()

    def has_tables(self) -> bool:
        """Whether the file has tables of ours, by a look that leaves no trace in or beside it."""
        with sqlite_files.untouched(self.db_file) as raw:
            if raw is None:
                return True
            engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool)
            with engine.connect() as connection:
                objects = catalog.objects(connection, None)
                return schema.has_ours(connection, self.tables, objects, **self._naming())

    def _create(self) -> None:
        files.create_private(self.db_file)  # SQLite gives its log and its journal the same mode
        super()._create()

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine that says BEGIN itself, so that a writer takes its lock at once and never has to give up midway."""
        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool)

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if not connection.get_execution_options().get("kern_write"):
                connection.exec_driver_sql("BEGIN")
                return
            if not connection.info.get("kern_wal"):  # by the first writer, as reading leaves a file as it is
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.info["kern_wal"] = True
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def _connect(self, mode: str | None = None) -> sqlite3.Connection:
        mode = mode or ("ro" if self.read_only else "rwc")
        connection = sqlite3.connect(
            f"file:{quote(self.db_file.absolute().as_posix())}?mode={mode}",
            uri=True,
            timeout=self.timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        # SQLite's own lower() knows ASCII only.
        connection.create_function("lower", 1, lambda text: text.lower() if text else text, deterministic=True)
        connection.create_function(expand.SQLITE_FUNCTION, -1, expand.cut_out, deterministic=True)
        return connection

    def insert(self, table: sa.Table) -> Any:
        """SQLite's ON CONFLICT."""
        return insert(table)

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """One prepared statement, many rows."""
        if rows:
            connection.execute(table.insert(), list(rows))

    def arrow(self, query_: sa.Select[Any]) -> pa.Table:
        """Rows turned into columns, each of the type its values have."""
        with self.connect() as connection:
            result = connection.execute(query_)
            return query.columns_of(list(result.keys()), result.all())

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT, on a connection that can only read."""
        # A connection of its own: the views must not be met by those who look for tables of the same names.
        with contextlib.closing(self._connect("ro")) as connection:
            for statement in query.view_statements(self, self.engine.dialect):
                connection.execute(statement)
            connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _MAY else sqlite3.SQLITE_DENY)
            try:
                cursor = connection.execute(text, {name: _adapted(value) for name, value in params.items()})
                names = [column[0] for column in cursor.description or ()]
                return query.columns_of(names, cursor.fetchall())
            except sqlite3.ProgrammingError as error:  # two statements, or a parameter without a value
                if "one statement" in str(error):
                    raise query.refused(text) from error
                raise QueryFailed(str(error), "Set a variable of that name.") from error
            except sqlite3.DatabaseError as error:
                if "not authorized" in str(error) or "prohibited" in str(error):
                    raise query.refused(text) from error
                raise QueryFailed(str(error), "The SQL dialect is SQLite's.") from error

    def is_conflict(self, error: Exception) -> bool:
        """Another writer kept the file longer than the time-out, or made the same tables at once."""
        return "database is locked" in str(error) or "already exists" in str(error)
