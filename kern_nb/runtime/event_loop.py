"""Async work from sync code: one event loop in a thread of its own, in which all sync runs of a process take place.

A notebook's cell runs inside an event loop already, so a sync call cannot start one in its thread. One loop for all
serves any number of runs at once.
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

T = TypeVar("T")

_LAST_WORK_S = 60
_LOOK_S = 0.2
_AGAIN_S = 5
"""So long an interrupted run has to put things in order before it is cancelled once more."""


class _Loop(threading.Thread):
    """A thread with an event loop."""

    def __init__(self) -> None:
        super().__init__(name="kern_nb runs", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.start()
        asyncio.run_coroutine_threadsafe(_unlimited_threads(), self.loop).result()

    def run(self) -> None:
        """Serve until stopped."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _unlimited_threads() -> None:
    """Tools, scripts and writes run in threads; were these limited, tools that wait for runs would starve them."""
    to_thread.current_default_thread_limiter().total_tokens = math.inf


_lock = threading.Lock()
_begun: set[Future[Any]] = set()
_current: _Loop | None = None


def _submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin a coroutine in the loop that serves now.

    An async tool that runs an agent without awaiting it holds its loop up: a new one takes over then.
    """
    global _current  # noqa: PLW0603 - one a process is the point
    with _lock:
        if _current is None or not _current.is_alive() or _current is threading.current_thread():
            _current = _Loop()
        return asyncio.run_coroutine_threadsafe(work, _current.loop)


async def _kept(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await make()
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end its loop, and every run with it
        raise RuntimeError(f"{type(error).__name__} in a run: {error}") from error


def run(make: Callable[[], Coroutine[Any, Any, T]], watch: Callable[[Future[T]], None] | None = None) -> T:
    """Run a coroutine to its end. An interrupt of the caller cancels it, and waits until it has put things in order.

    Args:
        make: Makes the coroutine.
        watch: Called in the caller's thread while it runs, and returns when it has ended: what streams into a cell.
    """
    ended, given_up = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> T:
        if (task := asyncio.current_task()) is not None:
            tasks.append(task)
        try:
            if given_up.is_set():  # the interrupt came while this was handed over
                raise asyncio.CancelledError
            return await _kept(make)
        finally:
            ended.set()

    future: Future[T] | None = None
    try:
        future = _submit(work())
        if watch is not None:
            watch(future)
        while not wait([future], timeout=_LOOK_S).done:
            pass  # where a library has signals restart what they interrupt, an interrupt is only seen in between
        return future.result()
    except BaseException:
        given_up.set()
        while tasks and not ended.is_set():
            for task in tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
            ended.wait(_AGAIN_S)  # then once more: some library on the way may have kept it to itself
        raise


def begin(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Begin a coroutine that nobody waits for, not even Python when it ends. Cancelling the future cancels it."""
    return _submit(_kept(make))


def start(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Begin a coroutine, and wait for nothing before Python ends."""
    future = _submit(make())
    _begun.add(future)
    future.add_done_callback(_begun.discard)
    return future


def _stop() -> None:
    """Let nothing run while Python takes itself apart; what was begun may end first."""
    global _current
    wait(list(_begun), timeout=_LAST_WORK_S)
    with _lock:
        last, _current = _current, None
    if last is not None and last.is_alive():
        last.loop.call_soon_threadsafe(last.loop.stop)
        last.join(timeout=5)
        if not last.is_alive():
            last.loop.close()


def _forget() -> None:
    """A forked child has no such thread."""
    global _current, _lock
    _begun.clear()
    _current, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
