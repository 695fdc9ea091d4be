"""SQLite: one file, many processes (write-ahead log), one writer at a time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
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
from kern_nb._lazy import lazy_names
from kern_nb.db import (
    catalog,
    damaged_rows,
    lineage,
    schema_versions,
    sqlite_connections,
    sqlite_files,
    sqlite_sql,
    urls,
    user_sql,
)
from kern_nb.db.column_types import InvalidText
from kern_nb.db.database import BUSY_TIMEOUT_S
from kern_nb.db.disk_space import unavailable_error
from kern_nb.db.pools import raise_interrupt
from kern_nb.db.row_store import RowStore
from kern_nb.db.schema import SESSION_TABLE, shared_tables
from kern_nb.db.sql_expressions import JSON_AT_FUNCTION, extract_json
from kern_nb.db.sqlite_connections import SqliteConnection, SqlitePool, explain_error, is_busy, open_connection
from kern_nb.db.statement_cache import create_engine
from kern_nb.errors import BadUsage, DamagedRow, QueryFailed, StoreBusy


def _adapt(value: Any) -> Any:
    """Convert a parameter to a type of SQLite: times as text in UTC, like in the views."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return utc.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, (str, int, float, bytes, type(None))) else str(value)


def _decode_text(content: bytes) -> str | InvalidText:
    """Decode the text of a cell; the column's type refuses invalid UTF-8 with the key of its row."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return InvalidText(content)


def _lower(value: Any) -> Any:
    """Lower-case a text; it may come as bytes, as sqlite3 fails to pass invalid UTF-8 as text."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value.lower() if isinstance(value, str) else value


def _file_of_url(url: sa.URL) -> str:
    """Return the file of a URL.

    Raises:
        BadUsage: it is not the plain URL of a file of SQLite.
    """
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")) or url.query:
        message = f"{urls.format_url(url)!r} is not the URL of a SQLite file."
        raise BadUsage(message, "Pass sqlite:///agent.db, or use InMemoryDb() for a store in memory.")
    return url.database


