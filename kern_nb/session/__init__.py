"""Sessions, where users of Agno look for them: one `Session` for agents, teams and workflows; and their summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.records import Session, SessionSummary
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.session.agent import AgentSession
    from kern_nb.session.team import TeamSession
    from kern_nb.session.workflow import WorkflowSession

__all__ = ["AgentSession", "Session", "SessionSummary", "SessionSummaryManager", "TeamSession", "WorkflowSession"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.records": ["Session", "SessionSummary"],
        "kern_nb.runtime.summaries": ["SessionSummaryManager"],
        "kern_nb.session.agent": ["AgentSession"],
        "kern_nb.session.team": ["TeamSession"],
        "kern_nb.session.workflow": ["WorkflowSession"],
    },
)
