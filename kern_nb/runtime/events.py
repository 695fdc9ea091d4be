"""What happens in a run, as it is told to whoever watches: a cell that streams, a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kern_nb.records import Run


@dataclass(frozen=True)
class Started:
    """The run is stored, and the model will be called."""

    run: Run


@dataclass(frozen=True)
class Text:
    """The model said more of its answer."""

    delta: str


@dataclass(frozen=True)
class CallStarted:
    """A tool is called."""

    tool_call_id: str
    tool_name: str
    args: Any


@dataclass(frozen=True)
class CallEnded:
    """A tool gave its result, or failed."""

    tool_call_id: str
    tool_name: str
    result: Any
    is_error: bool


@dataclass(frozen=True)
class Ended:
    """The run ended or paused; this is how it is stored."""

    run: Run


Event = Started | Text | CallStarted | CallEnded | Ended
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Nobody watches."""
