"""Hand requirements and sessions off to a person, who may write into a session until it is handed back.

A session is handed off while one of its requirements of kind ``handoff`` is pending, or one that was pending when the
session was handed off. No run of an agent starts in it meanwhile. Each function works in one transaction.
"""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import blobs, mapping, reads
from kern_nb.db.message_writes import append_messages
from kern_nb.db.open_runs import lock_session_of_run
from kern_nb.db.requirements import (
    RequirementKey,
    compare_and_set,
    find_requirement,
    find_target,
    is_exact,
    require_unresolved,
    resolved_error,
    unresolved,
)
from kern_nb.db.run_claims import current_micros
from kern_nb.db.run_writes import index_floor, insert_run, is_session_handoff, upsert_session
from kern_nb.db.workspace_files import KEY, file_entry, normalize
from kern_nb.errors import BadUsage, RequirementNotFound
from kern_nb.extra_keys import OF_SESSION, PERSON, SENDER
from kern_nb.records import Message, Requirement, Run

if TYPE_CHECKING:
    from kern_nb.db.database import Database


def hand_off(
    connection: Connection,
    store: Database,
    reference: str | RequirementKey,
    *,
    to: str,
    note: str | None,
    by: str | None,
    user_id: str | None = None,
) -> Requirement:
    """See `SessionStore.handoff`."""
    options: dict[str, Any] = {"to": to, "note": note, "by": by}
    if not isinstance(reference, str):
        return _reassign(connection, store, find_requirement(connection, store, reference, user_id), **options)
    q = store.tables.requirements
    by_id = sa.select(q.c.run_id).where(q.c.requirement_id == reference)
    is_id = connection.execute(by_id).first() is not None
    target = find_target(connection, store, reference, user_id) if reference and not is_id else None
    if target is not None and is_exact(target, reference):
        rows, of_session = unresolved(connection, store, target), target.run_index is None
        reassigned = [_reassign(connection, store, row, of_session=of_session, **options) for row in rows]
        if reassigned:
            return reassigned[0]
        return _hand_off_session(connection, store, target.session_id, **options)
    try:
        return _reassign(connection, store, find_requirement(connection, store, reference, user_id), **options)
    except RequirementNotFound:
        if target is None:
            message = f"No session, run or requirement matches {reference!r}."
            raise RequirementNotFound(message, "See %kern inbox and %kern sessions.") from None
        return _hand_off_session(connection, store, target.session_id, **options)


def _reassign(
    connection: Connection,
    store: Database,
    row: RowMapping,
    *,
    to: str,
    note: str | None,
    by: str | None,
    of_session: bool = False,
) -> Requirement:
    require_unresolved(connection, store, row)
    values: dict[str, Any] = {"status": "pending", "claimed_by": None, "assignee": to}
    if note is not None:
        values["note"] = note
    if of_session and row["kind"] != "handoff":
        values["extra"] = {**(row["extra"] or {}), OF_SESSION: True}
    return compare_and_set(connection, store, row, values, by)


def _hand_off_session(
    connection: Connection, store: Database, session_id: str, *, to: str, note: str | None, by: str | None
) -> Requirement:
    """Add a run to a session that is paused for a person's answer."""
    session = upsert_session(connection, store, session_id, {}, time.time())
    row = reads.require_session(connection, store.tables, session_id)
    mapping.require_valid("sessions", row)
    owner: dict[str, Any] = {n: row[n] for n in ("agent_id", "team_id", "workflow_id", "user_id")}
    owner["run_type"] = row["session_type"]
    text = note or f"Handed off to {to}."
    now = mapping.from_micros(current_micros())
    state = (session["session_data"] or {}).get("session_state")
    run = Run(**owner, status="PAUSED", input=text, created_at=now, session_state=state)
    run.messages = [Message(role="user", content=text, created_at=now)]
    extra = {SENDER: by} if by else {}
    run.requirements = [Requirement(kind="handoff", assignee=to, prompt=text, created_at=now, extra=extra)]
    return insert_run(connection, store, session_id, run, index_floor(session)).requirements[0]


def reply(
    connection: Connection,
    store: Database,
    reference: str | RequirementKey,
    content: str | None,
    *,
    files: Mapping[str, str | bytes],
    by: str | None,
    user_id: str | None = None,
) -> list[Message]:
    """See `SessionStore.reply`."""
    row = find_requirement(connection, store, reference, user_id)
    require_unresolved(connection, store, row)
    if not is_session_handoff(row):
        message = f"Requirement {row['requirement_id']} is a {row['kind']}, and its session is not handed off."
        raise BadUsage(message, "Hand the session off first: store.handoff(session_id, to=...)")
    if row["claimed_by"] is not None and row["claimed_by"] != by:
        raise resolved_error(mapping.requirement_from_row(row))
    r = store.tables.runs
    lock_session_of_run(connection, store, row["run_id"])  # before the files are read: two replies keep both of theirs
    state = connection.execute(sa.select(r.c.session_state).where(r.c.run_id == row["run_id"])).scalar() or {}
    if files:
        state = {**state, KEY: {**(state.get(KEY) or {})}}
        for path, data in files.items():
            name, payload = normalize(path), data.encode() if isinstance(data, str) else bytes(data)
            sha256 = blobs.put(connection, store, payload, mimetypes.guess_type(name)[0])
            state[KEY][name] = file_entry(sha256, len(payload))
    person = by or row["assignee"] or "A person"
    texts = [] if content is None else [f"{person}: {content}"]
    new = [Message(role="user", content=text, internal={PERSON: person}) for text in texts]
    return append_messages(connection, store, row["run_id"], new, session_state=state if files else None)
