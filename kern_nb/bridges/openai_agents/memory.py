"""The memory of a session of the SDK: the items of its messages, in the order in which they were added.

Items that no recorded run adds make runs of their own, one for each message of a user. Each function works in one
transaction.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.openai_agents.items import (
    Entry,
    Item,
    group_items,
    is_prompt,
    is_reply,
    memory_entries,
    next_position,
)
from kern_nb.bridges.openai_agents.items import to_items as message_to_items
from kern_nb.db import SessionStore, message_writes, reads, run_claims, run_writes
from kern_nb.db.lineage import Lineage, load_lineage
from kern_nb.db.open_runs import update_run
from kern_nb.errors import BadUsage, HasBranches
from kern_nb.extra_keys import ITEMS, MEMORY, UNORDERED
from kern_nb.records import RESULT_ROLES, Message, Run, message_text

_PAGE = 6  # messages beyond the limit that are read with it: some have no item in the memory


@dataclass(frozen=True)
class _Row:
    """A message with the items of it that are in the memory."""

    session_id: str
    run_id: str
    run_index: int
    message_index: int
    internal: dict[str, Any] | None
    entries: list[Entry] | None


def read_items(store: SessionStore, session_id: str, limit: int | None, user_id: str | None) -> list[Item]:
    """The items of a session, those it inherits included; the last ``limit`` of them."""
    if limit is not None and limit <= 0:
        if limit == 0:
            return []
        limit = None  # as in the SDK's own sessions
    with store.read_connection() as connection:
        session = reads.session_row(connection, store.tables, session_id, user_id)
        if session is None:
            return []
        lineage = load_lineage(connection, store.tables, session)
        size = None if limit is None else limit + _PAGE
        while True:
            rows = _newest_rows(connection, store, lineage, size)
            items = _collect(connection, store, lineage, rows)
            is_complete = size is None or len(rows) < size
            if is_complete or (limit is not None and _has_last(rows, items, limit)):
                return [item for _, item in items[-limit if limit is not None else 0 :]]
            size = None if size is None else size * 4


def _newest_rows(connection: Connection, store: SessionStore, lineage: Lineage, size: int | None) -> list[_Row]:
    """The newest messages of a lineage, oldest first."""
    m = store.tables.messages
    query = sa.select(m.c.session_id, m.c.run_id, m.c.run_index, m.c.message_index, m.c.internal)
    query = query.where(lineage.inside(m)).order_by(m.c.run_index.desc(), m.c.message_index.desc()).limit(size)
    rows = connection.execute(query).mappings().all()
    return [_Row(**row, entries=memory_entries(row["internal"])) for row in reversed(rows)]


def _has_last(rows: Sequence[_Row], items: Sequence[tuple[int, Item]], limit: int) -> bool:
    """Whether rows that may begin within a run have the last items of the session for sure.

    The results of tools that ran at once are stored as they end, and remembered in the order of their calls.
    """
    first_run = rows[0].run_index
    later = sum(index > first_run for index, _ in items)
    return later >= limit or (len(items) >= limit and not _is_unordered(rows[0]))


def _is_unordered(row: _Row) -> bool:
    return UNORDERED in (row.internal or {})


def _collect(
    connection: Connection, store: SessionStore, lineage: Lineage, rows: Sequence[_Row]
) -> list[tuple[int, Item]]:
    """The items of messages with the run index of each, in order."""
    foreign = _foreign_items(connection, store, lineage, [row for row in rows if row.entries is None])
    ordered: list[tuple[int, int, Item]] = []
    for row in rows:
        entries = row.entries
        if entries is None:
            entries = [[row.message_index, item] for item in foreign.get((row.run_id, row.message_index), ())]
        ordered += [(row.run_index, position, item) for position, item in entries]
    ordered.sort(key=lambda entry: entry[:2])
    return [(index, item) for index, _, item in ordered]


def _foreign_items(
    connection: Connection, store: SessionStore, lineage: Lineage, rows: Sequence[_Row]
) -> dict[tuple[str, int], list[Item]]:
    """The items of messages that other agents and importers wrote: those that `SessionStore.history` has."""
    if not rows:
        return {}
    r = store.tables.runs
    query = sa.select(r).where(r.c.run_id.in_({row.run_id for row in rows}), r.c.parent_run_id.is_(None))
    query = query.where(r.c.status.not_in(reads.STATUSES_WITHOUT_HISTORY))
    items: dict[tuple[str, int], list[Item]] = {}
    for run in reads.load_runs(connection, store.tables, lineage, connection.execute(query).mappings().all()):
        answered = {message.tool_call_id for message in run.messages if message.role in RESULT_ROLES}
        for index, message in enumerate(run.messages):
            if message.role in reads.INSTRUCTION_ROLES or message.from_history or message.is_partial:
                continue
            message.tool_calls = [call for call in message.tool_calls if call.tool_call_id in answered]
            position = index if message.message_index is None else message.message_index
            items[run.run_id, position] = message_to_items(message)
    return items


def add_items(
    store: SessionStore, session_id: str, items: Sequence[Item], user_id: str | None, run_id: str | None
) -> str:
    """Add items that no recorded run adds; returns the id of the run that the last one belongs to.

    Args:
        store: The store.
        session_id: The session; a new id creates it.
        items: The items, at least one.
        user_id: The user of the session.
        run_id: The run of this session that the caller added to last; None for the newest run.
    """
    own = copy.deepcopy(list(items))
    return store.write(lambda connection: _add_items(connection, store, session_id, own, user_id, run_id), small=True)


def _add_items(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    items: list[Item],
    user_id: str | None,
    run_id: str | None,
) -> str:
    batches: list[list[Item]] = [[]]
    for item in items:
        if is_prompt(item) and any(is_reply(other) for other in batches[-1]):
            batches.append([])
        batches[-1].append(item)
    current: str | None = None
    for batch in batches:
        if current is None and is_reply(batch[0]):
            current = _find_open(connection, store, session_id, run_id)
            if current is not None:
                _extend(connection, store, session_id, current, batch)
                continue
        messages = [with_items(message, own) for message, own in group_items(batch)]
        prompts = [message for message in messages if message.role == "user"]
        run = Run(user_id=user_id, internal={MEMORY: True}, messages=messages, output=_last_text(messages))
        run.input = prompts[0].content if prompts else None
        run.finished_at = run.created_at = datetime.now(UTC)
        current = run_writes.append_run(connection, store, session_id, run, user_id).run_id
    assert current is not None  # noqa: S101 - there is at least one batch
    return current


def with_items(message: Message, items: Sequence[Item], *, in_memory: bool = True, last: int = 0) -> Message:
    """A message that keeps its items, with positions after ``last`` if they are in the memory."""
    entries: list[Entry] = []
    for item in items:
        last = next_position(last) if in_memory else last
        entries.append([last if in_memory else None, item])
    created_at = message.created_at or datetime.now(UTC)
    return message.model_copy(update={"internal": message.internal | {ITEMS: entries}, "created_at": created_at})


def _last_text(messages: Sequence[Message]) -> str | None:
    texts = (message_text(message) for message in reversed(messages) if message.role == "assistant")
    return next((text for text in texts if text), None)


def _find_open(connection: Connection, store: SessionStore, session_id: str, run_id: str | None) -> str | None:
    """The run of a session that more items belong to: the caller's, or the newest, if a session made it of items."""
    r = store.tables.runs
    query = sa.select(r.c.run_id, r.c.internal).where(r.c.session_id == session_id)
    query = query.where(r.c.run_id == run_id) if run_id else query.order_by(r.c.run_index.desc()).limit(1)
    row = connection.execute(query).first()
    return row.run_id if row is not None and (row.internal or {}).get(MEMORY) else None


