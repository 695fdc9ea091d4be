"""Users' SQL over the views: validation, parameters, limits and conversion, shared by all engines."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import psutil
import pyarrow as pa
import sqlalchemy as sa

from kern_nb.db import codec
from kern_nb.db.column_types import InvalidText
from kern_nb.db.columns import FRAMES, Column, Kind
from kern_nb.db.dtypes import ARROW_TYPES, to_pandas
from kern_nb.db.sql_expressions import as_jsonb, as_time
from kern_nb.db.sql_parameters import COMMENT, QUOTED, bind_parameters, number_parameters
from kern_nb.db.statement_cache import shared_dialect
from kern_nb.db.views import VIEWS, view_query
from kern_nb.errors import BadUsage, QueryFailed, QueryRefused, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db.database import Database
    from kern_nb.db.schema import Tables

# Statements other than queries, refused with one clear error. Each engine prevents writes on its own as well.
_NOT_QUERIES = (
    "alter", "analyze", "attach", "begin", "call", "checkpoint", "commit", "copy", "create", "deallocate", "delete",
    "detach", "do", "drop", "execute", "export", "grant", "import", "insert", "install", "load", "lock", "merge",
    "pragma", "prepare", "reindex", "release", "replace", "reset", "revoke", "rollback", "savepoint", "set", "start",
    "truncate", "update", "use", "vacuum",
)  # fmt: skip

# The smallest limit of a result, for machines with little free memory.
_MIN_RESULT_BYTES = 50_000_000
# The memory of a value in a Python row, in addition to the length of its text.
_VALUE_BYTES = 50
_Part = TypeVar("_Part")

_FORBIDDEN = re.compile("[\0\ud800-\udfff]")  # no engine accepts these in SQL

_PIECE = re.compile(rf"""(?P<blank>[\s;]+ | {COMMENT}) | {QUOTED} | [^\s;'"$/-]+ | .""", re.VERBOSE | re.DOTALL)


def run_query(store: Database, text: str, params: Mapping[str, Any]) -> pd.DataFrame:
    """See `SessionStore.sql`."""
    if not isinstance(params, Mapping):
        raise BadUsage(f"params must be a dict, got {codec.short_repr(params)}.", "For example: {'name': 'Alice'}")
    if not isinstance(text, str):
        raise BadUsage(f"The query must be a str, got {codec.short_repr(text)}.", "Write one SELECT as text.")
    if match := _FORBIDDEN.search(text):
        raise QueryFailed(f"The SQL contains the character {match[0]!a}.", "Pass such text as a parameter: $name.")
    body = _strip(text)
    if not body:
        raise QueryRefused("The query is empty.", f"Write one SELECT over {', '.join(VIEWS)}.")
    first_word = re.match(r"[\s(]*([A-Za-z]+)", body)
    if first_word and first_word[1].lower() in _NOT_QUERIES:
        raise not_select_error(body)
    parameters = number_parameters(body)[1]
    for name in parameters:
        if name not in params:
            raise QueryFailed(f"The parameter ${name} has no value.", "Set a variable of that name.")
    values = {name: params[name] for name in parameters}
    store.require_committed("sql()")
    result = store.run_sql(*bind_parameters(body, values, store.engine.dialect.name))
    names = _deduplicate(result.column_names)
    arrays = [_normalize(column) for column in result.columns]
    kinds = [_KINDS.get(array.type) for array in arrays]
    columns = [Column(name, kind, "") for name, kind in zip(names, kinds, strict=True) if kind is not None]
    df = to_pandas(pa.table(arrays, names=names), columns)
    for index, kind in enumerate(kinds):
        if kind is None:  # dates, lists, structs: converted by Arrow
            df.insert(index, names[index], arrays[index].to_pandas())
    return df


def not_select_error(text: str) -> QueryRefused:
    """The error for SQL that is not one SELECT."""
    start = " ".join(text.split())[:60]
    return QueryRefused(f"The query must be one SELECT, got {start!r}.", "Use the store's methods to change sessions.")


def function_error(name: str) -> QueryRefused:
    """Return the error for a function that is not in `sql_functions`."""
    return QueryRefused(
        f"The function {name} is not allowed.",
        "SQL may call functions that compute a value, not those for files or settings, nor macros.",
    )


def relation_error(name: str) -> QueryFailed:
    """Return the error for a table that SQL cannot read: of the system, of another schema, or unknown."""
    return QueryFailed(f"Unknown table {name}.", did_you_mean(name, VIEWS, f"SQL can read {', '.join(VIEWS)}."))


def _strip(text: str) -> str:
    """Return SQL without the semicolons, comments and white space around it."""
    pieces = list(_PIECE.finditer(text))
    spans = [piece.span() for piece in pieces if piece["blank"] is None]
    if not spans:
        return ""
    start, end = spans[0][0], spans[-1][1]
    if any(
        ";" in piece[0] and start < piece.start() < end for piece in pieces if (piece["blank"] or "-")[0] not in "-/"
    ):
        raise not_select_error(text)
    return text[start:end]


def _max_result_bytes() -> int:
    """A third of the free memory, as the DataFrame needs more than the result."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # the limit of a container
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free // 3, _MIN_RESULT_BYTES)


def _limited(parts: Iterable[_Part], size: Callable[[_Part], int]) -> Iterator[_Part]:
    """The parts of a result as they are read, as long as they do not fill the memory."""
    total, limit = 0, _max_result_bytes()
    for part in parts:
        total += size(part)
        if total > limit:
            raise QueryFailed(
                f"The result is larger than {limit / 1e6:,.0f} MB, a third of the free memory.",
                "Select fewer rows or columns: use WHERE, LIMIT or an aggregate.",
            )
        yield part


def read_table(reader: pa.RecordBatchReader) -> pa.Table:
    """Read the batches of a result, of limited size."""
    return pa.Table.from_batches(list(_limited(reader, lambda batch: batch.nbytes)), reader.schema)


def _row_size(row: Sequence[Any]) -> int:
    return _VALUE_BYTES * len(row) + sum(len(value) for value in row if isinstance(value, (str, bytes)))


def read_rows(cursor: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Read the rows of a driver's cursor, of limited size."""
    return list(_limited(cursor, _row_size))


def rows_to_arrow(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Convert a driver's rows to Arrow columns of the values' type; mixed types become text."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table([_to_array(list(values)) for values in columns], names=_deduplicate(names))


def _to_array(values: list[Any]) -> pa.Array:
    types = {type(v) for v in values}
    if InvalidText in types:  # damaged: its bytes must not look like a text
        values = [None if type(v) is InvalidText else v for v in values]
    if Decimal in types:  # PostgreSQL's sums of integers
        integral = all(v == v.to_integral_value() for v in values if isinstance(v, Decimal))
        values = [(int(v) if integral else float(v)) if isinstance(v, Decimal) else v for v in values]
    if types & {dict, list}:
        values = [json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else v for v in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def _deduplicate(names: Sequence[str]) -> list[str]:
    """Make column names unique: ``SELECT a, a`` returns a and a_1."""
    unique: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
        unique.append(next(n for n in candidates if n not in unique and (n == name or n not in names)))
    return unique


_KINDS: dict[pa.DataType, Kind] = {dtype: kind for kind, dtype in ARROW_TYPES.items() if kind != "json"}


def _normalize(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast numbers of any width and times of any zone to the types of the frames."""
    kind = values.type
    try:
        if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
            return values.cast(pa.int64())
        if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
            return values.cast(pa.float64())
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return values.cast(pa.timestamp("us", tz="UTC"))
        if pa.types.is_large_string(kind) or pa.types.is_null(kind):
            return values.cast(pa.string())
    except pa.ArrowInvalid:  # an integer wider than 64 bits
        return values.cast(pa.float64())
    return values


def compile_views(
    store: Database, dialect: sa.Dialect, db_schema: str = "main", names: Collection[str] = VIEWS
) -> dict[str, str]:
    """The SELECT of each view by name."""
    dialect = shared_dialect(dialect)
    return {name: _compile_view(name, store.tables, dialect, db_schema) for name in VIEWS if name in names}


@functools.lru_cache(maxsize=64)
def _compile_view(name: str, tables: Tables, dialect: sa.Dialect, db_schema: str) -> str:
    inner = view_query(name, tables).subquery()
    columns = []
    for column in FRAMES[name]:
        value: sa.ColumnElement[Any] = inner.c[column.name]
        if column.kind == "time":
            value = as_time(value)
        elif column.kind == "json" and dialect.name == "postgresql":
            value = as_jsonb(sa.type_coerce(value, sa.Text))
        columns.append(value.label(column.name))
    body = sa.select(*columns).compile(
        dialect=dialect,
        compile_kwargs={"literal_binds": True},
        # A table of the workload may have the name of a view: the schema distinguishes them.
        schema_translate_map={None: db_schema},
        render_schema_translate=True,
    )
    return str(body).replace("%%", "%")


def create_view_statements(store: Database, dialect: sa.Dialect, db_schema: str = "main") -> list[str]:
    """The DDL of the six views. They are temporary: each workload of a database has its own."""
    create = "CREATE TEMP VIEW IF NOT EXISTS" if dialect.name == "sqlite" else "CREATE OR REPLACE TEMP VIEW"
    return [f"{create} {name} AS {body}" for name, body in compile_views(store, dialect, db_schema).items()]