class SqliteDb(RowStore):
    """A store in one SQLite file.

    Args:
        db_file: The file; created by the first write, with its folders.
        db_engine: An SQLAlchemy engine whose file it is, instead of ``db_file``; also an asynchronous one.
        db_url: The URL of the file, instead of ``db_file``.
        session_table: The name of the sessions' table.
        read_only: Refuse writes.
        timeout: Seconds to wait for another writer before `StoreBusy`.

    Example:
        >>> import tempfile
        >>> from kern_nb.records import Run
        >>> with tempfile.TemporaryDirectory() as folder, SqliteDb(f"{folder}/agent.db") as store:
        ...     run = store.append_run("chat", Run(input="Hi", output="Hello!"))
        ...     store.get_session("chat").runs[0].output
        'Hello!'
    """

    def __init__(
        self,
        db_file: str | Path = "agent.db",
        *,
        db_engine: Any = None,
        db_url: str | sa.URL | None = None,
        session_table: str = SESSION_TABLE,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        if db_engine is not None or db_url is not None:
            db_file = _file_of_url(
                urls.parse_url(db_url or "") if db_engine is None else urls.engine_url(db_engine, "sqlite")
            )
        self.db_file = Path(db_file).absolute()  # a notebook may change its working directory
        self.timeout = timeout
        super().__init__(f"sqlite:///{db_file}", shared_tables(session_table), read_only=read_only)

    def is_there(self) -> bool:
        """Whether the file exists."""
        return self.db_file.exists()

    def has_tables(self) -> bool:
        """Whether the file has tables of kern_nb, without any change to it or to the files beside it."""
        with sqlite_files.open_without_side_effects(self.db_file) as raw:
            if raw is None:
                return True
            engine = create_engine("sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool)
            with raise_interrupt(), engine.connect() as connection:
                objects = catalog.list_objects(connection, None)
                return schema_versions.has_kern_tables(connection, self.tables, objects, **self._schema_options())

    def _create(self) -> None:
        files.create_folders(self.db_file)
        files.create_private(self.db_file)  # SQLite gives its log and its journal the same mode
        super()._create()

    @cached_property
    def engine(self) -> sa.Engine:
        """An engine with explicit BEGIN: a writer takes its lock at the start and cannot fail midway."""
        engine = create_engine("sqlite://", creator=self._connect, poolclass=SqlitePool)

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            write = connection.get_execution_options().get("kern_write", False)
            raw: Any = connection.connection.driver_connection
            sqlite_connections.begin_transaction(raw, write=write, timeout=self.timeout)

        return engine

    def _connect(self, mode: str | None = None) -> SqliteConnection:
        try:
            connection = open_connection(self.db_file, mode or ("ro" if self.read_only else "rwc"), self.timeout)
        except sqlite3.Error as error:
            raise self.translate_error(error) or error from error
        connection.text_factory = _decode_text
        # SQLite's own lower() is ASCII only.
        connection.create_function("lower", 1, _lower, deterministic=True)
        connection.create_function(JSON_AT_FUNCTION, -1, extract_json, deterministic=True)
        connection.create_function(lineage.SQLITE_IN_SEGMENTS, 5, lineage.is_in_segments, deterministic=True)
        return connection

    def insert(self, table: sa.Table) -> Any:
        """SQLite's ON CONFLICT."""
        return insert(table)

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """Run one SELECT on a read-only connection."""
        # A separate connection: its views must not hide tables of the same names from other statements.
        with contextlib.closing(self._connect("ro")) as connection:
            for statement in user_sql.create_view_statements(self, self.engine.dialect):
                connection.execute(statement)
            authorizer = sqlite_sql.Authorizer(connection)
            try:
                cursor = connection.execute(text, {name: _adapt(value) for name, value in params.items()})
                names = [column[0] for column in cursor.description or ()]
                return user_sql.rows_to_arrow(names, user_sql.read_rows(cursor))
            except sqlite3.ProgrammingError as error:  # two statements, or a parameter without a value
                if "one statement" in str(error):
                    raise user_sql.not_select_error(text) from error
                raise QueryFailed(str(error), "Set a variable of that name.") from error
            except sqlite3.DatabaseError as error:
                if isinstance(cause := self.translate_error(error), (KeyboardInterrupt, StoreBusy)):
                    raise cause from None
                if "not authorized" in str(error) or "prohibited" in str(error):
                    raise (authorizer.denied or user_sql.not_select_error(text)) from error
                raise QueryFailed(str(error), "The SQL dialect is SQLite's.") from error

    def require_harmless(self, connection: Connection) -> None:
        """Refuse triggers, views and computed columns of the file's author in place of the tables."""
        raw: Any = connection.connection.driver_connection
        sqlite_sql.require_plain_tables(raw, [table.name for table in self.tables.metadata.sorted_tables], self.url)

    def is_conflict(self, error: Exception) -> bool:
        """Whether another connection has locked the file."""
        return is_busy(getattr(error, "orig", error))

    def translate_error(self, error: Exception) -> BaseException | None:
        """Translate an error by SQLite's result code."""
        cause = getattr(error, "orig", error)
        if not isinstance(cause, sqlite3.Error):
            return super().translate_error(error)
        if "disk I/O error" in str(cause) or "disk is full" in str(cause):
            return unavailable_error(self.url, cause, self.db_file)
        if isinstance(cause, sqlite3.IntegrityError):  # a writer is alone, so no other one took the key
            return DamagedRow(f"{self.url} has damaged rows: {cause}.", damaged_rows.HINT)
        return explain_error(cause, self.url)


__getattr__, __dir__ = lazy_names(
    __name__, {"kern_nb.db.async_stores": ["AsyncSqliteDb"]}
)  # where users of Agno look for it
