"""Agents, teams and workflows of kern_nb: their store becomes the one that they are attached to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kern_nb.db.store import SessionStore
from kern_nb.records import Run
from kern_nb.runtime.session_owner import SessionOwner


def attach(agent: SessionOwner, store: SessionStore) -> Callable[[], None]:
    """Let an agent write to a store; returns what undoes it."""
    before = agent.db
    agent.db = store

    def undo() -> None:
        agent.db = before

    return undo


def owner_names(agent: SessionOwner) -> Sequence[str | None]:
    """The id and the name of an agent."""
    return (agent.id, agent.name)


def resume(agent: SessionOwner, store: SessionStore, run: Run, **options: Any) -> Run:
    """Resume a run; see `Agent.continue_run`, which takes no further options."""
    del store  # it is that of the agent
    return agent.continue_run(run.run_id, session_id=run.session_id, **options)
