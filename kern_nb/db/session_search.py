"""Finding sessions among many: narrowed, ordered, and only so many of them read. No run's messages are touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, validation
from kern_nb.db.schema import Tables, newest_first
from kern_nb.db.views import json_text, lowered, session_total, told_again
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

SessionOrder = Literal["created", "updated", "title", "session", "owner", "user", "messages", "tokens", "cost"]
SESSION_ORDERS: tuple[str, ...] = get_args(SessionOrder)

_ADDED_UP = {"tokens": "total_tokens", "cost": "cost"}

TAGS = "tags"
"""The key of a session's metadata that holds its tags, a list of texts."""


@dataclass(frozen=True)
class SessionFilter:
    """What the sessions that are looked for have; None is anything.

    Attributes:
        text: A part of the title or the id, in any case.
        owner: A part of the agent's, team's or workflow's id, in any case.
        user: A part of the user's id, in any case.
        status: The status of the latest run.
        tag: One of the tags, in full.
    """

    text: str | None = None
    owner: str | None = None
    user: str | None = None
    status: str | None = None
    tag: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is narrowed."""
        return any(getattr(self, field.name) is not None for field in fields(self))


class SessionIds(list[str]):
    """Ids in order, some of those that fit. ``total`` says how many fit in all."""

    def __init__(self, ids: Iterable[str], total: int) -> None:
        super().__init__(ids)
        self.total = total


class named_text(json_text):  # noqa: N801 - used like a function
    """The text at a key that is known beforehand. DuckDB reads it fifteen times faster than at a bound one."""

    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any], key: str) -> None:
        given = sa.literal(key, sa.Text(), literal_execute=True)
        sa.sql.expression.FunctionElement.__init__(self, sa.type_coerce(column, sa.Text), given)


def find_sessions(
    connection: Connection,
    store: SessionStore,
    narrowing: SessionFilter,
    *,
    order: str,
    descending: bool,
    offset: int,
    limit: int | None,
    total: int | None,
    user_id: str | None = None,
) -> SessionIds:
    """See `SessionStore.find_sessions`."""
    if order not in SESSION_ORDERS:
        raise BadUsage(f"Sessions have no order {order!r}.", f"There are {', '.join(SESSION_ORDERS)}.")
    offset, limit = (
        validation.require_count("offset", offset),
        None if limit is None else validation.require_count("limit", limit),
    )
    tables = store.tables
    s = tables.sessions
    chosen = sa.select(s.c.session_id).where(*_conditions(tables, narrowing))
    total = None if total is None else validation.require_count("total", total)
    if user_id is not None:
        chosen = chosen.where(s.c.user_id == user_id)
    if total is None:
        by_runs = None if user_id is not None else narrowing
        total = connection.execute(_count(tables, by_runs, chosen)).scalar() or 0
    if offset >= total or limit == 0:
        return SessionIds([], total)
    if order in _ADDED_UP and store.most_added_up is not None and total > store.most_added_up:
        raise BadUsage(
            f"{total:,} sessions are too many for {connection.dialect.name} to be sorted by {order}.",
            f"Filter them, up to {store.most_added_up:,}, or sort by something else.",
        )
    joined, key = _key(tables, order, chosen if narrowing or user_id is not None else None)
    for part in joined:
        chosen = chosen.outerjoin(part, part.c.session_id == s.c.session_id)
    direction = (key.desc(), s.c.session_id.desc()) if descending else (key, s.c.session_id)
    if limit is None:
        limit = total - offset  # SQLite takes no OFFSET without a LIMIT
    page = chosen.order_by(*direction).limit(limit).offset(offset)
    found = connection.execute(page.with_only_columns(damaged_rows.raw(s.c.session_id), maintain_column_froms=True))
    return SessionIds(
        (damaged_rows.readable(tables, "sessions", row)[0]["session_id"] for row in found.mappings()), total
    )


def _count(tables: Tables, narrowing: SessionFilter | None, chosen: sa.Select[Any]) -> sa.Select[Any]:
    """How many there are. Of a status alone, so many runs are the latest of their session: no session need be read."""
    counted = chosen
    if narrowing is not None and narrowing.status is not None and narrowing == SessionFilter(status=narrowing.status):
        counted = _latest_with(tables, narrowing.status)
    return counted.with_only_columns(sa.func.count(), maintain_column_froms=True)


def _title(tables: Tables) -> sa.ColumnElement[Any]:
    return named_text(tables.sessions.c.session_data, "session_name")


def _owner(tables: Tables) -> sa.ColumnElement[Any]:
    s = tables.sessions.c
    return sa.func.coalesce(s.agent_id, s.team_id, s.workflow_id)


def _key(tables: Tables, order: str, of: sa.Select[Any] | None) -> tuple[list[sa.Subquery], sa.ColumnElement[Any]]:
    """What is joined, and what is ordered by. Engines differ on where NULL sorts: the unknown comes with the least.

    Args:
        tables: Where the sessions are.
        order: One of `SESSION_ORDERS`.
        of: The sessions that are ordered, by id; None where they are all.
    """
    s = tables.sessions.c
    if order in ("created", "updated"):
        return [], newest_first(s.created_at if order == "created" else s.updated_at)
    if order == "session":
        return [], s.session_id
    if order == "messages":
        return _messages(tables)
    if order in _ADDED_UP:
        fitting = None if of is None else sa.select(of.cte("fitting").c.session_id)  # found once, though asked thrice
        only = None if fitting is None else lambda table: table.c.session_id.in_(fitting)
        added, total = session_total(tables, _ADDED_UP[order], only)
        return [added], sa.func.coalesce(total, -1)
    texts = {"title": lowered(_title(tables)), "owner": _owner(tables), "user": s.user_id}
    return [], sa.func.coalesce(sa.type_coerce(texts[order], sa.Text()), "")


def _messages(tables: Tables) -> tuple[list[sa.Subquery], sa.ColumnElement[Any]]:
    """How many messages there are: all, which an index knows, less the copies, of which there are few."""
    s, m = tables.sessions, tables.messages
    every = sa.select(sa.func.count()).select_from(m).where(m.c.session_id == s.c.session_id).correlate(s)
    # Grouped by what is no column: SQLite would go through the index of sessions, back and forth in the table.
    name = sa.func.coalesce(m.c.session_id, "")
    copies = sa.select(name.label("session_id"), sa.func.count().label("n")).where(told_again(m.c)).group_by(name)
    copied = copies.subquery()
    return [copied], every.scalar_subquery() - sa.func.coalesce(copied.c.n, 0)


def _conditions(tables: Tables, narrowing: SessionFilter) -> list[sa.ColumnElement[bool]]:
    s = tables.sessions.c
    where: list[sa.ColumnElement[bool]] = []
    for field in fields(narrowing):
        if getattr(narrowing, field.name) is not None:
            validation.text(field.name, getattr(narrowing, field.name))
    if narrowing.text is not None:
        where.append(_has(s.session_id, narrowing.text) | _has_title(tables, narrowing.text))
    if narrowing.owner is not None:
        where.append(_has(_owner(tables), narrowing.owner))
    if narrowing.user is not None:
        where.append(_has(s.user_id, narrowing.user))
    if narrowing.tag is not None:
        where.append(_has_tag(tables, narrowing.tag))
    if narrowing.status is not None:
        where.append(_ended_as(tables, narrowing.status))
    return where


def _has_title(tables: Tables, part: str) -> sa.ColumnElement[bool]:
    """A part of the title. JSON is taken apart only where the part stands in it somewhere."""
    anywhere = _has(tables.sessions.c.session_data, codec.dumps(part)[1:-1])
    return sa.case((anywhere, _has(_title(tables), part)), else_=sa.false())


def _has_tag(tables: Tables, tag: str) -> sa.ColumnElement[bool]:
    """One of the tags: the list is JSON, in which a tag stands in quotes."""
    column, quoted = tables.sessions.c["metadata"], codec.dumps(tag)
    return sa.case((_contains(column, quoted), _contains(named_text(column, TAGS), quoted)), else_=sa.false())


def _latest_with(tables: Tables, status: str) -> sa.Select[Any]:
    """The sessions whose latest run has a status, by that run; members' runs do not count."""
    r = tables.runs
    later = r.alias()
    is_last = ~(
        sa.exists()
        .where(later.c.session_id == r.c.session_id, later.c.run_index > r.c.run_index)
        .where(later.c.parent_run_id.is_(None))
    )
    return sa.select(r.c.session_id).where(r.c.status == status, r.c.parent_run_id.is_(None), is_last)


def _ended_as(tables: Tables, status: str) -> sa.ColumnElement[bool]:
    """The latest run has a status.

    The status that most have is looked up for each session in turn, so that a page is found after looking at a page of
    them. The others are few: their runs are found first.
    """
    s, found = tables.sessions, _latest_with(tables, status)
    if status != "COMPLETED":
        return s.c.session_id.in_(found)
    return found.where(tables.runs.c.session_id == s.c.session_id).exists()


def _has(column: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
    found = _contains(lowered(sa.type_coerce(column, sa.Text())), codec.encode_text(part.lower()))
    # SQLite knows the cases of ASCII only: there, "Ä" is at least itself.
    return found if part.isascii() else found | _contains(column, codec.encode_text(part))


def _contains(column: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
    return sa.type_coerce(column, sa.Text()).contains(part, autoescape=True)
