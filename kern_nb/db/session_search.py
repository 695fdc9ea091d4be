"""Search sessions: filter, order and page. Reads no content of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, validation
from kern_nb.db.schema import Tables, sort_time
from kern_nb.db.sql_expressions import json_text, lower_text
from kern_nb.db.views import is_history_copy, session_total
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.database import Database

SessionOrder = Literal["created", "updated", "title", "session", "owner", "user", "messages", "tokens", "cost"]
SESSION_ORDERS: tuple[str, ...] = get_args(SessionOrder)

_TOTALS = {"tokens": "total_tokens", "cost": "cost"}

TAGS = "tags"
"""The metadata key of a session's tags, a list of strings."""


@dataclass(frozen=True)
class SessionFilter:
    """Conditions on sessions; None is any.

    Attributes:
        text: A part of the title or the id, ignoring case.
        owner: A part of the agent's, team's or workflow's id, ignoring case.
        user: A part of the user's id, ignoring case.
        status: The status of the latest run.
        tag: One of the tags.
    """

    text: str | None = None
    owner: str | None = None
    user: str | None = None
    status: str | None = None
    tag: str | None = None

    def __bool__(self) -> bool:
        return self != SessionFilter()


class SessionIds(list[str]):
    """A page of ids. ``total`` is the number of all matches."""

    def __init__(self, ids: Iterable[str], total: int) -> None:
        super().__init__(ids)
        self.total = total


