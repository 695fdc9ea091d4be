"""Move the head of a session to an earlier point. Each function works in one transaction.

The session's own runs move to a new session, of which it becomes a branch: the rest of its line is kept there, and no
row is copied. A cut within a run is a branch point like any other, and branches go on inheriting what they inherited.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import checkpoint_tables, mapping
from kern_nb.db.lineage import (
    BranchPoint,
    BranchPointLike,
    Lineage,
    load_lineage,
    resolve_branch_point,
    session_state_at,
)
from kern_nb.db.open_runs import update_session
from kern_nb.db.reads import require_session, run_tree_ids
from kern_nb.db.run_writes import index_floor
from kern_nb.db.session_deletes import move_to_grandparent
from kern_nb.db.session_writes import lock_session
from kern_nb.errors import BadUsage, RunOpen, SessionExists
from kern_nb.extra_keys import CONVERSATION, REWOUND_FROM
from kern_nb.records import OPEN_STATUSES, Session

if TYPE_CHECKING:
    from kern_nb.db.database import Database

LEFT_BY = "left_by"
"""The key in a session's data of the session that has left it."""

_STAYING_KEYS = ("session_name", CONVERSATION, REWOUND_FROM)
"""Keys of a session's data that the session that it leaves does not get."""


def rewind_session(
    connection: Connection,
    store: Database,
    session_id: str,
    *,
    after: BranchPointLike,
    before: BranchPointLike,
    keep_as: str | None,
    user_id: str | None,
) -> Session:
    """See `SessionStore.rewind_session`."""
    tables = store.tables
    session = lock_session(connection, store, session_id, user_id)
    mapping.require_valid("sessions", session)
    lineage = load_lineage(connection, tables, session)
    point = resolve_branch_point(connection, tables, lineage, after=after, before=before)
    ends_run = _ends_run(connection, store, lineage, point)
    if ends_run and point.message_index is not None:
        point = resolve_branch_point(connection, tables, lineage, after=point.run_index, before=None)
    if not ends_run or _has_runs_after(connection, store, lineage, point):
        _require_movable(connection, store, session)
        owner = _owner(lineage, point)
        move_head(connection, store, session, None if owner is None else (owner, point), keep_as=keep_as)
    return mapping.session_from_row(require_session(connection, tables, session_id))


def _ends_run(connection: Connection, store: Database, lineage: Lineage, point: BranchPoint) -> bool:
    """Whether a point is after the last message of its run."""
    if point.message_index is None:
        return True
    m = store.tables.messages
    query = sa.select(m.c.message_index).where(lineage.inside(m), m.c.run_index == point.run_index)
    return connection.execute(query.where(m.c.message_index > point.message_index).limit(1)).first() is None


def _has_runs_after(connection: Connection, store: Database, lineage: Lineage, point: BranchPoint) -> bool:
    r = store.tables.runs
    query = sa.select(r.c.run_index).where(lineage.runs(r), r.c.run_index > point.run_index)
    return connection.execute(query.limit(1)).first() is not None


def _require_movable(connection: Connection, store: Database, session: RowMapping) -> None:
    """Refuse a session with an open run, or of a program that stores its head elsewhere."""
    r, session_id = store.tables.runs, session["session_id"]
    query = sa.select(r.c.run_index, r.c.run_id, r.c.status).order_by(r.c.run_index)
    run = connection.execute(query.where(r.c.session_id == session_id, r.c.status.in_(OPEN_STATUSES))).first()
    if run is not None:
        message = f"Run {session_id}/{run.run_index} is open: {run.status}. Session {session_id!r} was not rewound."
        raise RunOpen(message, f"End it first, or cancel it: store.finish_run({run.run_id!r}, status='CANCELLED').")
    program = None
    if CONVERSATION in (session["session_data"] or {}):
        program = "pydantic-ai"
    elif checkpoint_tables.has_checkpoints(connection, store.tables, session_id):
        program = "LangGraph"
    if program is not None:
        message = f"Session {session_id!r} is a conversation of {program}, which stores its head itself."
        raise BadUsage(message, f"Rewind it with {program}, or branch: store.branch({session_id!r}, after=...).")


def _owner(lineage: Lineage, point: BranchPoint) -> str | None:
    """The session of a lineage that has the run of a branch point; None before the first run."""
    floors = [-1, *(segment.until.run_index for segment in lineage if segment.until is not None)]
    pairs = zip(reversed(lineage), reversed(floors), strict=True)
    return next((segment.session_id for segment, floor in pairs if point.run_index > floor), None)


