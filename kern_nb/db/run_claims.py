"""Runs that are paused, claimed, resumed and released. Each function works in one transaction.

A run is claimed by a compare-and-set on its row: one of several concurrent claims succeeds, and the others get an
error. `requirements` has what a run is paused for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import heartbeats, integrity, mapping, reads, sql_expressions
from kern_nb.db.column_types import StoredRow
from kern_nb.db.open_runs import lock_session_of_run, next_revision, require_open_run, update_session
from kern_nb.db.process_identity import current_process
from kern_nb.db.run_writes import finish_run, insert_requirements, require_not_handed_off
from kern_nb.db.schema import Tables
from kern_nb.errors import AlreadyClaimed, BadUsage, RunClosed, RunNotFound, StillWaiting
from kern_nb.extra_keys import CANCEL_REQUESTED, STATE_AFTER
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run

if TYPE_CHECKING:
    from kern_nb.db.database import Database

RESUMABLE_STATUSES = ("PAUSED", "INTERRUPTED", "ERROR", "CANCELLED")
"""A run with one of these statuses can be resumed, and so can a running one whose process is gone."""

MAX_NAMES = 5
"""An error names so many requirements."""


def pause_run(
    connection: Connection, store: Database, run_id: str, requirements: Sequence[Requirement], **values: Any
) -> list[Requirement]:
    """See `SessionStore.pause_run`."""
    lock_session_of_run(connection, store, run_id)
    run = require_open_run(connection, store, run_id)
    if resolved := [r.requirement_id for r in requirements if r.status != "pending" or r.claimed_by is not None]:
        raise BadUsage(f"{resolved[0]} is resolved or claimed, not pending.", "Pause the run for a new requirement.")
    owner = {"run_id": run_id, "session_id": run["session_id"]}
    stored = insert_requirements(connection, store, requirements, owner, current_micros())
    finish_run(connection, store, run_id, status="PAUSED", **values)
    return stored


def current_micros() -> int:
    """The time now in unix microseconds."""
    return int(time.time() * 1_000_000)


def has_key(tables: Tables, row: StoredRow) -> sa.ColumnElement[bool]:
    """Select the requirement of a row."""
    q = tables.requirements
    return sa.and_(q.c.requirement_id == row["requirement_id"], q.c.run_id == row["run_id"])


def has_expired(row: StoredRow) -> bool:
    """Whether the time of an unresolved requirement is over."""
    unresolved = row["status"] in UNRESOLVED_STATUSES
    return unresolved and row["expires_at"] is not None and row["expires_at"] <= current_micros()


def expire(connection: Connection, store: Database, row: RowMapping) -> Requirement:
    """Store that a requirement expired; the requirement as it is then, which may be resolved by now."""
    q = store.tables.requirements
    unresolved = has_key(store.tables, row) & q.c.status.in_(UNRESOLVED_STATUSES)
    update = q.update().where(unresolved).values(status="expired").returning(q)
    updated = connection.execute(update).mappings().first()
    return mapping.requirement_from_row(updated if updated is not None else {**row, "status": "expired"})


def join_names(rows: Iterable[RowMapping]) -> str:
    """Some requirements by id and tool, for an error."""
    return ", ".join(f"{row['requirement_id']} ({row['tool_name'] or row['kind']})" for row in islice(rows, MAX_NAMES))


def claim_run(
    connection: Connection, store: Database, run_id: str, user_id: str | None = None, *, partly: bool = False
) -> Run:
    """See `SessionStore.claim_run`. With ``partly``, requirements may be pending: the run pauses for them again."""
    r = store.tables.runs
    if user_id is not None:
        _require_owner(connection, store, run_id, user_id)
    silence = (sql_expressions.current_micros() - r.c.heartbeat_at).label("silence")
    row = connection.execute(store.locked(sa.select(r, silence).where(r.c.run_id == run_id))).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    if row["status"] == "RUNNING":
        state, detail = integrity.process_state(row["process"], row["run_id"], row["silence"])
        if state != "gone":
            raise _claimed_error(run_id, detail)
        integrity.mark_unknown(connection, store.tables, run_id)
    elif row["status"] not in RESUMABLE_STATUSES:
        raise RunClosed(f"Run {run_id} has ended: {row['status']}.", "Start a new run in its session.")
    if not partly:
        _require_resolved(connection, store, row)
        if row["parent_run_id"] is None:
            require_not_handed_off(connection, store, row["session_id"])
    pin_branches(connection, store, row)
    unchanged = (r.c.run_id == run_id) & (r.c.status == row["status"])
    unchanged &= r.c.process.is_not_distinct_from(row["process"])
    values: dict[str, Any] = {"status": "RUNNING", "process": current_process(), "error": None, "finished_at": None}
    values["heartbeat_at"] = sql_expressions.current_micros()
    # Other runs may have changed the state since.
    values["session_state"] = integrity.load_session_state(connection, store.tables, row["session_id"])
    if STATE_AFTER in (row["internal"] or {}) or CANCEL_REQUESTED in (row["internal"] or {}):
        of_end = (STATE_AFTER, CANCEL_REQUESTED)
        values["internal"] = {key: value for key, value in row["internal"].items() if key not in of_end}
    if connection.execute(r.update().where(unchanged).values(**values).returning(r.c.run_id)).first() is None:
        raise _claimed_error(run_id, "another process was faster")
    heartbeats.add(store, run_id)
    return reads.get_run(connection, store.tables, run_id)


def _require_owner(connection: Connection, store: Database, run_id: str, user_id: str) -> None:
    """Check that a run's session is the user's. A session without a user becomes theirs, as with any run of theirs."""
    r, s = store.tables.runs, store.tables.sessions
    of_run = s.c.session_id == sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    row = connection.execute(store.locked(sa.select(s.c.session_id, s.c.user_id).where(of_run))).first()
    if row is None or row.user_id not in (None, user_id):
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    if row.user_id is None:
        update_session(connection, store, row.session_id, user_id=user_id)


def _claimed_error(run_id: str, detail: str) -> AlreadyClaimed:
    return AlreadyClaimed(f"Run {run_id} is claimed: {detail}.", "See it with %kern show when it has ended.")


def _require_resolved(connection: Connection, store: Database, run: RowMapping) -> None:
    """Check that a run, and its members' runs, have no pending requirement; expired ones are marked."""
    q = store.tables.requirements
    run_ids = reads.run_tree_ids(connection, store.tables, run["run_id"])
    query = sa.select(q).where(q.c.run_id.in_(run_ids), q.c.status.in_(UNRESOLVED_STATUSES)).order_by(q.c.created_at)
    pending = []
    for requirement in connection.execute(query).mappings().all():
        if has_expired(requirement):
            expire(connection, store, requirement)
        else:
            pending.append(requirement)
    if pending:
        noun = "requirement" if len(pending) == 1 else "requirements"
        raise StillWaiting(
            f"Run {run['session_id']}/{run['run_index']} has {len(pending)} pending {noun}: {join_names(pending)}.",
            "Resolve them with store.resolve(...), or %kern approve, reject, answer; see %kern inbox.",
        )


