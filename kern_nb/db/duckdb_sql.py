"""What a query of DuckDB's reaches, read from the tree that DuckDB's own parser makes of it.

Nothing here parses SQL: `json_serialize_sql` gives the statement as DuckDB understands it, and the walk allows the
functions listed in `sql_functions` and the relations that the caller names. Everything else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from kern_nb.db import user_sql
from kern_nb.db.sql_functions import DUCKDB, DUCKDB_TABLE_FUNCTIONS
from kern_nb.errors import NotAStore, QueryFailed, QueryRefused

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(?:\(\s*(?:ANALYZE|FORMAT)\b[\w\s,]*\)\s*)?", re.IGNORECASE)

_SERIALIZE = "SELECT system.main.json_serialize_sql($sql::VARCHAR)"

# What a file may define in place of what is built in: it would be used in its place.
_OWN = {
    "MACRO": "SELECT DISTINCT function_name FROM system.main.duckdb_functions() WHERE internal = $internal",
    "TYPE": "SELECT DISTINCT type_name FROM system.main.duckdb_types() WHERE internal = $internal",
}
_VIEWS = "SELECT view_name FROM system.main.duckdb_views() WHERE database_name = $name"
_TABLES = "SELECT table_name FROM system.main.duckdb_tables() WHERE database_name = $name AND schema_name = 'main'"
_GENERATED = (
    "SELECT DISTINCT table_name FROM system.main.duckdb_tables() WHERE database_name = $name AND contains(sql, "
    "'GENERATED ALWAYS AS')"
)


def require_reading(raw: duckdb.DuckDBPyConnection, text: str, relations: Collection[str]) -> None:
    """Check that SQL is one SELECT, or EXPLAIN of one, over these relations, which calls listed functions only.

    Args:
        raw: A connection to parse with.
        text: The SQL.
        relations: The tables and views that may be named, beside the query's own WITH.

    Raises:
        QueryRefused: it is something else.
        QueryFailed: it does not parse, or names another table.
    """
    try:
        kinds = [statement.type for statement in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
    explained = kinds == [duckdb.StatementType.EXPLAIN]
    if not explained and kinds != [duckdb.StatementType.SELECT]:
        raise user_sql.not_select_error(text)
    prefix = _EXPLAIN.match(text) if explained else None
    select = text[prefix.end() :] if prefix else text
    _walk(_tree(raw, text, select), {_folded(name) for name in relations})


def base_tables(raw: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """The tables of a database's main schema, without its views."""
    return [name for (name,) in raw.execute(_TABLES, {"name": database}).fetchall()]


def require_harmless(raw: duckdb.DuckDBPyConnection, database: str, tables: Collection[str], url: str) -> None:
    """Check that statements of ours run no code of a file's author: macros, views, generated columns.

    Raises:
        NotAStore: they would.
    """
    for kind, statement in _OWN.items():
        own = raw.execute(statement, {"internal": False}).fetchall()
        built_in = (
            {_folded(name) for (name,) in raw.execute(statement, {"internal": True}).fetchall()} if own else set()
        )
        for name in sorted(name for (name,) in own if _folded(name) in built_in):
            raise NotAStore(
                f"{url} defines a {kind.lower()} {name!r} in place of DuckDB's own; it is not opened.",
                f'If the file is yours: DROP {kind} "{name}" with DuckDB, then attach it again.',
            )
    views = {name for (name,) in raw.execute(_VIEWS, {"name": database}).fetchall()}
    if "kern_schema" not in {_folded(name) for name in (*views, *base_tables(raw, database))}:
        return
    ours = {_folded(name) for name in tables}
    for name in sorted(views | {name for (name,) in raw.execute(_GENERATED, {"name": database}).fetchall()}):
        if _folded(name) in ours:
            raise NotAStore(
                f"{url}: {name!r} is not a table of kern_nb, but computes its rows.",
                "Choose another name for ours: session_table='kern_sessions'.",
            )


def _tree(raw: duckdb.DuckDBPyConnection, text: str, select: str) -> dict[str, Any]:
    # A PIVOT is serialized only within a SELECT.
    for statement in (select, f"SELECT * FROM (\n{select}\n)"):  # noqa: S608 - parsed, not run
        row = raw.execute(_SERIALIZE, {"sql": statement}).fetchone()
        try:
            tree: dict[str, Any] = json.loads(row[0]) if row else {}
        except RecursionError:
            raise QueryRefused(
                "The SQL is nested too deeply to be checked.", "Write it with fewer nested operators."
            ) from None
        if tree.get("error") is False and len(tree["statements"]) == 1:
            return tree
    raise user_sql.not_select_error(text)


def _walk(tree: dict[str, Any], relations: set[str]) -> None:
    pending: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while pending:
        node, names = pending.pop()
        if isinstance(node, list):
            pending.extend((item, names) for item in node)
        elif isinstance(node, dict):
            _check(node, relations | names)
            pending.extend(_children(node, names))


def _children(node: dict[str, Any], names: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """The parts of a node, each with the names that WITH gives it: those before it, and its own where it recurs."""
    for entry in (node.get("cte_map") or {}).get("map") or ():
        yield entry["value"], names
        names |= {_folded(entry["key"])}
    own = frozenset((_folded(node["cte_name"]),)) if node.get("cte_name") else frozenset()
    for key, value in node.items():
        if key == "cte_map":
            continue
        if node.get("type") == "TABLE_FUNCTION" and key == "function":
            yield value["children"], names
        elif node.get("type") == "CTE_NODE" and key == "query":
            yield value, names
        elif isinstance(value, (dict, list)):
            yield value, names | own


def _check(node: dict[str, Any], relations: Collection[str]) -> None:
    kind = node.get("type")
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"]
        if _folded(name) not in DUCKDB_TABLE_FUNCTIONS:
            raise user_sql.function_error(name)
    elif kind == "BASE_TABLE":
        qualifiers = [part for part in (node.get("catalog_name"), node.get("schema_name")) if part]
        if qualifiers or _folded(node["table_name"]) not in relations:
            raise user_sql.relation_error(".".join([*qualifiers, node["table_name"]]))
    elif kind == "SHOW_REF" and not node.get("query"):
        if node.get("table_name") != '"tables"' or node.get("schema_name"):
            raise user_sql.relation_error(str(node.get("table_name")))
    elif (name := node.get("function_name")) and name[0].isalpha() and _folded(name) not in DUCKDB:
        raise user_sql.function_error(name)


def _folded(name: str) -> str:
    """A name as DuckDB compares it: ASCII letters in any case."""
    return "".join(c.lower() if c.isascii() else c for c in name)