def move_head(
    connection: Connection,
    store: Database,
    session: RowMapping,
    to: tuple[str, BranchPoint] | None,
    *,
    keep: Collection[str] = (),
    keep_as: str | None = None,
) -> None:
    """Let a session go on from an earlier point, or from a point of another session.

    Args:
        connection: The connection, in a transaction that has locked the session.
        store: The store.
        session: The session's row.
        to: The session that has the point, and the point; None is the beginning.
        keep: Runs of the session that stay, after the point.
        keep_as: The id of the session that gets the other runs; None generates one.
    """
    session_id, tables = session["session_id"], store.tables
    owner, point = (session_id, BranchPoint(-1)) if to is None else to
    state = _state_at(connection, store, session, owner, point)
    staying = {run_id for root in keep for run_id in run_tree_ids(connection, tables, root)}
    last_moved = _last_moved(connection, store, session_id, staying)
    heirs = _lock_heirs(connection, store, session_id)
    left_id = None
    if last_moved is not None:
        left_id = _add_left_session(connection, store, session, keep_as)
        for table in tables.session_tables:
            moves = (table.c.session_id == session_id) & table.c.run_id.is_not(None) & table.c.run_id.not_in(staying)
            connection.execute(table.update().where(moves).values(session_id=left_id))
        for run_id in [run_id for run_id, key in store.run_keys.items() if key[0] == session_id]:
            del store.run_keys[run_id]
        for heir in heirs:
            update_session(connection, store, heir["session_id"], parent_session_id=left_id)
    else:
        for heir in heirs:
            move_to_grandparent(connection, store, heir, session)
    parent = owner if owner != session_id else left_id or session["parent_session_id"]
    data = {key: value for key, value in (session["session_data"] or {}).items() if key != "session_state"}
    data |= {} if state is None else {"session_state": state}
    data = data if left_id is None else {REWOUND_FROM: left_id} | data
    values: dict[str, Any] = {"session_data": data or None, "parent_session_id": parent, "updated_at": int(time.time())}
    values |= {"fork_run_index": None, "fork_message_index": None}
    if parent is not None:
        values |= {"fork_run_index": point.run_index, "fork_message_index": point.message_index}
    last_summarized = (session["summary"] or {}).get("last_run_index")
    if not isinstance(last_summarized, int) or BranchPoint(last_summarized).earlier(point) == point:
        values["summary"] = None
    if last_moved is not None:  # references to the runs that have moved never mean later ones
        values |= {"last_deleted_run_index": max(last_moved, index_floor(session)), "missing_parent": None}
    update_session(connection, store, session_id, **values)


def _state_at(
    connection: Connection, store: Database, session: RowMapping, owner: str, point: BranchPoint
) -> dict[str, Any] | None:
    """The session state at a point of a session, which is locked; None if the rewound session has no state."""
    row = session if owner == session["session_id"] else lock_session(connection, store, owner)
    if "session_state" not in (session["session_data"] or {}):
        return None
    return session_state_at(connection, store.tables, load_lineage(connection, store.tables, row), point)


def _last_moved(connection: Connection, store: Database, session_id: str, staying: Collection[str]) -> int | None:
    """The highest index of the session's own runs that move; None if none does."""
    r = store.tables.runs
    query = sa.select(sa.func.max(r.c.run_index)).where(r.c.session_id == session_id, r.c.run_id.not_in(staying))
    return connection.execute(query).scalar()


def _lock_heirs(connection: Connection, store: Database, session_id: str) -> list[RowMapping]:
    s = store.tables.sessions
    query = sa.select(s).where(s.c.parent_session_id == session_id)
    return list(connection.execute(store.locked(query)).mappings())


def _add_left_session(connection: Connection, store: Database, session: RowMapping, keep_as: str | None) -> str:
    """Add the session that gets the runs of a session, in its place among the branches; returns its id."""
    s, session_id = store.tables.sessions, session["session_id"]
    left_id = _free_id(connection, store, session_id) if keep_as is None else mapping.require_id(keep_as)
    data = {key: value for key, value in (session["session_data"] or {}).items() if key not in _STAYING_KEYS}
    row = dict(session) | {"session_id": left_id, "session_data": data | {LEFT_BY: session_id}, "revision": None}
    try:
        connection.execute(s.insert().values(**row))
    except sa.exc.IntegrityError as error:
        raise SessionExists(f"Session {left_id!r} exists.", "Use another keep_as, or none.") from error
    return left_id


def _free_id(connection: Connection, store: Database, session_id: str) -> str:
    s, n = store.tables.sessions, 1
    query = sa.select(s.c.session_id)
    while connection.execute(query.where(s.c.session_id == f"{session_id}~{n}")).first() is not None:
        n += 1
    return f"{session_id}~{n}"


def left_sessions(connection: Connection, store: Database, session_id: str) -> list[str]:
    """The sessions that a session has left, the latest first, if their ids were generated."""
    s = store.tables.sessions
    n = 1
    left: list[str] = []
    while True:
        query = sa.select(s.c.session_data).where(s.c.session_id == f"{session_id}~{n}")
        row = connection.execute(query).first()
        if row is None:
            return left[::-1]
        if (row[0] or {}).get(LEFT_BY) == session_id:
            left.append(f"{session_id}~{n}")
        n += 1
