"""Requests to cancel runs, also those of other processes.

A request is a key of the run's ``internal``. The process that writes the run sees it with its next message or
heartbeat, and ends the run as CANCELLED, with what it has. A run that no process writes is ended here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import integrity, reads, run_claims, sql_expressions
from kern_nb.db.open_runs import update_run
from kern_nb.db.run_writes import finish_run
from kern_nb.errors import BadUsage, RunNotFound
from kern_nb.extra_keys import CANCEL_REQUESTED
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES, Usage

if TYPE_CHECKING:
    from kern_nb.db.database import Database

CANCELLED = "cancelled"
"""The error of a cancelled run."""


def is_requested(store: Database, run_id: str) -> bool:
    """Whether somebody asks to cancel a run."""
    r = store.tables.runs
    with store.read_connection() as connection:
        internal = connection.execute(sa.select(r.c.internal).where(r.c.run_id == run_id)).scalar()
    return CANCEL_REQUESTED in (internal or {})


def cancel_run(connection: Connection, store: Database, run_id: str, user_id: str | None) -> bool:
    """See `SessionStore.cancel_run`."""
    r = store.tables.runs
    reads.require_run_owner(connection, store.tables, run_id, user_id)
    silence = (sql_expressions.current_micros() - r.c.heartbeat_at).label("silence")
    row = connection.execute(store.locked(sa.select(r, silence).where(r.c.run_id == run_id))).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    if row["parent_run_id"] is not None:
        message = f"Run {run_id} is the run of a member or a step."
        raise BadUsage(message, f"Cancel the whole run: cancel_run({row['parent_run_id']!r})")
    if row["status"] not in OPEN_STATUSES:
        return False
    is_running = row["status"] == "RUNNING"
    if is_running and integrity.process_state(row["process"], run_id, row["silence"])[0] != "gone":
        internal = (row["internal"] or {}) | {CANCEL_REQUESTED: True}
        update_run(connection, store, run_id, internal=internal)
        return True
    for open_id in reversed(reads.run_tree_ids(connection, store.tables, run_id)):  # members before their leader
        _end(connection, store, open_id)
    return True


def _end(connection: Connection, store: Database, run_id: str) -> None:
    """End an open run that no process writes; a person's answer comes too late then."""
    q = store.tables.requirements
    run = reads.get_run(connection, store.tables, run_id)
    if run.status not in OPEN_STATUSES:
        return
    unresolved = (q.c.run_id == run_id) & q.c.status.in_(UNRESOLVED_STATUSES)
    connection.execute(q.update().where(unresolved).values(status="expired", resolved_at=run_claims.current_micros()))
    usage = run.usage or Usage.total(message.usage for message in run.messages if not message.from_history)
    finish_run(
        connection, store, run_id, status="CANCELLED", error=CANCELLED, output=run.output, usage=usage,
        duration_s=run.duration_s, state_unchanged=True,
    )  # fmt: skip