def _extend(connection: Connection, store: SessionStore, session_id: str, run_id: str, items: list[Item]) -> None:
    """Add items to a run that a session made of items: it is open while they are stored."""
    run_writes.upsert_session(connection, store, session_id, {"session_type": "agent"}, time.time())
    r = store.tables.runs
    row = connection.execute(sa.select(r).where(r.c.run_id == run_id)).mappings().one()
    run_claims.pin_branches(connection, store, row)
    update_run(connection, store, run_id, status="RUNNING")
    messages = [with_items(message, own) for message, own in group_items(items)]
    stored = message_writes.append_messages(connection, store, run_id, messages)
    output = _last_text(stored) or connection.execute(sa.select(r.c.output).where(r.c.run_id == run_id)).scalar()
    run_writes.finish_run(connection, store, run_id, status="COMPLETED", output=output, state_unchanged=True)


def pop_item(store: SessionStore, session_id: str, user_id: str | None) -> Item | None:
    """Remove and return the newest item; None if there is none.

    Raises:
        BadUsage: The session inherits it.
        HasBranches: A branch inherits it.
    """
    return store.write(lambda connection: _pop_item(connection, store, session_id, user_id), small=True)


def _pop_item(connection: Connection, store: SessionStore, session_id: str, user_id: str | None) -> Item | None:
    s = store.tables.sessions
    connection.execute(store.locked(sa.select(s.c.session_id).where(s.c.session_id == session_id)))
    session = reads.session_row(connection, store.tables, session_id, user_id)
    if session is None:
        return None
    lineage = load_lineage(connection, store.tables, session)
    row, entry = _find_last(connection, store, lineage)
    if row is None or entry is None:
        return None
    if row.session_id != session_id:
        raise _inherited_error(session_id, row.session_id)
    _require_not_inherited(connection, store, row)
    r, m, t = store.tables.runs, store.tables.messages, store.tables.tool_calls
    remaining = [other for other in (row.internal or {})[ITEMS] if other is not entry]
    of_run = (m.c.session_id == session_id) & (m.c.run_index == row.run_index)
    last = connection.execute(sa.select(sa.func.max(m.c.message_index)).where(of_run)).scalar()
    in_run = (t.c.session_id == session_id) & (t.c.run_index == row.run_index)
    if row.message_index != last or any(other[0] is None for other in remaining):
        entry[0] = None  # it is forgotten; what happened stays
        update_entries(connection, store, row.run_id, {row.message_index: row.internal or {}})
        return _item_of(entry)
    is_message = of_run & (m.c.message_index == row.message_index)
    stored = connection.execute(sa.select(m.c.role, m.c.tool_call_id, m.c.content).where(is_message)).one()
    connection.execute(m.delete().where(is_message))
    connection.execute(t.delete().where(in_run, t.c.message_index == row.message_index))
    if stored.role in RESULT_ROLES and stored.tool_call_id is not None:
        unanswered = {"result": None, "result_json": None, "status": "unknown", "duration_s": None}
        connection.execute(t.update().where(in_run, t.c.tool_call_id == stored.tool_call_id).values(**unanswered))
    if stored.role == "assistant":
        is_output = (r.c.run_id == row.run_id) & (r.c.output == stored.content)
        connection.execute(r.update().where(is_output).values(output=None, output_json=None))
    if remaining:
        _reinsert(connection, store, row, remaining)
    elif last == 0:
        _delete_run(connection, store, row)
    return _item_of(entry)


