"""`iterate` and `aiterate`: the iterators that ``run(stream=True)`` and ``arun(stream=True)`` return.

A run is at most one event ahead of its consumer: before it calls the model again or runs a tool, it waits until the
consumer asks for the next event, as a generator would. So a consumer that stops at an event has stopped the run there;
a slow one delays its own run and nobody else's, because the wait blocks no thread. Nothing runs before the first event
is requested.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.events.base import BaseRunOutputEvent, Completed
from kern_nb.runtime import event_loop
from kern_nb.runtime.background import BackgroundRun
from kern_nb.runtime.events import Listener

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.run_modes import RunFunction
    from kern_nb.runtime.run_options import AsyncStream, Stream

_POLL_S = 0.2
_CANCEL_AGAIN_S = 5


@dataclass(frozen=True)
class StreamOptions:
    """What a stream has.

    Attributes:
        details: Whether it has the events that `BaseRunOutputEvent.is_detail` marks.
        yield_run: Whether the run follows the last event.
    """

    details: bool = False
    yield_run: bool = False


def iterate(work: RunFunction, options: StreamOptions) -> Stream:
    """Return an iterator of a run's events; the run takes place in the thread of the event loop.

    If the iterator is closed before its end, or freed, the run is cancelled and stored with what it has.

    Raises:
        RunFailed: the run ended with an error, after the event that says so.
    """
    stream = _iterate(work, options)
    _open_streams.add(stream)
    return stream


def _iterate(work: RunFunction, options: StreamOptions) -> Stream:
    channel = _Channel(options.details)
    ended = threading.Event()
    results: list[Any] = []

    def on_end(run: Run | None, error: BaseException | None) -> None:
        results.extend((run, error))
        ended.set()
        channel.close()

    background = BackgroundRun(work, channel, on_end)
    try:
        while (event := channel.get()) is not None:
            yield event
        run, error = results
        if error is not None:
            raise error
        if options.yield_run and run is not None:
            yield run
    finally:
        while not ended.is_set():
            background.stop()
            if event_loop.is_loop_thread():  # freed by a garbage collection in the thread that is to store the run
                break
            ended.wait(_CANCEL_AGAIN_S)  # then cancel again: a library may have swallowed the cancellation


async def aiterate(work: RunFunction, options: StreamOptions) -> AsyncStream:
    """Do `iterate` asynchronously: the run is a task of the caller's event loop."""
    channel = _Channel(options.details)
    task: asyncio.Future[Run] = asyncio.ensure_future(work(channel))
    task.add_done_callback(lambda _: channel.close())
    try:
        while (event := await channel.aget()) is not None:
            yield event
        if task.cancelled():  # by `cancel_run`, for example: the last event says so
            return
        run = task.result()
        if options.yield_run:
            yield run
    finally:
        await _cancel(task)


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it has stored its run, even if the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it as never retrieved
    if cancelled is not None:
        raise cancelled


class _Channel(Listener):
    """The events between a run and its consumer, who is in another thread or in the same event loop.

    The last event of the run itself is held back until everything after it has ended, so that it is the last one.
    """

    def __init__(self, wants_details: bool) -> None:  # noqa: FBT001 - of this module
        self.wants_details = wants_details
        self._changed = threading.Condition()
        self._events: deque[BaseRunOutputEvent] = deque()
        self._is_requested = False
        self._is_closed = False
        self._last: BaseRunOutputEvent | None = None
        self._run_id = ""
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._consumer: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def __call__(self, event: BaseRunOutputEvent) -> None:
        if event.is_detail and not self.wants_details:
            return
        with self._changed:
            self._run_id = self._run_id or event.run_id
            if isinstance(event, Completed) and event.run_id == self._run_id:
                self._last = event
            else:
                self._add(event)

    def _add(self, event: BaseRunOutputEvent) -> None:
        self._events.append(event)
        self._is_requested = False
        self._wake_consumer()

    def close(self) -> None:
        """Note that the run has ended."""
        with self._changed:
            if self._last is not None:
                self._add(self._last)
            self._is_closed = True
            self._wake_consumer()

    def _wake_consumer(self) -> None:
        self._changed.notify_all()
        if self._consumer is not None:
            _wake(*self._consumer)
            self._consumer = None

    async def caught_up(self) -> None:
        with self._changed:
            if self._is_requested:
                return
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((loop, future))
        await future

    def _take(self) -> BaseRunOutputEvent | None:
        """Return the next event; without one, let the run go on to it."""
        if self._events:
            return self._events.popleft()
        self._is_requested = True
        for loop, future in self._waiting:
            _wake(loop, future)
        self._waiting.clear()
        return None

    def get(self) -> BaseRunOutputEvent | None:
        """Wait for the next event, in the consumer's thread; None at the end."""
        with self._changed:
            while (event := self._take()) is None and not self._is_closed:
                self._changed.wait(_POLL_S)  # an interrupt is only seen between two waits
            return event

    async def aget(self) -> BaseRunOutputEvent | None:
        """Wait for the next event, in the consumer's event loop; None at the end."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if (event := self._take()) is not None or self._is_closed:
                    return event
                future: asyncio.Future[None] = loop.create_future()
                self._consumer = loop, future
            await future


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def set_result() -> None:
        if not future.done():
            future.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits in it
        loop.call_soon_threadsafe(set_result)


_open_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


def _close_streams() -> None:
    """At exit, before the event loop stops: cancel the runs of streams that nobody has read to their end."""
    for stream in list(_open_streams):
        with contextlib.suppress(Exception):
            stream.close()


atexit.register(_close_streams)
