"""Delete sessions, and detach the branches that inherit their rows. Each function works in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import blobs, checkpoint_tables, damage_repair
from kern_nb.db.column_types import StoredRow
from kern_nb.db.inheritance import branches_error
from kern_nb.db.lineage import CUT_RUN, UNSEEN_RESULT, BranchPoint, Lineage, fork_point, load_lineage
from kern_nb.db.mapping import Row
from kern_nb.db.open_runs import update_run, update_session
from kern_nb.db.reads import require_session
from kern_nb.db.run_writes import owner_mismatch
from kern_nb.db.schema import Tables
from kern_nb.db.session_writes import lock_session
from kern_nb.records import OPEN_STATUSES, RESULT_ROLES

if TYPE_CHECKING:
    from kern_nb.db.database import Database

BATCH_MESSAGES, BATCH_RUNS = 2_000, 200
"""A transaction copies about so many messages, of at most so many runs."""


def delete_session(
    connection: Connection, store: Database, session_id: str, *, detach_branches: bool, user_id: str | None = None
) -> None:
    """See `SessionStore.delete_session`."""
    tables = store.tables
    s = tables.sessions
    row = lock_session(connection, store, session_id, user_id)
    query = sa.select(s).where(s.c.parent_session_id == session_id)
    branches = connection.execute(store.locked(query)).mappings().all()
    heirs = [branch for branch in branches if _inherits_own_rows(branch, row)]
    if heirs and not detach_branches:
        hint = "Delete the branches first, or pass detach_branches=True: they then get their own copy."
        raise branches_error(f"rows of session {session_id!r}", heirs, hint, user_id)
    for branch in branches:
        if branch in heirs:
            detach_branch(connection, store, branch)
        else:
            move_to_grandparent(connection, store, branch, row)
    referenced = blobs.find_referenced(connection, tables, session_id)
    for table in tables.session_tables:
        connection.execute(table.delete().where(table.c.session_id == session_id))
    connection.execute(s.delete().where(s.c.session_id == session_id))
    damage_repair.delete_damaged_values(connection, tables, session_id)
    checkpoint_tables.delete_checkpoints(connection, tables, session_id)
    blobs.delete_unreferenced(connection, tables, referenced)


def detach_branch(connection: Connection, store: Database, branch: StoredRow) -> None:
    """Give a branch its own copy of all rows that it inherits."""
    checkpoint_tables.hand_down(connection, store, branch["session_id"])
    inherited = Lineage(load_lineage(connection, store.tables, branch)[:-1])
    _copy_rows(connection, store, inherited, branch["session_id"])
    _set_branch_point(connection, store, branch["session_id"], None, None)


def _inherits_own_rows(branch: StoredRow, parent: StoredRow) -> bool:
    """Whether a branch inherits rows that are its parent's own, not only those the parent inherits itself."""
    fork, floor = fork_point(branch), fork_point(parent)
    return fork is not None and fork.run_index > (floor.run_index if floor else -1)


def move_to_grandparent(connection: Connection, store: Database, branch: RowMapping, parent: RowMapping) -> None:
    """Make a branch that inherits none of its parent's own rows a branch of the grandparent, or of no session."""
    fork, floor = fork_point(branch), fork_point(parent)
    grandparent = parent["parent_session_id"]
    if grandparent is not None:  # a concurrent delete of that one has to see its new branch
        s = store.tables.sessions
        connection.execute(store.locked(sa.select(s.c.session_id).where(s.c.session_id == grandparent)))
    point = fork.earlier(floor) if fork and floor else None
    _set_branch_point(connection, store, branch["session_id"], grandparent, point)


def _set_branch_point(
    connection: Connection, store: Database, session_id: str, parent: str | None, point: BranchPoint | None
) -> None:
    run, message = (point.run_index, point.message_index) if point else (None, None)
    fork = {"parent_session_id": parent, "fork_run_index": run, "fork_message_index": message}
    update_session(connection, store, session_id, **fork)


def count_runs_to_detach(
    connection: Connection, store: Database, session_id: str, user_id: str | None = None
) -> dict[str, int]:
    """The branches that inherit rows of a session, with the number of runs; empty if one transaction can copy all.

    Raises SessionNotFound, or OwnerMismatch if it belongs to another user.
    """
    tables = store.tables
    s, r, m = tables.sessions, tables.runs, tables.messages
    row = require_session(connection, tables, session_id)
    if user_id is not None and row["user_id"] not in (None, user_id):
        raise owner_mismatch(session_id, user_id)
    runs: dict[str, int] = {}
    messages = 0
    for branch in connection.execute(sa.select(s).where(s.c.parent_session_id == session_id)).mappings():
        if _inherits_own_rows(branch, row):
            inherited = Lineage(load_lineage(connection, tables, branch)[:-1])
            count = sa.select(sa.func.count())
            runs[branch["session_id"]] = connection.execute(count.select_from(r).where(inherited.runs(r))).scalar_one()
            messages += connection.execute(count.select_from(m).where(inherited.inside(m))).scalar_one()
    return runs if sum(runs.values()) > BATCH_RUNS or messages > BATCH_MESSAGES else {}


