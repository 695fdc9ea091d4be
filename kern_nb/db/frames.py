"""The DataFrames: a view, filtered in SQL, handed over as Arrow, with the dtypes of `columns` whatever the engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec, reading
from kern_nb.db.columns import FRAMES, INHERITED, Column, Kind
from kern_nb.db.lineage import CUT_RUN, Segments, segments
from kern_nb.db.rows import ANSWERS
from kern_nb.db.schema import Tables, newest_first
from kern_nb.db.views import NO_MASKS, SECONDS, VIEWS, Masks, Only
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.connected import Connected

When: TypeAlias = str | date | datetime | pd.Timestamp

ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "json": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "flag": pa.bool_(),
}

# The order that makes a frame readable, and the same on every engine.
_ORDER = {
    "runs": ("session_id", "run_index"),
    "messages": ("session_id", "run_index", "message_index"),
    "tool_calls": ("session_id", "run_index", "call_index"),
    "scores": ("session_id", "run_id", "name", "source"),
}


@dataclass(frozen=True)
class Filters:
    """What narrows a frame. ``since`` is inclusive, ``until`` exclusive; naive times are UTC."""

    session_id: str | Iterable[str] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    since: When | None = None
    until: When | None = None
    limit: int | None = None


def frame(store: Connected, name: str, filters: Filters, *, lineage: bool = False) -> pd.DataFrame:
    """One of the frames; see `SessionStore` for what each holds."""
    if filters.limit is not None and filters.limit < 0:
        raise BadUsage(f"limit={filters.limit} is negative.", "Give a limit of 0 or more, or none.")
    columns, seen = FRAMES[name], None
    if lineage:
        if not isinstance(filters.session_id, str):
            raise BadUsage(
                "lineage=True needs one session_id.", "Name the branch: messages_df('what-if', lineage=True)."
            )
        with store.reading() as connection:
            row = reading.require_session(connection, store.tables, filters.session_id)
            seen = segments(connection, store.tables, row)
        columns = (*columns, INHERITED)
    query = _sessions(store.tables, filters) if name == "sessions" else _rows(store.tables, name, filters, seen)
    return to_pandas(store.arrow(query), columns)


def to_pandas(table: pa.Table, columns: Iterable[Column]) -> pd.DataFrame:
    """Arrow columns as the documented dtypes: nullable, text kept in Arrow, times in UTC."""
    typed = {c.name: _typed(table[c.name], c.kind) for c in columns}
    made: pd.DataFrame = pa.table(typed).to_pandas(types_mapper=_NULLABLE.get)
    return made


# Arrow text arrives as text that shares Arrow's memory: nothing is made into Python strings.
_NULLABLE: dict[pa.DataType, Any] = {
    pa.string(): pd.StringDtype("pyarrow", na_value=pd.NA),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}

_SURROGATE = re.compile("[\ud800-\udfff]")
# \u0010 and four digits, where the backslash is not itself escaped.
_ESCAPED_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0010([0-9a-f]{4})")


def _typed(values: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    if kind == "time":
        return values.cast(pa.int64()).cast(ARROW[kind])
    values = values.cast(ARROW[kind])
    if kind not in ("text", "json") or not _has_escapes(values, kind):
        return values
    restore = _decode_json if kind == "json" else _decode_text
    return pa.chunked_array([pa.array([None if v is None else restore(v) for v in values.to_pylist()], pa.string())])


def _has_escapes(values: pa.ChunkedArray, kind: Kind) -> bool:
    mark = "\\u0010" if kind == "json" else codec.ESCAPE
    return bool(pc.any(pc.match_substring(values, mark)).as_py())


def _decode_text(text: str) -> str:
    """The stored text. Arrow is UTF-8, which has no lone surrogates: U+FFFD stands for each; `get_session` has them."""
    return _SURROGATE.sub("\ufffd", codec.decode_text(text))


def _decode_json(text: str) -> str:
    return _ESCAPED_JSON.sub(r"\1\\u\2", text)


def micros(when: When) -> int:
    """Unix microseconds of a time as people give it; naive ones are UTC."""
    try:
        time = pd.Timestamp(when)
        if pd.isna(time):
            raise ValueError("it is missing")  # noqa: TRY301 - one message for all that is no time
    except (ValueError, TypeError) as error:
        raise BadUsage(f"{when!r} is no time: {error}.", "Write it like 2026-11-20 or 2026-11-20T14:30.") from error
    time = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
    return int(time.value // 1000)  # pandas counts nanoseconds, whatever the unit


def _times(created_at: sa.ColumnElement[int], filters: Filters, unit: int = 1) -> list[sa.ColumnElement[bool]]:
    stored = created_at if unit == 1 else created_at * unit
    since = [] if filters.since is None else [stored >= micros(filters.since)]
    return since if filters.until is None else [*since, stored < micros(filters.until)]


class texts_of(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """The texts of a JSON array, as rows: one parameter, however many they are."""

    inherit_cache = True
    name = "texts_of"


@compiles(texts_of, "postgresql")
def _texts_of_postgresql(element: texts_of, compiler: Any, **kw: Any) -> str:
    return f"(SELECT json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS JSON)))"


@compiles(texts_of, "duckdb")
def _texts_of_duckdb(element: texts_of, compiler: Any, **kw: Any) -> str:
    return f"(SELECT unnest(from_json({compiler.process(element.clauses, **kw)}, '[\"VARCHAR\"]')))"


@compiles(texts_of, "sqlite")
def _texts_of_sqlite(element: texts_of, compiler: Any, **kw: Any) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - a bound parameter


def _named(column: sa.ColumnElement[str], session_id: str | Iterable[str]) -> sa.ColumnElement[bool]:
    if isinstance(session_id, str):
        return column == session_id
    ids = texts_of(sa.literal(codec.dumps(list(session_id)), sa.Text()))
    return sa.type_coerce(column, sa.Text()).op("IN", is_comparison=True)(ids)


def _sessions(tables: Tables, filters: Filters) -> sa.Select[Any]:
    """Newest first. The sessions are chosen before their totals are computed."""
    s = tables.sessions
    where = _times(s.c.created_at, filters, SECONDS)
    if filters.session_id is not None:
        where.append(_named(s.c.session_id, filters.session_id))
    if filters.user_id is not None:
        where.append(s.c.user_id == filters.user_id)
    if filters.agent_id is not None:
        where.append(s.c.agent_id == filters.agent_id)
    order = (newest_first(s.c.created_at).desc(), s.c.session_id.desc())
    if not where and filters.limit is None:
        return VIEWS["sessions"](tables, None).order_by(*order)
    chosen = sa.select(s.c.session_id).where(*where).order_by(*order).limit(filters.limit)
    ids = sa.select(chosen.subquery().c.session_id)
    only: Only = lambda table: table.c.session_id.in_(ids)  # noqa: E731 - the type is the point
    return VIEWS["sessions"](tables, only).where(only(s)).order_by(*order)


def _rows(tables: Tables, name: str, filters: Filters, seen: Segments | None = None) -> sa.Select[Any]:
    """The rows of a view in order; of what a branch sees, those it inherits are marked."""
    table: sa.Table = getattr(tables, name)
    where = _times(table.c.created_at, filters)
    if filters.agent_id is not None:
        r = tables.runs
        of_agent = sa.select(r.c.run_id).where(r.c.agent_id == filters.agent_id)
        where.append(r.c.agent_id == filters.agent_id if name == "runs" else table.c.run_id.in_(of_agent))
    only = _of_sessions(tables, filters, seen)
    query = VIEWS[name](tables, only, NO_MASKS if seen is None else _masks(tables, name, seen))
    if only is not None:
        where.append(only(table))
    if seen is not None:
        query = query.add_columns((table.c.session_id != seen.own.session_id).label(INHERITED.name))
    # A branch reads in the order of its runs, whoever's they are.
    order = _ORDER[name] if seen is None else _ORDER[name][1:]
    return query.where(*where).order_by(*(_nulls_first(table.c[column]) for column in order)).limit(filters.limit)


def _nulls_first(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Engines differ on where NULL sorts."""
    return sa.func.coalesce(sa.type_coerce(column, sa.Text()), "") if column.nullable else column


