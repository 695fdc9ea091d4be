"""A run in progress in a chat: its output so far, sent to the script in batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kern_nb.events.base import CallCompleted, CallStarted, Content, Continued, Started
from kern_nb.events.workflow import StepCompletedEvent, StepStartedEvent
from kern_nb.records import ToolCall
from kern_nb.runtime.events import Event
from kern_nb.runtime.printing import call_id
from kern_nb.text import formatting
from kern_nb.views.transcript import call_line
from kern_nb.widgets.base import encode_key
from kern_nb.widgets.transcript_data import clip_values

if TYPE_CHECKING:
    from kern_nb.runtime.background import BackgroundRun

INTERVAL_S = 0.08  # the shortest time between two messages to the script


class LiveRun:
    """Collect the output of a run until it ends.

    The script receives steps, numbered without gaps, so that it notices a missing one and requests the whole view.

    Args:
        tell: Sends a message to the script; called in the thread of the runs.
        prompt: The input of the run; empty for a resumed run.
        before: A resumed run as it was shown before, for the script to show meanwhile.

    Attributes:
        run_id: The id of the run, once it is stored.
        handle: The handle of the background run, to stop it.
    """

    def __init__(
        self, tell: Callable[[dict[str, Any]], None], prompt: str = "", before: dict[str, Any] | None = None
    ) -> None:
        self.prompt = prompt
        self.before = before
        self.run_id: str | None = None
        self.handle: BackgroundRun | None = None
        self.is_stopping = False
        self._tell = tell
        self._lock = threading.Lock()
        self._parts: list[dict[str, Any]] = []
        self._calls: dict[str, ToolCall] = {}
        self._steps: list[dict[str, Any]] = []
        self._number = 0
        self._sent_at = 0.0
        self._is_scheduled = False
        self._carriage_return = ""

    def view(self) -> dict[str, Any]:
        """Return the whole output so far; ``next`` is the number of the next step."""
        with self._lock:
            return {
                "asked": formatting.escape_controls(self.prompt),
                "on": None if self.before is None else self.before["key"],
                "run": None if self.run_id is None else encode_key(self.run_id),
                "parts": [dict(part) for part in self._parts],
                "next": self._number + len(self._steps),
                "stopping": self.is_stopping,
            }

    def emit(self, event: Event) -> None:
        """Handle an event of the run; called in the thread of the runs."""
        with self._lock:
            self._handle(event)
            delay = self._sent_at + INTERVAL_S - time.monotonic()
            if delay > 0 and (self._is_scheduled or self._schedule(delay)):
                return
        self.flush()

    def _schedule(self, seconds: float) -> bool:
        """Schedule a flush; return whether that was possible, which needs an event loop in this thread."""
        try:
            asyncio.get_running_loop().call_later(seconds, self.flush)
        except RuntimeError:
            return False
        self._is_scheduled = True
        return True

    def flush(self) -> None:
        """Send the script all new steps."""
        with self._lock:
            self._is_scheduled = False
            steps, self._steps = self._steps, []
            first, self._number = self._number, self._number + len(steps)
            self._sent_at = time.monotonic()
        if steps:
            self._tell({"event": "said", "first": first, "steps": steps})

    def _handle(self, event: Event) -> None:
        if isinstance(event, Started | Continued):
            self.run_id = event.run_id
        elif isinstance(event, Content):
            self._add_text(event.content)
        elif isinstance(event, CallStarted) and event.tool is not None:
            self._add_call(event.tool.model_copy())
        elif isinstance(event, StepStartedEvent):
            step = ToolCall(tool_call_id=call_id(event), tool_name=event.step_name, args={}, status="started")
            self._add_call(step)
        elif isinstance(event, CallCompleted | StepCompletedEvent) and call_id(event) in self._calls:
            call = self._calls[call_id(event)]
            if isinstance(event, CallCompleted) and event.tool is not None:
                call.status, call.result = event.tool.status, event.tool.result
            else:
                call.status, call.result = "completed", event.content
            item = _call_item(call)
            for part in self._parts:
                if part.get("id") == item["id"]:
                    part.update(item)
            self._steps.append({"kind": "ended", **item})

    def _add_call(self, call: ToolCall) -> None:
        self._calls[call.tool_call_id or ""] = call
        part = {"kind": "call", **_call_item(call)}
        self._parts.append(part)
        self._steps.append(dict(part))

    def _add_text(self, delta: str) -> None:
        text = self._carriage_return + delta
        self._carriage_return = "\r" if text.endswith("\r") else ""  # its line feed comes with the next delta
        text = formatting.escape_controls(text.removesuffix("\r"))
        for parts in (self._parts, self._steps):
            if parts and parts[-1]["kind"] == "text":
                parts[-1]["text"] += text
            else:
                parts.append({"kind": "text", "text": text})


def _call_item(call: ToolCall) -> dict[str, Any]:
    line = formatting.single_line(call_line(call))
    return {"id": encode_key(call.tool_call_id or ""), "line": line, **clip_values(call)}
