"""Runs and their events, under the names that scripts import: ``from kern_nb.run.agent import RunEvent``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.run.agent import RunEvent, RunOutput, RunOutputEvent
    from kern_nb.run.base import BaseRunOutputEvent, RunStatus
    from kern_nb.run.team import TeamRunEvent, TeamRunOutput, TeamRunOutputEvent
    from kern_nb.run.workflow import WorkflowRunEvent, WorkflowRunOutput, WorkflowRunOutputEvent
    from kern_nb.runtime.context import RunContext

__all__ = [
    "BaseRunOutputEvent",
    "RunContext",
    "RunEvent",
    "RunOutput",
    "RunOutputEvent",
    "RunStatus",
    "TeamRunEvent",
    "TeamRunOutput",
    "TeamRunOutputEvent",
    "WorkflowRunEvent",
    "WorkflowRunOutput",
    "WorkflowRunOutputEvent",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.run.agent": ["RunEvent", "RunOutput", "RunOutputEvent"],
        "kern_nb.run.base": ["BaseRunOutputEvent", "RunStatus"],
        "kern_nb.run.team": ["TeamRunEvent", "TeamRunOutput", "TeamRunOutputEvent"],
        "kern_nb.run.workflow": ["WorkflowRunEvent", "WorkflowRunOutput", "WorkflowRunOutputEvent"],
        "kern_nb.runtime.context": ["RunContext"],
    },
)
