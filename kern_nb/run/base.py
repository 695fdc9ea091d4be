"""What all runs have in common: the base of their events, and their status."""

from __future__ import annotations

from enum import StrEnum

from kern_nb.events.base import BaseRunOutputEvent

__all__ = ["BaseRunOutputEvent", "RunStatus"]


class RunStatus(StrEnum):
    """The values of a run's ``status``, which is a text.

    Example:
        >>> from kern_nb.records import Run
        >>> Run(status="PAUSED").status == RunStatus.paused
        True
    """

    pending = "PENDING"
    running = "RUNNING"
    paused = "PAUSED"
    completed = "COMPLETED"
    cancelled = "CANCELLED"
    error = "ERROR"
    regenerated = "REGENERATED"
    interrupted = "INTERRUPTED"
