"""Append messages to open runs, with their tool calls and results. Each function works in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import mapping
from kern_nb.db.open_runs import (
    RunKey,
    find_run_key,
    key_params,
    lock_session_of_run,
    merge_session_state,
    remember_run,
    require_open_run,
    update_run,
)
from kern_nb.db.schema import starts_with
from kern_nb.extra_keys import ARGS, DURATION_S, ORIGINAL_ARGS, UNKNOWN
from kern_nb.records import RESULT_ROLES, Message

if TYPE_CHECKING:
    from kern_nb.db.database import Database


def append_messages(
    connection: Connection,
    store: Database,
    run_id: str,
    messages: Sequence[Message],
    *,
    session_state: dict[str, Any] | None = None,
    store_results: bool = True,
) -> list[Message]:
    """See `SessionStore.append_messages`."""
    if session_state is not None:
        _store_state(connection, store, run_id, session_state)
    now = datetime.now(UTC)
    to_store = messages
    if not store_results:
        to_store = [_without_results(message) for message in messages if message.role not in RESULT_ROLES]
    stored = [message.model_copy(update={"created_at": message.created_at or now}) for message in to_store]
    key, start = _insert_messages(connection, store, run_id, stored)
    now_micros = int(now.timestamp() * 1_000_000)
    if any(message.tool_calls for message in stored):
        _insert_calls(connection, store, run_id, key, stored, now_micros)
    results = [message for message in stored if message.role in RESULT_ROLES]
    for message in results if store_results else _unstored_results(messages, start):
        _finish_call(connection, store, key, message, now_micros, store_result=store_results)
    return stored


def _store_state(connection: Connection, store: Database, run_id: str, session_state: dict[str, Any]) -> None:
    """Merge an open run's state into its session's, and store it as the base of the run's next changes."""
    session = lock_session_of_run(connection, store, run_id)
    run = require_open_run(connection, store, run_id)
    if session is not None:
        base = run["session_state"] or {}
        merge_session_state(connection, store, run["session_id"], session["session_data"], base, session_state)
        # The base is the run's own state, which may lack concurrent changes of other runs.
        update_run(connection, store, run_id, session_state=session_state)


def _insert_messages(
    connection: Connection, store: Database, run_id: str, messages: list[Message]
) -> tuple[RunKey, int]:
    """Number messages and insert them after those of an open run; returns the run's key and the first one's index.

    One statement checks that the run is open, computes the index of the first message, and inserts it.
    """
    m = store.tables.messages
    if not messages:
        run = require_open_run(connection, store, run_id)
        key = (run["session_id"], run["run_index"])
        query = sa.select(sa.func.coalesce(sa.func.max(m.c.message_index) + 1, 0)).where(_of_run(m, key))
        return key, int(connection.execute(query).scalar_one())
    key = find_run_key(connection, store, run_id)
    row = dict.fromkeys(m.columns.keys()) | mapping.message_row(messages[0], run_id, key[0], 0)
    start = connection.execute(store.statements.insert_message, row | key_params(key)).scalar()
    if start is None:
        run = require_open_run(connection, store, run_id)  # raises, unless the cached key was another run's
        remember_run(store, run_id, (run["session_id"], run["run_index"]))
        return _insert_messages(connection, store, run_id, messages)
    for index, message in enumerate(messages, start):
        message.message_index = index
    rest = [mapping.message_row(message, run_id, key[0], i) for i, message in enumerate(messages[1:], start + 1)]
    store.insert_rows(connection, m, [row | {"run_index": key[1]} for row in rest])
    return key, int(start)


