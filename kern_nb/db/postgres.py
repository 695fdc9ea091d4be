"""PostgreSQL, by psycopg 3: for many notebooks and many machines."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb.db import catalog, fork_safety, postgres_errors, postgres_sql, urls, user_sql
from kern_nb.db.schema import SESSION_TABLE, Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import NotAStore, QueryFailed, QueryRefused, StoreNotFound

BUSY_TIMEOUT_S = 30.0

_AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateTable,  # two stores make the same tables at once
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateColumn,  # or bring them up to date
)

_connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


def _cut_off() -> None:
    """In a forked child: cut the inherited connections off from their sockets, which are the parent's.

    Whatever still has one in hand, a transaction that the fork happened in or the garbage collector, then fails on a
    closed socket in place of sending ROLLBACK or the end of the session to the parent's server process.
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
    os.register_at_fork(after_in_child=_cut_off)  # stores that are referenced no more, too


class PostgresDb(SessionStore):
    """A store in a PostgreSQL database.

    Args:
        db_url: An SQLAlchemy URL; a plain ``postgresql://`` one is read as ``postgresql+psycopg://``.
        session_table: The name of the sessions' table.
        db_schema: The database schema, which must exist. Where None it is the first one of the connection's search path
            that has this table; where none has, the one of another workload of ours, or the first in which tables may
            be made.
        read_only: Refuse writes.
        timeout: Seconds to wait for another transaction's lock, or for a connection, before `StoreBusy`.
    """

    def __init__(
        self,
        db_url: str | sa.URL,
        *,
        session_table: str = SESSION_TABLE,
        db_schema: str | None = None,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.timeout = timeout
        url = urls.parsed(db_url)
        self._db_url = url.set(drivername="postgresql+psycopg")
        self._db_schema = db_schema
        super().__init__(urls.shown(url), Tables(session_table, db_schema), read_only=read_only)

    @property
    def database(self) -> str:
        """The URL with a digest of the options that it masks, and the schema."""
        return f"{self.url} {urls.digest(self._db_url)} {self._db_schema or ''}"

    def locate_tables(self, connection: Connection) -> None:
        """Find the one schema that the tables are in, and name it from then on: search paths are long, and they change.

        Raises:
            StoreNotFound: there is no such schema.
        """
        schema = self._db_schema
        if schema is None:
            schema = self._found_schema(connection)
        elif not catalog.has_schema(connection, schema):
            raise StoreNotFound(
                f"There is no schema {schema!r} in {self.url}.", "Check db_schema, or make it: CREATE SCHEMA …"
            )
        if schema != self.tables.metadata.schema:
            self.tables = Tables(self.tables.name, schema)

    def _found_schema(self, connection: Connection) -> str:
        path = catalog.search_path(connection, self.tables.schema.name)
        required = set(self.tables.schema.columns.keys())
        ours = [schema.name for schema in path if required <= schema.columns]
        for schema in ours:
            kern_schema = Tables(self.tables.name, schema).schema
            row = sa.select(kern_schema.c.version).where(kern_schema.c.session_table == self.tables.name)
            if connection.execute(row).first() is not None:
                return schema
        if not path:
            raise StoreNotFound(
                f"No schema of the search path exists in {self.url}, or you may not use it.",
                "Name one: PostgresDb(..., db_schema='...').",
            )
        return next(iter([*ours, *(schema.name for schema in path if schema.writable)]), path[0].name)

    @cached_property
    def engine(self) -> sa.Engine:
        """A pool of connections, each checked before use: servers restart, notebooks stay open."""
        arguments = {} if "connect_timeout" in self._db_url.query else {"connect_timeout": max(2, round(self.timeout))}
        engine = sa.create_engine(self._db_url, pool_pre_ping=True, pool_timeout=self.timeout, connect_args=arguments)

        @sa.event.listens_for(engine, "connect")
        def prepare(raw: Any, _: object) -> None:
            _connections.add(raw)
            if self.timeout > 0:  # once a connection: at each transaction it would cost a round trip
                raw.execute(_LOCK_TIMEOUT, [str(max(1, round(self.timeout * 1000)))])
                raw.commit()

        secrets = urls.secrets_of(self._db_url)

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _: Any, args: Any, parameters: Any) -> Any:
            try:
                return dialect.connect(*args, **parameters)
            except psycopg.Error as error:
                # The server and libpq may quote a parameter. Whatever text is made of the error is safe after this.
                refusal = type(error)(urls.scrubbed(str(error), secrets))
            raise refusal

        @sa.event.listens_for(engine, "begin")
        def choose_snapshot(connection: Connection) -> None:
            """Reading sees one state, however many statements it takes; writers see what others commit meanwhile."""
            raw: Any = connection.connection.driver_connection
            write = connection.get_execution_options().get("kern_write", True)
            raw.isolation_level = None if write else psycopg.IsolationLevel.REPEATABLE_READ
            raw.read_only = None if write else True  # None is the server's default, which a role may have set to read

        return engine

    def after_fork(self) -> None:
        """Cut the connections off before they are forgotten, which would end their sessions."""
        _cut_off()
        super().after_fork()

    def insert(self, table: sa.Table) -> Any:
        """PostgreSQL's ON CONFLICT."""
        return insert(table)

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """One statement in a pipeline, many rows."""
        if rows:
            connection.execute(table.insert(), list(rows))

    def locked(self, query_: sa.Select[Any], of: sa.Table | None = None) -> sa.Select[Any]:
        """Hold the rows until the transaction ends."""
        return query_.with_for_update(of=of)

    def arrow(self, query_: sa.Select[Any]) -> pa.Table:
        """Rows turned into columns, each of the type its values have."""
        with self.connect() as connection:
            result = connection.execute(query_)
            return user_sql.columns_of(list(result.keys()), result.all())

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT over the views, which stand before it in a WITH: a server that only reads makes none."""
        body, names = user_sql.numbered(text)
        words = postgres_sql.words_of(body)
        values = [params[name] for name in names]
        with self.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                raw.execute(_QUERY_SETTINGS)
                postgres_sql.require_reading(raw, words)
                if raw.execute(_PRIVILEGED).fetchone()[0]:
                    raw.execute("SET LOCAL ROLE pg_read_all_data")
                views = user_sql.view_selects(
                    self, connection.dialect, self.tables.metadata.schema or "public", words.names
                )
                return _rows(raw, postgres_sql.with_views(body, views), values)
            except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
                raise QueryRefused(self._reason(error), "A store's SQL can only read its views.") from error
            except psycopg.Error as error:
                known = self.translate_error(error) if postgres_errors.is_of_server(error) else None
                raise known or QueryFailed(self._reason(error), "The SQL dialect is PostgreSQL's.") from error

    def _busy(self, error: Exception) -> Exception:
        """What the last of the failures says."""
        cause = self.translate_error(error)
        return cause if isinstance(cause, Exception) else super()._busy(error)

    def translate_error(self, error: Exception) -> BaseException | None:
        """What psycopg or the pool says, as one of ours."""
        translated = postgres_errors.translate(error, self.url, self._reason, self._blocker)
        return translated or super().translate_error(error)

    def require_harmless(self, connection: Connection) -> None:
        """A view in place of a table would run its owner's functions with the reader's rights."""
        names = [
            connection.dialect.identifier_preparer.format_table(table) for table in self.tables.metadata.sorted_tables
        ]
        schema_table = connection.dialect.identifier_preparer.format_table(self.tables.schema)
        for name in connection.execute(_NO_TABLES, {"names": names, "schema_table": schema_table}).scalars():
            raise NotAStore(
                f"{self.url}: {name!r} is not a table of kern_nb, but computes its rows.",
                "Choose another name for ours: session_table='kern_sessions'.",
            )

    def is_conflict(self, error: Exception) -> bool:
        """Two transactions were in each other's way."""
        return isinstance(getattr(error, "orig", error), _AGAIN)

    def _reason(self, error: BaseException) -> str:
        """The first line of a driver's error, without the password."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return urls.scrubbed(reason, urls.secrets_of(self._db_url))

    def _blocker(self) -> str | None:
        """Who holds locks on the tables: the transaction that began first and waits for nobody."""
        names = [table.name for table in self.tables.metadata.sorted_tables]
        with contextlib.suppress(Exception), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            row = raw.execute(_BLOCKER, [names]).fetchone()
            return str(row[0]) if row else None
        return None


def _rows(raw: Any, statement: str, values: list[Any]) -> pa.Table:
    """The result of a query, taken row by row, each sent as it is made."""
    with psycopg.RawCursor(raw) as cursor:
        stream: Any = cursor.stream(statement, values)  # in the protocol that takes one statement only
        try:
            rows = user_sql.bounded_rows(stream)
        finally:
            stream.close()  # which ends the query on the server
        if not rows:  # then no row brought the columns along
            cursor.execute(f"{statement} LIMIT 0", values, prepare=True)
        return user_sql.columns_of([column.name for column in cursor.description or ()], rows)


_NO_TABLES = sa.text("""
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

# Whether a role is, or may become, one that reads the server's files; and may give that up for reading tables only.
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
