"""The events of a run, for a cell that streams or a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kern_nb.records import Run


@dataclass(frozen=True)
class Started:
    """The run is stored, and the model is called next."""

    run: Run


@dataclass(frozen=True)
class Text:
    """The model added text to its answer."""

    delta: str


@dataclass(frozen=True)
class CallStarted:
    """A tool call starts."""

    tool_call_id: str
    tool_name: str
    args: Any


@dataclass(frozen=True)
class CallEnded:
    """A tool call ended, with a result or an error."""

    tool_call_id: str
    tool_name: str
    result: Any
    is_error: bool


@dataclass(frozen=True)
class Ended:
    """The run ended or paused, and is stored like this."""

    run: Run


Event = Started | Text | CallStarted | CallEnded | Ended
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Ignore an event."""
