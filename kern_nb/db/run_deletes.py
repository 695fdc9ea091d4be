"""Delete runs of a session, or its newest message. Each function works in one transaction.

The session keeps its title, its state, its scores and its ancestors. Rows that a branch inherits are not deleted, or
the branch first gets its own copy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.batches import batched
from kern_nb.db import blobs, damage_repair
from kern_nb.db.column_types import StoredRow
from kern_nb.db.inheritance import branches_error, load_heirs
from kern_nb.db.latest import load_messages, newest_message_rows
from kern_nb.db.lineage import UNSEEN_RESULT, Segment, find_run, fork_point, load_lineage, member_indexes, root_run
from kern_nb.db.open_runs import update_run, update_session
from kern_nb.db.schema import starts_with
from kern_nb.db.session_deletes import detach_branch
from kern_nb.db.session_writes import lock_session
from kern_nb.errors import RunNotFound
from kern_nb.records import RESULT_ROLES, Message

if TYPE_CHECKING:
    from kern_nb.db.database import Database

_DETACH_HINT = "Delete the branches first, or pass detach_branches=True: they then get their own copy."


def delete_run(
    connection: Connection, store: Database, run_id: str, *, detach_branches: bool, user_id: str | None
) -> None:
    """See `SessionStore.delete_run`."""
    r, s = store.tables.runs, store.tables.sessions
    query = sa.select(r.c.session_id, s.c.user_id).outerjoin(s, s.c.session_id == r.c.session_id)
    owner = connection.execute(query.where(r.c.run_id == run_id)).first()
    if owner is None or user_id not in (None, owner.user_id):
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    session = lock_session(connection, store, owner.session_id)
    index = connection.execute(sa.select(r.c.run_index).where(r.c.run_id == run_id)).scalar()
    if index is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "It was deleted just now.")
    runs = {run_id: int(index)} | member_indexes(connection, store.tables, owner.session_id, run_id)
    name = f"run {owner.session_id}/{index}"
    _delete(connection, store, session, runs, name, detach_branches=detach_branches, user_id=user_id)


def delete_runs(
    connection: Connection,
    store: Database,
    session_id: str,
    *,
    after: int | str | None,
    detach_branches: bool,
    user_id: str | None,
    clear: bool = False,
) -> int:
    """See `SessionStore.delete_runs`, and `SessionStore.clear_session` with ``clear``."""
    session = lock_session(connection, store, session_id, user_id)
    bound = -1
    if after is not None:
        lineage = load_lineage(connection, store.tables, session)
        run = root_run(connection, store.tables, find_run(connection, store.tables, lineage, after))
        members = member_indexes(connection, store.tables, run["session_id"], run["run_id"])
        bound = max([int(run["run_index"]), *members.values()])
    runs = _runs_after(connection, store, session_id, bound)
    if runs:
        name = f"runs of {session_id!r}"
        _delete(connection, store, session, runs, name, detach_branches=detach_branches, user_id=user_id)
    if clear:
        update_session(connection, store, session_id, summary=None)
    return len(runs)


def _runs_after(connection: Connection, store: Database, session_id: str, bound: int) -> dict[str, int]:
    """A session's own runs after an index, by id, without members' runs of those before it."""
    r = store.tables.runs
    query = sa.select(r.c.run_id, r.c.run_index, r.c.parent_run_id)
    query = query.where(r.c.session_id == session_id, r.c.run_index > bound).order_by(r.c.run_index)
    later = {row.run_id: (row.parent_run_id, int(row.run_index)) for row in connection.execute(query)}
    parents = {parent for parent, _ in later.values() if parent is not None and parent not in later}
    earlier: set[str] = set()
    for batch in batched(parents):
        own = sa.select(r.c.run_id).where(r.c.session_id == session_id, r.c.run_id.in_(batch))
        earlier.update(connection.execute(own).scalars())
    return {run_id: index for run_id, (_, index) in later.items() if _top(run_id, later) not in earlier}


def _top(run_id: str, later: Mapping[str, tuple[str | None, int]]) -> str:
    """The run at the top of a run's parents: the first that is not in ``later``, or that has no parent."""
    visited = {run_id}
    while run_id in later:
        parent = later[run_id][0]
        if parent is None or parent in visited:
            break
        visited.add(parent)
        run_id = parent
    return run_id


