"""PostgreSQL through psycopg 3: for many notebooks and machines."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb._lazy import lazy_names
from kern_nb.db import catalog, fork_safety, postgres_sql, sql_parameters, urls, user_sql
from kern_nb.db.database import BUSY_TIMEOUT_S
from kern_nb.db.disk_space import disk_full_error
from kern_nb.db.pools import InterruptSafeQueuePool, raise_interrupt
from kern_nb.db.row_store import RowStore
from kern_nb.db.schema import SESSION_TABLE, shared_tables
from kern_nb.db.schema_versions import not_a_table_error
from kern_nb.db.statement_cache import create_engine
from kern_nb.errors import (
    BadUsage,
    KernError,
    QueryFailed,
    QueryRefused,
    ReadOnlyStore,
    StoreBusy,
    StoreNotFound,
    StoreUnavailable,
    UnstorableValue,
)

_RETRYABLE = (
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.UniqueViolation,
    pg.DuplicateTable,  # two stores create the same tables
    pg.DuplicateObject,
    pg.DuplicateColumn,  # or upgrade them
)

# Prefixes of the SQLSTATE: the class of the error, or the whole code.
_SERVER_GONE = ("08", "57P", "25P03", "58", "XX", "F0")
_SERVER_FULL = ("53",)
_BUSY = ("57014", "40001", "40P01", "53300")  # canceled, serialization failure, deadlock, too many connections
_LAYOUT = ("42P01", "42703", "42704", "42883", "3F")

_TRANSLATIONS: list[tuple[tuple[str, ...], type[KernError], str]] = [
    (("25006",), ReadOnlyStore, "Connect to the primary server as a user that may write; nothing was written."),
    (_BUSY, StoreBusy, "Try again; if the error persists, check the load and the limits of the server."),
    (_SERVER_FULL, StoreUnavailable, "Nothing was stored. Free disk space or memory on the server, then try again."),
    (_LAYOUT, StoreUnavailable, "The tables were changed while the store was open. Attach it again."),
    (("22", "54"), UnstorableValue, "Nothing was stored."),
    (("23",), StoreBusy, "Another writer stored the same row at the same time; nothing was stored. Try again."),
]
"""By SQLSTATE, the first that matches: the error to raise and its hint."""

_connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


def _detach_inherited() -> None:
    """Disconnect a forked child's inherited connections from their sockets, which belong to the parent.

    A transaction that was open at the fork, or the garbage collector, then fails on a closed socket, instead of sending
    ROLLBACK or the end of the session to the parent's server process.
    """
    if not _connections:
        return
    closed, other_end = socket.socketpair()
    with closed:
        other_end.close()
        for connection in list(_connections):
            if not connection.closed:
                fork_safety.leak(connection)
                os.dup2(closed.fileno(), connection.fileno(), inheritable=False)
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_inherited)  # also for stores without references


def _connect_by_engine(db_engine: sa.Engine) -> Any:
    """Return a connection that an engine of the user makes, and that it then no longer pools."""
    pooled = db_engine.raw_connection()
    connection: Any = pooled.dbapi_connection
    pooled.detach()
    connection.rollback()
    connection.autocommit = False
    return connection


class PostgresDb(RowStore):
    """A store in a PostgreSQL database.

    Args:
        db_url: An SQLAlchemy URL; ``postgresql://`` means ``postgresql+psycopg://``.
        db_engine: An SQLAlchemy engine, instead of ``db_url``. With psycopg, it makes the connections, so that its
            ``connect_args`` and listeners apply; of another driver or an asynchronous one, only the URL is used.
        session_table: The name of the sessions' table.
        db_schema: The database schema, which must exist. If None, the first schema of the connection's search path that
            has this table, else one with another workload, else the first in which tables may be created.
        read_only: Refuse writes.
        timeout: Seconds to wait for another transaction's lock, or for a connection, before `StoreBusy`.

    Example:
        >>> store = PostgresDb("postgresql://ada:secret@db.example.org/agents")  # connects at first use
        >>> store.url
        'postgresql://ada:***@db.example.org/agents'
    """

    def __init__(
        self,
        db_url: str | sa.URL | None = None,
        *,
        db_engine: Any = None,
        session_table: str = SESSION_TABLE,
        db_schema: str | None = None,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.timeout = timeout
        if db_url is None and db_engine is None:
            raise BadUsage(
                "PostgresDb needs a database.", "Pass db_url='postgresql://user@host/database' or db_engine=."
            )
        url = urls.parse_url(db_url or "") if db_engine is None else urls.engine_url(db_engine, "postgresql")
        is_usable = isinstance(db_engine, sa.Engine) and db_engine.driver == "psycopg"  # an asynchronous one is not
        self._db_engine: sa.Engine | None = db_engine if is_usable else None
        self._db_url = url.set(drivername="postgresql+psycopg")
        self._db_schema = db_schema
        super().__init__(urls.format_url(url), shared_tables(session_table, db_schema), read_only=read_only)

    @property
    def database(self) -> str:
        """The URL, a digest of its masked options, and the schema."""
        return f"{self.url} {urls.url_digest(self._db_url)} {self._db_schema or ''}"

    def locate_tables(self, connection: Connection) -> None:
        """Determine the schema of the tables once: search paths change.

        Raises:
            StoreNotFound: the schema does not exist.
        """
        schema = self._db_schema
        if schema is None:
            schema = self._find_schema(connection)
        elif not sa.inspect(connection).has_schema(schema):
            hint = "Check db_schema, or run CREATE SCHEMA."
            raise StoreNotFound(f"The schema {schema!r} does not exist in {self.url}.", hint)
        if schema != self.tables.metadata.schema:
            self.tables = shared_tables(self.tables.name, schema)

    def _find_schema(self, connection: Connection) -> str:
        path = catalog.search_path(connection, self.tables.schema.name)
        required = set(self.tables.schema.columns.keys())
        candidates: list[str] = [schema["name"] for schema in path if required.issubset(schema["columns"])]
        for schema in candidates:
            kern_schema = shared_tables(self.tables.name, schema).schema
            row = sa.select(kern_schema.c.version).where(kern_schema.c.session_table == self.tables.name)
            if connection.execute(row).first() is not None:
                return schema
        if not path:
            raise StoreNotFound(
                f"No schema of the search path exists in {self.url}, or you lack the right to use it.",
                "Name one: PostgresDb(..., db_schema='...').",
            )
        candidates += [schema["name"] for schema in path if schema["writable"]]
        return candidates[0] if candidates else str(path[0]["name"])

    @cached_property
    def engine(self) -> sa.Engine:
        """A pool whose connections are checked before use: servers restart while notebooks stay open."""
        arguments = {} if "connect_timeout" in self._db_url.query else {"connect_timeout": max(2, round(self.timeout))}
        options: dict[str, Any] = {"poolclass": InterruptSafeQueuePool, "pool_pre_ping": True}
        if self._db_engine is not None:
            options["creator"] = partial(_connect_by_engine, self._db_engine)
        engine = create_engine(self._db_url, **options, pool_timeout=self.timeout, connect_args=arguments)

        @sa.event.listens_for(engine, "connect")
        def prepare(raw: Any, _: object) -> None:
            _connections.add(raw)
            if self.timeout > 0:  # once per connection, as it costs a round trip
                raw.execute(_LOCK_TIMEOUT, [str(max(1, round(self.timeout * 1000)))])
                raw.commit()

        secrets = urls.find_secrets(self._db_url)

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _: Any, args: Any, parameters: Any) -> Any:
            try:
                return dialect.connect(*args, **parameters)
            except psycopg.Error as error:
                # The server and libpq may quote a parameter; this removes secrets from the text of the error.
                refusal = type(error)(urls.remove_secrets(str(error), secrets))
            raise refusal

        @sa.event.listens_for(engine, "begin")
        def choose_snapshot(connection: Connection) -> None:
            """Readers see one snapshot for all their statements; writers see what others commit."""
            raw: Any = connection.connection.driver_connection
            write = connection.get_execution_options().get("kern_write", True)
            raw.isolation_level = None if write else psycopg.IsolationLevel.REPEATABLE_READ
            raw.read_only = None if write else True  # None is the default of the server or role, which may be read-only

        return engine

    def after_fork(self) -> None:
        """Detach the connections before they are dropped, which would end the parent's sessions."""
        _detach_inherited()
        super().after_fork()

    def insert(self, table: sa.Table) -> Any:
        """PostgreSQL's ON CONFLICT."""
        return insert(table)

    def lock_imports(self, connection: Connection) -> None:
        """Take an advisory lock, which ends with the transaction and blocks nothing but imports."""
        name = f"{self.tables.metadata.schema or ''}.{self.tables.name} imports"
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))

    def locked(self, query: sa.Select[Any], of: sa.Table | None = None) -> sa.Select[Any]:
        """Lock the rows until the transaction ends."""
        return query.with_for_update(of=of)

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """Run one SELECT with the views in a WITH: a read-only server cannot create views."""
        body, names = sql_parameters.number_parameters(text)
        names_used = postgres_sql.extract_names(body)
        values = [params[name] for name in names]
        with self.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                raw.execute(_QUERY_SETTINGS)
                postgres_sql.require_allowed_names(raw, names_used)
                if raw.execute(_PRIVILEGED).fetchone()[0]:
                    raw.execute("SET LOCAL ROLE pg_read_all_data")
                views = user_sql.compile_views(
                    self, connection.dialect, self.tables.metadata.schema or "public", names_used.names
                )
                return _stream_rows(raw, postgres_sql.add_views(body, views), values)
            except (pg.ReadOnlySqlTransaction, pg.InsufficientPrivilege) as error:
                raise QueryRefused(self._reason(error), "SQL can only read the views.") from error
            except psycopg.Error as error:
                translated = self.translate_error(error) if _is_server_error(error) else None
                raise translated or QueryFailed(self._reason(error), "The SQL dialect is PostgreSQL's.") from error

    def _busy(self, error: Exception) -> Exception:
        cause = self.translate_error(error)
        return cause if isinstance(cause, Exception) else super()._busy(error)

    def translate_error(self, error: Exception) -> BaseException | None:
        """Translate an error of psycopg or the pool."""
        if isinstance(error, sa.exc.TimeoutError):
            reason = f"{self.url}: all connections of this process are in use."
            return StoreBusy(reason, "Wait until its threads finish.")
        cause = getattr(error, "orig", None) or error
        if not isinstance(cause, psycopg.Error):
            return super().translate_error(error)
        if isinstance(cause, pg.DiskFull):
            return disk_full_error(self.url, self._reason(cause))
        reason = f"{self.url}: {self._reason(cause)}."
        if isinstance(cause, pg.LockNotAvailable):
            holder = self._blocker()
            reason = f"{self.url}: {holder} holds a lock that was not released in time." if holder else reason
            return StoreBusy(reason, "End that transaction (COMMIT or ROLLBACK), or try again later.")
        if isinstance(cause, pg.InsufficientPrivilege):
            return _privilege_error(error, reason)
        for states, kind, hint in _TRANSLATIONS:
            if (cause.sqlstate or "").startswith(states):
                return kind(reason, hint)
        return StoreUnavailable(reason, "Check that the server is reachable, then attach it again.")

    def require_harmless(self, connection: Connection) -> None:
        """Refuse views in place of tables: they would run their owner's functions with the reader's rights."""
        format_table = connection.dialect.identifier_preparer.format_table
        names = [format_table(table) for table in self.tables.metadata.sorted_tables]
        parameters = {"names": names, "schema_table": format_table(self.tables.schema)}
        for name in connection.execute(_NOT_TABLES, parameters).scalars():
            raise not_a_table_error(self.url, name)

    def is_conflict(self, error: Exception) -> bool:
        """Whether two transactions conflicted."""
        return isinstance(getattr(error, "orig", error), _RETRYABLE)

    def _reason(self, error: BaseException) -> str:
        """Return the first line of a driver's error, without secrets."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return urls.remove_secrets(reason, urls.find_secrets(self._db_url))

    def _blocker(self) -> str | None:
        """Describe the session that holds locks on the tables: the oldest transaction that is not waiting itself."""
        names = [table.name for table in self.tables.metadata.sorted_tables]
        with contextlib.suppress(Exception), raise_interrupt(), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            row = raw.execute(_BLOCKER, [names]).fetchone()
            return str(row[0]) if row else None
        return None


def _is_server_error(error: psycopg.Error) -> bool:
    """Whether a query failed because of the server or the connection, not its SQL."""
    gone = not error.sqlstate and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    busy = isinstance(error, (pg.LockNotAvailable, pg.QueryCanceled, pg.SerializationFailure))
    return gone or busy or (error.sqlstate or "").startswith((*_SERVER_GONE, *_SERVER_FULL))


def _privilege_error(error: Exception, reason: str) -> KernError:
    statement = (getattr(error, "statement", None) or "").lstrip().upper()
    if statement.startswith("CREATE"):
        return ReadOnlyStore(reason, "Ask the owner to GRANT CREATE on the schema, or name your own: db_schema=...")
    if statement.startswith(("INSERT", "UPDATE", "DELETE", "ALTER")) or statement.endswith("FOR UPDATE"):
        hint = "Ask the owner to GRANT INSERT, UPDATE, DELETE on its tables; nothing was written."
        return ReadOnlyStore(reason, hint)
    return StoreUnavailable(reason, "Ask the owner to GRANT SELECT on its tables to this user.")


def _stream_rows(raw: Any, statement: str, values: list[Any]) -> pa.Table:
    with psycopg.RawCursor(raw) as cursor:
        stream: Any = cursor.stream(statement, values)  # the extended protocol, which accepts a single statement
        try:
            rows = user_sql.read_rows(stream)
        finally:
            stream.close()  # cancels the query on the server
        if not rows:  # the columns came with the first row
            cursor.execute(f"{statement} LIMIT 0", values, prepare=True)
        return user_sql.rows_to_arrow([column.name for column in cursor.description or ()], rows)


_NOT_TABLES = sa.text("""
    SELECT relname FROM unnest(CAST(:names AS text[])) AS names(name)
    JOIN pg_catalog.pg_class ON oid = to_regclass(name)
    WHERE relkind NOT IN ('r', 'p') AND to_regclass(CAST(:schema_table AS text)) IS NOT NULL
