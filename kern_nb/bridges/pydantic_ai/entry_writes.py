"""Write the new entries of a conversation: into the runs that produced them, if these are recorded, else as runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa
from pydantic_ai.messages import ModelResponse
from sqlalchemy.engine import Connection

from kern_nb.bridges.pydantic_ai.entries import ENTRY, Location, NewEntry, positions
from kern_nb.db.open_runs import RunKey
from kern_nb.db.run_writes import insert_run
from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import MODEL_MESSAGE, RESUMED_AS
from kern_nb.records import Message, Run, Usage, text_of
from kern_nb.runtime.recorder import history_copy


def unsaved_runs(connection: Connection, store: SessionStore, new: Sequence[NewEntry]) -> set[str]:
    """The runs of new entries that no entry is part of yet: they were recorded, and not saved."""
    m = store.tables.messages
    run_ids = {entry.entry.message.run_id for entry in new} - {None}
    saved = sa.select(m.c.run_id).where(m.c.run_id.in_(run_ids), m.c.message_id.is_not(None))
    return {run_id for run_id in run_ids if run_id} - set(connection.execute(saved).scalars())


def write_entries(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    new: Sequence[NewEntry],
    after: Location | None,
    floor: int,
) -> None:
    """Store entries after one that is stored.

    Args:
        connection: The connection, in a transaction that has locked the session.
        store: The store.
        session_id: The session.
        new: The entries, in order.
        after: The last message of the entry before them; None if they are the first.
        floor: The index that new runs follow; see `index_floor`.
    """
    r = store.tables.runs
    last = (after.run_index, after.message_index) if after is not None else (-1, -1)
    before = after.run_id if after is not None else None
    for run_id, group in groupby(new, lambda entry: entry.entry.message.run_id):
        remaining = list(group)
        names = [name for name in (run_id, before) if name is not None]
        query = sa.select(r.c.run_id, r.c.session_id, r.c.run_index, r.c.internal).where(r.c.run_id.in_(names))
        rows = {row["run_id"]: row for row in connection.execute(query).mappings()}
        row = rows.get(run_id or "")
        if row is None and before in rows and run_id in ((rows[before]["internal"] or {}).get(RESUMED_AS) or ()):
            row = rows[before]  # the framework resumed that one under this id
        if row is not None and row["session_id"] == session_id:
            index = row["run_index"]
            if index < last[0] and unsaved_runs(connection, store, remaining) == {row["run_id"]}:
                index = _move_to_end(connection, store, row, floor) or index
            remaining, last = _mark(connection, store, (session_id, index), remaining, last)
            before = row["run_id"]
        if remaining:
            run = _insert(connection, store, session_id, remaining, floor, run_id=None if row is not None else run_id)
            last, before = (run.run_index or 0, len(run.messages) - 1), run.run_id


def _mark(
    connection: Connection, store: SessionStore, run: RunKey, new: list[NewEntry], after: tuple[int, int]
) -> tuple[list[NewEntry], tuple[int, int]]:
    """Mark a recorded run's messages as those of entries; returns the entries that it lacks, and the last message."""
    m = store.tables.messages
    of_run = (m.c.session_id == run[0]) & (m.c.run_index == run[1])
    query = sa.select(m.c.message_index, m.c.message_id, m.c.role, m.c.from_history, m.c.internal).where(of_run)
    recorded = positions(connection.execute(query.order_by(m.c.message_index)).mappings().all())
    marked = [position for position, rows in recorded.items() if ENTRY in (rows[0]["internal"] or {})]
    start = max(marked, default=-1) + 1
    for n, entry in enumerate(new):
        rows = recorded.get(start + n, [])
        is_same = bool(rows) and (rows[0]["role"] == "assistant") == entry.is_response
        if not is_same or (run[1], rows[0]["message_index"]) <= after:
            return new[n:], after
        first, end = rows[0], rows[-1]["message_index"]
        values = {"message_id": entry.entry.id, "internal": first["internal"] | {ENTRY: entry.stored(end)}}
        is_first = of_run & (m.c.message_index == first["message_index"])
        connection.execute(m.update().where(is_first).values(**values))
        after = (run[1], end)
    return [], after


def _move_to_end(connection: Connection, store: SessionStore, run: sa.RowMapping, floor: int) -> int | None:
    """Number a run after all others of its session; its index then, or None if a branch inherits it.

    The turns of a conversation are in the order in which they were saved; their runs may have started in another.
    """
    s, r, session_id = store.tables.sessions, store.tables.runs, run["session_id"]
    heirs = sa.select(s.c.session_id)
    heirs = heirs.where(s.c.parent_session_id == session_id, s.c.fork_run_index >= run["run_index"])
    if connection.execute(heirs).first() is not None:
        return None
    last = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(r.c.session_id == session_id)).scalar_one()
    index = max(int(last), floor) + 1
    for table in (store.tables.runs, store.tables.messages, store.tables.tool_calls):
        is_run = (table.c.session_id == session_id) & (table.c.run_id == run["run_id"])
        connection.execute(table.update().where(is_run).values(run_index=index))
    store.run_keys.pop(run["run_id"], None)
    return index


def _insert(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    new: Sequence[NewEntry],
    floor: int,
    *,
    run_id: str | None,
) -> Run:
    """Insert a run of entries. Without an id it repeats messages of a stored run, which are not counted again."""
    is_copy = run_id is None and new[0].entry.message.run_id is not None
    messages: list[Message] = []
    for position, entry in enumerate(new):
        own = [m.model_copy(update={"internal": m.internal | {MODEL_MESSAGE: position}}) for m in entry.messages]
        own = [history_copy(message) for message in own] if is_copy else own
        entry.mark(own[0], position, len(messages) + len(own) - 1)
        messages += own
    responses = [e.entry.message for e in new if isinstance(e.entry.message, ModelResponse)]
    prompts = [message for message in messages if message.role == "user"]
    answers = [message for message in messages if message.role == "assistant"]
    run = Run(
        messages=messages,
        input=prompts[0].content if prompts else None,
        output=text_of(answers[-1].content) if answers else None,
        usage=Usage.total(message.usage for message in messages),
        model=responses[-1].model_name if responses else None,
        model_provider=responses[-1].provider_name if responses else None,
        created_at=next((message.created_at for message in messages if message.created_at is not None), None),
        finished_at=next((message.created_at for message in reversed(messages) if message.created_at), None),
    )
    if run_id is not None:
        run.run_id = run_id
    return insert_run(connection, store, session_id, run, floor)
