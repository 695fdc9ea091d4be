"""The events of agents' runs: the values of ``event``, and the class of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kern_nb.events import base


class RunEvent(StrEnum):
    """The values of ``event`` of an agent's events."""

    run_started = "RunStarted"
    run_continued = "RunContinued"
    run_content = "RunContent"
    run_content_completed = "RunContentCompleted"
    run_completed = "RunCompleted"
    run_paused = "RunPaused"
    run_error = "RunError"
    run_cancelled = "RunCancelled"
    tool_call_started = "ToolCallStarted"
    tool_call_completed = "ToolCallCompleted"
    tool_call_error = "ToolCallError"
    reasoning_started = "ReasoningStarted"
    reasoning_content_delta = "ReasoningContentDelta"
    reasoning_completed = "ReasoningCompleted"
    model_request_started = "ModelRequestStarted"
    model_request_completed = "ModelRequestCompleted"
    session_summary_started = "SessionSummaryStarted"
    session_summary_completed = "SessionSummaryCompleted"


@dataclass(kw_only=True, repr=False)
class RunOutputEvent(base.BaseRunOutputEvent):
    """An event of an agent's run."""

    agent_id: str = ""
    agent_name: str = ""


@dataclass(kw_only=True, repr=False)
class RunStartedEvent(RunOutputEvent, base.Started):
    """An agent's run starts."""

    event: str = RunEvent.run_started.value


@dataclass(kw_only=True, repr=False)
class RunContinuedEvent(RunOutputEvent, base.Continued):
    """An agent's run continues."""

    event: str = RunEvent.run_continued.value


@dataclass(kw_only=True, repr=False)
class RunContentEvent(RunOutputEvent, base.Content):
    """The model added text to its answer."""

    event: str = RunEvent.run_content.value


@dataclass(kw_only=True, repr=False)
class RunContentCompletedEvent(RunOutputEvent, base.ContentCompleted):
    """The model's last answer is complete."""

    event: str = RunEvent.run_content_completed.value


@dataclass(kw_only=True, repr=False)
class RunCompletedEvent(RunOutputEvent, base.Completed):
    """An agent's run is completed."""

    event: str = RunEvent.run_completed.value


@dataclass(kw_only=True, repr=False)
class RunPausedEvent(RunOutputEvent, base.Paused):
    """An agent's run waits for a person."""

    event: str = RunEvent.run_paused.value


@dataclass(kw_only=True, repr=False)
class RunErrorEvent(RunOutputEvent, base.Failed):
    """An agent's run ended with an error."""

    event: str = RunEvent.run_error.value


@dataclass(kw_only=True, repr=False)
class RunCancelledEvent(RunOutputEvent, base.Cancelled):
    """An agent's run was cancelled."""

    event: str = RunEvent.run_cancelled.value


@dataclass(kw_only=True, repr=False)
class ToolCallStartedEvent(RunOutputEvent, base.CallStarted):
    """A tool of the agent is about to run."""

    event: str = RunEvent.tool_call_started.value


@dataclass(kw_only=True, repr=False)
class ToolCallCompletedEvent(RunOutputEvent, base.CallCompleted):
    """A tool of the agent has run."""

    event: str = RunEvent.tool_call_completed.value


@dataclass(kw_only=True, repr=False)
class ToolCallErrorEvent(RunOutputEvent, base.CallFailed):
    """A tool of the agent has failed."""

    event: str = RunEvent.tool_call_error.value


@dataclass(kw_only=True, repr=False)
class ReasoningStartedEvent(RunOutputEvent, base.ReasoningStarted):
    """The model starts to reason."""

    event: str = RunEvent.reasoning_started.value


@dataclass(kw_only=True, repr=False)
class ReasoningContentDeltaEvent(RunOutputEvent, base.ReasoningDelta):
    """The model added text to its reasoning."""

    event: str = RunEvent.reasoning_content_delta.value


@dataclass(kw_only=True, repr=False)
class ReasoningCompletedEvent(RunOutputEvent, base.ReasoningEnded):
    """The model's reasoning is complete."""

    event: str = RunEvent.reasoning_completed.value


@dataclass(kw_only=True, repr=False)
class ModelRequestStartedEvent(RunOutputEvent, base.RequestStarted):
    """A request is sent to the model."""

    event: str = RunEvent.model_request_started.value


@dataclass(kw_only=True, repr=False)
class ModelRequestCompletedEvent(RunOutputEvent, base.RequestCompleted):
    """The model has answered a request."""

    event: str = RunEvent.model_request_completed.value


@dataclass(kw_only=True, repr=False)
class SessionSummaryStartedEvent(RunOutputEvent, base.SummaryStarted):
    """The summary of the agent's session is being updated."""

    event: str = RunEvent.session_summary_started.value


@dataclass(kw_only=True, repr=False)
class SessionSummaryCompletedEvent(RunOutputEvent, base.SummaryCompleted):
    """The summary of the agent's session is stored."""

    event: str = RunEvent.session_summary_completed.value