def _masks(tables: Tables, name: str, seen: Segments) -> Masks:
    """What lies behind a branch point: the end of a run that is cut, and the results of its last calls."""
    m, t = tables.messages, tables.tool_calls
    if name == "runs":
        shown = {column.name for column in FRAMES[name]}
        return {column: (seen.is_cut(tables.runs), sa.null()) for column in CUT_RUN if column in shown}
    if name == "tool_calls":
        answer = sa.select(m.c.message_index).where(m.c.run_id == t.c.run_id, m.c.tool_call_id == t.c.tool_call_id)
        hidden = seen.is_cut(t) & ~answer.where(m.c.role.in_(ANSWERS), seen.inside(m)).exists()
        unknown = {column: (hidden, sa.null()) for column in ("result", "is_error", "duration_s")}
        return unknown | {"status": (hidden, sa.literal("unknown"))}
    return NO_MASKS


def _of_sessions(tables: Tables, filters: Filters, seen: Segments | None) -> Only | None:
    """The condition on rows of any table: of named sessions, and of a user's; None where every session is meant.

    Who owns a row is what its session says.
    """
    s, named = tables.sessions, filters.session_id
    if named is None and filters.user_id is None:
        return None
    # Once: an iterable may be read only once, and the condition is used on several tables.
    ids = named if isinstance(named, str) or named is None else list(named)

    def only(table: sa.Table) -> sa.ColumnElement[bool]:
        parts = [] if ids is None or seen is not None else [_named(table.c.session_id, ids)]
        if seen is not None:
            parts.append(seen.runs(table) if table is tables.runs else seen.inside(table))
        if filters.user_id is not None:
            owned = sa.select(s.c.session_id).where(s.c.user_id == filters.user_id)
            parts.append(table.c.session_id.in_(owned))
        return sa.and_(*parts)

    return only
