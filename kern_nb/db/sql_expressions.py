"""SQL expressions that each engine compiles in its own way."""

from __future__ import annotations

import json
import time
from functools import lru_cache, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text

Expression = sa.ColumnElement[Any]


class ByEngine(FunctionElement[Any]):
    """An expression with a template of its SQL for each engine, with ``{0}`` for its first argument.

    Where that is not enough, a function that is registered with `compiles`.
    """

    name: str

    def __init_subclass__(cls, **templates: str) -> None:
        """Register the templates: by name of the dialect, ``default`` for the others."""
        super().__init_subclass__()
        cls.inherit_cache, cls.name = True, cls.__name__
        for dialect, template in templates.items():
            compiles(cls, dialect)(partial(_format_template, template))


def _format_template(template: str, element: Any, compiler: Any, **kw: Any) -> str:
    return template.format(*(compiler.process(clause, **kw) for clause in element.clauses), element=element)


# Invalid JSON has no keys: every engine raises an error for it, which would fail the statement for all rows.


class json_text(  # noqa: N801 - used like a function
    ByEngine,
    duckdb="(TRY_CAST({0} AS JSON) ->> {1})",
    sqlite="(CASE WHEN typeof({0}) = 'text' AND json_valid({0}) THEN {0} ->> {1} END)",
):
    """The text at a key of a JSON column; at a constant key, DuckDB reads it fifteen times faster."""

    type = Text()

    def __init__(self, column: Expression, key: str, *, constant: bool = False) -> None:
        super().__init__(sa.type_coerce(column, sa.Text), sa.literal(key, sa.Text, literal_execute=constant))