def _insert_calls(
    connection: Connection, store: Database, run_id: str, key: RunKey, messages: list[Message], now: int
) -> None:
    """Insert the calls of messages that were just stored, and set the messages' calls as stored."""
    first = messages[0].message_index or 0

    def call_rows(used_ids: Sequence[str]) -> list[mapping.Row]:
        calls = mapping.tool_call_rows(
            run_id, key[0], messages, [], open_run=True, first_message=first, used_ids=used_ids, join=False
        )
        return [call | {"run_index": key[1], "created_at": call["created_at"] or now} for call in calls]

    calls = call_rows(())
    index = None
    if len(calls) == 1 and any(call.tool_call_id is not None for message in messages for call in message.tool_calls):
        params = dict.fromkeys(store.tables.tool_calls.columns.keys()) | calls[0] | key_params(key)
        index = connection.execute(store.statements.insert_call, params).scalar()
    if index is None:  # there are several, or the id is in use
        calls = call_rows(connection.execute(store.statements.call_ids, key_params(key)).scalars().all())
        store.insert_rows(connection, store.tables.tool_calls, calls)
    for message in messages:
        index = message.message_index
        message.tool_calls = [mapping.tool_call_from_row(call) for call in calls if call["message_index"] == index]


def _unstored_results(messages: Sequence[Message], start: int) -> Iterator[Message]:
    """Tools' messages that are not stored, each with the index it would have: it ends earlier calls only."""
    for message in messages:
        if message.role in RESULT_ROLES:
            yield message.model_copy(update={"message_index": start})
        else:
            start += 1


def _without_results(message: Message) -> Message:
    """A message whose calls have a status in place of their result."""
    calls = [
        call if call.result is None else call.model_copy(update={"result": None, "status": call.status or "completed"})
        for call in message.tool_calls
    ]
    return message.model_copy(update={"tool_calls": calls})


def _of_run(table: sa.Table, key: RunKey) -> sa.ColumnElement[bool]:
    """The rows of a run, by its key: an engine without an index skips most of a large store."""
    return sa.and_(table.c.session_id == key[0], table.c.run_index == key[1])


def _finish_call(
    connection: Connection, store: Database, key: RunKey, message: Message, now: int, *, store_result: bool
) -> None:
    """End the call that a tool's message answers, unless it has ended, or the message is marked `UNKNOWN`."""
    if message.internal.get(UNKNOWN) is True:
        return
    text, value = mapping.split_content(message.content, is_result=True) if store_result else (None, None)
    duration_s = message.internal.get(DURATION_S)
    duration_s = duration_s if isinstance(duration_s, float) else None
    new_args = message.internal.get(ARGS)
    values: dict[str, Any] = {"status": mapping.result_status(message), "result": text, "result_json": value}
    if message.tool_call_id is not None and not isinstance(new_args, dict):
        params = key_params(key) | {f"new_{name}": v for name, v in values.items()} | {"new_duration_s": duration_s}
        params |= {"of_call": message.tool_call_id, "before_message": message.message_index, "now": now}
        if connection.execute(store.statements.complete_call, params).rowcount == 1:
            return
    # The id may have been reused in the run, and be stored as id~2; or the status of the call was unknown.
    t = store.tables.tool_calls
    has_id = (t.c.tool_call_id == message.tool_call_id) | starts_with(t.c.tool_call_id, f"{message.tool_call_id}~")
    query = sa.select(t.c.tool_call_id).where(_of_run(t, key), has_id, t.c.status.in_(("started", "unknown")))
    if message.message_index is not None:
        query = query.where(t.c.message_index.is_(None) | (t.c.message_index < message.message_index))
    # "started" sorts before "unknown": calls that still run are ended first.
    call_id = connection.execute(query.order_by(t.c.status, t.c.call_index).limit(1)).scalar()
    if call_id is None:
        return
    is_call = _of_run(t, key) & (t.c.tool_call_id == call_id)
    elapsed = (now - t.c.created_at) / sa.literal(1_000_000.0, sa.Double)
    values["duration_s"] = elapsed if duration_s is None else duration_s
    if isinstance(new_args, dict):  # it ran with other arguments than the model's, which are kept in ``internal``
        original = connection.execute(sa.select(t.c.args, t.c.internal).where(is_call)).mappings().one()
        values |= {"args": new_args, "internal": (original["internal"] or {}) | {ORIGINAL_ARGS: original["args"]}}
    connection.execute(t.update().where(is_call).values(**values))
