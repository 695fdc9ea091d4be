"""People's SQL over the views: what the engines share of running it, and the DataFrame it ends in."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec, mapping
from kern_nb.db.columns import FRAMES, Column, Kind
from kern_nb.db.dtypes import to_pandas
from kern_nb.db.schema import NotText
from kern_nb.db.views import VIEWS, postgresql_json
from kern_nb.errors import BadUsage, QueryFailed, QueryRefused, UnstorableValue, did_you_mean
from kern_nb.records import to_utc

if TYPE_CHECKING:
    from kern_nb.db.database import Database
    from kern_nb.db.schema import Tables

# Statements that are no query. Each engine sees to it by itself that nothing is written; this gives one clear answer.
_NOT_QUERIES = frozenset(
    (
        "alter", "analyze", "attach", "begin", "call", "checkpoint", "commit", "copy", "create", "deallocate", "delete",
        "detach", "do", "drop", "execute", "export", "grant", "import", "insert", "install", "load", "lock", "merge",
        "pragma", "prepare", "reindex", "release", "replace", "reset", "revoke", "rollback", "savepoint", "set",
        "start", "truncate", "update", "use", "vacuum",
    )
)  # fmt: skip

# A small machine under load still answers small questions.
_LEAST_BYTES = 50_000_000
# What a value takes in a row of Python's, beside the length of its text.
_VALUE_BYTES = 50

_UNREADABLE = re.compile("[\0\ud800-\udfff]")  # no engine takes it in SQL

# What `$name` may not be looked for in: strings, quoted names, comments, dollar quotes. Then `$name` itself.
_TOKEN = re.compile(  # what is not closed ends with the text: read once, whatever it is
    r"""(?P<skip>'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | --[^\n]* | /\*.*?(?:\*/|\Z)
        | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z))
    | \$(?P<name>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)


def run(store: Database, text: str, params: Mapping[str, Any]) -> pd.DataFrame:
    """See `SessionStore.sql`."""
    if not isinstance(params, Mapping):
        raise BadUsage(f"params={codec.shown(params)} is no dict.", "Give values by name: {'name': 'Alice'}")
    body = _statement(_text(text))
    if not body:
        raise QueryRefused("There is no SQL.", "Write one SELECT over sessions, runs, messages, tool_calls or scores.")
    if _first_word(body) in _NOT_QUERIES:
        raise refused(body)
    used = numbered(body)[1]
    for name in used:
        if name not in params:
            raise QueryFailed(f"The parameter ${name} has no value.", "Set a variable of that name.")
    found = store.run_sql(body, {name: _parameter(name, params[name]) for name in used})
    names = _distinct(found.column_names)
    plain = [_plain(column) for column in found.columns]
    columns = [Column(n, kind, "") if (kind := _KINDS.get(v.type)) else None for n, v in zip(names, plain, strict=True)]
    typed = to_pandas(pa.table(plain, names=names), [c for c in columns if c is not None])
    for place, (name, column, values) in enumerate(zip(names, columns, plain, strict=True)):
        if column is None:  # dates, lists, structs: as Arrow gives them
            typed.insert(place, name, values.to_pandas())
    return typed


def _text(text: object) -> str:
    """SQL as text that can be sent.

    Raises:
        BadUsage, QueryFailed: it is none.
    """
    if not isinstance(text, str):
        raise BadUsage(f"{codec.shown(text)} is no SQL.", "Write one SELECT as text.")
    if match := _UNREADABLE.search(text):
        raise QueryFailed(f"The SQL has the character {match[0]!a} in it.", "Pass such text as a parameter: $name.")
    return text


def refused(text: str) -> QueryRefused:
    """The refusal of SQL that is not one reading statement."""
    first = " ".join(text.split())[:60]
    return QueryRefused(
        f"Only one reading SELECT is run here, not {first!r}.", "To change sessions, use the store's methods."
    )


