"""What is in a database, by its own catalog: the names of tables and views, and their columns.

SQLAlchemy's inspector answers most of this as well, but not which objects an extension brought along, and not in every
schema of a DuckDB file; and it fails on a view that is broken, or a virtual table whose module is not loaded.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_SQLITE = """SELECT '' AS "schema", name FROM sqlite_master
    WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"""
_DUCKDB = """SELECT schema_name, table_name FROM duckdb_tables()
      WHERE database_name = current_database() AND NOT internal
    UNION ALL SELECT schema_name, view_name FROM duckdb_views()
      WHERE database_name = current_database() AND NOT internal"""
# Without what extensions own: PostGIS and pg_stat_statements put a table or a view into `public`.
_POSTGRES = """SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = coalesce(:schema, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid
        AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'e')"""
_QUERIES = {"sqlite": _SQLITE, "duckdb": _DUCKDB, "postgresql": _POSTGRES}

_POSTGRES_COLUMNS = """SELECT c.relname, a.attname FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = coalesce(:schema, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND a.attnum > 0 AND NOT a.attisdropped"""
_DUCKDB_COLUMNS = """SELECT table_name, column_name FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = 'main'"""
_ALL_COLUMNS = {"duckdb": _DUCKDB_COLUMNS, "postgresql": _POSTGRES_COLUMNS}
_COLUMNS = {
    "duckdb": f"{_DUCKDB_COLUMNS} AND table_name = :name",
    "postgresql": f"{_POSTGRES_COLUMNS} AND c.relname = :name",
    "sqlite": "SELECT :name, name FROM pragma_table_info(:name)",
}
_MOST_DESCRIBED = 1000

# The schemas in which an unqualified name is looked up, in order, and the columns of a kern_schema in each.
_SEARCH_PATH = """SELECT n.nspname, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
      has_schema_privilege(n.oid, 'CREATE') AS writable
    FROM unnest(current_schemas(false)) WITH ORDINALITY AS path(name, position)
      JOIN pg_catalog.pg_namespace n ON n.nspname = path.name
      LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = :name AND c.relkind IN ('r', 'p')
        AND has_table_privilege(c.oid, 'SELECT')
    ORDER BY path.position"""
_SCHEMA_EXISTS = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema"


@dataclass(frozen=True)
class DatabaseObjects:
    """The tables and views of a database.

    Attributes:
        own: The names in the schema where ours are, or would be.
        all: The names in all schemas that belong to the same file.
        any_case: Whether the engine takes ``Runs`` and ``runs`` for one name.
    """

    own: frozenset[str]
    all: frozenset[str]
    any_case: bool

    def taken(self, name: str) -> str | None:
        """The table or view that stands where one of this name would be made."""
        if name in self.own or not self.any_case:
            return name if name in self.own else None
        return next((other for other in self.own if other.lower() == name.lower()), None)


def list_objects(connection: Connection, schema: str | None) -> DatabaseObjects:
    """The tables and views that people made; on PostgreSQL those of one schema, the connection's where None."""
    dialect = connection.dialect.name
    rows = connection.execute(_text(_QUERIES[dialect], schema=schema)).all()
    if dialect != "duckdb":
        names = frozenset(str(name) for _, name in rows)
        return DatabaseObjects(names, names, any_case=dialect == "sqlite")
    everything = frozenset(str(name) if space == "main" else f"{space}.{name}" for space, name in rows)
    return DatabaseObjects(frozenset(str(name) for space, name in rows if space == "main"), everything, any_case=True)


def columns_by_table(connection: Connection, names: Iterable[str], schema: str | None) -> dict[str, set[str]]:
    """The columns of many tables and views of one schema, by name."""
    query = _ALL_COLUMNS.get(connection.dialect.name)
    if query is None:
        return {name: columns(connection, name, schema) for name in itertools.islice(names, _MOST_DESCRIBED)}
    result: dict[str, set[str]] = {name: set() for name in names}
    for table, column in connection.execute(_text(query, schema=schema)):
        if table in result:
            result[table].add(str(column))
    return result


def columns(connection: Connection, name: str, schema: str | None) -> set[str]:
    """The columns of a table or view; an empty set where the engine cannot tell."""
    query = _text(_COLUMNS[connection.dialect.name], name=name, schema=schema)
    with contextlib.suppress(sa.exc.DBAPIError):  # SQLite: a broken view, a virtual table of an unknown module
        return {str(column) for _, column in connection.execute(query)}
    return set()


@dataclass(frozen=True)
class PathSchema:
    """A schema of PostgreSQL's search path, with the columns that a table has in it, if any."""

    name: str
    columns: frozenset[str]
    writable: bool


def search_path(connection: Connection, name: str) -> list[PathSchema]:
    """The schemas of the search path that exist and may be used, in order; the columns are those of one table."""
    rows = connection.execute(_text(_SEARCH_PATH, name=name)).mappings()
    return [PathSchema(row["nspname"], frozenset(row["columns"] or ()), row["writable"]) for row in rows]


def has_schema(connection: Connection, schema: str) -> bool:
    """Whether a schema of PostgreSQL exists."""
    return connection.execute(_text(_SCHEMA_EXISTS, schema=schema)).first() is not None


def _text(query: str, **values: str | None) -> sa.TextClause:
    clause = sa.text(query)
    used = {name: value for name, value in values.items() if f":{name}" in query}
    return clause.bindparams(*(sa.bindparam(name, value, sa.Text()) for name, value in used.items()))