def detach_batch(connection: Connection, store: Database, session_id: str, branch_id: str) -> int:
    """Give a branch its own copy of the last runs it inherits; their number, 0 if it inherits none.

    Its branch point moves before them in the same transaction. So each run is always either inherited or the branch's
    own, and the others can be copied later.
    """
    tables = store.tables
    s, r, m = tables.sessions, tables.runs, tables.messages
    lock_session(connection, store, session_id)
    branch = connection.execute(store.locked(sa.select(s).where(s.c.session_id == branch_id))).mappings().first()
    if branch is None or branch["parent_session_id"] != session_id or fork_point(branch) is None:
        return 0
    checkpoint_tables.hand_down(connection, store, branch_id)
    inherited = Lineage(load_lineage(connection, tables, branch)[:-1])
    query = sa.select(r.c.run_index).where(inherited.runs(r)).order_by(r.c.run_index.desc()).limit(BATCH_RUNS + 1)
    indexes = list(connection.execute(query).scalars())
    if not indexes:
        _set_branch_point(connection, store, branch_id, None, None)
        return 0
    counted = sa.select(m.c.run_index, sa.func.count()).where(inherited.inside(m), m.c.run_index >= indexes[-1])
    counts = connection.execute(counted.group_by(m.c.run_index))
    sizes: dict[int, int] = {index: count for index, count in counts}  # noqa: C416 - rows, not tuples, to the types
    totals = accumulate(sizes.get(index, 0) for index in indexes[:BATCH_RUNS])
    n = max(1, sum(total <= BATCH_MESSAGES for total in totals))  # at least one run, however long
    after = indexes[n] if n < len(indexes) else -1
    new_ids = _copy_rows(connection, store, inherited, branch_id, after=after)
    # Members' runs come after their parent's, and may have been copied before it.
    members = sa.select(r.c.run_id, r.c.parent_run_id).where(r.c.session_id == branch_id)
    for run_id, parent_id in connection.execute(members.where(r.c.parent_run_id.in_(new_ids))).all():
        update_run(connection, store, run_id, parent_run_id=new_ids[parent_id])
    point = None if after < 0 else BranchPoint(after)
    _set_branch_point(connection, store, branch_id, session_id if point else None, point)
    return len(new_ids)


def _copy_rows(
    connection: Connection, store: Database, lineage: Lineage, session_id: str, *, after: int = -1
) -> dict[str, str]:
    """Copy the rows of a lineage with a run index over ``after`` to a session; returns the new ids of the runs."""
    copies = load_visible(connection, store.tables, lineage, lambda table: table.c.run_index > after)
    new_ids = {run["run_id"]: str(uuid4()) for run in copies["runs"]}
    for run in copies["runs"]:
        # The hash identifies an imported record: the copy is not that record.
        run.update(copied_from=run["run_id"], source_hash=None)
        run["parent_run_id"] = new_ids.get(run["parent_run_id"], run["parent_run_id"])
        # No process writes the copy of an open run, and its requirements are not copied.
        if run["status"] in OPEN_STATUSES:
            run.update(status="INTERRUPTED", process=None)
    for name, rows in copies.items():
        for row in rows:
            row.update(session_id=session_id, run_id=new_ids[row["run_id"]])
        store.insert_rows(connection, getattr(store.tables, name), rows)
    return new_ids


def load_visible(
    connection: Connection, tables: Tables, lineage: Lineage, is_selected: Callable[[sa.Table], sa.ColumnElement[bool]]
) -> dict[str, list[Row]]:
    """The runs of a lineage that fit a condition, their messages and their tool calls, as the session sees them."""
    rows: dict[str, list[Row]] = {}
    for name, index in (("runs", "run_index"), ("messages", "message_index"), ("tool_calls", "call_index")):
        table: sa.Table = getattr(tables, name)
        is_visible = lineage.runs(table) if name == "runs" else lineage.inside(table)
        query = sa.select(table).where(is_visible, is_selected(table)).order_by(table.c.run_index, table.c[index])
        rows[name] = [dict(row) for row in connection.execute(query).mappings()]
    run_ids = {run["run_id"] for run in rows["runs"]}
    for name in ("messages", "tool_calls"):
        rows[name] = [row for row in rows[name] if row["run_id"] in run_ids]
    cut = {run["run_id"] for run in rows["runs"] if lineage.cut(run) is not None}
    for run in rows["runs"]:
        if run["run_id"] in cut:
            run.update(CUT_RUN)
    answered = {(m["run_id"], m["tool_call_id"]) for m in rows["messages"] if m["role"] in RESULT_ROLES}
    for call in rows["tool_calls"]:
        if call["run_id"] in cut and (call["run_id"], call["tool_call_id"]) not in answered:
            call.update(UNSEEN_RESULT)
    return rows
