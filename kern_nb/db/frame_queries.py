"""The frames: a view, its columns chosen and its rows filtered in SQL, handed over as Arrow of the documented types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from kern_nb.db import codec, json_columns, reads, validation
from kern_nb.db.columns import FRAMES, INHERITED, Column
from kern_nb.db.dtypes import typed
from kern_nb.db.lineage import CUT_RUN, Lineage, json_texts, load_lineage
from kern_nb.db.mapping import RESULT_ROLES
from kern_nb.db.schema import Tables, newest_first
from kern_nb.db.views import NO_MASKS, SECONDS, VIEWS, Masks, Only, Wanted
from kern_nb.errors import BadUsage, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db.database import Database

When: TypeAlias = str | date | datetime | pd.Timestamp

# The order that makes a frame readable, and the same on every engine.
_ORDER = {
    "runs": ("session_id", "run_index"),
    "messages": ("session_id", "run_index", "message_index"),
    "tool_calls": ("session_id", "run_index", "call_index"),
    "scores": ("session_id", "run_id", "name", "source"),
}
_NAMES = ("sessions", *_ORDER)
_INHERITING = ("runs", "messages", "tool_calls")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a frame; the methods of a store say what each means."""

    session_id: str | Iterable[str] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    since: When | None = None
    until: When | None = None
    limit: int | None = None
    columns: Iterable[str] | None = None
    expand: Iterable[json_columns.JsonPath] | None = None
    lineage: bool = False


def table(store: Database, name: str, asked: Asked) -> pa.Table:
    """One of the frames as Arrow columns.

    Raises:
        BadUsage: there is no such frame, column or value, or a filter says nothing that could be meant.
    """
    if name not in _NAMES:
        raise BadUsage(f"There is no frame {name!r}.", did_you_mean(name, _NAMES, f"There are {', '.join(_NAMES)}."))
    _require_kinds(asked)
    columns, inside = _columns(name, asked), json_columns.expanded(name, asked.expand)
    wanted = None if asked.columns is None else [column.name for column in columns]
    if name == "sessions":
        query = _sessions(store.tables, asked, wanted)
    else:
        query = _rows(store.tables, name, asked, wanted, _seen(store, asked))
    found = store.arrow(json_columns.add(query, store.tables, name, inside))
    shown = {column.name: typed(found[column.name], column.kind) for column in columns}
    shown |= {one.name: json_columns.texts(found[json_columns.label(place)]) for place, one in enumerate(inside)}
    return pa.table(shown)


def _require_kinds(asked: Asked) -> None:
    """What is asked is of the kinds that can be meant: an engine's own complaint would say nothing to a reader.

    Raises:
        BadUsage: it is not.
    """
    if asked.limit is not None:
        validation.require_count("limit", asked.limit)
    for name in ("user_id", "agent_id"):
        if not isinstance(getattr(asked, name), str | None):
            raise BadUsage(f"{name}={getattr(asked, name)!r} is no id.", "Ids are strings.")
    ids = asked.session_id
    if ids is not None and not isinstance(ids, Iterable):
        raise BadUsage(f"session_id={ids!r} is no id.", "Ids are strings; give one, or a list of several.")
    for name in ("columns", "expand"):
        if not isinstance(getattr(asked, name), Iterable | None):
            raise BadUsage(f"{name}={getattr(asked, name)!r} is no list.", f"Give names: {name}=[...]")


def _limit(asked: Asked) -> int | None:
    return None if asked.limit is None else validation.require_count("limit", asked.limit)


def _columns(name: str, asked: Asked) -> list[Column]:
    """The columns that are asked for, each once, in the order of the asking."""
    if asked.lineage and name not in _INHERITING:
        raise BadUsage(f"A branch inherits no {name}.", f"lineage=True goes with {', '.join(_INHERITING)}.")
    there = {column.name: column for column in (*FRAMES[name], *([INHERITED] if asked.lineage else ()))}
    if asked.columns is None:
        return list(there.values())
    names = [asked.columns] if isinstance(asked.columns, str) else list(dict.fromkeys(asked.columns))
    if not names:
        raise BadUsage("columns=[] asks for nothing.", "Name the columns, or leave columns out to get all.")
    for one in names:
        if one not in there:
            raise BadUsage(f"{name} has no column {one!r}.", _instead(one, there))
    return [there[one] for one in names]


def _instead(name: object, there: Iterable[str]) -> str:
    """What may have been meant by a column that a frame has not."""
    if name == INHERITED.name:
        return "lineage=True adds it to the frame of one branch."
    if not isinstance(name, str):
        return "Columns are named by text."
    if "." in name:
        return f"Values inside JSON have a parameter of their own: expand=[{name!r}]"
    return did_you_mean(name, there, f"Its columns are {', '.join(there)}.")


def _seen(store: Database, asked: Asked) -> Lineage | None:
    """What a branch sees, where inherited rows are asked for."""
    if not asked.lineage:
        return None
    if not isinstance(asked.session_id, str):
        raise BadUsage("lineage=True needs one session_id.", "Name the branch: messages_df('what-if', lineage=True).")
    with store.read_connection() as connection:
        row = reads.require_session(connection, store.tables, asked.session_id, asked.user_id)
        return load_lineage(connection, store.tables, row)


