"""Read a database's catalog: the names of tables and views, their columns, and the program that they belong to.

SQLAlchemy's inspector does not tell which objects belong to an extension, nor covers every schema of a DuckDB file; and
it fails on a broken view, or a virtual table whose module is not loaded.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

_OBJECTS = {
    "sqlite": """SELECT '' AS "schema", name FROM sqlite_master
        WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'""",
    "duckdb": """SELECT schema_name, table_name FROM duckdb_tables()
          WHERE database_name = current_database() AND NOT internal
        UNION ALL SELECT schema_name, view_name FROM duckdb_views()
          WHERE database_name = current_database() AND NOT internal""",
    # Without objects of extensions: PostGIS and pg_stat_statements put a table or a view into `public`.
    "postgresql": """SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = coalesce(:schema, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid
            AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'e')""",
}
_ALL_COLUMNS = {
    "duckdb": """SELECT table_name, column_name FROM duckdb_columns()
        WHERE database_name = current_database() AND schema_name = 'main'""",
    "postgresql": """SELECT c.relname, a.attname FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = coalesce(:schema, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND a.attnum > 0 AND NOT a.attisdropped""",
}
_COLUMNS = {
    "duckdb": f"{_ALL_COLUMNS['duckdb']} AND table_name = :name",
    "postgresql": f"{_ALL_COLUMNS['postgresql']} AND c.relname = :name",
    "sqlite": "SELECT :name, name FROM pragma_table_info(:name)",
}
_MAX_TABLES = 1000

# The schemas of the search path, in order, and the columns of a table in each.
_SEARCH_PATH = """SELECT n.nspname AS name, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
      has_schema_privilege(n.oid, 'CREATE') AS writable
    FROM unnest(current_schemas(false)) WITH ORDINALITY AS path(name, position)
      JOIN pg_catalog.pg_namespace n ON n.nspname = path.name
      LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = :name AND c.relkind IN ('r', 'p')
        AND has_table_privilege(c.oid, 'SELECT')
    ORDER BY path.position"""


@dataclass(frozen=True)
class DatabaseObjects:
    """The tables and views of a database.

    Attributes:
        own: The names in the schema of the store's tables.
        all: The names in all schemas of the same file.
        any_case: Whether names are case-insensitive.
    """

    own: frozenset[str]
    all: frozenset[str]
    any_case: bool

    def taken(self, name: str) -> str | None:
        """The existing table or view whose name conflicts with this one."""
        if name in self.own:
            return name
        return next((other for other in self.own if self.any_case and other.lower() == name.lower()), None)


def list_objects(connection: Connection, schema: str | None) -> DatabaseObjects:
    """The user-created tables and views; on PostgreSQL those of one schema, the connection's if None."""
    dialect = connection.dialect.name
    rows = connection.execute(_bind(_OBJECTS[dialect], schema=schema)).all()
    if dialect != "duckdb":
        names = frozenset(str(name) for _, name in rows)
        return DatabaseObjects(names, names, any_case=dialect == "sqlite")
    own = frozenset(str(name) for schema, name in rows if schema == "main")
    return DatabaseObjects(own, own | {f"{schema}.{name}" for schema, name in rows if schema != "main"}, any_case=True)


def columns_by_table(connection: Connection, names: Iterable[str], schema: str | None) -> dict[str, set[str]]:
    """The columns of many tables and views of one schema, by name of the table."""
    query = _ALL_COLUMNS.get(connection.dialect.name)
    if query is None:
        return {name: columns(connection, name, schema) for name in itertools.islice(names, _MAX_TABLES)}
    result: dict[str, set[str]] = {name: set() for name in names}
    for table, column in connection.execute(_bind(query, schema=schema)):
        if table in result:
            result[table].add(str(column))
    return result


def columns(connection: Connection, name: str, schema: str | None) -> set[str]:
    """The columns of a table or view; an empty set if the engine cannot tell."""
    query = _bind(_COLUMNS[connection.dialect.name], name=name, schema=schema)
    with contextlib.suppress(sa.exc.DBAPIError):  # SQLite: a broken view, a virtual table of an unknown module
        return {str(column) for _, column in connection.execute(query)}
    return set()


