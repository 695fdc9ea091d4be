"""Sessions as a whole: saved, renamed, branched, deleted, rated. Each function works in one transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import blobs, damaged_rows, mapping
from kern_nb.db.lineage import Lineage, Point, copy_rows, find_point, fork_point, inherits_from, load_lineage, state_at
from kern_nb.db.reads import require_session
from kern_nb.db.run_writes import OWNER_FIELDS, insert_children, insert_run, not_theirs, touch_session
from kern_nb.db.schema import real
from kern_nb.db.session_search import TAGS
from kern_nb.errors import HasBranches, RunNotFound, SessionExists
from kern_nb.records import Session

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore


def save_session(connection: Connection, store: SessionStore, session: Session) -> Session:
    """See `SessionStore.save_session`."""
    s, r = store.tables.sessions, store.tables.runs
    now = int(time.time())
    owner = {n: getattr(session, n) for n in OWNER_FIELDS}
    stored_fork = touch_session(connection, store, session.session_id, owner, now)["fork_run_index"]
    row = mapping.session_row(session)
    kept = {name: value for name, value in row.items() if value is not None or name in _CLEARABLE}
    kept.setdefault("updated_at", now)
    connection.execute(s.update().where(s.c.session_id == session.session_id).values(**kept))
    runs = session.runs or []
    if runs:
        ids = [run.run_id for run in runs]
        stored = set(connection.execute(sa.select(r.c.run_id).where(r.c.run_id.in_(ids))).scalars())
        for run in runs:
            if run.run_id not in stored:
                made = mapping.run_rows(run, session.session_id)
                floor = stored_fork if session.fork_run_index is None else session.fork_run_index
                index = insert_run(connection, store, made.run, floor)
                insert_children(connection, store, run, made, session.session_id, index)
    return mapping.session_of(require_session(connection, store.tables, session.session_id), session.runs)


# What saving a session with None takes away; the rest of its row None leaves alone.
_CLEARABLE = ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary")


def rename_session(
    connection: Connection, store: SessionStore, session_id: str, name: str, user_id: str | None = None
) -> Session:
    """See `SessionStore.rename_session`."""
    s = store.tables.sessions
    row = _lock_session(connection, store, session_id, user_id)
    data = (row["session_data"] or {}) | {"session_name": name}
    now = int(time.time())
    connection.execute(s.update().where(s.c.session_id == session_id).values(session_data=data, updated_at=now))
    return mapping.session_of({**row, "session_data": data, "updated_at": now})


def tag_session(
    connection: Connection, store: SessionStore, session_id: str, tags: Sequence[str], user_id: str | None = None
) -> Session:
    """See `SessionStore.tag_session`."""
    s = store.tables.sessions
    row = _lock_session(connection, store, session_id, user_id)
    metadata = {key: value for key, value in (row["metadata"] or {}).items() if key != TAGS}
    if tags:
        metadata[TAGS] = list(dict.fromkeys(tags))
    values = {"metadata": metadata or None, "updated_at": int(time.time())}
    connection.execute(s.update().where(s.c.session_id == session_id).values(**values))
    return mapping.session_of({**row, **values})


def save_summary(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    summary: dict[str, Any] | None,
    user_id: str | None = None,
) -> None:
    """See `SessionStore.save_summary`."""
    s = store.tables.sessions
    _lock_session(connection, store, session_id, user_id)
    connection.execute(s.update().where(s.c.session_id == session_id).values(summary=summary))


def _lock_session(
    connection: Connection, store: SessionStore, session_id: str, user_id: str | None = None
) -> RowMapping:
    """The row of a session, locked until the transaction ends.

    Raises:
        SessionNotFound: there is none.
        OwnerMismatch: it is not the user's.
    """
    s = store.tables.sessions
    row = connection.execute(store.locked(sa.select(s).where(s.c.session_id == session_id))).mappings().first()
    if row is None:
        return require_session(connection, store.tables, session_id, user_id)  # type: ignore[return-value]
    if user_id is not None and row["user_id"] != user_id:
        raise not_theirs(session_id, user_id)
    return row


def branch(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    *,
    after: int | str | tuple[int | str, int] | None,
    before: int | str | tuple[int | str, int] | None,
    name: str | None,
    new_session_id: str | None,
    fields: Mapping[str, Any] | None = None,
    user_id: str | None = None,
) -> Session:
    """See `SessionStore.branch`; ``fields`` are columns of the new session that are not as its parent's."""
    tables = store.tables
    if user_id is not None:  # another user's session is read here, not changed: it is not there
        require_session(connection, tables, session_id, user_id)
    parent = _lock_session(connection, store, session_id)
    mapping.require_sound("sessions", parent)
    seen = load_lineage(connection, tables, parent)
    point = find_point(connection, tables, seen, after=after, before=before)
    data: dict[str, Any] = {}
    state = (parent["session_data"] or {}).get("session_state")
    if state is not None and not (after is None and before is None):  # at the end it is the session's own
        state = state_at(connection, tables, seen, point)
    if state is not None:
        data["session_state"] = state
    if name is not None:
        data["session_name"] = name
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
    )
    s = tables.sessions
    try:
        connection.execute(s.insert(), mapping.session_row(new))
    except sa.exc.IntegrityError as error:
        message = f"There is a session {new.session_id!r} already."
        raise SessionExists(message, "Choose another new_session_id.") from error
    return new