def pin_branches(connection: Connection, store: Database, run: StoredRow) -> None:
    """Let branches after a run keep the run as it ended: once resumed, it gets more messages."""
    s, m = store.tables.sessions, store.tables.messages
    parents, heirs = [run["session_id"]], []
    while parents:
        query = sa.select(s.c.session_id, s.c.fork_run_index, s.c.fork_message_index)
        query = query.where(s.c.parent_session_id.in_(parents), s.c.fork_run_index >= run["run_index"])
        branches = connection.execute(query).mappings().all()
        after_run = [branch for branch in branches if branch["fork_message_index"] is None]
        end = run["run_index"]
        if any(branch["fork_run_index"] > end for branch in after_run):
            run_ids = reads.run_tree_ids(connection, store.tables, run["run_id"])
            r = store.tables.runs
            end = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(r.c.run_id.in_(run_ids))).scalar_one()
        heirs += [branch["session_id"] for branch in after_run if branch["fork_run_index"] in (run["run_index"], end)]
        parents = [branch["session_id"] for branch in branches]
    if heirs:
        of_run = (m.c.session_id == run["session_id"]) & (m.c.run_index == run["run_index"])
        last_message = sa.select(sa.func.coalesce(sa.func.max(m.c.message_index), -1)).where(of_run)
        last_index = connection.execute(last_message).scalar_one()
        fork: dict[str, Any] = {"fork_run_index": run["run_index"], "fork_message_index": last_index}
        connection.execute(s.update().where(s.c.session_id.in_(heirs)).values(**fork, revision=next_revision(s)))


def release_run(connection: Connection, store: Database, before: Run) -> None:
    """See `SessionStore.release_run`."""
    r = store.tables.runs
    is_claimed = (r.c.run_id == before.run_id) & (r.c.status == "RUNNING") & (r.c.process == current_process())
    values: dict[str, Any] = {"status": before.status, "error": before.error, "process": None}
    values |= {"finished_at": mapping.to_micros(before.finished_at), "session_state": before.session_state}
    values["internal"] = before.internal or None
    connection.execute(r.update().where(is_claimed).values(**values))


def forget_answers(connection: Connection, store: Database, run_id: str) -> None:
    """See `SessionStore.forget_answers`."""
    q = store.tables.requirements
    has_value = (q.c.run_id == run_id) & (q.c.kind != "confirmation")
    connection.execute(q.update().where(has_value).values(answer=None))
