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

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from kern_nb import files
from kern_nb.db import catalog, json_columns, lineage, schema, sqlite_connections, sqlite_files, sqlite_sql, user_sql
from kern_nb.db.disk_space import unavailable
from kern_nb.db.schema import SESSION_TABLE, NotText, Tables
from kern_nb.db.sqlite_connections import SqliteConnection, SqlitePool, explained, is_busy, open_connection
from kern_nb.db.store import SessionStore
from kern_nb.errors import QueryFailed, StoreBusy

BUSY_TIMEOUT_S = 30.0


def _adapted(value: Any) -> Any:
    """A parameter as SQLite has it: times as the views write them, in UTC."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return utc.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, (str, int, float, bytes, type(None))) else str(value)


def _text(content: bytes) -> str | NotText:
    """Text of a cell; what is no UTF-8 the column's type refuses, with the row's name."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return NotText(content)


def _lower(value: Any) -> Any:
    """Lower case; bytes are text that is handed over so, as SQLite hands over no text that is no UTF-8."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value.lower() if isinstance(value, str) else value


class SqliteDb(SessionStore):
    """A store in one SQLite file.

    Args:
        db_file: The file; made at the first write.
        session_table: The name of the sessions' table.
        read_only: Refuse writes.
        timeout: Seconds to wait for another writer before `StoreBusy`.
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
                return schema.has_ours(connection, self.tables, objects, **self._schema_options())

    def _create(self) -> None:
        files.create_private(self.db_file)  # SQLite gives its log and its journal the same mode
        super()._create()

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine that says BEGIN itself, so that a writer takes its lock at once and never has to give up midway."""
        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=SqlitePool)

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            write = connection.get_execution_options().get("kern_write", False)
            raw: Any = connection.connection.driver_connection
            sqlite_connections.begin(raw, write=write, timeout=self.timeout)

        return engine

    def _connect(self, mode: str | None = None) -> SqliteConnection:
        """A connection of its own, for the calling thread until it is closed."""
        try:
            connection = open_connection(self.db_file, mode or ("ro" if self.read_only else "rwc"), self.timeout)
        except sqlite3.Error as error:
            raise self.translate_error(error) or error from error
        connection.text_factory = _text
        # SQLite's own lower() knows ASCII only.
        connection.create_function("lower", 1, _lower, deterministic=True)
        connection.create_function(json_columns.SQLITE_FUNCTION, -1, json_columns.cut_out, deterministic=True)
        connection.create_function(lineage.SQLITE_IN_SEGMENTS, 5, lineage.is_in_segments, deterministic=True)
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
            return user_sql.columns_of(list(result.keys()), result.all())

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT, on a connection that can only read."""
        # A connection of its own: the views must not be met by those who look for tables of the same names.
        with contextlib.closing(self._connect("ro")) as connection:
            for statement in user_sql.view_statements(self, self.engine.dialect):
                connection.execute(statement)
            authorizer = sqlite_sql.Authorizer(connection)
            try:
                cursor = connection.execute(text, {name: _adapted(value) for name, value in params.items()})
                names = [column[0] for column in cursor.description or ()]
                return user_sql.columns_of(names, user_sql.bounded_rows(cursor))
            except sqlite3.ProgrammingError as error:  # two statements, or a parameter without a value
                if "one statement" in str(error):
                    raise user_sql.refused(text) from error
                raise QueryFailed(str(error), "Set a variable of that name.") from error
            except sqlite3.DatabaseError as error:
                if isinstance(cause := self.translate_error(error), (KeyboardInterrupt, StoreBusy)):
                    raise cause from None
                if "not authorized" in str(error) or "prohibited" in str(error):
                    raise (authorizer.denied or user_sql.refused(text)) from error
                raise QueryFailed(str(error), "The SQL dialect is SQLite's.") from error

    def require_harmless(self, connection: Connection) -> None:
        """No trigger, view or computed column of the file's author may stand in for our tables."""
        raw: Any = connection.connection.driver_connection
        sqlite_sql.require_harmless(raw, [table.name for table in self.tables.metadata.sorted_tables], self.url)

    def is_conflict(self, error: Exception) -> bool:
        """Another writer had the file locked."""
        return is_busy(getattr(error, "orig", error))

    def translate_error(self, error: Exception) -> BaseException | None:
        """By SQLite's result codes."""
        cause = getattr(error, "orig", error)
        if isinstance(cause, sqlite3.Error) and any(
            words in str(cause) for words in ("disk I/O error", "disk is full")
        ):
            return unavailable(self.url, cause, self.db_file)
        return explained(cause, self.url) if isinstance(cause, sqlite3.Error) else super().translate_error(error)
