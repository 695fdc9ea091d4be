"""Checks what a DuckDB query can reach, on the syntax tree from DuckDB's own parser.

Nothing here parses SQL: `json_serialize_sql` returns the statement as DuckDB understands it. Only the functions in
`sql_functions` and the relations that the caller names are allowed; everything else is refused.
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

# Objects of a file that would replace built-in ones of the same name.
_REPLACEMENTS = {
    "MACRO": "SELECT DISTINCT function_name FROM system.main.duckdb_functions() WHERE internal = $internal",
    "TYPE": "SELECT DISTINCT type_name FROM system.main.duckdb_types() WHERE internal = $internal",
}
_VIEWS = "SELECT view_name FROM system.main.duckdb_views() WHERE database_name = $name"
_TABLES = "SELECT table_name FROM system.main.duckdb_tables() WHERE database_name = $name AND schema_name = 'main'"
_GENERATED = (
    "SELECT DISTINCT table_name FROM system.main.duckdb_tables() WHERE database_name = $name AND contains(sql, "
    "'GENERATED ALWAYS AS')"
)


def require_select(raw: duckdb.DuckDBPyConnection, text: str, relations: Collection[str]) -> None:
    """Check that SQL is one SELECT, or EXPLAIN of one, with allowed functions and relations only.

    The relations are the tables and views that the query may name, besides those in its own WITH.

    Raises:
        QueryRefused: the SQL is another statement, or calls a function that is not allowed.
        QueryFailed: the SQL does not parse, or names another table.
    """
    try:
        types = [statement.type for statement in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        raise QueryFailed(str(error), "The SQL dialect is DuckDB's.") from error
    is_explain = types == [duckdb.StatementType.EXPLAIN]
    if not is_explain and types != [duckdb.StatementType.SELECT]:
        raise user_sql.not_select_error(text)
    prefix = _EXPLAIN.match(text) if is_explain else None
    select = text[prefix.end() :] if prefix else text
    _walk(_parse(raw, text, select), {_fold(name) for name in relations})


def list_tables(raw: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """The tables of a database's main schema, without its views."""
    return _names(raw, _TABLES, name=database)


def _names(raw: duckdb.DuckDBPyConnection, query: str, **parameters: object) -> list[str]:
    return [name for (name,) in raw.execute(query, parameters).fetchall()]


def require_safe_catalog(raw: duckdb.DuckDBPyConnection, database: str, tables: Collection[str], url: str) -> None:
    """Check that statements on a store's tables run no code from its file: macros, views, generated columns.

    ``database`` is the name under which the file is attached.

    Raises:
        NotAStore: the file defines such an object.
    """
    for kind, statement in _REPLACEMENTS.items():
        defined = _names(raw, statement, internal=False)
        built_in = defined and {_fold(name) for name in _names(raw, statement, internal=True)}
        for name in sorted(name for name in defined if _fold(name) in built_in):
            raise NotAStore(
                f"{url} defines a {kind.lower()} {name!r} that replaces a built-in one of DuckDB; it is not opened.",
                f'If the file is yours: DROP {kind} "{name}" with DuckDB, then attach it again.',
            )
    views = set(_names(raw, _VIEWS, name=database))
    if "kern_schema" not in {_fold(name) for name in (*views, *list_tables(raw, database))}:
        return
    store_tables = {_fold(name) for name in tables}
    for name in sorted(views.union(_names(raw, _GENERATED, name=database))):
        if _fold(name) in store_tables:
            raise NotAStore(
                f"{url}: {name!r} is a view or has generated columns; a table of kern_nb has neither.",
                "Choose another table name: session_table='kern_sessions'.",
            )


def _parse(raw: duckdb.DuckDBPyConnection, text: str, select: str) -> dict[str, Any]:
    # A PIVOT is serialized only within a SELECT.
    for statement in (select, f"SELECT * FROM (\n{select}\n)"):  # noqa: S608 - parsed, not run
        row = raw.execute(_SERIALIZE, {"sql": statement}).fetchone()
        try:
            tree: dict[str, Any] = json.loads(row[0]) if row else {}
        except RecursionError:
            raise QueryRefused("The SQL is nested too deeply to check.", "Use fewer nested operators.") from None
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
    """The children of a node, each with the CTE names in its scope: earlier ones, and its own if it is recursive."""
    for entry in (node.get("cte_map") or {}).get("map") or ():
        yield entry["value"], names
        names |= {_fold(entry["key"])}
    own = frozenset((_fold(node["cte_name"]),)) if node.get("cte_name") else frozenset()
    for key, value in node.items():
        if key == "cte_map":
            continue
        if node.get("type") == "TABLE_FUNCTION" and key == "function":
            yield value | {"function_name": ""}, names  # `_check` has checked the name; other functions may be within
        elif node.get("type") == "CTE_NODE" and key == "query":
            yield value, names
        elif isinstance(value, (dict, list)):
            yield value, names | own


def _check(node: dict[str, Any], relations: Collection[str]) -> None:
    kind = node.get("type")
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"]
        if _fold(name) not in DUCKDB_TABLE_FUNCTIONS:
            raise user_sql.function_error(name)
    elif kind == "BASE_TABLE":
        qualifiers = [part for part in (node.get("catalog_name"), node.get("schema_name")) if part]
        if qualifiers or _fold(node["table_name"]) not in relations:
            raise user_sql.relation_error(".".join([*qualifiers, node["table_name"]]))
    elif kind == "SHOW_REF" and not node.get("query"):
        if node.get("table_name") != '"tables"' or node.get("schema_name"):
            raise user_sql.relation_error(str(node.get("table_name")))
    elif (name := node.get("function_name")) and name[0].isalpha() and _fold(name) not in DUCKDB:
        raise user_sql.function_error(name)


def _fold(name: str) -> str:
    """A name as DuckDB compares it: ASCII letters are case-insensitive."""
    return "".join(c.lower() if c.isascii() else c for c in name)
