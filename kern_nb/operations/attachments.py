"""Agents that are attached to a store, and what their bridges do with them.

`kern_nb.bridges.attachment` adds and removes them. This module is below the bridges: an operation resumes the run of an
attached agent through it, and imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kern_nb.errors import AlreadyClaimed, BadUsage, RunClosed, StillWaiting
from kern_nb.extra_keys import FRAMEWORK

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run

OWN = "kern_nb"
TITLES = {
    "agno": "Agno",
    "agents": "the OpenAI Agents SDK",
    "pydantic_ai": "pydantic-ai",
    "langgraph": "LangGraph",
    OWN: "kern_nb",
}
"""The supported frameworks, by the package of an agent's class."""


class Bridge(Protocol):
    """The package of a framework's bridge."""

    def attach(self, agent: Any, store: SessionStore) -> Callable[[], None]:
        """Let an agent write to a store; returns what undoes it."""

    def owner_names(self, agent: Any) -> Sequence[str | None]:
        """The ids and names that runs of an agent may have as their owner; None for an agent without a name."""

    def resume(self, agent: Any, store: SessionStore, run: Run, **options: Any) -> Run:
        """Resume a paused run with the answers that are stored; returns the stored run, ended or paused again.

        It also works inside a running event loop. The run is claimed before a tool runs.

        Args:
            agent: The agent that ran it.
            store: The store of the run.
            run: The run.
            options: Arguments of the framework's own call that a store cannot have, such as its context.

        Raises:
            StillWaiting: A requirement is pending.
            AlreadyClaimed: Another caller resumes the run.
            RunClosed: The run has ended.
        """


@dataclass(frozen=True)
class Attachment:
    """An agent that writes to a store.

    Attributes:
        agent: The agent.
        store: The store.
        framework: The package of the agent's class: ``agno``, ``agents``, ``pydantic_ai``, ``langgraph``, ``kern_nb``.
    """

    agent: Any
    store: SessionStore
    framework: str
    _bridge: Bridge = field(repr=False)
    _undo: Callable[[], None] = field(repr=False)

    @property
    def owner_names(self) -> Sequence[str | None]:
        """The ids and names that its runs may have as their owner; None for an agent without a name."""
        return self._bridge.owner_names(self.agent)

    def resume(self, run: Run) -> Run:
        """Resume a paused run of the agent with the answers in the store; see `continue_run` for the errors."""
        return self._bridge.resume(self.agent, self.store, run)


_attachments: dict[int, Attachment] = {}


def add(attachment: Attachment) -> None:
    """Add an attachment, in place of an earlier one of the agent."""
    _attachments[id(attachment.agent)] = attachment


def remove(agent: Any) -> Attachment | None:
    """Remove and return the attachment of an agent; None for one that is not attached."""
    return _attachments.pop(id(agent), None)


def find(agent: Any) -> Attachment | None:
    """Return the attachment of an agent; None for one that is not attached."""
    return _attachments.get(id(agent))


def all_attachments() -> list[Attachment]:
    """Return the attachments, in the order in which the agents were attached."""
    return list(_attachments.values())


def attach_hint(owner: str | None) -> str:
    """Return the next step where no agent of the notebook made a run of a framework."""
    name = owner if owner is not None and owner.isidentifier() else "NAME"
    return f"Create the agent as it was, then attach it: %kern attach-agent {name}"


def framework_of(store: SessionStore, run_id: str) -> str | None:
    """Return the framework whose attached agent made a run; None for another run, or if that was not recorded."""
    from kern_nb.db.reads import internal_text

    with store.read_connection() as connection:
        return internal_text(connection, store.tables, run_id, FRAMEWORK)


def require_answers(store: SessionStore, run: Run, statuses: Sequence[str] = ("PAUSED",)) -> None:
    """Check that a run of a framework can be resumed: it has one of the statuses, and no requirement is pending.

    The framework claims the run by compare-and-set when it resumes it.

    Raises:
        StillWaiting: A requirement of it, or of a member's run, is pending.
        AlreadyClaimed: It is running.
        RunClosed: It has ended.
        BadUsage: It failed, or was interrupted.
    """
    name = f"Run {run.session_id}/{run.run_index}"
    if run.status == "RUNNING":
        raise AlreadyClaimed(
            f"{name} is running: another caller resumes it.", "Nothing was run. See it with %kern show."
        )
    if run.status == "COMPLETED":
        raise RunClosed(f"{name} has ended: COMPLETED.", "Nothing was run. Start a new run in its session.")
    if run.status not in statuses:
        hint = "Run the agent again in its session: of attached agents, only paused runs are resumed."
        raise BadUsage(f"{name} is {run.status}, not PAUSED.", hint)
    if any(requirement.kind == "handoff" and requirement.tool_call_id is None for requirement in run.requirements):
        message = f"{name} hands the session off to a person; no agent of a framework paused it."
        raise BadUsage(message, "Run the agent again in its session, with the person's answer.")
    if pending := store.requirements(run_id=run.run_id):
        names = ", ".join(f"{r.requirement_id[:8]} ({r.tool_name or r.kind})" for r in pending[:3])
        noun = "requirement" if len(pending) == 1 else "requirements"
        message = f"{name} has {len(pending)} pending {noun}: {names}."
        raise StillWaiting(message, "Resolve them with %kern approve, reject, answer; see %kern inbox.")