def find_sessions(
    connection: Connection,
    store: Database,
    filter_: SessionFilter,
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
        raise BadUsage(f"Unknown order {order!r}.", f"Use one of {', '.join(SESSION_ORDERS)}.")
    offset = validation.require_count("offset", offset)
    limit = None if limit is None else validation.require_count("limit", limit)
    total = None if total is None else validation.require_count("total", total)
    tables = store.tables
    s = tables.sessions
    matching = sa.select(s.c.session_id).where(*_conditions(tables, filter_))
    if user_id is not None:
        matching = matching.where(s.c.user_id == user_id)
    if total is None:
        counted = matching
        if user_id is None and filter_.status is not None and filter_ == SessionFilter(status=filter_.status):
            counted = _latest_with(tables, filter_.status)  # without reading sessions
        count = counted.with_only_columns(sa.func.count(), maintain_column_froms=True)
        total = connection.execute(count).scalar() or 0
    if offset >= total or limit == 0:
        return SessionIds([], total)
    if order in _TOTALS and store.most_added_up is not None and total > store.most_added_up:
        raise BadUsage(
            f"{total:,} sessions are too many for {connection.dialect.name} to sort by {order}.",
            f"Filter them to at most {store.most_added_up:,}, or use another order.",
        )
    joins, key = _order_key(tables, order, matching if filter_ or user_id is not None else None)
    for join in joins:
        matching = matching.outerjoin(join, join.c.session_id == s.c.session_id)
    direction = (key.desc(), s.c.session_id.desc()) if descending else (key, s.c.session_id)
    limit = total - offset if limit is None else limit  # SQLite has no OFFSET without a LIMIT
    page = matching.order_by(*direction).limit(limit).offset(offset)
    rows = connection.execute(page.with_only_columns(damaged_rows.raw(s.c.session_id), maintain_column_froms=True))
    ids = (damaged_rows.decode_row(tables, "sessions", row)[0]["session_id"] for row in rows.mappings())
    return SessionIds(ids, total)


def _title(tables: Tables) -> sa.ColumnElement[Any]:
    return json_text(tables.sessions.c.session_data, "session_name", constant=True)


def _owner(tables: Tables) -> sa.ColumnElement[Any]:
    s = tables.sessions.c
    return sa.func.coalesce(s.agent_id, s.team_id, s.workflow_id)


def _order_key(
    tables: Tables, order: str, sessions: sa.Select[Any] | None
) -> tuple[list[sa.Subquery], sa.ColumnElement[Any]]:
    """The joins and the column to order by; ``sessions`` selects the ids of those to order, None means all.

    Engines differ on where NULL sorts: unknown values sort as the least.
    """
    s = tables.sessions.c
    if order in ("created", "updated"):
        return [], sort_time(s.created_at if order == "created" else s.updated_at)
    if order == "session":
        return [], s.session_id
    if order == "messages":
        return _message_count(tables)
    if order in _TOTALS:
        # A CTE: it is computed once, though used three times.
        ids = None if sessions is None else sa.select(sessions.cte("fitting").c.session_id)
        only = None if ids is None else lambda table: table.c.session_id.in_(ids)
        totals, column = session_total(tables, _TOTALS[order], only)
        return [totals], sa.func.coalesce(column, -1)
    texts = {"title": lower_text(_title(tables)), "owner": _owner(tables), "user": s.user_id}
    return [], sa.func.coalesce(sa.type_coerce(texts[order], sa.Text()), "")


def _message_count(tables: Tables) -> tuple[list[sa.Subquery], sa.ColumnElement[Any]]:
    """The number of messages: all, which an index has, minus the copies, which are few."""
    s, m = tables.sessions, tables.messages
    all_messages = sa.select(sa.func.count()).select_from(m).where(m.c.session_id == s.c.session_id).correlate(s)
    # Grouped by an expression: for a column, SQLite would follow the index of sessions back and forth in the table.
    name = sa.func.coalesce(m.c.session_id, "")
    query = sa.select(name.label("session_id"), sa.func.count().label("n")).where(is_history_copy(m.c)).group_by(name)
    copies = query.subquery()
    return [copies], all_messages.scalar_subquery() - sa.func.coalesce(copies.c.n, 0)


def _conditions(tables: Tables, filter_: SessionFilter) -> list[sa.ColumnElement[bool]]:
    s = tables.sessions.c
    values = {name: validation.require_text(name, value) for name, value in vars(filter_).items() if value is not None}
    conditions: dict[str, Callable[[str], sa.ColumnElement[bool]]] = {
        "text": lambda part: _contains_ignoring_case(s.session_id, part) | _has_title(tables, part),
        "owner": lambda part: _contains_ignoring_case(_owner(tables), part),
        "user": lambda part: _contains_ignoring_case(s.user_id, part),
        "tag": lambda tag: _has_tag(tables, tag),
        "status": lambda status: _has_latest_status(tables, status),
    }
    return [condition(values[name]) for name, condition in conditions.items() if name in values]


def _has_title(tables: Tables, part: str) -> sa.ColumnElement[bool]:
    """A part of the title. JSON is parsed only if its text contains the part."""
    anywhere = _contains_ignoring_case(tables.sessions.c.session_data, codec.dumps(part)[1:-1])
    return sa.case((anywhere, _contains_ignoring_case(_title(tables), part)), else_=sa.false())


def _has_tag(tables: Tables, tag: str) -> sa.ColumnElement[bool]:
    """One of the tags, in quotes in the JSON list."""
    column, quoted = tables.sessions.c["metadata"], codec.dumps(tag)
    return sa.case(
        (_contains(column, quoted), _contains(json_text(column, TAGS, constant=True), quoted)), else_=sa.false()
    )


def _latest_with(tables: Tables, status: str) -> sa.Select[Any]:
    """The sessions whose latest run has a status; members' runs do not count."""
    r = tables.runs
    later = r.alias()
    is_last = ~(
        sa.exists()
        .where(later.c.session_id == r.c.session_id, later.c.run_index > r.c.run_index)
        .where(later.c.parent_run_id.is_(None))
    )
    return sa.select(r.c.session_id).where(r.c.status == status, r.c.parent_run_id.is_(None), is_last)


def _has_latest_status(tables: Tables, status: str) -> sa.ColumnElement[bool]:
    s, matching = tables.sessions, _latest_with(tables, status)
    if status != "COMPLETED":
        return s.c.session_id.in_(matching)
    # The most common status session by session, so that a page needs about a page of lookups.
    return matching.where(tables.runs.c.session_id == s.c.session_id).exists()


def _contains_ignoring_case(column: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
    ignoring_case = _contains(lower_text(sa.type_coerce(column, sa.Text())), codec.encode_text(part.lower()))
    # SQLite lowers ASCII only: there, "Ä" matches at least itself.
    return ignoring_case if part.isascii() else ignoring_case | _contains(column, codec.encode_text(part))


def _contains(column: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
    return sa.type_coerce(column, sa.Text()).contains(part, autoescape=True)
