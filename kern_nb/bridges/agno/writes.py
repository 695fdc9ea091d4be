"""Saving and deleting the runs of Agno: a run with the runs inside it, in one transaction."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa

from kern_nb.db import mapping
from kern_nb.db.open_runs import update_run
from kern_nb.db.run_writes import insert_requirements, insert_run, upsert_session
from kern_nb.db.store import SessionStore
from kern_nb.errors import RunExists
from kern_nb.records import Run


def put_runs(store: SessionStore, session_id: str, runs: list[Run]) -> None:
    """Store a run and the runs inside it, or replace them."""
    with transaction(store):
        for run in runs:
            state, run.session_state = run.session_state, None
            put_run(store, session_id, run)
            if state is not None:  # Agno has merged it into the session's before
                store.write(lambda connection, run_id=run.run_id, state=state: update_run(connection, store, run_id, session_state=state))


def transaction(store: SessionStore) -> Any:
    return store.transaction() if hasattr(store, "transaction") else nullcontext()


def put_run(store: Any, session_id: str, run: Run) -> Any:
    if hasattr(store, "put_run"):
        return store.put_run(session_id, run, user_id=run.user_id)

    def work(connection: Any) -> Any:
        r, m, t, q = (getattr(store.tables, n) for n in ("runs", "messages", "tool_calls", "requirements"))
        owner = {"session_type": run.run_type} | {n: getattr(run, n) for n in ("agent_id", "team_id", "workflow_id", "user_id")}
        session = upsert_session(connection, store, session_id, owner, time.time())
        row = connection.execute(sa.select(r).where(r.c.run_id == run.run_id)).mappings().first()
        if row is None:
            return insert_run(connection, store, session_id, run, session["fork_run_index"])
        if row["session_id"] != session_id:
            raise RunExists(f"Run {run.run_id!r} is of another session.")
        for table in (m, t, q):
            connection.execute(table.delete().where(table.c.run_id == run.run_id))
        rows = mapping.run_rows(run, session_id)
        values = {k: v for k, v in rows.run.items() if k not in {"session_id", "run_index", "run_id", "created_at"}}
        update_run(connection, store, run.run_id, **values)
        for part in (*rows.messages, *rows.tool_calls):
            part["run_index"] = row["run_index"]
        store.insert_rows(connection, m, rows.messages)
        store.insert_rows(connection, t, rows.tool_calls)
        insert_requirements(connection, store, run.requirements, {"session_id": session_id, "run_id": run.run_id}, int(time.time() * 1e6))
        return run

    return store.write(work)
