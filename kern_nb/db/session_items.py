"""What a list says of its sessions, for as many as it shows: no totals, no messages, no state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, validation
from kern_nb.db.lineage import load_lineage
from kern_nb.db.reads import require_session
from kern_nb.db.schema import Tables, Text
from kern_nb.db.session_search import TAGS, named_text

_ASKED = 400
_OWN = (
    "session_id", "session_type", "agent_id", "team_id", "workflow_id", "user_id", "parent_session_id",
    "fork_run_index", "fork_message_index", "created_at", "updated_at",
)  # fmt: skip


@dataclass(frozen=True)
class SessionItem:
    """A session in a list.

    Attributes:
        session_id: Its id; the other fields up to ``updated_at`` are those of `Session`, too.
        title: Its title.
        tags: Its tags.
        n_runs: Its own runs, members' among them.
        status: Of its latest run.
        asked: The beginning of what its first own run was asked.
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
    asked: str | None = None

    @property
    def owner(self) -> str | None:
        """The agent, team or workflow."""
        return self.agent_id or self.team_id or self.workflow_id


@dataclass(frozen=True)
class SessionTree:
    """A session, what it comes from, and what comes from these.

    Attributes:
        cards: The first session of all, then its branches, level by level.
        complete: Whether these are all.
    """

    cards: tuple[SessionItem, ...]
    complete: bool


def cards(connection: Connection, tables: Tables, ids: Sequence[str], user_id: str | None = None) -> list[SessionItem]:
    """Cards of these sessions, in this order; those that are not there are left out."""
    s = tables.sessions
    title, tags = _as_text(named_text(s.c.session_data, "session_name")), _as_text(named_text(s.c["metadata"], TAGS))
    own = (damaged_rows.raw(s.c[name]) for name in _OWN)
    query = sa.select(*own, title.label("title"), tags.label("tags")).where(s.c.session_id.in_(ids))
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    found = {}
    for row in connection.execute(query).mappings():
        # A damaged row is listed with what can be read of it.
        values, _ = damaged_rows.readable(tables, "sessions", {name: row[name] for name in _OWN})
        found[values["session_id"]] = values | {"title": row["title"], "tags": row["tags"]}
    ends = _ends(connection, tables, list(found))
    return [_card(found[one], ends.get(one, {})) for one in ids if one in found]


def _as_text(value: sa.ColumnElement[Any]) -> sa.ColumnElement[str | None]:
    """SQLite gives a number in JSON as a number."""
    return sa.type_coerce(sa.cast(value, sa.Text()), Text())


def _card(row: Mapping[str, Any], ends: Mapping[str, Any]) -> SessionItem:
    own = {name: row[name] for name in _OWN} | {"session_type": row["session_type"] or "agent"}
    return SessionItem(**own, title=row["title"], tags=tags_of(row["tags"]), **ends)


def tags_of(text: str | None) -> tuple[str, ...]:
    """The tags, from the JSON of their list; what is none is left out."""
    try:
        found = codec.loads(text) if text else []
    except ValueError:  # a text of its own, where a list is expected
        found = []
    return tuple(tag for tag in found if isinstance(tag, str)) if isinstance(found, list) else ()


def _ends(connection: Connection, tables: Tables, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of each session with runs: how many, what the first was asked, how the last ended."""
    r = tables.runs
    main = sa.case((r.c.parent_run_id.is_(None), r.c.run_index))
    bounds = (
        sa.select(
            r.c.session_id,
            sa.func.count().label("n_runs"),
            sa.func.min(r.c.run_index).label("first"),
            sa.func.max(main).label("last"),
        )
        .where(r.c.session_id.in_(list(ids)))
        .group_by(r.c.session_id)
        .subquery()
    )
    asked = sa.func.substr(sa.type_coerce(r.c.input, sa.Text()), 1, _ASKED)
    kinds = {name: sa.type_coerce(bounds.c[name], sa.types.NullType()).label(name) for name in ("first", "last")}
    own = (damaged_rows.raw(r.c[name]) for name in ("session_id", "run_index", "status"))
    query = sa.select(*own, bounds.c.n_runs, *kinds.values(), asked.label("asked")).join(
        bounds,
        (r.c.session_id == bounds.c.session_id) & r.c.run_index.in_([bounds.c.first, bounds.c.last]),
    )
    # Named again beside the bounds: where there is an index, these rows are found by it.
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(query.where(r.c.session_id.in_(list(ids)))).mappings():
        run = {name: row[name] for name in ("session_id", "run_index", "status")}
        run, _ = damaged_rows.readable(tables, "runs", run)
        ends = found.setdefault(run["session_id"], {"n_runs": row["n_runs"]})
        if row["run_index"] == row["first"] and isinstance(row["asked"], str):
            ends["asked"] = codec.decode_text(row["asked"])
        if row["run_index"] == row["last"]:
            ends["status"] = run["status"]
    return found


def family(
    connection: Connection, tables: Tables, session_id: str, most: int, user_id: str | None = None
) -> SessionTree:
    """See `SessionStore.session_family`."""
    most = validation.require_count("most", most)
    row = require_session(connection, tables, session_id, user_id)
    line = [segment.session_id for segment in load_lineage(connection, tables, row)]
    s = tables.sessions
    ids = dict.fromkeys(line)  # what it comes from, however many branches these have
    level = line
    while level and len(ids) <= most:
        children = sa.select(s.c.session_id).where(s.c.parent_session_id.in_(level)).order_by(s.c.session_id)
        if user_id is not None:
            children = children.where(s.c.user_id == user_id)
        found = connection.execute(children.limit(most + len(ids) + 1)).scalars()
        level = [one for one in found if one not in ids]
        ids |= dict.fromkeys(level)
    kept = list(ids)[: max(most, len(line))]
    return SessionTree(tuple(cards(connection, tables, kept, user_id)), complete=len(kept) == len(ids))
