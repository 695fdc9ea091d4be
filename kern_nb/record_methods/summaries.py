"""The stored summary of a session as a record: `SessionSummaryManager` writes it, other frameworks, too."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kern_nb.records import SessionSummary


def summary_coverage(summary: dict[str, Any]) -> tuple[int, list[int]]:
    """Return the last run that a summary covers, or -1, and earlier runs that had not ended."""
    last, unfinished = summary.get("last_run_index"), summary.get("unfinished_runs")
    if not isinstance(last, int) or not isinstance(summary.get("summary"), str):
        last = -1
    return last, (unfinished if isinstance(unfinished, list) else [])


def stored_summary(session_id: str, summary: dict[str, Any] | None) -> SessionSummary | None:
    """Return the stored summary of a session as a record; None without one."""
    return summary_record(session_id, summary) if summary and isinstance(summary.get("summary"), str) else None


def summary_record(session_id: str, summary: dict[str, Any]) -> SessionSummary:
    """Return a summary, which has a text, as a record."""
    from kern_nb.records import SessionSummary

    last, _ = summary_coverage(summary)
    model, time = summary.get("model"), summary.get("updated_at")
    updated_at = None
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):  # a value of another framework
        if isinstance(time, str):
            updated_at = datetime.fromisoformat(time)
        elif time:
            updated_at = datetime.fromtimestamp(time, UTC)
    return SessionSummary(
        summary=summary["summary"],
        topics=summary_topics(summary),
        updated_at=updated_at,
        session_id=session_id,
        last_run_index=None if last < 0 else last,
        model=model if isinstance(model, str) else None,
    )


def summary_topics(summary: dict[str, Any]) -> list[str]:
    """Return the topics of a summary, a list or a text with commas."""
    topics = summary.get("topics")
    topics = topics.split(",") if isinstance(topics, str) else topics
    return [topic.strip() for topic in topics if isinstance(topic, str)] if isinstance(topics, list) else []
