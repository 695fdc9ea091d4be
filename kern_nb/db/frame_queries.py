"""The queries of the frames: a view with the requested columns and rows, as Arrow of the documented types."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from kern_nb.db import codec, json_columns, reads, validation
from kern_nb.db.columns import FRAMES, INHERITED, Column
from kern_nb.db.dtypes import cast_column
from kern_nb.db.lineage import CUT_RUN, Lineage, load_lineage
from kern_nb.db.schema import Tables, sort_time
from kern_nb.db.sql_expressions import in_json_array
from kern_nb.db.views import MICROS_PER_SECOND, NO_MASKS, ColumnNames, Masks, RowFilter, view_query
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.records import RESULT_ROLES

if TYPE_CHECKING:
    from kern_nb.db.database import Database

TimeLike: TypeAlias = str | date | datetime | pd.Timestamp

# The order of rows, the same on every engine.
_ORDER = {
    "runs": ("session_id", "run_index"),
    "messages": ("session_id", "run_index", "message_index"),
    "tool_calls": ("session_id", "run_index", "call_index"),
    "scores": ("session_id", "run_id", "name", "source"),
}
_NAMES = ("sessions", *_ORDER)
_INHERITED_FRAMES = ("runs", "messages", "tool_calls")


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """The arguments of a frame; documented at `DataFrameMethods`."""

    session_id: str | Iterable[str] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    since: TimeLike | None = None
    until: TimeLike | None = None
    limit: int | None = None
    columns: Iterable[str] | None = None
    expand: Iterable[json_columns.JsonPath] | None = None
    lineage: bool = False


def read_frame(store: Database, name: str, request: FrameRequest) -> pa.Table:
    """Read a frame as Arrow columns.

    Raises:
        BadUsage: the frame, a column or a value in JSON does not exist, or a filter is invalid.
    """
    if name not in _NAMES:
        raise BadUsage(f"Unknown frame {name!r}.", did_you_mean(name, _NAMES, f"The frames are {', '.join(_NAMES)}."))
    request = _validated(request)
    columns, expanded_columns = _select_columns(name, request), json_columns.parse_paths(name, request.expand)
    names = None if request.columns is None else [column.name for column in columns]
    if name == "sessions":
        query = _build_sessions_query(store.tables, request, names)
    else:
        query = _build_rows_query(store.tables, name, request, names, _read_lineage(store, request))
    data = store.arrow(json_columns.add_columns(query, store.tables, name, expanded_columns))
    result = {column.name: cast_column(data[column.name], column.kind) for column in columns}
    for index, column in enumerate(expanded_columns):
        result[column.name] = json_columns.format_values(data[json_columns.column_label(index)])
    return pa.table(result)


def _validated(request: FrameRequest) -> FrameRequest:
    """Check the types of the arguments: an engine's own error would not name them."""
    limit = None if request.limit is None else validation.require_count("limit", request.limit)
    for name in ("user_id", "agent_id"):
        if not isinstance(getattr(request, name), str | None):
            raise BadUsage(f"{name} must be a str, got {getattr(request, name)!r}.", "Ids are strings.")
    ids = request.session_id
    if ids is not None and not isinstance(ids, Iterable):
        raise BadUsage(f"session_id must be a str or a list of str, got {ids!r}.", "Ids are strings.")
    for name in ("columns", "expand"):
        if not isinstance(getattr(request, name), Iterable | None):
            raise BadUsage(f"{name} must be a list, got {getattr(request, name)!r}.", f"Pass names: {name}=[...]")
    return replace(request, limit=limit)


def _select_columns(name: str, request: FrameRequest) -> list[Column]:
    """The requested columns in order, without duplicates."""
    if request.lineage and name not in _INHERITED_FRAMES:
        raise BadUsage(f"A branch inherits no {name}.", f"lineage=True is for {', '.join(_INHERITED_FRAMES)}.")
    columns = {column.name: column for column in (*FRAMES[name], *([INHERITED] if request.lineage else ()))}
    if request.columns is None:
        return list(columns.values())
    names = [request.columns] if isinstance(request.columns, str) else list(dict.fromkeys(request.columns))
    if not names:
        raise BadUsage("columns must not be empty.", "Name the columns, or omit the argument to get all of them.")
    for column in names:
        if column not in columns:
            raise BadUsage(f"{name} has no column {column!r}.", _suggest_column(column, columns))
    return [columns[column] for column in names]


def _suggest_column(name: object, columns: Iterable[str]) -> str:
    if name == INHERITED.name:
        return "lineage=True adds it to the frame of one branch."
    if not isinstance(name, str):
        return "Column names are strings."
    if "." in name:
        return f"Use the parameter for values inside JSON: expand=[{name!r}]"
    return did_you_mean(name, columns, f"Its columns are {', '.join(columns)}.")


def _read_lineage(store: Database, request: FrameRequest) -> Lineage | None:
    if not request.lineage:
        return None
    if not isinstance(request.session_id, str):
        raise BadUsage("lineage=True requires one session_id.", "For example: messages_df('what-if', lineage=True).")
    with store.read_connection() as connection:
        row = reads.require_session(connection, store.tables, request.session_id, request.user_id)
        return load_lineage(connection, store.tables, row)


