"""The events of teams' runs: the values of ``event``, and the class of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kern_nb.events import base


class TeamRunEvent(StrEnum):
    """The values of ``event`` of a team's events."""

    run_started = "TeamRunStarted"
    run_continued = "TeamRunContinued"
    run_content = "TeamRunContent"
    run_content_completed = "TeamRunContentCompleted"
    run_completed = "TeamRunCompleted"
    run_paused = "TeamRunPaused"
    run_error = "TeamRunError"
    run_cancelled = "TeamRunCancelled"
    tool_call_started = "TeamToolCallStarted"
    tool_call_completed = "TeamToolCallCompleted"
    tool_call_error = "TeamToolCallError"
    reasoning_started = "TeamReasoningStarted"
    reasoning_content_delta = "TeamReasoningContentDelta"
    reasoning_completed = "TeamReasoningCompleted"
    model_request_started = "TeamModelRequestStarted"
    model_request_completed = "TeamModelRequestCompleted"
    session_summary_started = "TeamSessionSummaryStarted"
    session_summary_completed = "TeamSessionSummaryCompleted"


@dataclass(kw_only=True, repr=False)
class TeamRunOutputEvent(base.BaseRunOutputEvent):
    """An event of a team's run."""

    team_id: str = ""
    team_name: str = ""


@dataclass(kw_only=True, repr=False)
class RunStartedEvent(TeamRunOutputEvent, base.Started):
    """A team's run starts."""

    event: str = TeamRunEvent.run_started.value


@dataclass(kw_only=True, repr=False)
class RunContinuedEvent(TeamRunOutputEvent, base.Continued):
    """A team's run continues."""

    event: str = TeamRunEvent.run_continued.value


@dataclass(kw_only=True, repr=False)
class RunContentEvent(TeamRunOutputEvent, base.Content):
    """The leader added text to its answer."""

    event: str = TeamRunEvent.run_content.value


@dataclass(kw_only=True, repr=False)
class RunContentCompletedEvent(TeamRunOutputEvent, base.ContentCompleted):
    """The leader's last answer is complete."""

    event: str = TeamRunEvent.run_content_completed.value


@dataclass(kw_only=True, repr=False)
class RunCompletedEvent(TeamRunOutputEvent, base.Completed):
    """A team's run is completed."""

    event: str = TeamRunEvent.run_completed.value


@dataclass(kw_only=True, repr=False)
class RunPausedEvent(TeamRunOutputEvent, base.Paused):
    """A team's run waits for a person."""

    event: str = TeamRunEvent.run_paused.value


@dataclass(kw_only=True, repr=False)
class RunErrorEvent(TeamRunOutputEvent, base.Failed):
    """A team's run ended with an error."""

    event: str = TeamRunEvent.run_error.value


@dataclass(kw_only=True, repr=False)
class RunCancelledEvent(TeamRunOutputEvent, base.Cancelled):
    """A team's run was cancelled."""

    event: str = TeamRunEvent.run_cancelled.value


@dataclass(kw_only=True, repr=False)
class ToolCallStartedEvent(TeamRunOutputEvent, base.CallStarted):
    """A tool of the team is about to run."""

    event: str = TeamRunEvent.tool_call_started.value


@dataclass(kw_only=True, repr=False)
class ToolCallCompletedEvent(TeamRunOutputEvent, base.CallCompleted):
    """A tool of the team has run."""

    event: str = TeamRunEvent.tool_call_completed.value


@dataclass(kw_only=True, repr=False)
class ToolCallErrorEvent(TeamRunOutputEvent, base.CallFailed):
    """A tool of the team has failed."""

    event: str = TeamRunEvent.tool_call_error.value


@dataclass(kw_only=True, repr=False)
class ReasoningStartedEvent(TeamRunOutputEvent, base.ReasoningStarted):
    """The leader starts to reason."""

    event: str = TeamRunEvent.reasoning_started.value


@dataclass(kw_only=True, repr=False)
class ReasoningContentDeltaEvent(TeamRunOutputEvent, base.ReasoningDelta):
    """The leader added text to its reasoning."""

    event: str = TeamRunEvent.reasoning_content_delta.value


@dataclass(kw_only=True, repr=False)
class ReasoningCompletedEvent(TeamRunOutputEvent, base.ReasoningEnded):
    """The leader's reasoning is complete."""

    event: str = TeamRunEvent.reasoning_completed.value


@dataclass(kw_only=True, repr=False)
class ModelRequestStartedEvent(TeamRunOutputEvent, base.RequestStarted):
    """A request is sent to the leader."""

    event: str = TeamRunEvent.model_request_started.value


@dataclass(kw_only=True, repr=False)
class ModelRequestCompletedEvent(TeamRunOutputEvent, base.RequestCompleted):
    """The leader has answered a request."""

    event: str = TeamRunEvent.model_request_completed.value


@dataclass(kw_only=True, repr=False)
class SessionSummaryStartedEvent(TeamRunOutputEvent, base.SummaryStarted):
    """The summary of the team's session is being updated."""

    event: str = TeamRunEvent.session_summary_started.value


@dataclass(kw_only=True, repr=False)
class SessionSummaryCompletedEvent(TeamRunOutputEvent, base.SummaryCompleted):
    """The summary of the team's session is stored."""

    event: str = TeamRunEvent.session_summary_completed.value
