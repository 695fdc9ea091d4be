"""Let agents, teams and workflows of Agno write to a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from agno.agent import Agent
from agno.db.base import AsyncBaseDb, BaseDb
from agno.team import Team
from agno.workflow import Workflow

from kern_nb.bridges.agno.database import AgnoDb
from kern_nb.bridges.agno.resume import guard_resumes
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage


def attach(agent: Any, store: SessionStore) -> Callable[[], None]:
    """Let an agent, a team with its members, or a workflow of Agno write its sessions and runs to a store.

    The database that it has keeps its memories, knowledge and everything else.

    Args:
        agent: The agent, team or workflow.
        store: The store.

    Returns:
        What undoes it.

    Raises:
        BadUsage: It is none of them, or its database is asynchronous.
    """
    if not isinstance(agent, (Agent, Team, Workflow)):
        message = f"{type(agent).__name__} is not an agent, team or workflow of Agno's."
        raise BadUsage(message, "Attach an Agent, Team or Workflow.")
    before = [(owner, owner.db) for owner in _owners(agent)]
    if any(isinstance(db, AsyncBaseDb) for _, db in before):
        raise BadUsage(
            f"The database of {agent.name or agent.id} is asynchronous, and a store is not.",
            "Set its db to None, or to a database such as SqliteDb, and attach it again; arun works with both.",
        )
    dbs: dict[int, AgnoDb] = {}
    for owner, db in before:
        others = db.others if isinstance(db, AgnoDb) else db
        rest = others if isinstance(others, BaseDb) else None
        db_of_store = dbs.setdefault(id(others), AgnoDb(store, others=rest))  # type: ignore[abstract] # see `passes_others_on`
        owner.db = db_of_store

    undo_guard = guard_resumes(agent, store)

    def undo() -> None:
        undo_guard()
        for owner, db in before:
            owner.db = db

    return undo


def _owners(agent: Any) -> Iterator[Any]:
    """An agent, or a team and its members at every depth."""
    yield agent
    members = getattr(agent, "members", None)
    for member in members if isinstance(members, list) else ():
        if isinstance(member, (Agent, Team)):
            yield from _owners(member)