@compiles(json_text, "postgresql")
def _json_text_postgresql(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return _postgresql_json(column, "JSON", f" ->> {key}", compiler.dialect)


_INPUT_IS_VALID_VERSION = (16,)  # the first version of PostgreSQL with ``pg_input_is_valid``


def _postgresql_json(text: str, kind: str, operators: str, dialect: sa.Dialect) -> str:
    """The SQL of a text as JSON (or JSONB) with operators applied to it; NULL if it is invalid."""
    value = f"(CAST({text} AS {kind}){operators})"
    if (getattr(dialect, "server_version_info", None) or _INPUT_IS_VALID_VERSION) < _INPUT_IS_VALID_VERSION:
        return value
    # As JSONB: it also refuses escapes that cannot become text.
    return f"(CASE WHEN pg_input_is_valid({text}, 'jsonb') THEN {value} END)"


class valid_or_null(  # noqa: N801 - used like a function
    ByEngine, default="{0}", sqlite="(CASE WHEN typeof({0}) IN ({element.kinds}) THEN {0} END)"
):
    """A column, NULL where a value does not fit its type. Only SQLite stores such values."""

    def __init__(self, column: sa.Column[Any]) -> None:
        kind: Any = column.type
        self.type = kind.impl_instance
        self.kinds = _SQLITE_TYPES[type(kind)]  # follows from the column, which is part of the cache key
        super().__init__(sa.type_coerce(column, self.type))


_SQLITE_TYPES = {Text: "'text'", Json: "'text'", Integer: "'integer'", Real: "'real', 'integer'", Boolean: "'integer'"}


# On SQLite as bytes: sqlite3 fails to pass invalid UTF-8 as text to a Python function.
class lower_text(ByEngine, default="lower({0})", sqlite="lower(CAST({0} AS BLOB))"):  # noqa: N801
    """A text in lower case."""

    type = sa.Text()


_FRACTION = "((({0} % 1000000) + 1000000) % 1000000)"  # also positive before 1970


class as_time(  # noqa: N801 - used like a function
    ByEngine,
    default="to_timestamp({0} / 1000000.0)",
    duckdb="make_timestamptz({0})",
    sqlite=f"(datetime(({{0}} - {_FRACTION}) / 1000000, 'unixepoch') || printf('.%06d', {_FRACTION}))",
):
    """Unix microseconds as the engine's timestamp type."""


class current_micros(ByEngine, default="{0}"):  # noqa: N801 - used like a function
    """The time in unix microseconds: the server's, on an engine with one, as the clocks of its clients differ."""

    type = Integer()

    def __init__(self, own: Expression | None = None) -> None:
        """``own`` is the time of this process."""
        super().__init__(sa.literal(int(time.time() * 1_000_000), sa.BigInteger) if own is None else own)


@compiles(current_micros, "postgresql")
def _current_micros_postgresql(*_: Any, **_kw: Any) -> str:
    return "CAST(EXTRACT(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


class as_jsonb(ByEngine):  # noqa: N801 - used like a function
    """A text as PostgreSQL's JSONB; NULL if it is invalid JSON."""


@compiles(as_jsonb, "postgresql")
def _as_jsonb(element: as_jsonb, compiler: Any, **kw: Any) -> str:
    return _postgresql_json(compiler.process(element.clauses, **kw), "JSONB", "", compiler.dialect)


class json_at(ByEngine):  # noqa: N801 - used like a function
    """The JSON text at a path of keys through objects; NULL if it does not exist."""

    type = sa.Text()

    def __init__(self, column: Expression, *keys: str) -> None:
        steps = [*keys, *map(_duckdb_step, keys)]  # each engine uses one half
        super().__init__(sa.type_coerce(column, sa.Text), *(sa.literal(step, sa.Text) for step in steps))


def _duckdb_step(key: str) -> str:
    """Quote a key for DuckDB.

    A JSONPath does not match an empty key or a star literally. A JSON pointer does, but would match a number as an
    index of a list, which no other engine does.
    """
    if key in {"", "*"}:
        return f"/{key}"
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


@compiles(json_at)
def _json_at(element: json_at, compiler: Any, **kw: Any) -> str:
    engine = compiler.dialect.name
    column, *steps = element.clauses
    half = len(steps) // 2
    used = steps[half:] if engine == "duckdb" else steps[:half]
    document, *keys = (compiler.process(clause, **kw) for clause in (column, *used))
    if engine == "sqlite":  # as bytes: sqlite3 fails to pass invalid UTF-8 as text
        return f"{JSON_AT_FUNCTION}({', '.join([f'CAST({document} AS BLOB)', *keys])})"
    if engine == "postgresql":
        operators = "".join(f" -> {key}" for key in keys)
        return f"CAST({_postgresql_json(document, 'JSON', operators, compiler.dialect)} AS TEXT)"
    value = f"TRY_CAST({document} AS JSON)"
    for key in keys:
        value = f"json_extract({value}, {key})"
    return f"CAST({value} AS VARCHAR)"


JSON_AT_FUNCTION = "kern_json_at"
"""SQLite's own functions cannot match a key that contains a quote, and round numbers."""


def extract_json(document: object, *keys: str) -> str | None:
    """Return the JSON text at a path of keys, None if it does not exist or the document is invalid; for SQLite."""
    if not isinstance(document, (str, bytes)):
        return None
    try:
        value = _parse(document)
    except (ValueError, RecursionError):
        return None
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return json.dumps(value, ensure_ascii=False)


# Consecutive messages of a session have the same document.
@lru_cache(maxsize=16)
def _parse(document: str | bytes) -> Any:
    return json.loads(document)


class _json_items(  # noqa: N801 - used like a function
    ByEngine,
    postgresql="(SELECT json_array_elements_text(CAST({0} AS JSON)))",
    duckdb="(SELECT unnest(from_json({0}, '[\"VARCHAR\"]')))",
    sqlite="(SELECT value FROM json_each({0}))",
):
    """The strings of a JSON array as rows."""


def in_json_array(column: Expression, array: str) -> sa.ColumnElement[bool]:
    """Whether a text is in a JSON array: one parameter, however many strings there are."""
    items = _json_items(sa.literal(array, sa.Text()))
    return sa.type_coerce(column, sa.Text()).op("IN", is_comparison=True)(items)