def _item_of(entry: Entry) -> Item:
    item: Item = entry[1]
    return item


def _find_last(connection: Connection, store: SessionStore, lineage: Lineage) -> tuple[_Row | None, Entry | None]:
    """The newest item with its message."""
    size = _PAGE
    while True:
        rows = _newest_rows(connection, store, lineage, size)
        owned = [(row, entry) for row in rows for entry in row.entries or ()]
        foreign = [row for row in rows if row.entries is None]
        newest = max(owned, key=lambda pair: (pair[0].run_index, pair[1][0])) if owned else (None, None)
        if foreign and (newest[0] is None or foreign[-1].run_index > newest[0].run_index):
            raise BadUsage(
                f"The last message of session {foreign[-1].session_id!r} was not written by the OpenAI Agents SDK.",
                "Branch the session before that message, and use a KernSession of the branch.",
            )
        if len(rows) < size:
            return newest
        if newest[0] is not None and not (rows[0].run_index == newest[0].run_index and _is_unordered(rows[0])):
            return newest
        size *= 4


def _inherited_error(session_id: str, owner: str) -> BadUsage:
    return BadUsage(
        f"Session {session_id!r} inherits its last item from session {owner!r}; nothing was removed.",
        "Branch that session before the item, and use a KernSession of the branch.",
    )


