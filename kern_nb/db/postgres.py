"""PostgreSQL, by psycopg 3: for many notebooks and many machines."""

from __future__ import annotations

import os
import re
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

from kern_nb.db import forking, query
from kern_nb.db.schema import Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import NotAStore, QueryFailed, QueryRefused

_AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateTable,  # two stores make the same tables at once
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateColumn,  # or bring them up to date
)
# What would give a superuser's query its rights back: by name, or by SQL in a text that a function runs.
_REGAINING = re.compile(r"set_config|U&|_to_xml|xmlschema|ts_stat|ts_rewrite|dblink|crosstab|connectby", re.IGNORECASE)

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
                forking.leak(connection)
                os.dup2(closed.fileno(), connection.fileno(), inheritable=False)
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cut_off)  # stores that are referenced no more, too


class PostgresDb(SessionStore):
    """A store in a PostgreSQL database.

    Args:
        db_url: An SQLAlchemy URL; a plain ``postgresql://`` one is read as ``postgresql+psycopg://``.
        session_table: The name of the sessions' table.
        db_schema: The database schema; None means the connection's own, usually ``public``.
        read_only: Refuse writes.
    """

    def __init__(
        self,
        db_url: str | sa.URL,
        *,
        session_table: str = "agno_sessions",
        db_schema: str | None = None,
        read_only: bool = False,
    ) -> None:
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
        engine = sa.create_engine(self._db_url, pool_pre_ping=True)
        sa.event.listen(engine, "connect", lambda connection, _: _connections.add(connection))
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

    def locked(self, query_: sa.Select[Any]) -> sa.Select[Any]:
        """Hold the rows until the transaction ends."""
        return query_.with_for_update()

    def arrow(self, query_: sa.Select[Any]) -> pa.Table:
        """Rows turned into columns, each of the type its values have."""
        with self.connect() as connection:
            result = connection.execute(query_)
            return query.columns_of(list(result.keys()), result.all())

    def run_sql(self, text: str, params: Mapping[str, Any]) -> pa.Table:
        """One SELECT, in a read-only transaction, as a role that may not read the server's files."""
        body, names = query.numbered(text)
        with self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            schema = raw.execute("SELECT current_schema()").fetchone()[0]
            for statement in query.view_statements(self, connection.dialect, schema):
                raw.execute(statement)
            raw.execute("SET TRANSACTION READ ONLY")
            if raw.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0]:
                if found := _REGAINING.search(body):
                    raise QueryRefused(f"{found[0]} is not run for a superuser.", "Connect as another user.")
                raw.execute("SET LOCAL ROLE pg_read_all_data")
            try:
                with psycopg.RawCursor(raw) as cursor:
                    # As a subquery it can be nothing but a query; prepared, it can be nothing but one statement.
                    wrapped = f"SELECT * FROM (\n{body}\n) AS kern_query"  # noqa: S608 - the analyst's own SQL
                    cursor.execute(wrapped, [params[name] for name in names], prepare=True)
                    columns = [column.name for column in cursor.description or ()]
                    return query.columns_of(columns, cursor.fetchall())
            except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
                raise QueryRefused(_first_line(error), "A store's SQL can only read its views.") from error
            except psycopg.Error as error:
                raise QueryFailed(_first_line(error), "The SQL dialect is PostgreSQL's.") from error
            finally:
                raw.rollback()
                raw.execute("SELECT pg_advisory_unlock_all()")  # such a lock outlives the transaction

    def is_conflict(self, error: Exception) -> bool:
        """Two transactions were in each other's way."""
        return isinstance(getattr(error, "orig", error), _AGAIN)


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0]
