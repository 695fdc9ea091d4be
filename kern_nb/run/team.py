"""Runs of teams: their events, `TeamRunEvent` with the values of ``event``, and the run itself."""

from __future__ import annotations

from kern_nb.events.team import (
    ModelRequestCompletedEvent,
    ModelRequestStartedEvent,
    ReasoningCompletedEvent,
    ReasoningContentDeltaEvent,
    ReasoningStartedEvent,
    RunCancelledEvent,
    RunCompletedEvent,
    RunContentCompletedEvent,
    RunContentEvent,
    RunContinuedEvent,
    RunErrorEvent,
    RunPausedEvent,
    RunStartedEvent,
    SessionSummaryCompletedEvent,
    SessionSummaryStartedEvent,
    TeamRunEvent,
    TeamRunOutputEvent,
    ToolCallCompletedEvent,
    ToolCallErrorEvent,
    ToolCallStartedEvent,
)
from kern_nb.records import Run as TeamRunOutput
from kern_nb.run.base import RunStatus

__all__ = [
    "ModelRequestCompletedEvent",
    "ModelRequestStartedEvent",
    "ReasoningCompletedEvent",
    "ReasoningContentDeltaEvent",
    "ReasoningStartedEvent",
    "RunCancelledEvent",
    "RunCompletedEvent",
    "RunContentCompletedEvent",
    "RunContentEvent",
    "RunContinuedEvent",
    "RunErrorEvent",
    "RunPausedEvent",
    "RunStartedEvent",
    "RunStatus",
    "SessionSummaryCompletedEvent",
    "SessionSummaryStartedEvent",
    "TeamRunEvent",
    "TeamRunOutput",
    "TeamRunOutputEvent",
    "ToolCallCompletedEvent",
    "ToolCallErrorEvent",
    "ToolCallStartedEvent",
]
