"""`SessionItem`: what a list shows of a session. Computed for listed sessions only, without messages or state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, validation
from kern_nb.db.column_types import Text
from kern_nb.db.lineage import load_lineage
from kern_nb.db.reads import require_session
from kern_nb.db.schema import Tables
from kern_nb.db.session_search import TAGS
from kern_nb.db.sql_expressions import json_text

_MAX_INPUT_LENGTH = 400


@dataclass(frozen=True)
class SessionItem:
    """A session in a list.

    Attributes:
        session_id: Its id; the other fields up to ``updated_at`` are those of `Session`, too.
        title: Its title.
        tags: Its tags.
        n_runs: The number of its own runs, members' included.
        status: The status of its latest run.
        first_input: The beginning of its first own run's input.
    """

    session_id: str
    session_type: str
    agent_id: str | None
    team_id: str | None
    workflow_id: str | None
    user_id: str | None
    parent_session_id: str | None
    fork_run_index: int | None
    fork_message_index: int | None
    created_at: int | None
    updated_at: int | None
    title: str | None = None
    tags: tuple[str, ...] = ()
    n_runs: int = 0
    status: str | None = None
    first_input: str | None = None

    @property
    def owner(self) -> str | None:
        """The agent, team or workflow."""
        return self.agent_id or self.team_id or self.workflow_id


_SESSION_COLUMNS = tuple(field.name for field in fields(SessionItem) if field.default is MISSING)


@dataclass(frozen=True)
class SessionTree:
    """A session, its ancestors, and the branches of these.

    Attributes:
        items: The sessions, root first, then level by level.
        complete: Whether these are all.
    """

    items: tuple[SessionItem, ...]
    complete: bool


def load_items(
    connection: Connection, tables: Tables, session_ids: Sequence[str], user_id: str | None = None
) -> list[SessionItem]:
    """See `SessionStore.session_cards`."""
    session_ids = validation.require_texts("session_ids", session_ids)
    s = tables.sessions
    title = _as_text(json_text(s.c.session_data, "session_name", constant=True))
    tags = _as_text(json_text(s.c["metadata"], TAGS, constant=True))
    columns = (damaged_rows.raw(s.c[name]) for name in _SESSION_COLUMNS)
    query = sa.select(*columns, title.label("title"), tags.label("tags")).where(s.c.session_id.in_(session_ids))
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    sessions = {}
    for row in connection.execute(query).mappings():
        # Of a damaged row, the readable columns are listed.
        values, _ = damaged_rows.decode_row(tables, "sessions", {name: row[name] for name in _SESSION_COLUMNS})
        values["session_type"] = values["session_type"] or "agent"
        sessions[values["session_id"]] = values | {"title": row["title"], "tags": parse_tags(row["tags"])}
    runs = _load_run_fields(connection, tables, list(sessions))
    return [SessionItem(**sessions[name], **runs.get(name, {})) for name in session_ids if name in sessions]


def _as_text(value: sa.ColumnElement[Any]) -> sa.ColumnElement[str | None]:
    """Cast to text: SQLite returns a number in JSON as a number."""
    return sa.type_coerce(sa.cast(value, sa.Text()), Text())


def parse_tags(text: str | None) -> tuple[str, ...]:
    """The tags of a JSON list; what is not a tag is ignored."""
    try:
        tags = codec.loads(text) if text else []
    except ValueError:  # a plain text instead of a list
        return ()
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _load_run_fields(connection: Connection, tables: Tables, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The fields of a `SessionItem` that come from runs, of each session that has runs."""
    r = tables.runs
    is_listed = r.c.session_id.in_(list(ids))
    top_level_index = sa.case((r.c.parent_run_id.is_(None), r.c.run_index))
    first, last = sa.func.min(r.c.run_index).label("first"), sa.func.max(top_level_index).label("last")
    numbers = sa.select(r.c.session_id, sa.func.count().label("n_runs"), first, last)
    bounds = numbers.where(is_listed).group_by(r.c.session_id).subquery()
    beginning = sa.func.substr(sa.type_coerce(r.c.input, sa.Text()), 1, _MAX_INPUT_LENGTH)
    indexes = [sa.type_coerce(bounds.c[name], sa.types.NullType()).label(name) for name in ("first", "last")]
    columns = ("session_id", "run_index", "status")
    raw = (damaged_rows.raw(r.c[name]) for name in columns)
    query = sa.select(*raw, bounds.c.n_runs, *indexes, beginning.label("first_input"))
    is_bound = (r.c.session_id == bounds.c.session_id) & r.c.run_index.in_([bounds.c.first, bounds.c.last])
    # The ids again, beside the bounds: where there is an index, these rows are found by it.
    query = query.join(bounds, is_bound).where(is_listed)
    by_session: dict[str, dict[str, Any]] = {}
    for row in connection.execute(query).mappings():
        run, _ = damaged_rows.decode_row(tables, "runs", {name: row[name] for name in columns})
        of_session = by_session.setdefault(run["session_id"], {"n_runs": row["n_runs"]})
        if row["run_index"] == row["first"] and isinstance(row["first_input"], str):
            of_session["first_input"] = codec.decode_text(row["first_input"])
        if row["run_index"] == row["last"]:
            of_session["status"] = run["status"]
    return by_session


def load_tree(
    connection: Connection, tables: Tables, session_id: str, limit: int, user_id: str | None = None
) -> SessionTree:
    """See `SessionStore.session_family`."""
    limit = validation.require_count("most", limit)
    row = require_session(connection, tables, session_id, user_id)
    ancestors = [segment.session_id for segment in load_lineage(connection, tables, row)]
    s = tables.sessions
    ids = dict.fromkeys(ancestors)  # all of them, however many branches they have
    level = ancestors
    while level and len(ids) <= limit:
        query = sa.select(s.c.session_id).where(s.c.parent_session_id.in_(level)).order_by(s.c.session_id)
        if user_id is not None:
            query = query.where(s.c.user_id == user_id)
        children = connection.execute(query.limit(limit + len(ids) + 1)).scalars()
        level = [child for child in children if child not in ids]
        ids |= dict.fromkeys(level)
    listed = list(ids)[: max(limit, len(ancestors))]
    return SessionTree(tuple(load_items(connection, tables, listed, user_id)), complete=len(listed) == len(ids))
