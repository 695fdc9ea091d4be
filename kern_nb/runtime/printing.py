"""What a run says, shown as it is said: updated in the cell of a notebook, written to the terminal elsewhere."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol

from kern_nb.environment import in_notebook
from kern_nb.runtime.events import CallEnded, CallStarted, Emit, Ended, Event, Text
from kern_nb.text import formatting
from kern_nb.views.stream import Said, said_html, said_text

_EVERY_S = 0.1
_PATIENCE_S = 0.2


class Relay:
    """Events from the loop's thread to the thread that shows them: only the cell's own may write to the cell."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Called in the loop's thread."""
        self._events.put(event)

    def pass_on(self, future: Future[Any], emit: Emit) -> None:
        """Show what comes until the run has ended."""
        while not (future.done() and self._events.empty()):
            try:
                emit(self._events.get(timeout=_PATIENCE_S))
            except queue.Empty:
                continue


class _Screen(Protocol):
    def show(self, said: Said, event: Event) -> None:
        """Bring it up to date."""


@contextmanager
def printer() -> Iterator[Emit]:
    """Shows the events it is given."""
    said = Said()
    screen: _Screen = _Cell() if in_notebook() else _Terminal()

    def emit(event: Event) -> None:
        if isinstance(event, Text):
            said.add_text(event.delta)
        elif isinstance(event, CallStarted):
            said.add_call(event.tool_call_id, event.tool_name, event.args)
        elif isinstance(event, CallEnded):
            said.end_call(event.tool_call_id, event.result, failed=event.is_error)
        elif isinstance(event, Ended):
            said.end(event.run)
        screen.show(said, event)

    yield emit


class _Cell:
    """One output of a cell, written over."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = 0.0

    def show(self, said: Said, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Text) and now - self._shown < _EVERY_S:
            return
        self._shown = now
        from IPython.display import display

        bundle = {"text/html": said_html(said), "text/plain": said_text(said)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


class _Terminal:
    """Lines of a terminal; what was written stays."""

    def __init__(self) -> None:
        self._column = 0
        self._has_text = False

    def show(self, said: Said, event: Event) -> None:
        if isinstance(event, Text):
            self._has_text = True
            self._write(formatting.visible(event.delta))
        elif isinstance(event, CallEnded):
            self._line(said.call_line(event.tool_call_id))
        elif isinstance(event, Ended):
            if not self._has_text and (text := said.unstreamed()):
                self._line(formatting.visible(text))
            for line in said.closing(event.run):
                self._line(line)
            if self._column:
                self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._column = 0 if text.endswith("\n") else self._column + len(text)

    def _line(self, text: str) -> None:
        self._write(("\n" if self._column else "") + text + "\n")
