"""Store a run whole under its id, again and again: `SessionStore.put_run`. Each function works in one transaction.

Of a run that is stored, only what differs is written: the columns of the run, and its messages and tool calls from the
first that differs. A branch that inherits the run keeps the messages that it has seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import heartbeats, mapping
from kern_nb.db.column_types import ValidatedType
from kern_nb.db.damaged_rows import raw
from kern_nb.db.inheritance import branches_error, load_heirs
from kern_nb.db.open_runs import merge_session_state, note_state_after, update_run
from kern_nb.db.process_identity import current_process
from kern_nb.db.run_claims import pin_branches
from kern_nb.db.run_writes import index_floor, insert_requirements, insert_run, upsert_session
from kern_nb.db.sql_expressions import current_micros
from kern_nb.errors import BadUsage, RunExists
from kern_nb.extra_keys import STATE_AFTER, STATE_BEFORE
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES, Requirement, Run

if TYPE_CHECKING:
    from kern_nb.db.database import Database

_WRITING_STATUSES = ("PENDING", "RUNNING")
"""A run with one of these statuses is written by a process, which `check` looks for."""


def put_run(connection: Connection, store: Database, session_id: str, run: Run, user_id: str | None) -> Run:
    """See `SessionStore.put_run`."""
    now = time.time()
    user_id = user_id if user_id is not None else run.user_id
    owner = {"session_type": run.run_type} | {n: getattr(run, n) for n in ("agent_id", "team_id", "workflow_id")}
    session = upsert_session(connection, store, session_id, owner | {"user_id": user_id}, now)
    r = store.tables.runs
    query = store.locked(sa.select(r).where(r.c.run_id == mapping.require_id(run.run_id)))
    row = connection.execute(query).mappings().first()
    if row is not None and row["session_id"] != session_id:
        message = f"Run {run.run_id!r} is a run of another session than {session_id!r}."
        raise RunExists(message, "Use another run_id, or none; nothing was changed.")
    data = session["session_data"]
    internal = run.internal
    if run.session_state is not None:
        base = row["session_state"] if row is not None else None
        base = base if isinstance(base, dict) else {}
        merged = merge_session_state(connection, store, session_id, data, base, run.session_state)
        noted = note_state_after(internal, run.session_state, merged)
        internal = internal if noted is None else noted
    elif row is not None:
        internal = {key: value for key, value in (row["internal"] or {}).items() if key == STATE_AFTER} | internal
    run = run.model_copy(update={"internal": internal})
    process = current_process() if run.status in _WRITING_STATUSES else None
    if row is None:
        created_at = run.created_at or datetime.fromtimestamp(now, UTC)
        new = run.model_copy(update={"user_id": user_id, "created_at": created_at})
        state = (data or {}).get("session_state")
        return insert_run(connection, store, session_id, new, index_floor(session), state=state, process=process)
    return _replace(connection, store, row, run, user_id, process)


def _replace(
    connection: Connection, store: Database, row: RowMapping, run: Run, user_id: str | None, process: str | None
) -> Run:
    """Replace a stored run; what it does not state of its user, state and start is kept."""
    session_id, index = row["session_id"], int(row["run_index"])
    kept: dict[str, Any] = {
        "session_id": session_id,
        "run_index": index,
        "user_id": row["user_id"] if user_id is None else user_id,
        "created_at": run.created_at or mapping.from_micros(row["created_at"]),
        "session_state": row["session_state"] if run.session_state is None else run.session_state,
    }
    if STATE_BEFORE in (row["internal"] or {}):
        kept["internal"] = {STATE_BEFORE: row["internal"][STATE_BEFORE]} | run.internal
    new = run.model_copy(update=kept)
    rows = mapping.run_rows(new, session_id)
    for part in (*rows.messages, *rows.tool_calls):
        part["run_index"] = index
    _replace_messages(connection, store, row, rows.messages)
    stored_calls = _load_parts(connection, store.tables.tool_calls, "call_index", row)
    _rewrite(connection, store, store.tables.tool_calls, "call_index", row, stored_calls, rows.tool_calls)
    values = {name: value for name, value in rows.run.items() if name not in ("session_id", "run_index", "run_id")}
    if values["cost"] != row["cost"]:
        values["cost_source"] = None
    if process is not None:
        values["heartbeat_at"] = current_micros()
        heartbeats.add(store, run.run_id)
    update_run(connection, store, run.run_id, **values, process=process)
    store.run_keys.pop(run.run_id, None)
    requirements = _put_requirements(connection, store, new)
    calls = [mapping.tool_call_from_row(call) for call in rows.tool_calls]
    messages = [message.model_copy(update={"message_index": i}) for i, message in enumerate(run.messages)]
    mapping.attach_calls(messages, calls)
    return new.model_copy(update={"messages": messages, "tool_calls": calls, "requirements": requirements})


def _load_parts(connection: Connection, table: sa.Table, index: str, row: RowMapping) -> list[RowMapping]:
    """The messages or tool calls of a run as they are stored, in order."""
    of_run = (table.c.session_id == row["session_id"]) & (table.c.run_index == row["run_index"])
    query = sa.select(*map(raw, table.columns)).where(of_run).order_by(table.c[index])
    return list(connection.execute(query).mappings())


def _replace_messages(connection: Connection, store: Database, row: RowMapping, new: list[mapping.Row]) -> None:
    m = store.tables.messages
    stored = _load_parts(connection, m, "message_index", row)
    first = _first_difference(connection, m, stored, new)
    if first == len(stored) == len(new):
        return
    heirs = load_heirs(connection, store, row["session_id"], int(row["run_index"]))
    if first < len(stored):
        has_seen = [heir.row for heir in heirs if heir.sees(int(row["run_index"]), int(stored[first]["message_index"]))]
        if has_seen:
            name = f"{row['session_id']}/{row['run_index']}"
            hint = "Store it under a new run_id, or delete the branches first; nothing was changed."
            raise branches_error(f"message {first} of run {name}", has_seen, hint)
    elif heirs:
        pin_branches(connection, store, row)
    if any(message["cost_source"] is not None for message in stored[first:]):
        sources = [(message["cost"], message["cost_source"]) for message in stored]
        sources += [(None, None)] * (len(new) - len(sources))
        for message, (cost, source) in zip(new, sources, strict=False):
            message["cost_source"] = source if message["cost"] == cost else None
    _rewrite(connection, store, m, "message_index", row, stored, new)


def _rewrite(
    connection: Connection,
    store: Database,
    table: sa.Table,
    index: str,
    row: RowMapping,
    stored: Sequence[RowMapping],
    new: list[mapping.Row],
) -> None:
    """Delete the stored rows from the first that differs, and insert the new ones."""
    first = _first_difference(connection, table, stored, new)
    if first < len(stored):
        of_run = (table.c.session_id == row["session_id"]) & (table.c.run_index == row["run_index"])
        connection.execute(table.delete().where(of_run, table.c[index] >= stored[first][index]))
    store.insert_rows(connection, table, new[first:])


def _first_difference(
    connection: Connection, table: sa.Table, stored: Sequence[RowMapping], new: Sequence[mapping.Row]
) -> int:
    """The number of rows at the beginning that are stored exactly as they are to be, in the encoding of the columns."""
    for position, (old, row) in enumerate(zip(stored, new, strict=False)):
        for name, value in row.items():
            type_ = table.c[name].type
            if value is not None and isinstance(type_, ValidatedType):
                value = type_.process_bind_param(value, connection.dialect)  # noqa: PLW2901
            if value != old[name]:
                return position
    return min(len(stored), len(new))


def _put_requirements(connection: Connection, store: Database, run: Run) -> list[Requirement]:
    """Store the requirements of a run: an answer that is stored is kept, and so is one that the run does not list.

    Those of members' runs, which `get_run` adds to a paused run, are stored with their own.
    """
    q = store.tables.requirements
    ids = [requirement.requirement_id for requirement in run.requirements]
    is_listed = q.c.requirement_id.in_(ids) | (q.c.run_id == run.run_id) if ids else q.c.run_id == run.run_id
    rows = connection.execute(sa.select(q).where(is_listed)).mappings().all()
    stored = {(row["run_id"], row["requirement_id"]): row for row in rows}
    new = []
    for requirement in run.requirements:
        row = stored.get((requirement.run_id or run.run_id, requirement.requirement_id))
        if requirement.run_id not in (None, run.run_id):
            if row is None:
                message = f"Requirement {requirement.requirement_id!r} is of run {requirement.run_id!r}."
                raise BadUsage(message, "Store it with that run, before the run that it is a member of.")
        elif row is None:
            new.append(requirement)
        elif row["status"] in UNRESOLVED_STATUSES and requirement.status not in UNRESOLVED_STATUSES:
            kept: dict[str, Any] = {"session_id": run.session_id, "run_id": run.run_id}
            kept["created_at"] = requirement.created_at or mapping.from_micros(row["created_at"])
            values = mapping.requirement_row(requirement.model_copy(update=kept))
            del values["requirement_id"]
            is_unresolved = (q.c.requirement_id == row["requirement_id"]) & q.c.status.in_(UNRESOLVED_STATUSES)
            connection.execute(q.update().where(q.c.run_id == run.run_id, is_unresolved).values(**values))
    if new:
        owner = {"session_id": str(run.session_id), "run_id": run.run_id}
        insert_requirements(connection, store, new, owner, int(time.time() * 1_000_000))
    if run.status not in OPEN_STATUSES and any(row["status"] in UNRESOLVED_STATUSES for row in rows):
        unresolved = (q.c.run_id == run.run_id) & q.c.status.in_(UNRESOLVED_STATUSES)
        connection.execute(q.update().where(unresolved).values(status="expired"))
    if not rows and not new:
        return []
    query = sa.select(q).where(q.c.run_id == run.run_id).order_by(q.c.created_at, q.c.requirement_id)
    return [mapping.requirement_from_row(row) for row in connection.execute(query).mappings()]