def delete_session(
    connection: Connection, store: SessionStore, session_id: str, *, detach_branches: bool, user_id: str | None = None
) -> None:
    """See `SessionStore.delete_session`."""
    tables = store.tables
    s = tables.sessions
    row = _lock_session(connection, store, session_id, user_id)
    branches = sa.select(s).where(s.c.parent_session_id == session_id)
    children = connection.execute(store.locked(branches)).mappings().all()
    heirs = [child for child in children if inherits_from(child, row)]
    if heirs and not detach_branches:
        own = [child for child in heirs if user_id in (None, child["user_id"])]
        others = [f"{len(heirs) - len(own)} of another user"] if len(own) < len(heirs) else []
        names = ", ".join([*(repr(child["session_id"]) for child in own), *others])
        raise HasBranches(
            f"Session {session_id!r} has rows that its branches inherit: {names}.",
            "Delete those first, or pass detach_branches=True: they then take their own copy.",
        )
    for child in children:
        if child in heirs:
            _detach(connection, store, child)
        else:
            _move_up(connection, store, child, row)
    kept = blobs.named_by(connection, tables, session_id)
    for table in tables.of_session:
        connection.execute(table.delete().where(table.c.session_id == session_id))
    connection.execute(s.delete().where(s.c.session_id == session_id))
    damaged_rows.forget(connection, tables, session_id)
    blobs.delete(connection, tables, blobs.unused(connection, tables, kept))


def _detach(connection: Connection, store: SessionStore, branch: RowMapping) -> None:
    """Give a branch its own copy of what it inherits."""
    tables = store.tables
    inherited = load_lineage(connection, tables, branch)[:-1]
    for name, copies in copy_rows(connection, tables, inherited, branch["session_id"]).items():
        store.insert_rows(connection, getattr(tables, name), copies)
    _set_fork(connection, store, branch["session_id"], None, None)


PORTION_MESSAGES, PORTION_RUNS = 2_000, 200
"""A transaction copies about so many messages, of so many runs at most."""


def large_heirs(
    connection: Connection, store: SessionStore, session_id: str, user_id: str | None = None
) -> dict[str, int]:
    """The branches that inherit rows of a session, each with the number of runs; none if one transaction copies all.

    Raises:
        SessionNotFound: there is no such session.
        OwnerMismatch: it belongs to another user.
    """
    tables = store.tables
    s, r, m = tables.sessions, tables.runs, tables.messages
    row = require_session(connection, tables, session_id)
    if user_id is not None and row["user_id"] not in (None, user_id):
        raise not_theirs(session_id, user_id)
    runs: dict[str, int] = {}
    messages = 0
    for child in connection.execute(sa.select(s).where(s.c.parent_session_id == session_id)).mappings():
        if inherits_from(child, row):
            inherited = Lineage(load_lineage(connection, tables, child)[:-1])
            count = sa.select(sa.func.count())
            runs[child["session_id"]] = connection.execute(count.select_from(r).where(inherited.runs(r))).scalar_one()
            messages += connection.execute(count.select_from(m).where(inherited.inside(m))).scalar_one()
    return runs if sum(runs.values()) > PORTION_RUNS or messages > PORTION_MESSAGES else {}


