"""Small writes of several threads, in one transaction: a commit that waits for the disk then does so for all of them.

A write that comes while another one is at work waits in a queue. When that one ends, the first in the queue runs all
writes in it, in order, in one transaction; each thread returns once that is committed. Where one of them fails,
all are rolled back and each is run again in its own transaction, with its own result or error.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from kern_nb.errors import StoreBusy, StoreUnavailable

T = TypeVar("T")
Work = Callable[[Connection], Any]
Transaction = Callable[[Work], Any]
"""Runs work in a transaction, and returns its result once that is committed."""

LARGEST_GROUP = 64

_after_fork = threading.Lock()


class _Item:
    """A write in the queue."""

    __slots__ = ("error", "is_done", "result", "wake", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.wake = threading.Event()  # set when it is done, or is to lead
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None


class GroupWriter:
    """The queue of one store."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Item] = deque()
        self._is_busy = False
        self._leader: int | None = None
        self._process = os.getpid()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a write, together with those of other threads that wait; its result once it is committed.

        The main thread writes by itself: Ctrl-C, which strikes there, must not interrupt what others wait for. So does
        a write within another one.
        """
        if self._process != os.getpid():  # a forked child: the queue is its parent's
            with _after_fork:
                if self._process != os.getpid():
                    self._reset()
        me = threading.get_ident()
        if threading.current_thread() is threading.main_thread() or self._leader == me:
            return self._transaction(work)  # type: ignore[no-any-return]
        item = _Item(work)
        with self._lock:
            self._queue.append(item)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            item.wake.wait()
        if not item.is_done:
            try:
                self._leader = me
                self._lead()
            finally:
                self._leader = None
                self._pass_on()
        if item.error is not None:
            raise item.error
        return item.result  # type: ignore[no-any-return]

    def _lead(self) -> None:
        with self._lock:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), LARGEST_GROUP))]
        try:
            self._run(group)
        except BaseException as error:
            for item in group:
                item.error = item.error or error
            raise
        finally:
            for item in group:
                item.is_done = True
                item.wake.set()

    def _run(self, group: list[_Item]) -> None:
        if len(group) > 1:
            with contextlib.suppress(Exception):  # of one of them: each is run again, and gets its own
                self._run_together(group)
                return
        for item in group:
            try:
                item.result = self._transaction(item.work)
            except Exception as error:  # noqa: BLE001 - raised in its own thread
                item.error = error

    def _run_together(self, group: list[_Item]) -> None:
        try:
            results = self._transaction(lambda connection: [item.work(connection) for item in group])
        except (StoreBusy, StoreUnavailable) as error:  # so it is for each of them, and each has waited
            for item in group:
                item.error = error
            return
        for item, result in zip(group, results, strict=True):
            item.result = result

    def _pass_on(self) -> None:
        """Let the first in the queue lead."""
        with self._lock:
            if self._queue:
                self._queue[0].wake.set()
            else:
                self._is_busy = False
