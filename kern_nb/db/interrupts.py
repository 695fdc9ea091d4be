"""Run calls that Ctrl-C must not split.

Python raises `KeyboardInterrupt` between any two instructions of the main thread, and in no other. A call that acquires
and releases a lock or a connection therefore runs in a worker thread on behalf of the main thread, which only waits. An
interrupt reaches the caller at once where the call can be stopped, and never leaves the call half done.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_RETRY_S = 0.02
# A signal ends a wait at once, except on Windows and where `_thread.interrupt_main` replaces it.
_WAIT_S = 0.1


class _Job:
    """A call and its outcome."""

    __slots__ = ("cancelled", "done", "error", "finished", "interrupt", "result", "work")

    def __init__(self, work: Callable[[], Any], interrupt: Callable[[], None] | None) -> None:
        self.work: Callable[[], Any] | None = work
        self.interrupt = interrupt
        self.cancelled = self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        """Run the call once, unless its caller was interrupted before it started."""
        if self.finished:
            return
        work, self.work = self.work, None
        try:
            if not self.cancelled and work is not None:
                self.result = work()
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            self.error = error
        finally:
            self.finished = True
            self.done.release()

    def stop(self) -> None:
        """Interrupt the call and wait for its end; a second Ctrl-C ends the wait."""
        self.cancelled = self.interrupt is not None
        _worker.submit(self)  # again: the interrupt may have come before it was queued
        while not self.finished:
            if self.interrupt is not None:
                self.interrupt()  # repeatedly: an interrupt before the statement has no effect
            self.done.acquire(timeout=_RETRY_S)


class _Worker:
    """The thread that runs calls for the main thread, started at first use."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.current: _Job | None = None
        self.ended = False
        self._thread: threading.Thread | None = None
        self._running = threading.Lock()

    def submit(self, job: _Job) -> None:
        """Run a job after those submitted before."""
        if self._thread is None or not self._thread.is_alive():
            # An interrupt within `start` may cause a second thread, which then waits for the end of the first.
            self._thread = threading.Thread(target=self._loop, name="kern_nb signals", daemon=True)
            self._thread.start()
        self.jobs.put(job)

    def _loop(self) -> None:
        with self._running:
            while (job := self.jobs.get()) is not None:
                self.current = job
                job.run()
                self.current = job = None

    def shut_down(self, timeout: float) -> None:
        """Stop the call that an interrupted caller left running, and end the thread."""
        self.ended = True
        if self._thread is None or not self._thread.is_alive():
            return
        self.jobs.put(None)
        for _ in range(int(timeout / _RETRY_S)):
            self._thread.join(_RETRY_S)
            if not self._thread.is_alive():
                break
            job = self.current
            if job is not None and job.interrupt is not None:
                with contextlib.suppress(Exception):
                    job.interrupt()


_worker = _Worker()


def run(work: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
    """Run a call so that no signal splits it; directly where no signal can.

    Args:
        work: The call. It must not wait for the main thread.
        interrupt: Makes a running call end early; called from the main thread, possibly several times. Without it, an
            interrupted caller waits until the call has ended.

    Returns:
        The result of the call.

    Raises:
        KeyboardInterrupt: Ctrl-C, or whatever a signal handler raises. The call has then ended, or a second Ctrl-C came
            before its end. Its result is dropped.
    """
    if threading.current_thread() is not threading.main_thread() or _worker.ended:
        return work()
    job = _Job(work, interrupt)
    try:
        _worker.submit(job)
        while not job.done.acquire(timeout=_WAIT_S):
            pass
    except BaseException:
        job.stop()
        raise
    try:
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result
    finally:
        del job  # its error refers to this frame


def submit(work: Callable[[], None]) -> None:
    """Run a call like `run` without waiting for its end: it runs before later calls."""
    if threading.current_thread() is not threading.main_thread() or _worker.ended:
        work()
    else:
        _worker.submit(_Job(work, None))


def shut_down(timeout: float) -> None:
    """Stop the worker when Python exits; from now on all calls run directly."""
    _worker.shut_down(timeout)


def is_shut_down() -> bool:
    """Whether Python is exiting."""
    return _worker.ended


def is_exiting() -> bool:
    """Whether Python is ending and this is not the main thread: such a thread may not enter DuckDB."""
    return _worker.ended and threading.current_thread() is not threading.main_thread()


def _after_fork() -> None:
    """Replace the worker: a forked child has no such thread."""
    global _worker  # noqa: PLW0603
    ended = _worker.ended
    _worker = _Worker()
    _worker.ended = ended


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