def micros(when: When) -> int:
    """Unix microseconds of a time as people give it; naive ones are UTC."""
    if isinstance(when, Real):  # nanoseconds to pandas, seconds to most: neither is said
        raise BadUsage(
            f"{codec.shown(when)} is no time, but a number.", "Of unix seconds: pd.Timestamp(seconds, unit='s')"
        )
    try:
        time = pd.Timestamp(when)
        if pd.isna(time):
            raise ValueError("it is missing")  # noqa: TRY301 - one message for all that is no time
        time = time if time.tzinfo is None else time.tz_convert("UTC").tz_localize(None)
    except Exception as error:  # its zone may raise anything
        raise BadUsage(
            f"{codec.shown(when)} is no time: {error}.", "Write it like 2026-11-20 or 2026-11-20T14:30."
        ) from error
    return int(time.to_numpy().astype("datetime64[us]").astype("int64"))


def _times(created_at: sa.ColumnElement[int], asked: Asked, unit: int = 1) -> list[sa.ColumnElement[bool]]:
    bounds = [None if when is None else -(-micros(when) // unit) for when in (asked.since, asked.until)]  # rounded up
    since = [] if bounds[0] is None else [created_at >= bounds[0]]
    return since if bounds[1] is None else [*since, created_at < bounds[1]]


def _named(column: sa.ColumnElement[str], session_id: str | Iterable[str]) -> sa.ColumnElement[bool]:
    if isinstance(session_id, str):
        return column == session_id
    ids = json_texts(sa.literal(codec.dumps(list(session_id)), sa.Text()))
    return sa.type_coerce(column, sa.Text()).op("IN", is_comparison=True)(ids)


def _sessions(tables: Tables, asked: Asked, wanted: Wanted) -> sa.Select[Any]:
    """Newest first. The sessions are chosen before their totals are computed."""
    s = tables.sessions
    where = _times(s.c.created_at, asked, SECONDS)
    if asked.session_id is not None:
        where.append(_named(s.c.session_id, asked.session_id))
    if asked.user_id is not None:
        where.append(s.c.user_id == asked.user_id)
    if asked.agent_id is not None:
        where.append(s.c.agent_id == asked.agent_id)
    order = (newest_first(s.c.created_at).desc(), s.c.session_id.desc())
    if not where and asked.limit is None:
        return VIEWS["sessions"](tables, None, wanted=wanted).order_by(*order)
    chosen = sa.select(s.c.session_id).where(*where).order_by(*order).limit(_limit(asked))
    ids = sa.select(chosen.subquery().c.session_id)
    only: Only = lambda table: table.c.session_id.in_(ids)  # noqa: E731 - the type is the point
    return VIEWS["sessions"](tables, only, wanted=wanted).where(only(s)).order_by(*order)


def _rows(tables: Tables, name: str, asked: Asked, wanted: Wanted, seen: Lineage | None) -> sa.Select[Any]:
    """The rows of a view in order; of what a branch sees, those it inherits are marked."""
    table: sa.Table = getattr(tables, name)
    where = _times(table.c.created_at, asked)
    if asked.agent_id is not None:
        r = tables.runs
        of_agent = sa.select(r.c.run_id).where(r.c.agent_id == asked.agent_id)
        where.append(r.c.agent_id == asked.agent_id if name == "runs" else table.c.run_id.in_(of_agent))
    only = _of_sessions(tables, asked, seen)
    query = VIEWS[name](tables, only, NO_MASKS if seen is None else _masks(tables, name, seen), wanted)
    if only is not None:
        where.append(only(table))
    if seen is not None:
        query = query.add_columns((table.c.session_id != seen.own.session_id).label(INHERITED.name))
    # A branch reads in the order of its runs, whoever's they are.
    order = _ORDER[name] if seen is None else _ORDER[name][1:]
    return query.where(*where).order_by(*(_nulls_first(table.c[column]) for column in order)).limit(_limit(asked))


def _nulls_first(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Engines differ on where NULL sorts."""
    return sa.func.coalesce(sa.type_coerce(column, sa.Text()), "") if column.nullable else column


def _masks(tables: Tables, name: str, seen: Lineage) -> Masks:
    """What lies behind a branch point: the end of a run that is cut, and the results of its last calls."""
    m, t = tables.messages, tables.tool_calls
    if name == "runs":
        shown = {column.name for column in FRAMES[name]}
        return {column: (seen.is_cut(tables.runs), sa.null()) for column in CUT_RUN if column in shown}
    if name == "tool_calls":
        answer = sa.select(m.c.message_index).where(m.c.run_id == t.c.run_id, m.c.tool_call_id == t.c.tool_call_id)
        hidden = seen.is_cut(t) & ~answer.where(m.c.role.in_(RESULT_ROLES), seen.inside(m)).exists()
        unknown = {column: (hidden, sa.null()) for column in ("result", "is_error", "duration_s")}
        return unknown | {"status": (hidden, sa.literal("unknown"))}
    return NO_MASKS


def _of_sessions(tables: Tables, asked: Asked, seen: Lineage | None) -> Only | None:
    """The condition on rows of any table: of named sessions, and of a user's; None where every session is meant.

    Who owns a row is what its session says.
    """
    s, named = tables.sessions, asked.session_id
    if named is None and asked.user_id is None:
        return None
    # Once: an iterable may be read only once, and the condition is used on several tables.
    ids = named if isinstance(named, str) or named is None else list(named)

    def only(table: sa.Table) -> sa.ColumnElement[bool]:
        parts = [] if ids is None or seen is not None else [_named(table.c.session_id, ids)]
        if seen is not None:
            parts.append(seen.runs(table) if table is tables.runs else seen.inside(table))
        if asked.user_id is not None and seen is None:  # a branch's owner sees what it inherits, whoever has it now
            owned = sa.select(s.c.session_id).where(s.c.user_id == asked.user_id)
            parts.append(table.c.session_id.in_(owned))
        return sa.and_(*parts)

    return only