def detach_portion(connection: Connection, store: SessionStore, session_id: str, branch_id: str) -> int:
    """Give a branch of a session its own copy of the last runs it inherits; how many, 0 where it inherits none.

    Its fork moves before them in the same transaction. So at any time each run is either inherited or the branch's own,
    and the rest can be copied later.
    """
    tables = store.tables
    s, r, m = tables.sessions, tables.runs, tables.messages
    _lock_session(connection, store, session_id)
    branch = connection.execute(store.locked(sa.select(s).where(s.c.session_id == branch_id))).mappings().first()
    if branch is None or branch["parent_session_id"] != session_id or fork_point(branch) is None:
        return 0
    inherited = Lineage(load_lineage(connection, tables, branch)[:-1])
    last = sa.select(r.c.run_index).where(inherited.runs(r)).order_by(r.c.run_index.desc()).limit(PORTION_RUNS + 1)
    indexes = list(connection.execute(last).scalars())
    if not indexes:
        _set_fork(connection, store, branch_id, None, None)
        return 0
    counted = sa.select(m.c.run_index, sa.func.count()).where(inherited.inside(m), m.c.run_index >= indexes[-1])
    counts = connection.execute(counted.group_by(m.c.run_index))
    sizes: dict[int, int] = {index: count for index, count in counts}  # noqa: C416 - rows, not tuples, to the types
    n = size = 0
    for index in indexes[:PORTION_RUNS]:
        size += sizes.get(index, 0)
        if n and size > PORTION_MESSAGES:
            break
        n += 1
    after = indexes[n] if n < len(indexes) else -1
    copies = copy_rows(connection, tables, inherited, branch_id, after=after)
    for name, rows_ in copies.items():
        store.insert_rows(connection, getattr(tables, name), rows_)
    renamed = {run["copied_from"]: run["run_id"] for run in copies["runs"]}
    # Members' runs come after their parent's, and may have been copied before it.
    members = sa.select(r.c.run_id, r.c.parent_run_id).where(r.c.session_id == branch_id)
    for run_id, old in connection.execute(members.where(r.c.parent_run_id.in_(renamed))).all():
        connection.execute(r.update().where(r.c.run_id == run_id).values(parent_run_id=renamed[old]))
    if after < 0:
        _set_fork(connection, store, branch_id, None, None)
    else:
        _set_fork(connection, store, branch_id, session_id, Point(after))
    return len(copies["runs"])


def _move_up(connection: Connection, store: SessionStore, child: RowMapping, parent: RowMapping) -> None:
    """A branch that sees nothing of its parent's own becomes a branch of the grandparent, or of none."""
    fork, floor = fork_point(child), fork_point(parent)
    if parent["parent_session_id"] is not None:  # whoever deletes that one has to see its new branch
        s = store.tables.sessions
        connection.execute(store.locked(sa.select(s.c.session_id).where(s.c.session_id == parent["parent_session_id"])))
    point = fork.earlier(floor) if fork and floor else None
    _set_fork(connection, store, child["session_id"], parent["parent_session_id"], point)


def _set_fork(
    connection: Connection, store: SessionStore, session_id: str, parent: str | None, point: Point | None
) -> None:
    s = store.tables.sessions
    fork = {
        "parent_session_id": parent,
        "fork_run_index": point.run_index if point else None,
        "fork_message_index": point.message_index if point else None,
    }
    connection.execute(s.update().where(s.c.session_id == session_id).values(**fork))


def add_score(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    name: str,
    value: float,
    run_id: str | None,
    source: str | None,
    user_id: str | None = None,
) -> None:
    """See `SessionStore.add_score`."""
    tables = store.tables
    c = tables.scores.c
    is_unknown = isinstance(value, float) and math.isnan(value)
    number = None if is_unknown else float(value) if isinstance(value, bool) else real(value)
    _lock_session(connection, store, session_id, user_id)
    if run_id is not None:
        r = tables.runs
        found = sa.select(r.c.run_id).where(r.c.session_id == session_id, r.c.run_id == run_id)
        if connection.execute(found).first() is None:
            raise RunNotFound(
                f"Session {session_id!r} has no run {run_id!r} of its own.", f"See %kern show {session_id}."
            )
    same = (c.session_id == session_id) & (c.name == name)
    same &= c.run_id.is_not_distinct_from(run_id) & c.source.is_not_distinct_from(source)
    connection.execute(tables.scores.delete().where(same))
    row = {"session_id": session_id, "run_id": run_id, "name": name, "value": number, "source": source}
    row |= {"score_id": str(uuid4()), "created_at": int(time.time() * 1_000_000)}
    connection.execute(tables.scores.insert().values(**row))
