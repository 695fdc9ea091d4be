"""The agents, teams and workflows of a notebook, ours and attached ones: by variable, by id, by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from kern_nb import environment, store_registry
from kern_nb.errors import BadUsage, NoStore, did_you_mean
from kern_nb.operations import attachments

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.operations.attachments import Attachment
    from kern_nb.operations.run_index import RunEntry
    from kern_nb.runtime.session_owner import SessionOwner

    Runner: TypeAlias = SessionOwner | Attachment
    AnyRunner = TypeVar("AnyRunner", bound=Runner)

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


def attached_agents() -> dict[str, Attachment]:
    """Return the attached agents of other frameworks by the variable of the notebook that holds them."""
    values = {name: value for name, value in dict(variables()).items() if not name.startswith("_")}
    found = {name: attachments.find(value) for name, value in values.items()}
    return {name: a for name, a in found.items() if a is not None and a.framework != attachments.OWN}


def runners() -> dict[str, Runner]:
    """Return the agents that can resume a run, ours and attached ones, by variable."""
    return {**notebook_agents(), **attached_agents()}


def runners_of(run: RunEntry, store: SessionStore) -> dict[str, Runner]:
    """Return the agents of the notebook that made a run, by variable: by its id or name, and by its framework.

    Those that write to the store of the run take precedence.
    """
    framework = attachments.framework_of(store, run.run_id)
    matches: dict[str, Runner] = {}
    if framework is None:
        matches |= matching(run.owner)
    if not matches:  # a run that was recorded before frameworks were may be of any
        attached = attached_agents().items()
        matches |= {n: a for n, a in attached if framework in (None, a.framework) and run.owner in a.owner_names}
    return {name: agent for name, agent in matches.items() if is_same_store(agent.store, store)} or matches


def find_runner_of(run: RunEntry, store: SessionStore) -> str | None:
    """Return the variable of the one agent that made a run; None if there is none, or several."""
    return only(runners_of(run, store))


def only(agents: Mapping[str, Runner]) -> str | None:
    """Return the first variable of the agents if all of them hold the same agent, else None."""
    return next(iter(agents), None) if len({id(agent) for agent in agents.values()}) == 1 else None


def find(name: str) -> SessionOwner:
    """Return the agent that a variable holds, or that has this id or name; raise BadUsage if none or several do."""
    refuse_attached(variables().get(name))
    return _find(name, matching(name), notebook_agents())


def refuse_attached(value: object) -> None:
    """Raise BadUsage for an attached agent of another framework, whose runs kern_nb does not start."""
    if (attachment := attachments.find(value)) and attachment.framework != attachments.OWN:
        title = attachments.TITLES[attachment.framework]
        raise BadUsage(
            f"This is an agent of {title}, and kern_nb starts only runs of its own agents.",
            f"Run it as {title} does: its runs are recorded, and a paused one resumes with %kern continue.",
        )


def find_runner(name: str) -> Runner:
    """Return an agent that can resume a run, ours or attached, by its variable, id or name; errors as for `find`."""
    if (attachment := attachments.find(variables().get(name))) and attachment.framework != attachments.OWN:
        return attachment
    named = {variable: a for variable, a in attached_agents().items() if name in a.owner_names}
    matches: dict[str, Runner] = {**matching(name), **named}
    return _find(name, matches, runners())


def _find(name: str, matches: Mapping[str, AnyRunner], agents: Mapping[str, AnyRunner]) -> AnyRunner:
    value: Any = variables().get(name)
    if is_agent(value):
        return cast("AnyRunner", value)
    if variable := only(matches):
        return matches[variable]
    if matches:
        raise BadUsage(f"Several agents have the name or id {name!r}: {', '.join(matches)}.", "Write the variable.")
    names = [*agents, *(other for agent in agents.values() for other in _names(agent) if other)]
    message = f"Unknown agent {name!r}."
    if value is not None:
        message = f"{name!r} must be an agent, got {type(value).__name__}."
    hint = f"Agents in this notebook: {', '.join(agents)}." if agents else CREATE_HINT
    raise BadUsage(message, f"{did_you_mean(name, names)} {hint}".strip())


def _names(agent: Runner) -> Sequence[str | None]:
    return (agent.name, agent.id) if is_agent(agent) else agent.owner_names  # type: ignore[union-attr]


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
        owned = [agent.db or agent._memory_store for agent in notebook_agents().values()]  # noqa: SLF001
        owned += [attachment.store for attachment in attached_agents().values()]
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
