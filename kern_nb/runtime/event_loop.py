"""Sync and async code: one event loop in a daemon thread for all sync runs of a process, and threads for blocking work.

A notebook's cell runs inside an event loop already, so a sync call cannot start one in its own thread.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from anyio import to_thread

from kern_nb.errors import RunFailed

T = TypeVar("T")

_EXIT_TIMEOUT_S = 60
_POLL_S = 0.2
_CANCEL_AGAIN_S = 5
"""The time that an interrupted run has for its cleanup before it is cancelled again."""


class _LoopThread(threading.Thread):
    """A thread with an event loop."""

    def __init__(self) -> None:
        super().__init__(name="kern_nb runs", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.start()
        asyncio.run_coroutine_threadsafe(_lift_thread_limit(), self.loop).result()

    def run(self) -> None:
        """Run the loop until it is stopped."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _lift_thread_limit() -> None:
    """Tools, scripts and writes run in threads; with a limit, tools that wait for runs would starve them."""
    to_thread.current_default_thread_limiter().total_tokens = math.inf


_lock = threading.Lock()
_awaited_at_exit: set[Future[Any]] = set()
_current: _LoopThread | None = None


def _submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Schedule a coroutine in the current loop.

    An async tool that runs an agent synchronously blocks its loop: a new loop takes over then.
    """
    global _current  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _current is None or not _current.is_alive() or _current is threading.current_thread():
            _current = _LoopThread()
        return asyncio.run_coroutine_threadsafe(coroutine, _current.loop)


def is_loop_thread() -> bool:
    """Whether the current thread is one of an event loop for sync runs."""
    return isinstance(threading.current_thread(), _LoopThread)


async def _contain(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await make()
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end its loop, and every run with it
        raise RuntimeError(f"{type(error).__name__} in a run: {error}") from error


def run(make: Callable[[], Coroutine[Any, Any, T]], watch: Callable[[Future[T]], None] | None = None) -> T:
    """Run a coroutine to its end. An interrupt of the caller cancels it and waits for its cleanup.

    Args:
        make: Creates the coroutine.
        watch: Called in the caller's thread; it must return when the future is done. It streams events into a cell.
    """
    finished, interrupted = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> T:
        if (task := asyncio.current_task()) is not None:
            tasks.append(task)
        try:
            if interrupted.is_set():  # the interrupt came while the coroutine was submitted
                raise asyncio.CancelledError
            return await _contain(make)
        finally:
            finished.set()

    future: Future[T] | None = None
    try:
        future = _submit(work())
        if watch is not None:
            watch(future)
        while not wait([future], timeout=_POLL_S).done:
            pass  # where a library's signal handlers restart system calls, an interrupt is only seen between two waits
        return future.result()
    except BaseException:
        interrupted.set()
        while tasks and not finished.is_set():
            for task in tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
            finished.wait(_CANCEL_AGAIN_S)  # then cancel again: a library may have swallowed the cancellation
        raise


def start_detached(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Start a coroutine that Python does not wait for at exit. Cancelling the future cancels the coroutine."""
    return _submit(_contain(make))


def start(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Start a coroutine; Python waits for it at exit."""
    future = _submit(make())
    _awaited_at_exit.add(future)
    future.add_done_callback(_awaited_at_exit.discard)
    return future


async def in_thread(work: Callable[[], T]) -> T:
    """Call a function that may block, in a thread. A cancelled caller still waits until the function has returned.

    Raises:
        RunFailed: in place of a SystemExit or KeyboardInterrupt, which would end the loop, and every run with it.
    """

    def contained() -> T:
        try:
            return work()
        except (SystemExit, KeyboardInterrupt) as error:
            raise RunFailed(f"{type(error).__name__}: {error}") from error

    task = asyncio.ensure_future(to_thread.run_sync(contained))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    task.exception()  # retrieved, so that asyncio does not log it as never retrieved
    raise cancelled


def _stop() -> None:
    """At exit: wait for started coroutines, then stop the loop, so that nothing runs while the interpreter ends."""
    global _current
    wait(list(_awaited_at_exit), timeout=_EXIT_TIMEOUT_S)
    with _lock:
        last, _current = _current, None
    if last is not None and last.is_alive():
        last.loop.call_soon_threadsafe(last.loop.stop)
        last.join(timeout=5)
        if not last.is_alive():
            last.loop.close()


def _reset_after_fork() -> None:
    """Drop the loop: its thread does not exist in a forked child."""
    global _current, _lock
    _awaited_at_exit.clear()
    _current, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
