"""The agents, teams and workflows that a notebook has: by the variable that holds one, by id, by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from kern_nb import store_registry
from kern_nb.errors import BadUsage, NoStore, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.runtime.session_owner import SessionOwner

CREATE_HINT = "Make one: clerk = kern_nb.Agent(...)"


def variables() -> Mapping[str, Any]:
    """The notebook's variables; none outside of IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return {} if shell is None else shell.user_ns


def is_agent(value: object) -> bool:
    """Whether a value is an agent, a team or a workflow. Where nothing made one, nothing is imported to tell."""
    base = sys.modules.get("kern_nb.runtime.session_owner")
    return base is not None and isinstance(value, base.SessionOwner)


def notebook_agents() -> dict[str, SessionOwner]:
    """The agents of the notebook by the names of their variables; what IPython keeps of outputs is left out."""
    # A copy: a thread may set variables while this runs.
    return {name: value for name, value in dict(variables()).items() if not name.startswith("_") and is_agent(value)}


def find(name: str) -> SessionOwner:
    """The agent that a variable holds, or that has this id or name.

    Raises:
        BadUsage: there is none, or several; the hint names those there are.
    """
    value: Any = variables().get(name)
    if is_agent(value):
        return cast("SessionOwner", value)
    known = notebook_agents()
    fitting = {variable: one for variable, one in known.items() if name in (one.id, one.name)}
    if len({id(one) for one in fitting.values()}) == 1:
        return next(iter(fitting.values()))
    if fitting:
        raise BadUsage(f"Several agents are called {name!r}: {', '.join(fitting)}.", "Write the variable's name.")
    names = [*known, *(one.name for one in known.values() if one.name), *(one.id for one in known.values())]
    what = (
        f"{name!r} is of type {type(value).__name__}, and no agent"
        if value is not None
        else f"No agent is called {name!r}"
    )
    there = f"Agents here: {', '.join(known)}." if known else CREATE_HINT
    raise BadUsage(f"{what}.", f"{did_you_mean(name, names)} {there}".strip())


def resolve_store(store: str | SessionStore | None) -> SessionStore:
    """The store that a line about paused runs means: the one named, or in use; where none is attached, the agents' own.

    Raises:
        NoStore: there is none, or the agents here have several.
    """
    try:
        return store_registry.find(store)
    except NoStore:
        found = (
            {} if store_registry.names() else {(one.database, one.tables.name, _memory(one)): one for one in _stores()}
        )
        if store is None and len(found) == 1:
            return next(iter(found.values()))
        raise


def _stores() -> Iterator[SessionStore]:
    """The stores that agents here were given or have made."""
    return (one.kept_in for one in notebook_agents().values() if one.kept_in is not None)


def _memory(store: SessionStore) -> int:
    """What tells one store in memory from another."""
    return id(store) if ":memory:" in store.url else 0


def find_variable(owner: str | None) -> str | None:
    """The variable of the one agent here that has this id or name; None where there is none, or several."""
    fitting = {
        variable: one
        for variable, one in notebook_agents().items()
        if owner is not None and owner in (one.id, one.name)
    }
    return next(iter(fitting), None) if len({id(one) for one in fitting.values()}) == 1 else None
