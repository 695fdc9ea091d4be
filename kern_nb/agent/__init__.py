"""Agents, and what their users import with them: tools, the context of a run, summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.agent.agent import Agent
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.runtime.tools import Tool, handoff, tool

__all__ = ["Agent", "RunContext", "SessionSummaryManager", "Tool", "handoff", "tool"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.agent.agent": ["Agent"],
        "kern_nb.runtime.context": ["RunContext"],
        "kern_nb.runtime.summaries": ["SessionSummaryManager"],
        "kern_nb.runtime.tools": ["Tool", "handoff", "tool"],
    },
)
