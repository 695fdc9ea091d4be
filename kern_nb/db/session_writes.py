"""Save, rename, tag, branch and score sessions, and set their state. Each function works in one transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import mapping
from kern_nb.db.column_types import to_float
from kern_nb.db.lineage import BranchPointLike, load_lineage, resolve_branch_point, session_state_at
from kern_nb.db.open_runs import merge, merge_session_state, update_session
from kern_nb.db.reads import require_session
from kern_nb.db.run_writes import OWNER_FIELDS, index_floor, insert_run, owner_mismatch, upsert_session
from kern_nb.db.session_search import TAGS
from kern_nb.errors import RunNotFound, SessionExists, StaleSession
from kern_nb.records import Session

if TYPE_CHECKING:
    from kern_nb.db.database import Database

_CLEARED_BY_NONE = ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary")
"""Columns that saving a session with None clears; None leaves the others as they are."""


def save_session(
    connection: Connection, store: Database, session: Session, expected_revision: int | None = None
) -> Session:
    """See `SessionStore.save_session`."""
    r = store.tables.runs
    now = int(time.time())
    owner = {n: getattr(session, n) for n in OWNER_FIELDS}
    stored = upsert_session(connection, store, session.session_id, owner, now)
    revision = stored["revision"] or 0
    row = mapping.session_row(session)
    if expected_revision is None:
        row["session_data"] = _merge_data(session, stored["session_data"])
    elif revision != expected_revision:
        message = f"Session {session.session_id!r} has revision {revision}, not {expected_revision}: it was changed."
        raise StaleSession(message, "Load it again, apply your changes, and save it with its revision.")
    values = {name: value for name, value in row.items() if value is not None or name in _CLEARED_BY_NONE}
    update_session(connection, store, session.session_id, **{"updated_at": now} | values)
    if session.runs:
        query = sa.select(r.c.run_id).where(r.c.run_id.in_([run.run_id for run in session.runs]))
        stored_runs = set(connection.execute(query).scalars())
        fork = {} if session.fork_run_index is None else {"fork_run_index": session.fork_run_index}
        floor = index_floor(stored | fork)
        for run in session.runs:
            if run.run_id not in stored_runs:
                insert_run(connection, store, session.session_id, run, floor)
    return mapping.session_from_row(require_session(connection, store.tables, session.session_id), session.runs)


def _merge_data(session: Session, current: dict[str, Any] | None) -> dict[str, Any] | None:
    """The stored data with what the saver has changed since it read them; a new record changes all it has."""
    data, before = session.session_data, session.stored_data
    if current is None or not (data is None or isinstance(data, dict)):  # the column refuses what is no dict
        return data
    if data is None and not before:  # it knows of none
        return current
    return merge(before, current, data or {}) or data


def rename_session(connection: Connection, store: Database, session_id: str, name: str, user_id: str | None) -> Session:
    """See `SessionStore.rename_session`."""
    row = lock_session(connection, store, session_id, user_id)
    values = {"session_data": (row["session_data"] or {}) | {"session_name": name}, "updated_at": int(time.time())}
    update_session(connection, store, session_id, **values)
    return mapping.session_from_row({**row, **values, "revision": (row["revision"] or 0) + 1})


def tag_session(
    connection: Connection, store: Database, session_id: str, tags: Sequence[str], user_id: str | None
) -> Session:
    """See `SessionStore.tag_session`."""
    row = lock_session(connection, store, session_id, user_id)
    metadata = {key: value for key, value in (row["metadata"] or {}).items() if key != TAGS}
    if tags:
        metadata[TAGS] = list(dict.fromkeys(tags))
    values = {"metadata": metadata or None, "updated_at": int(time.time())}
    update_session(connection, store, session_id, **values)
    return mapping.session_from_row({**row, **values, "revision": (row["revision"] or 0) + 1})


def save_summary(
    connection: Connection, store: Database, session_id: str, summary: dict[str, Any] | None, user_id: str | None
) -> None:
    """See `SessionStore.save_summary`."""
    lock_session(connection, store, session_id, user_id)
    update_session(connection, store, session_id, summary=summary)


def update_state(
    connection: Connection, store: Database, session_id: str, updates: dict[str, Any], user_id: str | None
) -> dict[str, Any]:
    """See `SessionStore.update_session_state`."""
    owner = {"session_type": "agent", "user_id": user_id}
    session = upsert_session(connection, store, session_id, owner, time.time())
    return merge_session_state(connection, store, session_id, session["session_data"], {}, updates)


def lock_session(connection: Connection, store: Database, session_id: str, user_id: str | None = None) -> RowMapping:
    """The row of a session, locked until the transaction ends; raises SessionNotFound or OwnerMismatch."""
    s = store.tables.sessions
    row = connection.execute(store.locked(sa.select(s).where(s.c.session_id == session_id))).mappings().first()
    if row is None:
        return require_session(connection, store.tables, session_id, user_id)  # type: ignore[return-value]
    if user_id is not None and row["user_id"] != user_id:
        raise owner_mismatch(session_id, user_id)
    return row


def branch(
    connection: Connection,
    store: Database,
    session_id: str,
    *,
    after: BranchPointLike,
    before: BranchPointLike,
    name: str | None,
    new_session_id: str | None,
    fields: Mapping[str, Any] | None = None,
    user_id: str | None = None,
) -> Session:
    """See `SessionStore.branch`; ``fields`` are columns of the new session that differ from its parent's."""
    tables = store.tables
    if user_id is not None:  # another user's session is not found, as in any read
        require_session(connection, tables, session_id, user_id)
    parent = lock_session(connection, store, session_id)
    mapping.require_valid("sessions", parent)
    lineage = load_lineage(connection, tables, parent)
    point = resolve_branch_point(connection, tables, lineage, after=after, before=before)
    state = (parent["session_data"] or {}).get("session_state")
    if state is not None and not (after is None and before is None):  # at the end it is the session's own
        state = session_state_at(connection, tables, lineage, point)
    data = {key: value for key, value in (("session_state", state), ("session_name", name)) if value is not None}
    now = int(time.time())
    inherited = {n: parent[n] for n in (*OWNER_FIELDS, "agent_data", "team_data", "workflow_data", "metadata")}
    new = Session(
        **inherited | dict(fields or {}),
        session_id=str(uuid4()) if new_session_id is None else new_session_id,
        session_data=data or None,
        created_at=now,
        updated_at=now,
        parent_session_id=session_id,
        fork_run_index=point.run_index,
        fork_message_index=point.message_index,
        revision=0,
    )
    new.note_stored_data(new.session_data)
    try:
        connection.execute(tables.sessions.insert(), mapping.session_row(new))
    except sa.exc.IntegrityError as error:
        message = f"Session {new.session_id!r} exists."
        raise SessionExists(message, "Use another new_session_id.") from error
    return new


def add_score(connection: Connection, store: Database, score: dict[str, Any], user_id: str | None) -> None:
    """See `SessionStore.add_score`; ``score`` has its values by column."""
    r, scores = store.tables.runs, store.tables.scores
    session_id, run_id, value = score["session_id"], score["run_id"], score["value"]
    is_unknown = isinstance(value, float) and math.isnan(value)
    number = None if is_unknown else float(value) if isinstance(value, bool) else to_float(value)
    lock_session(connection, store, session_id, user_id)
    if run_id is not None:
        query = sa.select(r.c.run_id).where(r.c.session_id == session_id, r.c.run_id == run_id)
        if connection.execute(query).first() is None:
            message = f"Session {session_id!r} has no run {run_id!r} of its own."
            raise RunNotFound(message, f"See %kern show {session_id}.")
    same = (scores.c.session_id == session_id) & (scores.c.name == score["name"])
    same &= scores.c.run_id.is_not_distinct_from(run_id) & scores.c.source.is_not_distinct_from(score["source"])
    connection.execute(scores.delete().where(same))
    own = {"value": number, "score_id": str(uuid4()), "created_at": int(time.time() * 1_000_000)}
    connection.execute(scores.insert().values(**score | own))
