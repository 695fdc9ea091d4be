"""The records of conversations, in the data of their sessions. Each function works in one transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from pydantic_ai.conversation_store import ConversationConflict, ConversationRecord
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage
from sqlalchemy.engine import Connection

from kern_nb.bridges.pydantic_ai.entries import Location, NewEntry, locate
from kern_nb.bridges.pydantic_ai.entry_writes import unsaved_runs, write_entries
from kern_nb.db import session_deletes, session_rewinds, session_writes
from kern_nb.db.open_runs import update_session
from kern_nb.db.run_writes import index_floor, upsert_session
from kern_nb.db.sql_expressions import json_text
from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import CONVERSATION

_USAGE = TypeAdapter(RunUsage)
_REQUESTS = TypeAdapter(DeferredToolRequests)
_PLAIN_FIELDS = ("head_id", "forked_from", "forked_at", "branches", "revision", "format_version")


def find(connection: Connection, store: SessionStore, conversation_id: str) -> ConversationRecord | None:
    """The record of a conversation."""
    s = store.tables.sessions
    row = connection.execute(sa.select(s).where(s.c.session_id == conversation_id)).mappings().first()
    return _record(row) if row is not None else None


def find_all(
    connection: Connection, store: SessionStore, scope: str | None, limit: int | None
) -> list[ConversationRecord]:
    """The records, or those of a scope, the latest first."""
    s = store.tables.sessions
    record = json_text(s.c.session_data, CONVERSATION)
    query = sa.select(s).where(record.is_not(None)).order_by(json_text(record, "updated_at").desc())
    query = query if scope is None else query.where(s.c.user_id == scope)
    query = query if limit is None else query.limit(limit)
    records = (_record(row) for row in connection.execute(query).mappings())
    return [record for record in records if record is not None]


def write(
    connection: Connection,
    store: SessionStore,
    record: ConversationRecord,
    new: Sequence[NewEntry],
    expected: str | None,
) -> None:
    """Store a record and its new entries."""
    session_id, s = record.conversation_id, store.tables.sessions
    row = connection.execute(store.locked(sa.select(s).where(s.c.session_id == session_id))).mappings().first()
    stored = _record(row) if row is not None else None
    if (stored.revision if stored is not None else None) != expected:
        raise ConversationConflict(session_id)
    if row is not None and row["user_id"] not in (None, record.scope):
        raise ConversationConflict(session_id)
    parent_id = new[0].entry.parent_id if new else record.head_id
    parent = _locate(connection, store, session_id, parent_id)
    if row is None:
        _create(connection, store, record, parent)
    elif parent_id != (stored.head_id if stored is not None else None):
        to = None if parent is None else (parent.session_id, parent.point)
        session_rewinds.move_head(connection, store, row, to, keep=unsaved_runs(connection, store, new))
    columns = (s.c.session_data, s.c.fork_run_index, s.c.last_deleted_run_index)
    query = store.locked(sa.select(*columns).where(s.c.session_id == session_id))
    session = connection.execute(query).mappings().one()
    if new:
        after, floor = _locate(connection, store, session_id, parent_id), index_floor(session)
        write_entries(connection, store, session_id, new, after, floor)
    if record.head_id is not None and locate(connection, store, record.head_id) is None:
        raise ConversationConflict(session_id)
    values: dict[str, Any] = {"session_data": (session["session_data"] or {}) | {CONVERSATION: _data(record)}}
    values["updated_at"] = int(record.updated_at.timestamp())
    update_session(connection, store, session_id, user_id=record.scope, **values)


def _locate(connection: Connection, store: SessionStore, session_id: str, entry_id: str | None) -> Location | None:
    if entry_id is None:
        return None
    location = locate(connection, store, entry_id)
    if location is None:  # a concurrent delete of the conversation that a fork points into
        raise ConversationConflict(session_id)
    return location


def _create(connection: Connection, store: SessionStore, record: ConversationRecord, parent: Location | None) -> None:
    """Create the session of a conversation: of a fork, a branch, which copies no row."""
    session_id = record.conversation_id
    if parent is None:
        owner = {"session_type": "agent", "user_id": record.scope}
        upsert_session(connection, store, session_id, owner, time.time())
        return
    m = store.tables.messages
    of_run = (m.c.session_id == parent.session_id) & (m.c.run_index == parent.run_index)
    last = connection.execute(sa.select(sa.func.max(m.c.message_index)).where(of_run)).scalar_one()
    after: Any = parent.run_index if parent.message_index == last else (parent.run_index, parent.message_index)
    options: dict[str, Any] = {"after": after, "before": None, "name": None, "new_session_id": session_id}
    session_writes.branch(connection, store, parent.session_id, **options, fields={"user_id": record.scope})


def delete(connection: Connection, store: SessionStore, conversation_id: str, expected: str) -> None:
    """Delete a conversation, and the sessions of what it has left."""
    s = store.tables.sessions
    query = store.locked(sa.select(s).where(s.c.session_id == conversation_id))
    row = connection.execute(query).mappings().first()
    stored = _record(row) if row is not None else None
    if stored is None or stored.revision != expected:
        raise ConversationConflict(conversation_id)
    for session_id in [conversation_id, *session_rewinds.left_sessions(connection, store, conversation_id)]:
        session_deletes.delete_session(connection, store, session_id, detach_branches=True)


def _data(record: ConversationRecord) -> dict[str, Any]:
    requests = record.deferred_tool_requests
    data: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN_FIELDS}
    data["usage"] = _USAGE.dump_python(record.usage)
    data["deferred_tool_requests"] = _REQUESTS.dump_python(requests) if requests is not None else None
    return data | {"updated_at": record.updated_at.isoformat(timespec="microseconds")}


def _record(row: sa.RowMapping) -> ConversationRecord | None:
    data = (row["session_data"] or {}).get(CONVERSATION)
    if not isinstance(data, dict):
        return None
    requests = data["deferred_tool_requests"]
    return ConversationRecord(
        conversation_id=row["session_id"],
        scope=row["user_id"],
        usage=_USAGE.validate_python(data["usage"]),
        deferred_tool_requests=_REQUESTS.validate_python(requests) if requests is not None else None,
        updated_at=datetime.fromisoformat(data["updated_at"]),
        **{name: data[name] for name in _PLAIN_FIELDS},
    )
