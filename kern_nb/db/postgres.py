"""PostgreSQL, by psycopg 3: for many notebooks and many machines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from kern_nb.db import catalog, query, urls
from kern_nb.db.schema import SESSION_TABLE, Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import QueryFailed, QueryRefused, StoreNotFound

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


class PostgresDb(SessionStore):
    """A store in a PostgreSQL database.

    Args:
        db_url: An SQLAlchemy URL; a plain ``postgresql://`` one is read as ``postgresql+psycopg://``.
        session_table: The name of the sessions' table.
        db_schema: The database schema, which must exist. Where None it is the first one of the connection's search path
            that has this table; where none has, the one of another workload of ours, or the first in which tables may
            be made.
        read_only: Refuse writes.
    """

    def __init__(
        self,
        db_url: str | sa.URL,
        *,
        session_table: str = SESSION_TABLE,
        db_schema: str | None = None,
        read_only: bool = False,
    ) -> None:
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
        engine = sa.create_engine(self._db_url, pool_pre_ping=True)
        secrets = urls.secrets_of(self._db_url)

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _: Any, args: Any, parameters: Any) -> Any:
            try:
                return dialect.connect(*args, **parameters)
            except psycopg.Error as error:
                # The server and libpq may quote a parameter. Whatever text is made of the error is safe after this.
                refusal = type(error)(urls.scrubbed(str(error), secrets))
            raise refusal

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
        """One SELECT, in a read-only transaction, as a role that may not read the server's files."""
        body, names = query.numbered(text)
        with self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            for statement in query.view_statements(self, connection.dialect):
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
