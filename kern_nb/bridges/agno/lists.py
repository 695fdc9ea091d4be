"""Finding sessions as Agno's `get_sessions` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from kern_nb.db import codec, mapping
from kern_nb.db.sql_expressions import json_text, lower_text
from kern_nb.db.store import SessionStore
from kern_nb.records import Session

_SORTABLE = ("session_id", "session_type", "agent_id", "team_id", "workflow_id", "user_id", "created_at", "updated_at")


def find_sessions(
    store: SessionStore,
    filters: dict[str, Any],
    *,
    sort_by: str | None,
    sort_order: str | None,
    limit: int | None,
    page: int | None,
) -> tuple[list[Session], int]:
    """A page of matching sessions without runs, and the number of all; ``filters`` are arguments of `get_sessions`."""
    s = store.tables.sessions
    where = list(_conditions(s, **filters))
    query = sa.select(s).where(*where)
    sort_by = sort_by if sort_by in _SORTABLE else None
    column: sa.ColumnElement[Any] = s.c[sort_by or "created_at"]
    if sort_by == "updated_at":
        column = sa.func.coalesce(s.c.updated_at, s.c.created_at)
    is_ascending = sort_order == "asc" or sort_by is None  # as they were created
    query = query.order_by(column.asc() if is_ascending else column.desc(), s.c.session_id)
    if limit is not None:
        query = query.limit(limit).offset(((page or 1) - 1) * limit)
    with store.read_connection() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(s).where(*where)).scalar_one()
        return [mapping.session_from_row(row) for row in connection.execute(query).mappings()], int(total)


def _conditions(
    s: sa.Table,
    *,
    session_type: str | None,
    user_id: str | None,
    component_id: str | None,
    session_name: str | None,
    start_timestamp: int | None,
    end_timestamp: int | None,
) -> Iterator[sa.ColumnElement[bool]]:
    if session_type is not None:
        yield s.c.session_type == session_type
    if user_id is not None:
        yield s.c.user_id == user_id
    if component_id is not None:
        owners = ["agent_id", "team_id", "workflow_id"] if session_type is None else [f"{session_type}_id"]
        yield sa.or_(*(s.c[name] == component_id for name in owners))
    if start_timestamp is not None:
        yield s.c.created_at >= start_timestamp
    if end_timestamp is not None:
        yield s.c.created_at <= end_timestamp
    if session_name is not None:
        title = sa.type_coerce(lower_text(json_text(s.c.session_data, "session_name")), sa.Text())
        yield title.contains(codec.encode_text(session_name.lower()), autoescape=True)