def search_path(connection: Connection, name: str) -> Sequence[RowMapping]:
    """The existing and accessible schemas of PostgreSQL's search path, in order.

    Each with its ``name``, the ``columns`` of one table in it, and whether it is ``writable``.
    """
    return connection.execute(_bind(_SEARCH_PATH, name=name)).mappings().all()


def _bind(query: str, **values: str | None) -> sa.TextClause:
    params = [sa.bindparam(name, value, sa.Text()) for name, value in values.items() if f":{name}" in query]
    return sa.text(query).bindparams(*params)


_ANY = "*"
_LAYOUTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Agno 2", {_ANY: "session_id session_type session_data runs"}),
    ("Agno 3", {_ANY: "session_id session_type session_data"}),
    ("OpenAI Agents", {_ANY: "session_id message_data"}),
    ("LangGraph checkpoints", {"checkpoints": "thread_id checkpoint_ns checkpoint_id"}),
    ("LangGraph store", {"store": "prefix key value"}),
    ("LangChain chat history", {_ANY: "id session_id message"}),
    ("Google ADK", {"sessions": "app_name user_id id", "events": "session_id invocation_id"}),
    ("OpenCode", {"session": "id", "message": "id session_id data", "part": "message_id"}),
    ("Codex", {"threads": "id rollout_path"}),
    ("Cursor", {"cursorDiskKV": "key value"}),
    ("VS Code", {"ItemTable": "key value"}),
    ("llm", {"responses": "id model prompt response", "conversations": "id name model"}),
    ("llm", {"turns": "thread_id tip_message_hash", "threads": "id tip_message_hash"}),
    ("AutoGen", {"chat_completions": "invocation_id client_id session_id"}),
    ("Chainlit", {"threads": "id", "steps": "id threadId"}),
    ("Open WebUI", {"chat": "id user_id title chat"}),
    ("Letta", {"agents": "id", "messages": "id agent_id", "organizations": "id"}),
    ("MLflow", {"experiments": "experiment_id", "runs": "run_uuid"}),
    ("Langfuse", {"projects": "id", "traces": "id project_id"}),
    ("Phoenix", {"traces": "id trace_id", "spans": "id trace_rowid"}),
    ("n8n", {"workflow_entity": "id", "execution_entity": "id"}),
    ("Dify", {"apps": "id", "conversations": "id app_id", "messages": "conversation_id"}),
    ("AnythingLLM", {"workspace_chats": "id prompt response"}),
    ("IPython's history", {"history": "session line source", "sessions": "session start"}),
    ("Jupyter's notebook signatures", {"nbsignatures": "algorithm signature"}),
    ("Django", {"django_migrations": "app name applied"}),
)
"""Other programs, each with its tables and columns; ``_ANY`` is a table of any name, which several programs let users
choose. A layout matches if each of its tables exists with at least these columns. The first match counts."""


def identify_program(tables: Mapping[str, AbstractSet[str]]) -> str | None:
    """The program that created tables, given the columns of each table by name; None if unknown."""
    return next((program for program, layout in _LAYOUTS if _matches(tables, layout)), None)


def _matches(tables: Mapping[str, AbstractSet[str]], layout: Mapping[str, str]) -> bool:
    for name, columns in layout.items():
        candidates = tables.values() if name == _ANY else (tables.get(name, frozenset()),)
        if not any(set(columns.split()) <= candidate for candidate in candidates):
            return False
    return True


def name_list(names: AbstractSet[str], *, most: int = 6) -> str:
    """Names for a message: the first few, shortened, without control characters."""
    texts = [name if name.isprintable() and len(name) <= 60 else repr(name[:60]) for name in sorted(names)[:most]]  # noqa: PLR2004
    return ", ".join(texts) + (f" and {len(names) - most} more" if len(names) > most else "")
