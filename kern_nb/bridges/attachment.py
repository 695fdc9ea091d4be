"""`attach_agent` and `detach_agent`: let an agent of any supported framework write to a store."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from kern_nb import store_registry
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage, MissingExtra
from kern_nb.operations import attachments
from kern_nb.operations.attachments import Attachment, Bridge

# The package of a class, the module of its bridge, and the extra that installs the framework.
_BRIDGES = {
    "kern_nb": ("kern_nb.bridges.own", ""),
    "agno": ("kern_nb.bridges.agno", "agno"),
    "agents": ("kern_nb.bridges.openai_agents", "openai-agents"),
    "pydantic_ai": ("kern_nb.bridges.pydantic_ai", ""),
    "langgraph": ("kern_nb.bridges.langgraph", "langgraph"),
}
_SUPPORTED = "Agno agents, teams and workflows, OpenAI Agents, pydantic-ai agents, LangGraph graphs, and kern_nb's own"


def attach_agent(agent: Any, store: str | SessionStore | None = None) -> Attachment:
    """Let an agent of another framework, or one of ours, write to a store: its sessions, runs, messages and calls.

    An agent that is attached already writes to the new store from now on. `detach_agent` undoes it.

    Args:
        agent: An agent, team, workflow or graph.
        store: A store or the name of an attached one; None for the one in use.

    Returns:
        The attachment.

    Raises:
        BadUsage: no bridge supports the object.
        MissingExtra: the installed version of the framework is missing a part that the bridge requires.
        NoStore: no store is in use, or none has that name.

    Example:
        >>> from kern_nb import Agent, attach_agent
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> agent, store = Agent(model=ScriptedModel(["Hello!"]), session_id="s"), InMemoryDb()
        >>> attach_agent(agent, store).framework
        'kern_nb'
        >>> _ = agent.run("Hi")
        >>> list(store.runs_df()["output"])
        ['Hello!']
    """
    framework = find_framework(agent)
    if framework is None:
        raise BadUsage(f"{type(agent).__name__} is not an agent that can be attached.", f"Supported: {_SUPPORTED}.")
    module, extra = _BRIDGES[framework]
    target = store_registry.find(store)
    try:
        bridge = cast("Bridge", import_module(module))
    except ImportError as error:
        package = f"kern_nb[{extra}]" if extra else "kern_nb"
        message = f"The bridge of {framework} cannot be loaded: {error}."
        raise MissingExtra(message, f'Run pip install -U "{package}".') from error
    detach_agent(agent)
    attachment = Attachment(agent, target, framework, bridge, bridge.attach(agent, target))
    attachments.add(attachment)
    return attachment


def detach_agent(agent: Any) -> None:
    """Let an agent write where it did before `attach_agent`. Does nothing for an agent that is not attached.

    Example:
        >>> from kern_nb import Agent, attach_agent, detach_agent
        >>> from kern_nb.db import InMemoryDb
        >>> agent = Agent(model="scripted")
        >>> _ = attach_agent(agent, InMemoryDb())
        >>> detach_agent(agent)
        >>> agent.db is None
        True
    """
    attachment = attachments.remove(agent)
    if attachment is not None:
        attachment._undo()  # noqa: SLF001


def attached_agents() -> list[Attachment]:
    """The agents that are attached, in the order in which they were."""
    return attachments.all_attachments()


def find_framework(value: object) -> str | None:
    """The supported framework of an object, by the packages of its classes; None for another object."""
    names = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return next((name for name in names if name in _BRIDGES), None)
