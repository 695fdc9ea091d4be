"""PostgreSQL, by psycopg 3: for many notebooks and many machines."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb.db import postgres_errors, postgres_sql, query
from kern_nb.db.schema import Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import KernError, NotAStore, QueryFailed, QueryRefused

BUSY_TIMEOUT_S = 30.0

_AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateTable,  # two stores make the same tables at once
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateColumn,  # or bring them up to date
)


class PostgresDb(SessionStore):
    """A store in a PostgreSQL database.

    Args:
        db_url: An SQLAlchemy URL; a plain ``postgresql://`` one is read as ``postgresql+psycopg://``.
        session_table: The name of the sessions' table.
        db_schema: The database schema; None means the connection's own, usually ``public``.
        read_only: Refuse writes.
        timeout: Seconds to wait for another transaction's lock, or for a connection, before `StoreBusy`.
    """

    def __init__(
        self,
        db_url: str | sa.URL,
        *,
        session_table: str = "agno_sessions",
        db_schema: str | None = None,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.timeout = timeout
        try:
            url = sa.make_url(db_url)
        except sa.exc.ArgumentError as error:
            raise NotAStore(
                "The database URL does not parse.", "Write postgresql+psycopg://user@host/database."
            ) from error
        self._db_url = url.set(drivername="postgresql+psycopg")
        shown = url.render_as_string(hide_password=True)
        super().__init__(shown, Tables(session_table, db_schema), read_only=read_only)

    @cached_property
    def engine(self) -> sa.Engine:
        """A pool of connections, each checked before use: servers restart, notebooks stay open."""
        arguments = {} if "connect_timeout" in self._db_url.query else {"connect_timeout": max(2, round(self.timeout))}
        engine = sa.create_engine(self._db_url, pool_pre_ping=True, pool_timeout=self.timeout, connect_args=arguments)

        @sa.event.listens_for(engine, "connect")
        def limit_waiting(raw: Any, _: object) -> None:
            if self.timeout > 0:  # once a connection: at each transaction it would cost a round trip
                raw.execute(_LOCK_TIMEOUT, [str(max(1, round(self.timeout * 1000)))])
                raw.commit()

        @sa.event.listens_for(engine, "begin")
        def choose_snapshot(connection: Connection) -> None:
            """Reading sees one state, however many statements it takes; writers see what others commit meanwhile."""
            raw: Any = connection.connection.driver_connection
            write = connection.get_execution_options().get("kern_write")
            raw.isolation_level = None if write else psycopg.IsolationLevel.REPEATABLE_READ
            raw.read_only = None if write else True  # None is the server's default, which a role may have set to read

        return engine

    def insert(self, table: sa.Table) -> Any:
        """PostgreSQL's ON CONFLICT."""
        return insert(table)

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """One statement in a pipeline, many rows."""
        if rows:
            connection.execute(table.insert(), list(rows))

    def locked(self, query_: sa.Select[Any]) -> sa.Select[Any]:
        """Hold the rows until the transaction ends."""
        return query_.with_for_update()

    def arrow(self, query_: sa.Select[Any]) -> pa.Table:
        """Rows turned into columns, each of the type its values have."""
        with self.connect() as connection:
            result = connection.execute(query_)
            return query.columns_of(list(result.keys()), result.all())

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT over the views, which stand before it in a WITH: a server that only reads makes none."""
        body, names = query.numbered(text)
        words = postgres_sql.words_of(body)
        values = [params[name] for name in names]
        with self.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                schema = raw.execute("SELECT current_schema()").fetchone()[0]
                raw.execute(_QUERY_SETTINGS)
                postgres_sql.require_reading(raw, words)
                if raw.execute(_PRIVILEGED).fetchone()[0]:
                    raw.execute("SET LOCAL ROLE pg_read_all_data")
                views = query.view_selects(self, connection.dialect, schema, words.names)
                return _rows(raw, postgres_sql.with_views(body, views), values)
            except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
                raise QueryRefused(self._reason(error), "A store's SQL can only read its views.") from error
            except psycopg.Error as error:
                known = self.explain(error) if postgres_errors.is_of_server(error) else None
                raise known or QueryFailed(self._reason(error), "The SQL dialect is PostgreSQL's.") from error

    def _busy(self, error: Exception) -> Exception:
        """What the last of the failures says."""
        return self.explain(error) or super()._busy(error)

    def explain(self, error: Exception) -> KernError | None:
        """What psycopg or the pool says, as one of ours."""
        cause = getattr(error, "orig", None)
        if isinstance(cause, KernError):  # a value that the codec refused
            return cause
        return postgres_errors.translate(error, self.url, self._reason, self._blocker)

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
        password = self._db_url.password
        return reason.replace(str(password), "***") if password else reason

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
            rows = query.bounded_rows(stream)
        finally:
            stream.close()  # which ends the query on the server
        if not rows:  # then no row brought the columns along
            cursor.execute(f"{statement} LIMIT 0", values, prepare=True)
        return query.columns_of([column.name for column in cursor.description or ()], rows)


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
