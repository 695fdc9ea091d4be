"""Saving and deleting the runs of Agno: a run with the runs inside it, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from kern_nb.db.open_runs import set_internal, update_run
from kern_nb.db.store import SessionStore
from kern_nb.errors import RunNotFound
from kern_nb.extra_keys import STATE_AFTER
from kern_nb.interop.agno import has_runs, is_nested
from kern_nb.records import Run


def put_runs(
    store: SessionStore, session_id: str, runs: Sequence[Run], *, state_after: dict[str, Any] | None = None
) -> None:
    """Store a run and the runs inside it, or replace them. A run that is no longer inside is deleted.

    Args:
        store: The store.
        session_id: The session.
        runs: The run, then those inside it.
        state_after: The session's state after the run, with which a branch starts, if others changed it, too.
    """
    run, *inside = runs
    with store.transaction():
        _put_run(store, session_id, run, state_after)
        if has_runs(run):
            ids = {step.run_id for step in inside}
            for step in runs_inside(store, run.run_id):
                if step.run_id not in ids:
                    delete_run(store, step.run_id)
        for step in inside:
            _put_run(store, session_id, step)


def _put_run(store: SessionStore, session_id: str, run: Run, state_after: dict[str, Any] | None = None) -> None:
    """Store a run, and its state as it had it: what it changed of the session's, Agno saves with the session."""
    state = run.session_state
    store.put_run(session_id, run.model_copy(update={"session_state": None}), user_id=run.user_id)
    if state is None:
        return

    def write(connection: Connection) -> None:
        update_run(connection, store, run.run_id, session_state=state)
        if state_after is not None:
            set_internal(connection, store, run.run_id, {STATE_AFTER: state_after})

    store.write(write)


def runs_inside(store: SessionStore, run_id: str) -> list[Run]:
    """The runs that Agno has inside a run, at every depth."""
    result: list[Run] = []
    pending = [run_id]
    for parent in pending:  # grows
        steps = [run for run in store.member_runs(parent) if is_nested(run)]
        result += steps
        pending += [step.run_id for step in steps if has_runs(step)]
    return result


def delete_run(store: SessionStore, run_id: str) -> bool:
    """Delete a run, and those of its members and steps; False if there is none."""
    try:
        store.delete_run(run_id)
    except RunNotFound:
        return False
    return True
