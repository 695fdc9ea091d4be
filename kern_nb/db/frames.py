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

from kern_nb.db import codec, reading
from kern_nb.db.columns import FRAMES, INHERITED, Column, Kind
from kern_nb.db.lineage import Segments, segments
from kern_nb.db.schema import Tables, newest_first
from kern_nb.db.views import SECONDS, VIEWS, Only
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

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


def frame(store: SessionStore, name: str, filters: Filters, *, lineage: bool = False) -> pd.DataFrame:
    """One of the frames; see `SessionStore` for what each holds."""
    if filters.limit is not None and filters.limit < 0:
        raise BadUsage(f"limit={filters.limit} is negative.", "Give a limit of 0 or more, or none.")
    columns = FRAMES[name]
    query = _sessions(store.tables, filters) if name == "sessions" else _rows(store.tables, name, filters)
    if lineage:
        if not isinstance(filters.session_id, str):
            raise BadUsage(
                "lineage=True needs one session_id.", "Name the branch: messages_df('what-if', lineage=True)."
            )
        with store.reading() as connection:
            row = reading.require_session(connection, store.tables, filters.session_id)
            seen = segments(connection, store.tables, row)
        query = _seen(store.tables, name, filters, seen)
        columns = (*columns, INHERITED)
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
    return codec.decode_text(text).encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _decode_json(text: str) -> str:
    return _ESCAPED_JSON.sub(r"\1\\u\2", text)


def micros(when: When) -> int:
    """Unix microseconds of a time as people give it; naive ones are UTC."""
    try:
        time = pd.Timestamp(when)
    except ValueError as error:
        raise BadUsage(f"{when!r} is no time: {error}.", "Write it like 2026-11-20 or 2026-11-20T14:30.") from error
    time = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
    return int(time.as_unit("us").value)


def _times(created_at: sa.ColumnElement[int], filters: Filters, unit: int = 1) -> list[sa.ColumnElement[bool]]:
    stored = created_at if unit == 1 else created_at * unit
    since = [] if filters.since is None else [stored >= micros(filters.since)]
    return since if filters.until is None else [*since, stored < micros(filters.until)]


def _named(column: sa.ColumnElement[str], session_id: str | Iterable[str]) -> sa.ColumnElement[bool]:
    return column == session_id if isinstance(session_id, str) else column.in_(list(session_id))


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


def _rows(tables: Tables, name: str, filters: Filters) -> sa.Select[Any]:
    table: sa.Table = getattr(tables, name)
    where = _times(table.c.created_at, filters)
    only: Only | None = None
    if filters.session_id is not None or filters.user_id is not None:
        only = _of_sessions(tables, filters)
        where.append(only(table))
    if filters.agent_id is not None:
        r = tables.runs
        of_agent = sa.select(r.c.run_id).where(r.c.agent_id == filters.agent_id)
        where.append(r.c.agent_id == filters.agent_id if name == "runs" else table.c.run_id.in_(of_agent))
    order = [table.c[column] for column in _ORDER[name]]
    return VIEWS[name](tables, only).where(*where).order_by(*order).limit(filters.limit)


def _of_sessions(tables: Tables, filters: Filters) -> Only:
    """The rows of named sessions, and of a user's: who owns a row is what its session says."""

    def only(table: sa.Table) -> sa.ColumnElement[bool]:
        parts = []
        if filters.session_id is not None:
            parts.append(_named(table.c.session_id, filters.session_id))
        if filters.user_id is not None:
            s = tables.sessions
            owned = sa.select(s.c.session_id).where(s.c.user_id == filters.user_id)
            parts.append(table.c.session_id.in_(owned))
        return sa.and_(*parts)

    return only


def _seen(tables: Tables, name: str, filters: Filters, seen: Segments) -> sa.Select[Any]:
    """The rows that a branch sees, in order, with those it inherits marked."""
    table: sa.Table = getattr(tables, name)
    inherited = (table.c.session_id != seen.own.session_id).label(INHERITED.name)
    query = (
        VIEWS[name](tables, None).add_columns(inherited).where(seen.inside(table), *_times(table.c.created_at, filters))
    )
    order = [table.c[column] for column in _ORDER[name][1:]]
    return query.order_by(*order).limit(filters.limit)
