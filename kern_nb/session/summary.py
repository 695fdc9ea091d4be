"""Summaries of sessions, where users of Agno look for them."""

from __future__ import annotations

from kern_nb.records import SessionSummary
from kern_nb.runtime.summaries import SessionSummaryManager

__all__ = ["SessionSummary", "SessionSummaryManager"]
