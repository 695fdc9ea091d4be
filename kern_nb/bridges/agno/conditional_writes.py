"""Writes of Agno's that depend on what is stored: cancelling a run that waits, changing the user of an idle session."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.agno.run_rows import find_run, to_records
from kern_nb.bridges.agno.writes import put_runs
from kern_nb.db import reads
from kern_nb.db.open_runs import update_session
from kern_nb.db.store import SessionStore

_ACTIVE = ("PENDING", "RUNNING", "PAUSED")


def cancel_run(
    store: SessionStore, run_id: str, *, session_id: str, reason: str, user_id: str | None, expected_status: str
) -> bool:
    """Cancel a run of a session if it has a status, and no user or this one; returns whether it was cancelled."""
    with store.transaction():
        store.write(lambda connection: _lock(connection, store, session_id))
        row = find_run(store, run_id)
        if row is None or row["session_id"] != session_id or row["user_id"] not in {None, user_id}:
            return False
        data = row["run_data"]
        if data.get("status") != expected_status:
            return False
        data["status"] = "CANCELLED"
        if data.get("content") in (None, ""):
            data["content"] = reason
        put_runs(store, session_id, to_records(data, row["run_type"], row["user_id"]))
    return True


def reassign_owner(store: SessionStore, session_id: str, *, previous_user_id: str, user_id: str | None) -> bool:
    """Change the user of a session without active runs, if it has the previous one; returns whether it was changed."""

    def reassign(connection: Connection) -> bool:
        _lock(connection, store, session_id)
        if reads.session_row(connection, store.tables, session_id, previous_user_id) is None:
            return False
        r = store.tables.runs
        query = sa.select(r.c.run_id, r.c.status).where(r.c.session_id == session_id, r.c.status.in_(_ACTIVE)).limit(1)
        if connection.execute(query).first() is not None:
            return False
        update_session(connection, store, session_id, user_id=user_id)
        return True

    return store.write(reassign)


def _lock(connection: Connection, store: SessionStore, session_id: str) -> None:
    s = store.tables.sessions
    connection.execute(store.locked(sa.select(s.c.session_id).where(s.c.session_id == session_id)))
