"""A run under way, as a chat shows it: what was said so far, and what comes, told to the script in batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kern_nb.records import ToolCall
from kern_nb.runtime.events import CallEnded, CallStarted, Event, Started, Text
from kern_nb.text import formatting
from kern_nb.views.transcript import call_line
from kern_nb.widgets.base import key_of

if TYPE_CHECKING:
    from kern_nb.runtime.background import Live

EVERY_S = 0.08
"""So often at most the script is told of something new."""

_SHOWN = 1_200


class Talk:
    """What is said in a run until it ends.

    The script gets steps, numbered without gaps: it knows when it has missed one, and asks for the whole then.

    Args:
        tell: Sends the script a message; called in the runs' thread.
        asked: What was said to the agent; empty where a run is gone on with.
        before: The run that is gone on with, as the script shows it meanwhile.

    Attributes:
        run_id: The run, once it is stored.
        live: The run's handle, to stop it.
    """

    def __init__(
        self, tell: Callable[[dict[str, Any]], None], asked: str = "", before: dict[str, Any] | None = None
    ) -> None:
        self.asked = asked
        self.before = before
        self.run_id: str | None = None
        self.live: Live | None = None
        self.is_stopping = False
        self._tell = tell
        self._lock = threading.Lock()
        self._parts: list[dict[str, Any]] = []
        self._calls: dict[str, ToolCall] = {}
        self._steps: list[dict[str, Any]] = []
        self._number = 0
        self._told_at = 0.0
        self._is_due = False
        self._half = ""

    def view(self) -> dict[str, Any]:
        """All that was said so far; ``next`` is the number of the step that comes."""
        with self._lock:
            return {
                "asked": formatting.escape_controls(self.asked),
                "on": None if self.before is None else self.before["key"],
                "run": None if self.run_id is None else key_of(self.run_id),
                "parts": [dict(part) for part in self._parts],
                "next": self._number + len(self._steps),
                "stopping": self.is_stopping,
            }

    def emit(self, event: Event) -> None:
        """Something happened; called in the runs' thread."""
        with self._lock:
            self._take(event)
            soon = self._told_at + EVERY_S - time.monotonic()
            if soon > 0 and (self._is_due or not self._later(soon)):
                return
        self.pass_on()

    def _later(self, seconds: float) -> bool:
        """Pass on in a moment; whether it has to be done at once, as there is no loop here."""
        try:
            asyncio.get_running_loop().call_later(seconds, self.pass_on)
        except RuntimeError:
            return True
        self._is_due = True
        return False

    def pass_on(self) -> None:
        """Tell the script what it was not told yet."""
        with self._lock:
            self._is_due = False
            steps, self._steps = self._steps, []
            first, self._number = self._number, self._number + len(steps)
            self._told_at = time.monotonic()
        if steps:
            self._tell({"event": "said", "first": first, "steps": steps})

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            self.run_id = event.run.run_id
        elif isinstance(event, Text):
            self._add_text(event.delta)
        elif isinstance(event, CallStarted):
            call = ToolCall(tool_call_id=event.tool_call_id, tool_name=event.tool_name, status="started")
            call.args = event.args
            self._calls[event.tool_call_id] = call
            self._add({"kind": "call", **_told(call)})
        elif isinstance(event, CallEnded) and event.tool_call_id in self._calls:
            call = self._calls[event.tool_call_id]
            call.status, call.result = "failed" if event.is_error else "completed", event.result
            for part in self._parts:
                if part.get("id") == _told(call)["id"]:
                    part.update(_told(call))
            self._steps.append({"kind": "ended", **_told(call)})

    def _add_text(self, delta: str) -> None:
        text = self._half + delta
        self._half = "\r" if text.endswith("\r") else ""  # its line feed comes with the next piece
        text = formatting.escape_controls(text.removesuffix("\r"))
        last = self._parts[-1] if self._parts else {}
        if last.get("kind") == "text":
            last["text"] += text
        else:
            self._parts.append({"kind": "text", "text": text})
        if self._steps and self._steps[-1]["kind"] == "text":
            self._steps[-1]["text"] += text
        else:
            self._steps.append({"kind": "text", "text": text})

    def _add(self, part: dict[str, Any]) -> None:
        self._parts.append(part)
        self._steps.append(dict(part))


def _told(call: ToolCall) -> dict[str, Any]:
    told: dict[str, Any] = {"id": key_of(call.tool_call_id or ""), "line": formatting.single_line(call_line(call))}
    for name, value in (("args", call.args), ("result", call.result)):
        text = formatting.format_value(value)
        left = max(0, len(text) - _SHOWN)
        told[name] = None if value is None else {"text": formatting.escape_controls(text[:_SHOWN]), "left": left}
    return told