def _delete(
    connection: Connection,
    store: Database,
    session: StoredRow,
    runs: Mapping[str, int],
    name: str,
    *,
    detach_branches: bool,
    user_id: str | None,
) -> None:
    """Delete runs of a session that is locked, with all of their rows."""
    tables, session_id = store.tables, session["session_id"]
    first = min(runs.values())
    _release_from_branches(connection, store, session_id, first, name, detach_branches=detach_branches, user_id=user_id)
    hashes: set[str] = set()
    for batch in batched(runs):
        hashes |= blobs.find_referenced(connection, tables, session_id, run_ids=batch)
        # The runs first: who appends to one of them has locked it, and its message is deleted then, too.
        for table in tables.session_tables:
            connection.execute(table.delete().where(table.c.session_id == session_id, table.c.run_id.in_(batch)))
        damage_repair.delete_damaged_values(connection, tables, session_id, run_ids=batch)
    blobs.delete_unreferenced(connection, tables, hashes)
    for run_id in runs:
        store.run_keys.pop(run_id, None)
    deleted = session["last_deleted_run_index"]
    last_deleted = max(runs.values() if deleted is None else (deleted, *runs.values()))
    values: dict[str, Any] = {"updated_at": int(time.time()), "last_deleted_run_index": last_deleted}
    last_summarized = (session["summary"] or {}).get("last_run_index")
    if isinstance(last_summarized, int) and last_summarized >= first:  # it summarizes deleted runs
        values["summary"] = None
    update_session(connection, store, session_id, **values)


def _release_from_branches(
    connection: Connection,
    store: Database,
    session_id: str,
    run_index: int,
    name: str,
    *,
    message_index: int | None = None,
    detach_branches: bool,
    user_id: str | None,
) -> None:
    """Give the branches that inherit a run, or a message of it, or what follows, their own copy, or refuse."""
    heirs = load_heirs(connection, store, session_id, run_index)
    if message_index is not None:
        heirs = [heir for heir in heirs if heir.sees(run_index, message_index)]
    if heirs and not detach_branches:
        raise branches_error(name, [heir.row for heir in heirs], _DETACH_HINT, user_id)
    for heir in heirs:
        detach_branch(connection, store, heir.row)


def pop_message(
    connection: Connection, store: Database, session_id: str, *, detach_branches: bool, user_id: str | None
) -> Message | None:
    """See `SessionStore.pop_message`."""
    session = lock_session(connection, store, session_id, user_id)
    fork = fork_point(session)
    segment = Segment(session_id)
    row = _lock_newest(connection, store, segment, fork.run_index if fork is not None else -1)
    if row is None:
        return None
    tables, index, message_index = store.tables, int(row["run_index"]), int(row["message_index"])
    options: dict[str, Any] = {"detach_branches": detach_branches, "user_id": user_id, "message_index": message_index}
    name = f"message {session_id}/{index}.{message_index}"
    _release_from_branches(connection, store, session_id, index, name, **options)
    (message,) = load_messages(connection, tables, segment, [row])
    m, t = tables.messages, tables.tool_calls
    hashes = blobs.find_referenced(connection, tables, session_id, run_ids=[row["run_id"]])
    is_message = (m.c.run_id == row["run_id"]) & (m.c.message_index == message_index)
    connection.execute(m.delete().where(is_message, m.c.session_id == session_id))
    of_run = (t.c.session_id == session_id) & (t.c.run_index == index)
    connection.execute(t.delete().where(of_run, t.c.message_index == message_index))
    if row["role"] in RESULT_ROLES:
        _forget_result(connection, store, row)
    run = connection.execute(sa.select(tables.runs).where(tables.runs.c.run_id == row["run_id"])).mappings().one()
    is_output = (run["output"], run["output_json"]) == (row["content"], row["content_json"])
    if row["role"] == "assistant" and is_output and row["content"] is not None:
        update_run(connection, store, row["run_id"], output=None, output_json=None)
    blobs.delete_unreferenced(connection, tables, hashes)
    update_session(connection, store, session_id, updated_at=int(time.time()))
    return message


def _lock_newest(connection: Connection, store: Database, segment: Segment, floor: int) -> RowMapping | None:
    """The newest message of a session's own, of a run that is locked: another writer may be adding one to it."""
    r = store.tables.runs
    locked = None
    while True:
        row = next(iter(newest_message_rows(connection, store.tables, segment, floor, 1)), None)
        if row is None or row["run_id"] == locked:
            return row
        locked = row["run_id"]
        connection.execute(store.locked(sa.select(r.c.run_id).where(r.c.run_id == locked))).all()


def _forget_result(connection: Connection, store: Database, row: RowMapping) -> None:
    """Remove the result of the call that a tool's message answered: whether the call is to be repeated is unknown."""
    t = store.tables.tool_calls
    has_id = (t.c.tool_call_id == row["tool_call_id"]) | starts_with(t.c.tool_call_id, f"{row['tool_call_id']}~")
    of_run = (t.c.session_id == row["session_id"]) & (t.c.run_index == row["run_index"])
    query = sa.select(t.c.tool_call_id).where(of_run, has_id, t.c.status.in_(("completed", "failed")))
    call_id = connection.execute(query.order_by(t.c.call_index.desc()).limit(1)).scalar()
    connection.execute(t.update().where(of_run, t.c.tool_call_id == call_id).values(**UNSEEN_RESULT))
