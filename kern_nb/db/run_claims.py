"""Runs that wait: paused, taken on, given back. Each function works in one transaction.

A run is taken on by a compare-and-set on its row: of several who try at once, one finds it as it expects it, and the
others are told. What a run waits for, and the answers, are in `answering`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import integrity, mapping, reads
from kern_nb.db.process_identity import this_process
from kern_nb.db.run_writes import (
    finish_run,
    insert_requirements,
    insert_run,
    lock_session_of,
    open_run,
    touch_session,
)
from kern_nb.db.schema import StoredRow
from kern_nb.errors import AlreadyClaimed, BadUsage, RunClosed, RunNotFound, StillWaiting
from kern_nb.records import UNRESOLVED_STATUSES, Message, Requirement, Run

if TYPE_CHECKING:
    from kern_nb.db.database import Database

RESUMABLE = ("PAUSED", "INTERRUPTED", "ERROR", "CANCELLED")
"""A run in one of these can be gone on with; so can one that runs in a process that is gone."""

NAMED = 5
"""So many requirements are named where there are several."""


def pause_run(
    connection: Connection, store: Database, run_id: str, requirements: Sequence[Requirement], **values: Any
) -> list[Requirement]:
    """See `SessionStore.pause_run`."""
    lock_session_of(connection, store, run_id)
    run = open_run(connection, store, run_id)
    if answered := [r.requirement_id for r in requirements if r.status != "pending" or r.claimed_by is not None]:
        raise BadUsage(f"{answered[0]} does not wait: it has an answer, or someone is at it.", "Pause for a new one.")
    place = {"run_id": run_id, "session_id": run["session_id"]}
    placed = insert_requirements(connection, store, requirements, place, micros_now())
    finish_run(connection, store, run_id, status="PAUSED", **values)
    return placed


def micros_now() -> int:
    """Unix microseconds."""
    return int(time.time() * 1_000_000)


def has_expired(row: StoredRow) -> bool:
    """Whether nobody answered in time."""
    return row["status"] in UNRESOLVED_STATUSES and row["expires_at"] is not None and row["expires_at"] <= micros_now()


def expire(connection: Connection, store: Database, row: RowMapping) -> Requirement:
    """Note that nobody answered in time; the requirement as it is then, which another one may have answered by now."""
    q = store.tables.requirements
    this = (q.c.requirement_id == row["requirement_id"]) & q.c.status.in_(UNRESOLVED_STATUSES)
    changed = connection.execute(q.update().where(this).values(status="expired").returning(q)).mappings().first()
    return mapping.requirement_from_row(changed if changed is not None else {**row, "status": "expired"})


def hand_session_over(
    connection: Connection, store: Database, session_id: str, to: str, note: str | None, by: str | None
) -> Requirement:
    """A session in which nothing waits: a new run that waits for a person."""
    session = touch_session(connection, store, session_id, {}, time.time())
    row = reads.require_session(connection, store.tables, session_id)
    mapping.require_sound("sessions", row)
    owner: dict[str, Any] = {n: row[n] for n in ("agent_id", "team_id", "workflow_id", "user_id")}
    owner["run_type"] = row["session_type"]
    text = note or f"Handed to {to}."
    now = mapping.moment(micros_now())
    state = (session["session_data"] or {}).get("session_state")
    run = Run(**owner, status="PAUSED", input=text, created_at=now, session_state=state)
    run.messages = [Message(role="user", content=text, created_at=now)]
    made = mapping.run_rows(run, session_id)
    index = insert_run(connection, store, made.run, session["fork_run_index"])
    for row_of in made.messages:
        row_of["run_index"] = index
    store.insert_rows(connection, store.tables.messages, made.messages)
    asked = Requirement(
        kind="handoff", session_id=session_id, run_id=run.run_id, assignee=to, prompt=text, created_at=now
    )
    asked.extra = {"from": by} if by else {}
    store.insert_rows(connection, store.tables.requirements, [mapping.requirement_row(asked)])
    return asked


def claim_run(connection: Connection, store: Database, run_id: str, user_id: str | None = None) -> Run:
    """See `SessionStore.claim_run`."""
    r = store.tables.runs
    if user_id is not None:
        _require_owner(connection, store, run_id, user_id)
    query = store.locked(sa.select(r).where(r.c.run_id == run_id))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    if row["status"] == "RUNNING":
        _require_dead(row)
        integrity.mark_unknown(connection, store.tables, run_id)
    elif row["status"] not in RESUMABLE:
        raise RunClosed(f"Run {run_id} has ended: {row['status']}.", "Start a new run in its session.")
    _require_answers(connection, store, row)
    _pin_branches(connection, store, row)
    as_found = (r.c.run_id == run_id) & (r.c.status == row["status"]) & r.c.process.is_not_distinct_from(row["process"])
    taken: dict[str, Any] = {"status": "RUNNING", "process": this_process(), "error": None, "finished_at": None}
    taken["session_state"] = integrity.session_state(
        connection, store.tables, row["session_id"]
    )  # others may have run since
    if connection.execute(r.update().where(as_found).values(**taken).returning(r.c.run_id)).first() is None:
        raise _taken(run_id)
    return reads.get_run(connection, store.tables, run_id)


def _require_owner(connection: Connection, store: Database, run_id: str, user_id: str) -> None:
    """See that a run's session is a user's, or becomes theirs where it was nobody's, as with any run of theirs.

    Raises:
        RunNotFound: it is another user's.
    """
    r, s = store.tables.runs, store.tables.sessions
    of_run = s.c.session_id == sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    row = connection.execute(store.locked(sa.select(s.c.session_id, s.c.user_id).where(of_run))).first()
    if row is None or row.user_id not in (None, user_id):
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    if row.user_id is None:
        connection.execute(s.update().where(s.c.session_id == row.session_id).values(user_id=user_id))


def _require_dead(row: RowMapping) -> None:
    """A run can be taken from a process only when that is gone.

    Raises:
        AlreadyClaimed: it is alive, or on another machine.
    """
    state, where = integrity.process_state(row["process"], row["run_id"])
    if state != "gone":
        raise _taken(row["run_id"], where)


def _taken(run_id: str, where: str = "another process was faster") -> AlreadyClaimed:
    return AlreadyClaimed(f"Run {run_id} is being gone on with: {where}.", "Look at it with %kern show when it ends.")


def _require_answers(connection: Connection, store: Database, row: RowMapping) -> None:
    q = store.tables.requirements
    family = reads.run_tree_ids(connection, store.tables, row["run_id"])
    waiting = sa.select(q).where(q.c.run_id.in_(family), q.c.status.in_(UNRESOLVED_STATUSES)).order_by(q.c.created_at)
    left = []
    for one in connection.execute(waiting).mappings().all():
        if has_expired(one):
            expire(connection, store, one)
        else:
            left.append(one)
    if left:
        names = ", ".join(f"{one['requirement_id']} ({one['tool_name'] or one['kind']})" for one in left[:NAMED])
        raise StillWaiting(
            f"Run {row['session_id']}/{row['run_index']} waits for {len(left)} more: {names}.",
            "Answer with store.resolve(...), or %kern approve, reject, answer; see %kern inbox.",
        )


def _pin_branches(connection: Connection, store: Database, run: RowMapping) -> None:
    """Branches taken after a run that had ended see it as it was then: it will have more messages now."""
    s, m = store.tables.sessions, store.tables.messages
    last, heirs = [run["session_id"]], []
    while last:
        inheriting = sa.select(s.c.session_id, s.c.fork_run_index, s.c.fork_message_index)
        inheriting = inheriting.where(s.c.parent_session_id.in_(last), s.c.fork_run_index >= run["run_index"])
        found = connection.execute(inheriting).mappings().all()
        whole = [h for h in found if h["fork_message_index"] is None]
        end = run["run_index"]
        if any(h["fork_run_index"] > end for h in whole):
            family = reads.run_tree_ids(connection, store.tables, run["run_id"])
            r = store.tables.runs
            end = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(r.c.run_id.in_(family))).scalar_one()
        heirs += [h["session_id"] for h in whole if h["fork_run_index"] in (run["run_index"], end)]
        last = [heir["session_id"] for heir in found]
    if heirs:
        of_run = (m.c.session_id == run["session_id"]) & (m.c.run_index == run["run_index"])
        seen = sa.select(sa.func.coalesce(sa.func.max(m.c.message_index), -1)).where(of_run)
        point = {"fork_run_index": run["run_index"], "fork_message_index": connection.execute(seen).scalar_one()}
        connection.execute(s.update().where(s.c.session_id.in_(heirs)).values(**point))


def release_run(connection: Connection, store: Database, before: Run) -> None:
    """See `SessionStore.release_run`."""
    r = store.tables.runs
    mine = (r.c.run_id == before.run_id) & (r.c.status == "RUNNING") & (r.c.process == this_process())
    as_it_was: dict[str, Any] = {
        "status": before.status,
        "error": before.error,
        "finished_at": mapping.to_micros(before.finished_at),
    }
    as_it_was |= {"process": None, "session_state": before.session_state}
    connection.execute(r.update().where(mine).values(**as_it_was))


def forget_answers(connection: Connection, store: Database, run_id: str) -> None:
    """See `SessionStore.forget_answers`."""
    q = store.tables.requirements
    values = (q.c.run_id == run_id) & (q.c.kind != "confirmation")
    connection.execute(q.update().where(values).values(answer=None))
