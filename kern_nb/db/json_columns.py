"""Values inside JSON columns, as columns of their own: `expand=["metadata.task_id"]`.

Each engine extracts them in SQL, with the keys as parameters. The result is JSON text, which `format_values` formats,
so that a number looks the same on every engine: they differ even on 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import sqlalchemy as sa

from kern_nb.control_characters import replace_surrogates
from kern_nb.db import codec
from kern_nb.db.columns import JSON_ROOTS
from kern_nb.db.dtypes import decode_cell
from kern_nb.db.schema import Tables
from kern_nb.db.sql_expressions import json_at
from kern_nb.errors import BadUsage, did_you_mean

JsonPath: TypeAlias = str | tuple[str, ...] | list[str]
"""``metadata.task_id``, or ``("metadata", "a.b")`` for keys with dots."""

_PATH_HINT = 'Write the column and its keys with dots, or as a tuple: "metadata.task_id", ("metadata", "a.b").'


class ExpandedColumn(NamedTuple):
    """A value inside a JSON column, one of `JSON_ROOTS`, as a column with the requested name."""

    name: str
    root: str
    keys: tuple[str, ...]


def parse_paths(frame: str, paths: Iterable[JsonPath] | None) -> tuple[ExpandedColumn, ...]:
    """Parse the paths of ``expand``; raise BadUsage for one without keys or a JSON column, or two of one name."""
    columns: dict[str, ExpandedColumn] = {}
    for path in [paths] if isinstance(paths, str) else paths or ():
        column = _parse_path(frame, path)
        if columns.setdefault(column.name, column) != column:
            raise BadUsage(f"Two paths have the same column name {column.name!r}.", "Request them one at a time.")
    return tuple(columns.values())


def _parse_path(frame: str, path: JsonPath) -> ExpandedColumn:
    parts = path.split(".") if isinstance(path, str) else path
    if not isinstance(parts, (tuple, list)) or not all(isinstance(part, str) for part in parts):
        raise BadUsage(f"{path!r} is not a path to a value.", _PATH_HINT)
    roots = [name for name, root in JSON_ROOTS.items() if root.table in (frame, "sessions")]
    root, *keys = parts or [""]
    if root not in roots:
        hint = f"The JSON columns of {frame} are {', '.join(roots)}."
        raise BadUsage(f"{path!r}: {frame} has no JSON column {root!r}.", did_you_mean(root, roots, hint))
    if not keys or (isinstance(path, str) and "" in keys):
        raise BadUsage(f"{path!r} has no key of {root}.", _PATH_HINT)
    return ExpandedColumn(replace_surrogates(".".join(parts)), root, tuple(keys))


def add_columns(
    query: sa.Select[Any], tables: Tables, frame: str, columns: tuple[ExpandedColumn, ...]
) -> sa.Select[Any]:
    """Add the values to a query over a frame's table, as JSON text labelled by `column_label`."""
    table: sa.Table = getattr(tables, frame)
    # An alias, as the conditions of the query may use the table itself.
    sessions = tables.sessions.alias("its_session")
    joined = False
    for index, column in enumerate(columns):
        root = JSON_ROOTS[column.root]
        source = table if root.table == frame else sessions
        joined |= source is sessions
        keys = map(codec.encode_text, (*root.keys, *column.keys))
        query = query.add_columns(json_at(source.c[root.column], *keys).label(column_label(index)))
    return query.outerjoin(sessions, sessions.c.session_id == table.c.session_id) if joined else query


def column_label(index: int) -> str:
    """Return the name of a value in the SQL, which contains no name from users."""
    return f"expanded_{index}"


def format_values(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Format JSON values as text; each distinct value once."""
    encoded = values.cast(pa.string()).dictionary_encode()
    chunks = [
        pa.array([_format_value(text) for text in chunk.dictionary.to_pylist()], pa.string()).take(chunk.indices)
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, pa.string())


def _format_value(text: str) -> str | None:
    """Format a JSON value: text without quotes, None for null, everything else as JSON.

    Decimals, times and other types that JSON lacks are stored as an object of type and text; the text is the result.
    """
    value = json.loads(text)
    if isinstance(value, dict) and value.keys() == {"$type", "value"} and isinstance(value["value"], str):
        value = value["value"]
    if isinstance(value, str):
        return decode_cell(value, "text")
    return None if value is None else decode_cell(json.dumps(value, ensure_ascii=False), "json")
