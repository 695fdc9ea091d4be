"""What the engine knows of an agent, a team or a workflow, as a snapshot at the start of a run, and of the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent as PydanticAgent

from kern_nb.records import Run
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.events import EventOptions
from kern_nb.runtime.history import HistoryOptions
from kern_nb.runtime.model_retries import RetryOptions
from kern_nb.runtime.recorder import Storage
from kern_nb.runtime.structured_output import OutputSchema
from kern_nb.runtime.summaries import SessionSummaryManager
from kern_nb.runtime.tools import Tool


@dataclass(frozen=True)
class OwnerSettings:
    """Settings that agents, teams and workflows share. A workflow has no others: its steps are read from it.

    Attributes:
        owner: The agent, team or workflow: `RunContext.agent`.
        owner_fields: Its kind, id and configuration, as parameters of `SessionStore.start_run`.
        default_state: The state of a new session, and of keys that a stored one lacks.
        metadata: Keys of the session's metadata, where it lacks them, and of the run's.
        overwrite_state: Whether the caller's state replaces the stored one.
        timeout_s: The maximum duration of a run in seconds.
        events: What happens to the events of its runs.
    """

    owner: Any
    owner_fields: dict[str, Any]
    default_state: dict[str, Any]
    metadata: dict[str, Any]
    overwrite_state: bool
    timeout_s: float | None
    events: EventOptions


@dataclass(frozen=True)
class AgentSettings(OwnerSettings):
    """Settings of an agent or a team.

    Attributes:
        model: A name, a model object, or None for the default.
        has_toolsets: Whether some tools are known only in a run, like those of an MCP server.
        has_static_instructions: Whether the instructions are known before the run starts.
        retries: How often the model may repeat an invalid call or answer, and a failed request is sent again.
        output: The schema of the answers; None for text.
        add_session_state: Whether the system message ends with the session state.
        load_instructions: Returns the instructions; None as its argument stands for a run that has not started.
        resolve_in_context: Whether placeholders in instructions and input are filled in from the session state.
        load_member_results: Returns the results that members' runs have for pending calls; None if a member is paused.
    """

    model: Any
    max_requests: int | None
    pydantic_agent: PydanticAgent[RunContext, Any]
    tools: Mapping[str, Tool]
    has_toolsets: bool
    storage: Storage
    history: HistoryOptions
    summaries: SessionSummaryManager
    has_static_instructions: bool
    retries: RetryOptions
    output: OutputSchema | None
    add_session_state: bool
    load_instructions: Callable[[RunContext | None], Awaitable[str | None]]
    resolve_in_context: bool
    load_member_results: Callable[[Run, RunContext], Awaitable[dict[str, Any] | None]]


@dataclass(frozen=True)
class Request:
    """A run to be made.

    Attributes:
        prompt: The input: a text, or texts and files.
        user_id: The owner of the session.
        session_state: The caller's session state.
        parent: The run that makes this one, and shares its state.
        extra: What is stored with the run.
    """

    prompt: Any
    session_id: str
    user_id: str | None
    session_state: dict[str, Any]
    parent: RunContext | None
    extra: dict[str, Any]
