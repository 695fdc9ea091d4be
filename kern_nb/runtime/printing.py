"""Printing of a run's events: one updated output in a notebook's cell, lines on a terminal."""

from __future__ import annotations

import queue
import sys
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from kern_nb.environment import in_notebook
from kern_nb.runtime import event_loop
from kern_nb.runtime.events import CallEnded, CallStarted, Emit, Ended, Event, Text
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.session_owner import RunFunction

_UPDATE_S = 0.1
_POLL_S = 0.2


def print_run(work: RunFunction) -> None:
    """Run, and print the events in the calling thread: only that of the cell may write to the cell."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    emit = printer()

    def forward(future: Future[Run]) -> None:
        while not (future.done() and events.empty()):
            try:
                emit(events.get(timeout=_POLL_S))
            except queue.Empty:
                continue

    event_loop.run(lambda: work(events.put), watch=forward)


def printer() -> Emit:
    """Return a function that prints the events of one run.

    The view is imported here, because views are above the runtime.
    """
    from kern_nb.views.stream import RunStream

    stream = RunStream()
    screen: _Cell | _Terminal = _Cell() if in_notebook() else _Terminal()

    def emit(event: Event) -> None:
        if isinstance(event, Text):
            stream.add_text(event.delta)
        elif isinstance(event, CallStarted):
            stream.add_call(event.tool_call_id, event.tool_name, event.args)
        elif isinstance(event, CallEnded):
            stream.end_call(event.tool_call_id, event.result, failed=event.is_error)
        elif isinstance(event, Ended):
            stream.end(event.run)
        screen.show(stream, event)

    return emit


class _Cell:
    """One output of a cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated_at = 0.0

    def show(self, stream: Any, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Text) and now - self._updated_at < _UPDATE_S:
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
        if isinstance(event, Text):
            self._has_text = True
            self._write(formatting.escape_controls(event.delta))
        elif isinstance(event, CallEnded):
            self._line(stream.call_line(event.tool_call_id))
        elif isinstance(event, Ended):
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