def _require_not_inherited(connection: Connection, store: SessionStore, row: _Row) -> None:
    """Check that no branch inherits a message."""
    s = store.tables.sessions
    query = sa.select(s.c.session_id, s.c.fork_run_index, s.c.fork_message_index)
    query = query.where(s.c.parent_session_id == row.session_id, s.c.fork_run_index >= row.run_index)
    for branch in connection.execute(query):
        is_after = branch.fork_run_index > row.run_index or branch.fork_message_index is None
        if is_after or branch.fork_message_index >= row.message_index:
            raise HasBranches(
                f"Branch {branch.session_id!r} inherits the last item of session {row.session_id!r}.",
                "Delete the branch first, or add to a branch that starts before the item.",
            )


def _reinsert(connection: Connection, store: SessionStore, row: _Row, entries: list[Entry]) -> None:
    """Insert a message anew, with fewer items."""
    r = store.tables.runs
    status = connection.execute(sa.select(r.c.status).where(r.c.run_id == row.run_id)).scalar_one()
    update_run(connection, store, row.run_id, status="RUNNING")
    ((message, _), *rest) = group_items([entry[1] for entry in entries])
    internal = (row.internal or {}) | {ITEMS: entries}
    messages = [message.model_copy(update={"internal": internal}), *(with_items(other, ()) for other, _ in rest)]
    message_writes.append_messages(connection, store, row.run_id, messages)
    update_run(connection, store, row.run_id, status=status)


def _delete_run(connection: Connection, store: SessionStore, row: _Row) -> None:
    """Delete a run without messages, if it is a session's last and was made of items."""
    r = store.tables.runs
    of_session = r.c.session_id == row.session_id
    last = sa.select(r.c.run_id, r.c.internal).where(of_session).order_by(r.c.run_index.desc()).limit(1)
    run = connection.execute(last).first()
    if run is not None and run.run_id == row.run_id and (run.internal or {}).get(MEMORY):
        connection.execute(r.delete().where(r.c.run_id == row.run_id))
        store.run_keys.pop(row.run_id, None)


def update_entries(
    connection: Connection, store: SessionStore, run_id: str, internals: dict[int, dict[str, Any]]
) -> None:
    """Set the ``internal`` of messages of a run, by message index."""
    m = store.tables.messages
    for index, internal in internals.items():
        is_message = (m.c.run_id == run_id) & (m.c.message_index == index)
        connection.execute(m.update().where(is_message).values(internal=internal))


def clear(store: SessionStore, session_id: str, user_id: str | None) -> None:
    """Remove all items of a session, and the runs that they make. It keeps its title and other data.

    Raises:
        BadUsage: The session inherits items.
        HasBranches: A branch inherits them.
    """
    with store.read_connection() as connection:
        session = reads.session_row(connection, store.tables, session_id, user_id)
        if session is None:
            return
        inherited = Lineage(load_lineage(connection, store.tables, session)[:-1])
        if inherited and _newest_rows(connection, store, inherited, 1):
            raise BadUsage(
                f"Session {session_id!r} inherits items from session {inherited[-1].session_id!r}.",
                "Use a KernSession with a new session_id.",
            )
    store.clear_session(session_id, user_id=user_id)
