"""Group commit: small writes of several threads share one transaction, and thus one wait for the disk.

A write that arrives during another one waits in a queue. When that one ends, the first in the queue runs all queued
writes, in order, in one transaction; each thread returns once it is committed. If one of them fails, all are rolled
back and each runs again in its own transaction, with its own result or error.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from kern_nb.errors import StoreBusy, StoreUnavailable

T = TypeVar("T")
Work = Callable[[Connection], Any]
Transaction = Callable[[Work], Any]  # runs work in a transaction and returns its result after the commit

LARGEST_GROUP = 64

_after_fork = threading.Lock()


@dataclass(slots=True, eq=False)
class _Write:
    """A queued write."""

    work: Work
    wake: threading.Event = field(default_factory=threading.Event)  # set when it is done, or becomes the leader
    is_done: bool = False
    result: Any = None
    error: BaseException | None = None


class GroupWriter:
    """The queue of one store."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Write] = deque()
        self._is_busy = False
        self._leader: int | None = None
        self._process = os.getpid()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a write together with the queued writes of other threads; return its result after the commit.

        The main thread commits alone: Ctrl-C, which strikes there, must not interrupt other threads' writes. So does a
        write within another write.
        """
        if self._process != os.getpid():  # a forked child: the queue is its parent's
            with _after_fork:
                if self._process != os.getpid():
                    self._reset()
        thread = threading.get_ident()
        if threading.current_thread() is threading.main_thread() or self._leader == thread:
            return self._transaction(work)  # type: ignore[no-any-return]
        write = _Write(work)
        with self._lock:
            self._queue.append(write)
            is_leader, self._is_busy = not self._is_busy, True
        if not is_leader:
            write.wake.wait()
        if not write.is_done:
            try:
                self._leader = thread
                self._lead()
            finally:
                self._leader = None
                self._pass_on()
        if write.error is not None:
            raise write.error
        return write.result  # type: ignore[no-any-return]

    def _lead(self) -> None:
        with self._lock:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), LARGEST_GROUP))]
        try:
            self._run(group)
        except BaseException as error:
            for write in group:
                write.error = write.error or error
            raise
        finally:
            for write in group:
                write.is_done = True
                write.wake.set()

    def _run(self, group: list[_Write]) -> None:
        if len(group) > 1:
            with contextlib.suppress(Exception):  # one of them failed: each runs again, with its own error
                self._run_together(group)
                return
        for write in group:
            try:
                write.result = self._transaction(write.work)
            except Exception as error:  # noqa: BLE001 - raised in its own thread
                write.error = error

    def _run_together(self, group: list[_Write]) -> None:
        try:
            results = self._transaction(lambda connection: [write.work(connection) for write in group])
        except (StoreBusy, StoreUnavailable) as error:  # applies to each of them, and each has waited
            for write in group:
                write.error = error
            return
        for write, result in zip(group, results, strict=True):
            write.result = result

    def _pass_on(self) -> None:
        """Make the first queued write the leader."""
        with self._lock:
            if self._queue:
                self._queue[0].wake.set()
            else:
                self._is_busy = False