def refused_function(name: str) -> QueryRefused:
    """The refusal of a function that is not in `sql_functions`."""
    return QueryRefused(
        f"The function {name} is not run here.", "SQL may call what computes a value: no files, settings or own macros."
    )


def unknown_relation(name: str) -> QueryFailed:
    """The answer to a table or view that SQL does not reach: a system's, another schema's, or a missing one."""
    return QueryFailed(f"There is no table {name} here.", did_you_mean(name, VIEWS, f"SQL reads {', '.join(VIEWS)}."))


_PIECE = re.compile(
    r"""(?P<blank>[\s;]+ | --[^\n]* | /\*.*?(?:\*/|\Z))
    | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z) | [^\s;'"$/-]+ | .""",
    re.VERBOSE | re.DOTALL,
)


def _statement(text: str) -> str:
    """SQL without the semicolons, comments and white space around it."""
    pieces = list(_PIECE.finditer(text))
    told = [piece.span() for piece in pieces if piece["blank"] is None]
    if not told:
        return ""
    start, end = told[0][0], told[-1][1]
    if any(
        ";" in piece[0] and start < piece.start() < end for piece in pieces if (piece["blank"] or "-")[0] not in "-/"
    ):
        raise refused(text)
    return text[start:end]


def _parameter(name: str, value: Any) -> Any:
    """A parameter as a plain Python value, its text written as the columns' is: it is compared with what is stored."""
    try:
        plain = codec.loads(codec.dumps(value))
        plain = mapping.normalize_number(plain) if type(plain) is int else plain
    except UnstorableValue:
        plain = {}
    if isinstance(plain, (dict, list, set, frozenset, complex)):
        kind = type(value).__name__
        raise BadUsage(f"${name} is of type {kind}, which no column holds.", "Pass one text, number or time.")
    if isinstance(plain, Decimal) and plain.is_snan():
        raise BadUsage(f"${name} is a signaling NaN, which no column holds.", "Pass one text, number or time.")
    if isinstance(plain, datetime):
        to_utc(plain, f"${name}")
    return codec.encode_text(plain) if isinstance(plain, str) else plain


def _first_word(text: str) -> str:
    found = re.match(r"[\s(]*([A-Za-z]+)", text)
    return found[1].lower() if found else ""


def numbered(text: str) -> tuple[str, list[str]]:
    """SQL with ``$1`` for the first ``$name`` and so on, and the names."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        return f"${names.setdefault(name, len(names) + 1)}"

    return _TOKEN.sub(number, text), list(names)


def most_bytes() -> int:
    """How large a result may become: a third of what this process can still have, as a DataFrame takes more."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container's limit, which the machine's figure does not know
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free // 3, _LEAST_BYTES)


def too_large(limit: int) -> QueryFailed:
    """The answer to a result that would fill the memory."""
    return QueryFailed(
        f"The result is larger than {limit / 1e6:,.0f} MB, a third of the free memory.",
        "Select fewer rows or columns: a WHERE, a LIMIT, or a sum in place of rows.",
    )


def bounded_table(reader: pa.RecordBatchReader) -> pa.Table:
    """The batches of a result as a table.

    Raises:
        QueryFailed: it would fill the memory.
    """
    size, limit, batches = 0, most_bytes(), []
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > limit:
            raise too_large(limit)
    return pa.Table.from_batches(batches, reader.schema)


