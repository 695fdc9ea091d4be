"""Agents, teams and workflows of kern_nb: their store becomes the one that they are attached to."""

from __future__ import annotations

from collections.abc import Callable

from kern_nb.db.store import SessionStore
from kern_nb.runtime.session_owner import SessionOwner


def attach(agent: SessionOwner, store: SessionStore) -> Callable[[], None]:
    """Let an agent write to a store; returns what undoes it."""
    before = agent.db
    agent.db = store

    def undo() -> None:
        agent.db = before

    return undo
