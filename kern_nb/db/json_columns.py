"""Values inside JSON columns, as columns of their own: `expand=["metadata.task_id"]`.

They are cut out in SQL, each engine in its own way, with the keys as parameters. What comes is JSON, and `texts`
spells it, so that a number is written alike everywhere: engines differ even on 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec
from kern_nb.db.columns import INSIDE
from kern_nb.db.dtypes import decoded, shown
from kern_nb.db.schema import Tables
from kern_nb.db.views import postgresql_json
from kern_nb.errors import BadUsage, did_you_mean

JsonPath: TypeAlias = str | tuple[str, ...] | list[str]
"""``metadata.task_id``, or ``("metadata", "a.b")`` for keys with dots."""

_HOW = 'Write the column and its keys with dots, or as a tuple: "metadata.task_id", ("metadata", "a.b").'


class Expanded(NamedTuple):
    """A value inside a JSON column.

    Attributes:
        name: The name of the new column, as it was asked for.
        root: The column, a name in `columns.INSIDE`.
        keys: The way to the value.
    """

    name: str
    root: str
    keys: tuple[str, ...]


def expanded(frame: str, paths: Iterable[JsonPath] | None) -> tuple[Expanded, ...]:
    """What is to be added to a frame.

    Raises:
        BadUsage: a path has no keys or starts at no JSON column of the frame, or two have one name.
    """
    found: dict[str, Expanded] = {}
    for path in [paths] if isinstance(paths, str) else paths or ():
        one = _expanded(frame, path)
        if found.setdefault(one.name, one) != one:
            raise BadUsage(f"Two paths would both be the column {one.name!r}.", "Ask for them one at a time.")
    return tuple(found.values())


def _expanded(frame: str, path: JsonPath) -> Expanded:
    parts = path.split(".") if isinstance(path, str) else path
    if not isinstance(parts, (tuple, list)) or not all(isinstance(part, str) for part in parts):
        raise BadUsage(f"{path!r} is no path to a value.", _HOW)
    roots = [root for root, place in INSIDE.items() if place.table in (frame, "sessions")]
    root, *keys = parts or [""]
    if root not in roots:
        there = f"Values of {frame} are found in {', '.join(roots)}."
        raise BadUsage(f"{path!r}: {frame} has no JSON column {root!r}.", did_you_mean(root, roots, there))
    if not keys or (isinstance(path, str) and "" in keys):
        raise BadUsage(f"{path!r} names no key of {root}.", _HOW)
    return Expanded(shown(".".join(parts)), root, tuple(keys))


def add(query: sa.Select[Any], tables: Tables, frame: str, asked: tuple[Expanded, ...]) -> sa.Select[Any]:
    """A query over a frame's table with the values, under the names of `label`, as JSON text."""
    owner: sa.Table = getattr(tables, frame)
    # Under another name: the table itself may stand in the conditions of the query.
    sessions = tables.sessions.alias("its_session")
    joined = False
    for place, one in enumerate(asked):
        inside = INSIDE[one.root]
        own = inside.table == frame
        joined |= not own
        columns = owner.c if own else sessions.c
        keys = map(codec.encode_text, (*inside.keys, *one.keys))
        query = query.add_columns(json_at(columns[inside.column], *keys).label(label(place)))
    return query.outerjoin(sessions, sessions.c.session_id == owner.c.session_id) if joined else query


def label(place: int) -> str:
    """The name of a value in the SQL, which takes no name from people."""
    return f"expanded_{place}"


class json_at(sa.sql.expression.FunctionElement[str]):  # noqa: N801 - used like a function
    """The JSON text at a way of keys through objects; NULL where there is none."""

    inherit_cache = True
    name = "json_at"
    type = sa.Text()

    def __init__(self, column: sa.ColumnElement[Any], *keys: str) -> None:
        steps = [*keys, *map(_duckdb_step, keys)]  # each engine takes those it understands
        super().__init__(sa.type_coerce(column, sa.Text), *(sa.literal(step, sa.Text) for step in steps))

    def parts(self) -> tuple[sa.ColumnElement[Any], list[sa.ColumnElement[Any]], list[sa.ColumnElement[Any]]]:
        """The column, the keys, and the keys as DuckDB has them."""
        column, *steps = self.clauses
        return column, steps[: len(steps) // 2], steps[len(steps) // 2 :]


@compiles(json_at, "postgresql")
def _json_at_postgresql(element: json_at, compiler: Any, **kw: Any) -> str:
    column, keys, _ = element.parts()
    steps = "".join(f" -> {compiler.process(key, **kw)}" for key in keys)
    return f"CAST({postgresql_json(compiler.process(column, **kw), 'JSON', steps, compiler.dialect)} AS TEXT)"


@compiles(json_at, "duckdb")
def _json_at_duckdb(element: json_at, compiler: Any, **kw: Any) -> str:
    column, _, steps = element.parts()
    found = f"TRY_CAST({compiler.process(column, **kw)} AS JSON)"
    for step in steps:
        found = f"json_extract({found}, {compiler.process(step, **kw)})"
    return f"CAST({found} AS VARCHAR)"


def _duckdb_step(key: str) -> str:
    """A key as DuckDB reads it literally: in a JSONPath it takes neither an empty key nor a star for one.

    A JSON pointer does, but would take a number for a place in a list, which no other engine does.
    """
    if key in {"", "*"}:
        return f"/{key}"
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


@compiles(json_at, "sqlite")
def _json_at_sqlite(element: json_at, compiler: Any, **kw: Any) -> str:
    column, keys, _ = element.parts()
    # As bytes: SQLite hands over no text that is no UTF-8.
    document = f"CAST({compiler.process(column, **kw)} AS BLOB)"
    return f"{SQLITE_FUNCTION}({', '.join([document, *(compiler.process(key, **kw) for key in keys)])})"


SQLITE_FUNCTION = "kern_json_at"
"""SQLite's own functions find no key with a quote in it, and round numbers."""


def cut_out(document: object, *keys: str) -> str | None:
    """The JSON text at a way of keys through the objects of a JSON text; what SQLite's function does.

    What is no JSON text has no keys.
    """
    if not isinstance(document, (str, bytes)):
        return None
    try:
        value = _parsed(document)
    except (ValueError, RecursionError):
        return None
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return _json(value)


# The messages of a session come one after the other, each with the same document.
@lru_cache(maxsize=16)
def _parsed(document: str | bytes) -> Any:
    return json.loads(document)


def _json(value: Any) -> str:
    """JSON text as `codec` writes it."""
    return json.dumps(value, ensure_ascii=False)


def texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """JSON values as text: each different one is looked at once."""
    encoded = values.cast(pa.string()).dictionary_encode()
    chunks = [
        pa.array([_spelled(text) for text in chunk.dictionary.to_pylist()], pa.string()).take(chunk.indices)
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, pa.string())


def _spelled(text: str) -> str | None:
    """A JSON value as a person writes it: text without quotes, nothing for null, all else as JSON.

    Decimals, times and what else JSON lacks were stored as an object of two; the text in it says all.
    """
    value = json.loads(text)
    if isinstance(value, dict) and value.keys() == {"$type", "value"} and isinstance(value["value"], str):
        value = value["value"]
    if isinstance(value, str):
        return decoded(value, "text")
    return None if value is None else decoded(_json(value), "json")
