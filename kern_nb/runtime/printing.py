"""Printing of a run's events: one updated output in a notebook's cell, lines on a terminal."""

from __future__ import annotations

import queue
import sys
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from kern_nb.environment import in_notebook
from kern_nb.events.base import CallCompleted, CallStarted, Completed, Content, Ended
from kern_nb.events.workflow import StepCompletedEvent, StepStartedEvent
from kern_nb.runtime import event_loop
from kern_nb.runtime.events import Emit, Event, ignore
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.run_modes import RunFunction

_UPDATE_S = 0.1
_POLL_S = 0.2


def print_run(work: RunFunction, *, as_it_comes: bool = True) -> None:
    """Run, and print the events in the calling thread: only that of the cell may write to the cell."""
    if not as_it_comes:
        print_ended(event_loop.run(lambda: work(ignore)))
        return
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    emit = printer()

    def forward(future: Future[Run]) -> None:
        while not (future.done() and events.empty()):
            try:
                emit(events.get(timeout=_POLL_S))
            except queue.Empty:
                continue

    event_loop.run(lambda: work(events.put), watch=forward)


def print_ended(run: Run) -> None:
    """Print the calls and the output of a run at once."""
    emit = printer()
    for call in run.tool_calls:
        emit(CallStarted(tool=call))
        if call.status in ("completed", "failed"):
            emit(CallCompleted(tool=call))
    emit(Completed(run=run))


def printer() -> Emit:
    """Return a function that prints the events of one run.

    The view is imported here, because views are above the runtime.
    """
    from kern_nb.views.stream import RunStream

    stream = RunStream()
    screen: _Cell | _Terminal = _Cell() if in_notebook() else _Terminal()

    def emit(event: Event) -> None:
        if isinstance(event, Content):
            stream.add_text(event.content)
        elif isinstance(event, CallStarted) and event.tool is not None:
            stream.add_call(call_id(event), event.tool.tool_name or "", event.tool.args)
        elif isinstance(event, CallCompleted) and event.tool is not None:
            stream.end_call(call_id(event), event.tool.result, failed=event.tool.is_error is True)
        elif isinstance(event, StepStartedEvent):
            stream.add_call(call_id(event), event.step_name or "", {})
        elif isinstance(event, StepCompletedEvent):
            stream.end_call(call_id(event), event.content, failed=False)
        elif isinstance(event, Ended) and event.run is not None:
            stream.end(event.run)
        else:
            return
        screen.show(stream, event)

    return emit


def call_id(event: Event) -> str:
    """Return what identifies the tool call of an event, or the step of a workflow."""
    tool = getattr(event, "tool", None)
    return (event.step_id if tool is None else tool.tool_call_id) or ""


class _Cell:
    """One output of a cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated_at = 0.0

    def show(self, stream: Any, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Content) and now - self._updated_at < _UPDATE_S:
            return
        self._updated_at = now
        from IPython.display import display

        from kern_nb.views.stream import stream_html, stream_text

        bundle = {"text/html": stream_html(stream), "text/plain": stream_text(stream)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


class _Terminal:
    """Lines of a terminal, written once."""

    def __init__(self) -> None:
        self._column = 0
        self._has_text = False

    def show(self, stream: Any, event: Event) -> None:
        if isinstance(event, Content):
            self._has_text = True
            self._write(formatting.escape_controls(event.content))
        elif isinstance(event, CallCompleted | StepCompletedEvent):
            self._line(stream.call_line(call_id(event)))
        elif isinstance(event, Ended) and event.run is not None:
            if not self._has_text and (text := stream.unstreamed()):
                self._line(formatting.escape_controls(text))
            for line in stream.closing(event.run):
                self._line(line)
            if self._column:
                self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._column = 0 if text.endswith("\n") else self._column + len(text)

    def _line(self, text: str) -> None:
        self._write(("\n" if self._column else "") + text + "\n")
