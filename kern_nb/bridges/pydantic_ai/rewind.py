"""Move the head of a session back to an earlier message, and keep what follows as a session of its own."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.pydantic_ai.entries import Location
from kern_nb.db.open_runs import update_session
from kern_nb.db.reads import run_tree_ids
from kern_nb.db.store import SessionStore

LEFT_BY = "left_by"
"""The key in a session's data of the conversation that has left it."""


def rewind(
    connection: Connection,
    store: SessionStore,
    session: sa.RowMapping,
    to: Location | None,
    *,
    keep: Collection[str],
) -> None:
    """Let a session continue after an earlier message. Its own runs move to a new session, of which it is a branch.

    Args:
        connection: The connection, in a transaction that has locked the session.
        store: The store.
        session: The session's row.
        to: The message; None is the beginning.
        keep: Runs that stay: they are the first ones of the new line.
    """
    session_id, r, s = session["session_id"], store.tables.runs, store.tables.sessions
    kept = {run_id for root in keep for run_id in run_tree_ids(connection, store.tables, root)}
    is_own = (r.c.session_id == session_id) & r.c.run_id.not_in(kept)
    moved = list(connection.execute(sa.select(r.c.run_id).where(is_own)).scalars())
    left_id = None
    if moved:
        left_id = _free_id(connection, store, session_id)
        data = {key: value for key, value in (session["session_data"] or {}).items() if key == "session_state"}
        row = dict(session) | {"session_id": left_id, "session_data": data | {LEFT_BY: session_id}}
        connection.execute(s.insert().values(**{c.name: row.get(c.name) for c in s.columns} | {"source_key": None}))
        # Other branches inherit rows that move.
        others = s.update().where(s.c.parent_session_id == session_id)
        connection.execute(others.values(parent_session_id=left_id))
        for table in store.tables.session_tables:
            is_moved = (table.c.session_id == session_id) & table.c.run_id.is_not(None) & table.c.run_id.not_in(kept)
            connection.execute(table.update().where(is_moved).values(session_id=left_id))
        for run_id in moved:
            store.run_keys.pop(run_id, None)
    if to is None:
        parent: str | None = left_id or session["parent_session_id"]
        fork: tuple[int | None, int | None] = (-1, None) if parent is not None else (None, None)
    else:
        parent = left_id if to.session_id == session_id else to.session_id
        fork = (to.run_index, to.message_index)
    columns = {"parent_session_id": parent, "fork_run_index": fork[0], "fork_message_index": fork[1]}
    update_session(connection, store, session_id, **columns)


def move_to_end(connection: Connection, store: SessionStore, run: sa.RowMapping) -> int | None:
    """Number a run after all others of its session; its index then, or None if a branch inherits it.

    The turns of a conversation are in the order in which they were saved; their runs may have started in another.
    """
    s, r, session_id = store.tables.sessions, store.tables.runs, run["session_id"]
    heirs = sa.select(s.c.session_id)
    heirs = heirs.where(s.c.parent_session_id == session_id, s.c.fork_run_index >= run["run_index"])
    if connection.execute(heirs).first() is not None:
        return None
    last = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(r.c.session_id == session_id)).scalar_one()
    for table in (store.tables.runs, store.tables.messages, store.tables.tool_calls):
        is_run = (table.c.session_id == session_id) & (table.c.run_id == run["run_id"])
        connection.execute(table.update().where(is_run).values(run_index=last + 1))
    store.run_keys.pop(run["run_id"], None)
    return int(last) + 1


def _free_id(connection: Connection, store: SessionStore, session_id: str) -> str:
    s, n = store.tables.sessions, 1
    query = sa.select(s.c.session_id)
    while connection.execute(query.where(s.c.session_id == f"{session_id}~{n}")).first() is not None:
        n += 1
    return f"{session_id}~{n}"


def left_sessions(connection: Connection, store: SessionStore, session_id: str) -> list[str]:
    """The sessions that a conversation has left, the latest first."""
    s = store.tables.sessions
    n = 1
    left: list[str] = []
    while True:
        query = sa.select(s.c.session_data).where(s.c.session_id == f"{session_id}~{n}")
        row = connection.execute(query).first()
        if row is None:
            return left[::-1]
        if (row[0] or {}).get(LEFT_BY) == session_id:
            left.append(f"{session_id}~{n}")
        n += 1
