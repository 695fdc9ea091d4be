"""The agents, teams and workflows of a notebook: by variable, by id, by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from kern_nb import environment, store_registry
from kern_nb.errors import BadUsage, NoStore, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.runtime.session_owner import SessionOwner

CREATE_HINT = "Create one: clerk = kern_nb.Agent(...)"


def variables() -> Mapping[str, Any]:
    """Return the notebook's variables; empty outside of IPython."""
    shell = environment.current_shell()
    return {} if shell is None else shell.user_ns


def is_agent(value: object) -> bool:
    """Whether a value is an agent, a team or a workflow. Imports nothing: without the class there is no instance."""
    base = sys.modules.get("kern_nb.runtime.session_owner")
    return base is not None and isinstance(value, base.SessionOwner)


def notebook_agents() -> dict[str, SessionOwner]:
    """Return the notebook's agents by variable, without IPython's own variables of outputs."""
    # A copy: a thread may set variables while this runs.
    return {name: value for name, value in dict(variables()).items() if not name.startswith("_") and is_agent(value)}


def matching(name: str | None) -> dict[str, SessionOwner]:
    """Return the notebook's agents with this id or name, by variable."""
    agents = {} if name is None else notebook_agents()
    return {variable: agent for variable, agent in agents.items() if name in (agent.id, agent.name)}


def only(agents: Mapping[str, SessionOwner]) -> str | None:
    """Return the first variable of the agents if all of them hold the same agent, else None."""
    return next(iter(agents), None) if len({id(agent) for agent in agents.values()}) == 1 else None


def find(name: str) -> SessionOwner:
    """Return the agent that a variable holds, or that has this id or name; raise BadUsage if none or several do."""
    value: Any = variables().get(name)
    if is_agent(value):
        return cast("SessionOwner", value)
    matches = matching(name)
    if variable := only(matches):
        return matches[variable]
    if matches:
        raise BadUsage(f"Several agents have the name or id {name!r}: {', '.join(matches)}.", "Write the variable.")
    agents = notebook_agents()
    names = [*agents, *(agent.name for agent in agents.values() if agent.name), *(a.id for a in agents.values())]
    message = f"Unknown agent {name!r}."
    if value is not None:
        message = f"{name!r} must be an agent, got {type(value).__name__}."
    hint = f"Agents in this notebook: {', '.join(agents)}." if agents else CREATE_HINT
    raise BadUsage(message, f"{did_you_mean(name, names)} {hint}".strip())


def find_object(name: str) -> object:
    """Return what a variable of the notebook holds; raise BadUsage without such a variable."""
    values = variables()
    if name not in values:
        public = [variable for variable in values if not variable.startswith("_")]
        raise BadUsage(f"The notebook has no variable {name!r}.", did_you_mean(name, public, "Create the agent first."))
    return values[name]


def find_variable(owner: str | None) -> str | None:
    """Return the variable of the one agent with this id or name; None if there is none, or several."""
    return only(matching(owner))


def resolve_store(store: str | SessionStore | None) -> SessionStore:
    """Return the given store, or the one in use; if no store is attached, the one store of the notebook's agents.

    Raises:
        NoStore: There is no such store, or the agents have several.
    """
    try:
        return store_registry.find(store)
    except NoStore:
        if store is not None or store_registry.names():
            raise
        # The one in memory exists after the first run; `agent.store` would create it.
        owned = (agent.db or agent._memory_store for agent in notebook_agents().values())  # noqa: SLF001
        stores = {_identity(candidate): candidate for candidate in owned if candidate is not None}
        if len(stores) != 1:
            raise
        return next(iter(stores.values()))


def is_same_store(store: SessionStore, other: SessionStore) -> bool:
    """Whether two objects are the same store."""
    return _identity(store) == _identity(other)


def _identity(store: SessionStore) -> tuple[str, str, int]:
    """Return what identifies a store; one in memory is only equal to itself."""
    return store.database, store.tables.name, id(store) if ":memory:" in store.url else 0