def bounded_rows(cursor: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """The rows of a driver's cursor.

    Raises:
        QueryFailed: they would fill the memory.
    """
    size, limit, result = 0, most_bytes(), []
    for row in cursor:
        result.append(row)
        size += _VALUE_BYTES * len(row) + sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if size > limit:
            raise too_large(limit)
    return result


def columns_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows of a driver as Arrow columns, each of the one type its values have, else of text."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table([_array(list(values)) for values in columns], names=_distinct(names))


def _array(values: list[Any]) -> pa.Array:
    kinds = {type(v) for v in values}
    if NotText in kinds:  # damaged: its bytes are not shown as if they were a text
        values = [None if type(v) is NotText else v for v in values]
    if Decimal in kinds:  # what PostgreSQL makes of a sum of integers
        whole = all(v == v.to_integral_value() for v in values if isinstance(v, Decimal))
        values = [(int(v) if whole else float(v)) if isinstance(v, Decimal) else v for v in values]
    if kinds & {dict, list}:
        values = [json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else v for v in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def _distinct(names: Sequence[str]) -> list[str]:
    """``SELECT a, a`` gives a and a_1, so that a DataFrame tells them apart."""
    given: list[str] = []
    for name in names:
        numbered_names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
        given.append(next(n for n in numbered_names if n not in given and (n == name or n not in names)))
    return given


_KINDS: dict[pa.DataType, Kind] = {
    pa.string(): "text",
    pa.int64(): "count",
    pa.float64(): "number",
    pa.bool_(): "flag",
    pa.timestamp("us", tz="UTC"): "time",
}


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers of any width, and times of any zone, as the frames have them."""
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


class as_time(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """Unix microseconds as the engine's own time."""

    inherit_cache = True
    name = "as_time"


@compiles(as_time)
def _as_time(element: as_time, compiler: Any, **kw: Any) -> str:
    return f"to_timestamp({compiler.process(element.clauses, **kw)} / 1000000.0)"


@compiles(as_time, "duckdb")
def _as_time_duckdb(element: as_time, compiler: Any, **kw: Any) -> str:
    return f"make_timestamptz({compiler.process(element.clauses, **kw)})"


@compiles(as_time, "sqlite")
def _as_time_sqlite(element: as_time, compiler: Any, **kw: Any) -> str:
    micros = compiler.process(element.clauses, **kw)
    fraction = f"((({micros} % 1000000) + 1000000) % 1000000)"  # of a time before 1970, too
    return f"(datetime(({micros} - {fraction}) / 1000000, 'unixepoch') || printf('.%06d', {fraction}))"


class as_jsonb(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """A text as PostgreSQL's JSONB; NULL where it is not JSON."""

    inherit_cache = True
    name = "as_jsonb"


@compiles(as_jsonb, "postgresql")
def _as_jsonb(element: as_jsonb, compiler: Any, **kw: Any) -> str:
    return postgresql_json(compiler.process(element.clauses, **kw), "JSONB", "", compiler.dialect)


def view_selects(
    store: Database, dialect: sa.Dialect, db_schema: str = "main", names: Collection[str] = VIEWS.keys()
) -> dict[str, str]:
    """The SELECT that each of the views stands for."""
    return {name: _view_select(name, store.tables, dialect, db_schema) for name in VIEWS if name in names}


@functools.lru_cache(maxsize=64)
def _view_select(name: str, tables: Tables, dialect: sa.Dialect, db_schema: str) -> str:
    inner = VIEWS[name](tables, None).subquery()
    shown = [_shown(inner.c[column.name], column, dialect).label(column.name) for column in FRAMES[name]]
    body = sa.select(*shown).compile(
        dialect=dialect,
        compile_kwargs={"literal_binds": True},
        # A workload may be called like a view: its tables are named with their schema, which the view is not in.
        schema_translate_map={None: db_schema},
        render_schema_translate=True,
    )
    return str(body).replace("%%", "%")


def view_statements(store: Database, dialect: sa.Dialect, db_schema: str = "main") -> list[str]:
    """What makes the six views, for one connection only: two workloads in one database have views of the same names."""
    create = "CREATE TEMP VIEW IF NOT EXISTS" if dialect.name == "sqlite" else "CREATE OR REPLACE TEMP VIEW"
    return [f"{create} {name} AS {body}" for name, body in view_selects(store, dialect, db_schema).items()]


def _shown(value: sa.ColumnElement[Any], column: Column, dialect: sa.Dialect) -> sa.ColumnElement[Any]:
    if column.kind == "time":
        return as_time(value)
    if column.kind == "json" and dialect.name == "postgresql":
        return as_jsonb(sa.type_coerce(value, sa.Text))
    return value
