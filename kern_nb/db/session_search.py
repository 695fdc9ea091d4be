"""Search sessions: filter, order and page. Reads no content of messages."""

from __future__ import annotations

import base64
import contextlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, validation
from kern_nb.db.schema import Tables, sort_time
from kern_nb.db.sql_expressions import json_at, json_text, lower_text
from kern_nb.db.views import is_history_copy, session_total
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.database import Database
    from kern_nb.db.frame_queries import TimeLike

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


@dataclass(frozen=True)
class SessionFields:
    """Exact conditions on the fields of sessions; None is any. See `SessionStore.find_sessions`."""

    session_type: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    workflow_id: str | None = None
    user_id: str | None = None
    owner: str | None = None
    metadata: Mapping[str, Any] | None = None
    since: TimeLike | None = None
    until: TimeLike | None = None

    def __bool__(self) -> bool:
        return self != SessionFields()


class SessionIds(list[str]):
    """A page of ids. ``total`` is the number of all matches, ``cursor`` is for the next page; None on the last."""

    def __init__(self, ids: Iterable[str], total: int, cursor: str | None = None) -> None:
        super().__init__(ids)
        self.total = total
        self.cursor = cursor


def find_sessions(
    connection: Connection,
    store: Database,
    filter_: SessionFilter,
    *,
    fields: SessionFields,
    order: str,
    descending: bool,
    offset: int,
    limit: int | None,
    total: int | None,
    cursor: str | None,
) -> SessionIds:
    """See `SessionStore.find_sessions`."""
    if order not in SESSION_ORDERS:
        raise BadUsage(f"Unknown order {order!r}.", f"Use one of {', '.join(SESSION_ORDERS)}.")
    last = None if cursor is None else _decode_cursor(cursor, order, descending=descending)
    if last is not None and offset:
        raise BadUsage("find_sessions takes cursor or offset, not both.", "Give one of cursor= and offset=.")
    offset = validation.require_count("offset", offset)
    limit = None if limit is None else validation.require_count("limit", limit)
    total = None if total is None else validation.require_count("total", total)
    tables = store.tables
    s = tables.sessions
    matching = sa.select(s.c.session_id).where(*_conditions(tables, filter_), *exact_conditions(tables, fields))
    if total is None:
        counted = matching
        if not fields and filter_.status is not None and filter_ == SessionFilter(status=filter_.status):
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
    joins, key = _order_key(tables, order, matching if filter_ or fields else None)
    for join in joins:
        matching = matching.outerjoin(join, join.c.session_id == s.c.session_id)
    if last is not None:
        matching = matching.where(_comes_after(key, s.c.session_id, last, descending=descending))
    direction = (key.desc(), s.c.session_id.desc()) if descending else (key, s.c.session_id)
    limit = total - offset if limit is None else limit  # SQLite has no OFFSET without a LIMIT
    page = matching.order_by(*direction).limit(limit + 1).offset(offset)
    columns = (damaged_rows.raw(s.c.session_id), sa.type_coerce(key, sa.types.NULLTYPE).label("sort_key"))
    rows = connection.execute(page.with_only_columns(*columns, maintain_column_froms=True)).mappings().all()
    ids = [damaged_rows.decode_row(tables, "sessions", _without_key(row))[0]["session_id"] for row in rows[:limit]]
    if len(rows) <= limit:
        return SessionIds(ids, total)
    last_key = rows[limit - 1]["sort_key"]
    next_cursor = json.dumps([order, descending, _to_number(last_key), ids[-1]])
    return SessionIds(ids, total, base64.urlsafe_b64encode(next_cursor.encode()).decode())


def _without_key(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "sort_key"}


def _to_number(key: Any) -> Any:
    """A sort key for a cursor; PostgreSQL's sums of tokens are Decimals."""
    return int(key) if isinstance(key, Decimal) and key == int(key) else float(key) if isinstance(key, Decimal) else key


def _decode_cursor(cursor: str, order: str, *, descending: bool) -> tuple[Any, str]:
    """The sort key and the id of the last session of a page of this order."""
    with contextlib.suppress(ValueError, TypeError):
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case [str(its_order), bool(its_direction), str() | int() | float() as key, str(session_id)] if (
                its_order == order and its_direction == descending
            ):
                return key, session_id
    message = f"{cursor!r} is not a cursor of find_sessions with order={order!r} and descending={descending}."
    raise BadUsage(message, "Pass the cursor of the previous page, and the same order.")


def _comes_after(
    key: sa.ColumnElement[Any], session_id: sa.Column[str], last: tuple[Any, str], *, descending: bool
) -> sa.ColumnElement[bool]:
    """Whether a session comes after the last one of a page."""
    compare = operator.lt if descending else operator.gt
    kinds: dict[type, sa.types.TypeEngine[Any]] = {int: sa.BigInteger(), float: sa.Double(), str: sa.Text()}
    last_key = sa.literal(last[0], kinds[type(last[0])])
    key = sa.type_coerce(key, last_key.type)
    return sa.or_(compare(key, last_key), sa.and_(key == last_key, compare(session_id, last[1])))


def exact_conditions(tables: Tables, fields: SessionFields) -> list[sa.ColumnElement[bool]]:
    """The conditions of `SessionFields`."""
    s = tables.sessions.c
    names = ("session_type", "agent_id", "team_id", "workflow_id", "user_id")
    conditions = [s[name] == value for name in names if (value := getattr(fields, name)) is not None]
    if fields.owner is not None:
        conditions.append(sa.or_(*(column == fields.owner for column in (s.agent_id, s.team_id, s.workflow_id))))
    for name, compare in (("since", operator.ge), ("until", operator.lt)):
        if (when := getattr(fields, name)) is not None:
            conditions.append(compare(s.created_at, _seconds(when)))
    for key, value in _require_keys(fields.metadata).items():
        conditions.append(_has_metadata(s["metadata"], key, value))
    return conditions


def _seconds(when: TimeLike) -> int:
    """A time in unix seconds, rounded up, as sessions have whole seconds."""
    from kern_nb.db.frame_queries import parse_time

    return -(-parse_time(when) // 1_000_000)


def _require_keys(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        message = f"metadata must be a dict of keys and values, got {codec.short_repr(metadata)}."
        raise BadUsage(message, "For example: metadata={'task_id': 7}")
    return metadata


def _has_metadata(column: sa.Column[Any], key: str, value: Any) -> sa.ColumnElement[bool]:
    """Whether the metadata have a value at a key. JSON is parsed only if its text contains both.

    The text distinguishes 1 from 1.0. Values are compared as the engine formats them, as engines format differently.
    """
    document = codec.dumps({key: value})
    own_key = codec.encode_text(key)
    is_same = json_at(column, own_key) == json_at(sa.literal(document, sa.Text()), own_key)
    return sa.case((_contains(column, document[1:-1]), is_same), else_=sa.false())


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