def parse_time(when: TimeLike) -> int:
    """Convert a time to unix microseconds; naive times are UTC."""
    if isinstance(when, Real):  # ambiguous: nanoseconds to pandas, seconds to most people
        raise BadUsage(
            f"A time must not be a number, got {codec.short_repr(when)}.",
            "Convert unix seconds: pd.Timestamp(seconds, unit='s')",
        )
    try:
        time = pd.Timestamp(when)
        if pd.isna(time):
            raise ValueError("it is missing")  # noqa: TRY301 - one message for every invalid time
        time = time if time.tzinfo is None else time.tz_convert("UTC").tz_localize(None)
    except Exception as error:  # a timezone may raise anything
        raise BadUsage(
            f"Invalid time {codec.short_repr(when)}: {error}.", "Write it like 2026-11-20 or 2026-11-20T14:30."
        ) from error
    return int(time.to_numpy().astype("datetime64[us]").astype("int64"))


def _time_conditions(
    created_at: sa.ColumnElement[int], request: FrameRequest, unit: int = 1
) -> list[sa.ColumnElement[bool]]:
    return [
        compare(created_at, -(-parse_time(when) // unit))  # rounded up
        for compare, when in ((operator.ge, request.since), (operator.lt, request.until))
        if when is not None
    ]


def _has_id(column: sa.ColumnElement[str], session_id: str | Iterable[str]) -> sa.ColumnElement[bool]:
    if isinstance(session_id, str):
        return column == session_id
    return in_json_array(column, codec.dumps(list(session_id)))


def _build_sessions_query(tables: Tables, request: FrameRequest, names: ColumnNames) -> sa.Select[Any]:
    """Newest first. The sessions are selected before their totals are computed."""
    s = tables.sessions
    where = _time_conditions(s.c.created_at, request, MICROS_PER_SECOND)
    if request.session_id is not None:
        where.append(_has_id(s.c.session_id, request.session_id))
    owner = {"user_id": request.user_id, "agent_id": request.agent_id}
    where += [s.c[name] == value for name, value in owner.items() if value is not None]
    order = (sort_time(s.c.created_at).desc(), s.c.session_id.desc())
    if not where and request.limit is None:
        return view_query("sessions", tables, requested=names).order_by(*order)
    selected = sa.select(s.c.session_id).where(*where).order_by(*order).limit(request.limit)
    ids = sa.select(selected.subquery().c.session_id)
    only: RowFilter = lambda table: table.c.session_id.in_(ids)  # noqa: E731 - for the type annotation
    return view_query("sessions", tables, only, requested=names).where(only(s)).order_by(*order)


def _build_rows_query(
    tables: Tables, name: str, request: FrameRequest, names: ColumnNames, lineage: Lineage | None
) -> sa.Select[Any]:
    """Select the rows of a view in order; inherited rows of a branch are marked."""
    table: sa.Table = getattr(tables, name)
    where = _time_conditions(table.c.created_at, request)
    if request.agent_id is not None:
        r = tables.runs
        of_agent = sa.select(r.c.run_id).where(r.c.agent_id == request.agent_id)
        where.append(r.c.agent_id == request.agent_id if name == "runs" else table.c.run_id.in_(of_agent))
    only = _filter_sessions(tables, request, lineage)
    where += [] if only is None else [only(table)]
    query = view_query(name, tables, only, NO_MASKS if lineage is None else _masks(tables, name, lineage), names)
    if lineage is not None:
        query = query.add_columns((table.c.session_id != lineage.own.session_id).label(INHERITED.name))
    # The rows of a branch are in the order of its runs, inherited or not.
    order = _ORDER[name] if lineage is None else _ORDER[name][1:]
    keys = (table.c[column] for column in order)
    # NULL first: engines differ.
    sorted_by = (sa.func.coalesce(sa.type_coerce(key, sa.Text()), "") if key.nullable else key for key in keys)
    return query.where(*where).order_by(*sorted_by).limit(request.limit)


def _masks(tables: Tables, name: str, lineage: Lineage) -> Masks:
    """What a branch point hides: the end of its run, and the results of the last calls."""
    m, t = tables.messages, tables.tool_calls
    if name == "runs":
        visible = {column.name for column in FRAMES[name]}
        return {column: (lineage.is_cut(tables.runs), sa.null()) for column in CUT_RUN if column in visible}
    if name == "tool_calls":
        answer = sa.select(m.c.message_index).where(m.c.run_id == t.c.run_id, m.c.tool_call_id == t.c.tool_call_id)
        hidden = lineage.is_cut(t) & ~answer.where(m.c.role.in_(RESULT_ROLES), lineage.inside(m)).exists()
        unknown = {column: (hidden, sa.null()) for column in ("result", "is_error", "duration_s")}
        return unknown | {"status": (hidden, sa.literal("unknown"))}
    return NO_MASKS


def _filter_sessions(tables: Tables, request: FrameRequest, lineage: Lineage | None) -> RowFilter | None:
    """The condition for rows of the requested sessions and of their owner; None for all sessions."""
    s, session_id = tables.sessions, request.session_id
    if lineage is not None:  # the owner of a branch sees inherited rows of any owner
        return lambda table: lineage.runs(table) if table is tables.runs else lineage.inside(table)
    if session_id is None and request.user_id is None:
        return None
    # The condition is used on several tables; an iterator can be read only once.
    ids = session_id if isinstance(session_id, str) or session_id is None else list(session_id)

    def only(table: sa.Table) -> sa.ColumnElement[bool]:
        parts = [] if ids is None else [_has_id(table.c.session_id, ids)]
        if request.user_id is not None:
            owned = sa.select(s.c.session_id).where(s.c.user_id == request.user_id)
            parts.append(table.c.session_id.in_(owned))
        return sa.and_(*parts)

    return only