""")

_LOCK_TIMEOUT = """
    SELECT pg_catalog.set_config('lock_timeout', %s, false)
    WHERE pg_catalog.current_setting('lock_timeout') IN ('0', '0ms')
"""

_QUERY_SETTINGS = """
    SET TRANSACTION READ ONLY;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL TimeZone = 'UTC'
"""

# Whether the role can read the server's files or become one that can, and can switch to a role that only reads tables.
_PRIVILEGED = """
    SELECT EXISTS (
        SELECT FROM pg_roles
        WHERE (rolsuper OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
          AND pg_has_role(current_user, oid, 'MEMBER')
    ) AND EXISTS (
        SELECT FROM pg_roles
        WHERE rolname = 'pg_read_all_data' AND pg_has_role(current_user, oid, CASE
            WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
    )
"""

_BLOCKER = """
    SELECT concat('session ', pid, ' of user ', usename, ' (',
                  concat_ws(', ', nullif(application_name, ''), client_addr, state), ')')
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
      AND pid IN (SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                  WHERE l.granted AND l.mode <> 'AccessShareLock' AND c.relname = ANY(%s::text[]))
      AND pid NOT IN (SELECT pid FROM pg_locks WHERE NOT granted)
    ORDER BY xact_start LIMIT 1
"""


__getattr__, __dir__ = lazy_names(
    __name__, {"kern_nb.db.async_stores": ["AsyncPostgresDb"]}
)  # where users of Agno look for it
