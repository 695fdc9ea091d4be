"""`cancel_run` in the process that makes the run: its task is cancelled, and the run is returned as CANCELLED."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kern_nb.db import SessionStore, cancel_signals, cancellations
from kern_nb.records import Run

_CHECK_S = 0.5
"""The least time between two looks for a request of another process."""

_current: ContextVar[Cancellation | None] = ContextVar("kern_nb_cancellation", default=None)


class Cancellation:
    """Whether the current run, which may have members, is to be cancelled.

    Attributes:
        is_requested: Whether somebody has asked for it.
    """

    def __init__(self, store: SessionStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._next_check = time.monotonic() + _CHECK_S
        self._is_active = True
        self.is_requested = False

    def request(self) -> None:
        """Cancel the run; from any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        """Cancel the task, in its own thread: it may go on to other work of its caller once the run has ended."""
        if self._is_active and self._task is not None and not self.is_requested:
            self.is_requested = True
            self._task.cancel()

    def check(self) -> None:
        """Look for a request of another process, if the last look was some time ago."""
        now = time.monotonic()
        if now >= self._next_check and not self.is_requested:
            self._next_check = now + _CHECK_S
            if cancellations.is_requested(self._store, self._run_id):
                self.request()

    def end(self) -> bool:
        """Accept no more requests; returns whether a request alone, not the caller, has cancelled the task."""
        was_active, self._is_active = self._is_active, False
        return was_active and self.is_requested and self._task is not None and self._task.uncancel() == 0


@contextmanager
def cancellable(store: SessionStore, run: Run) -> Iterator[Cancellation]:
    """Let `cancel_run` cancel the current task while it makes a run; the run of a member or a step ends with it."""
    cancellation = Cancellation(store, run.run_id)
    if run.parent_run_id is not None:
        yield cancellation
        return
    token = _current.set(cancellation)
    try:
        with cancel_signals.listening(run.run_id, cancellation.request):
            yield cancellation
    finally:
        _current.reset(token)


def check() -> None:
    """Look for a request to cancel the current run, if there is one; called after each write."""
    cancellation = _current.get()
    if cancellation is not None:
        cancellation.check()


def is_requested() -> bool:
    """Whether somebody asks to cancel the current run, or that of its leader."""
    cancellation = _current.get()
    return cancellation is not None and cancellation.is_requested


def end_paused(store: SessionStore, run_id: str) -> None:
    """Cancel a run that has paused, if that was requested while it was running."""
    if cancellations.is_requested(store, run_id):
        store.cancel_run(run_id)
