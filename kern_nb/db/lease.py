"""One DuckDB file, shared between processes.

DuckDB admits one process at a time. A `Lease` therefore holds its connection only while this process works and shortly
after, so that a burst of work opens the file once. It closes the file after a short idle time, after a short hold if
another process is queued (see `file_queue`), and after a maximum hold in any case, for programs that do not queue. A
process that has to wait retries with growing pauses, and after a timeout gets the name of the process that holds the
file.

All stores of one process on one file share one lease: DuckDB allows a file to be open only once with one configuration.

Ctrl-C may strike between any two instructions of the code that uses a `Cursor`, so nothing depends on that code running
to its end: the lease's own bookkeeping runs where no signal is raised (see `interrupts`), a cursor that is dropped
returns itself, and one whose user's function has ended is reclaimed at the thread's next use of the lease, or after the
cell.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import duckdb

from kern_nb import files
from kern_nb.db import file_descriptors, file_holder, fork_safety, interrupts
from kern_nb.db.checkouts import Checkout, Cursor, closed_error, invalidated_error, running_frames, user_frame
from kern_nb.db.disk_space import LogReservation
from kern_nb.db.file_queue import FileQueue
from kern_nb.environment import current_shell

IDLE_S = 0.05
# The longest hold while another process is queued; longer on a slow machine, where opening and closing take more than a
# fraction of it (20 ms on a fast one).
TURN_S = 0.2
# The longest hold for programs that do not queue, and where the system cannot tell that another process is queued.
LONGEST_HOLD_S = 2.0
UNSEEN_HOLD_S = 0.5
# After a longest hold other programs get this long to take the file. They retry within it.
YIELD_S = 0.03
LONGEST_PAUSE_S = 0.015
# A file that is free for so long is not left to the process at the head of the queue.
NO_SHOW_S = 0.3
# Python's exit waits so long for threads that are still within DuckDB.
EXIT_S = 5.0

# SQL through a store can neither load code nor read Python's variables; nor, once the file is open, any other file.
CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

# A writer opens the file for one thread, and readers then share that until it is closed: DuckDB's other threads take a
# third of the processor time of a small transaction, and most of a commit that waits for the disk.
WRITER_CONFIG: dict[str, Any] = {"threads": "1"}

# DuckDB rewrites a whole row group when a table with a key has grown, each time the file is closed. With its default
# of 122,880 rows that took half a second in a store of 400,000 messages; this takes a tenth, and scans as fast. Its
# memory is that of a row group of long messages: 200 MB of 4,096 messages of 4 kB; 2,048 scan slower.
ROW_GROUP_SIZE = 4096

# Space in the log for what a commit writes besides the values that were sent.
_COMMIT_BYTES = 1 << 18

_leases: weakref.WeakValueDictionary[str, Lease] = weakref.WeakValueDictionary()
_all_leases: weakref.WeakSet[Lease] = weakref.WeakSet()  # those in memory, too
_leases_lock = threading.Lock()
_locked_for_fork: list[Lease] = []


def shared_lease(path: Path, *, read_only: bool) -> Lease:
    """The one lease of this process on a file. It becomes writable once one store needs to write."""
    real = os.path.realpath(path)
    with _leases_lock:
        lease = _leases.get(real)
        if lease is None:
            lease = _leases[real] = Lease(real, read_only=read_only)
    if lease.read_only and not read_only:
        lease.read_only = False
        lease.close()
    return lease


class Lease:
    """The connection of this process to one file, open only while it is needed.

    Args:
        path: The file, or ``:memory:``, which is held until `close`.
        read_only: Open the file read-only, which several processes may do at the same time.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.orphans: deque[Checkout] = deque()  # dropped without being closed; appending is all that `__del__` may do
        self._in_memory = path == ":memory:"
        # Acquired only where no signal is raised: within `interrupts.run`, or outside the main thread.
        self._condition = threading.Condition()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._checkouts: list[Checkout] = []
        self._opener: int | None = None  # the one thread that waits for other processes
        self._waiters = 0
        self._queue = FileQueue(path)
        self._reservation = LogReservation(path)
        self._opened = self._used = self._yield_until = self._free_since = 0.0
        self._open_duration = 0.0  # seconds that opening the file took
        self._is_probe = False  # the file is open read-only, to be inspected
        self._idle_thread: threading.Thread | None = None
        self._parent_connection: duckdb.DuckDBPyConnection | None = None
        _all_leases.add(self)
        if (shell := current_shell()) is not None:
            shell.events.register("post_run_cell", release_abandoned)  # idempotent

    def acquire(self, timeout: float, *, write: bool = False, probe: bool = False) -> Cursor:
        """Check out a connection to the file; closing it returns it.

        Args:
            timeout: Seconds to wait for the file.
            write: Also wait for the other writers of this process: two at a time would only conflict.
            probe: Open the file read-only, unless this process has it open: it may belong to another program.

        Raises:
            StoreBusy: another process held the file for all of ``timeout`` seconds.
            NotAStore: the file is not a DuckDB database.
            StoreUnavailable: the file cannot be opened, or was in use when this process was forked.
            StoreFull: the disk has no space left.
        """
        checkout = Checkout(threading.get_ident(), user_frame(), writes=write, probe=probe)
        cancelled = threading.Event()
        running = running_frames()

        def work() -> Cursor:
            self._release_abandoned(checkout.thread, running)
            return self._acquire(checkout, timeout, cancelled)

        return interrupts.run(work, cancelled.set)

    def release(self, checkout: Checkout) -> None:
        """Return a connection. Idempotent."""
        interrupts.submit(lambda: self._release(checkout))

    def release_abandoned(self, running: Collection[int]) -> None:
        """Reclaim the connections of this thread whose users' frames are not in ``running``."""
        if self._checkouts:
            thread = threading.get_ident()
            interrupts.run(lambda: self._release_abandoned(thread, running))

    def reserve(self, size: int) -> None:
        """Reserve disk space to commit so many bytes.

        Raises:
            StoreFull: the disk has too little space.
        """
        if not self._in_memory:
            interrupts.run(lambda: self._reservation.require(2 * size + _COMMIT_BYTES))

    def close(self, *, only_probe: bool = False) -> None:
        """Close the file now, or when the last connection is returned; or only if it is open to be inspected."""
        interrupts.run(lambda: self._close_when_idle(only_probe=only_probe))

    def at_exit(self, deadline: float) -> None:
        """Before Python exits: stop threads that are within DuckDB, which would abort the process; close the file."""
        with self._condition:
            own = threading.get_ident()
            checkouts = [checkout for checkout in self._checkouts if checkout.thread != own]
        for checkout in checkouts:
            while not checkout.busy.acquire(timeout=0.01):
                if time.monotonic() > deadline:
                    return
                if checkout.connection is not None:
                    checkout.connection.interrupt()
            checkout.busy.release()
            self._release(checkout)
        self.close()
        if (thread := self._idle_thread) is not None:
            thread.join(timeout=2.0)

    def _acquire(self, checkout: Checkout, timeout: float, cancelled: threading.Event) -> Cursor:
        deadline = time.monotonic() + timeout
        pause = 0.001
        with self._condition:
            self._waiters += 1
            try:
                while not cancelled.is_set():
                    cursor, refusal = self._try_acquire(checkout)
                    if cursor is not None:
                        return cursor
                    if time.monotonic() > deadline:
                        raise file_holder.busy_error(self.path, refusal, timeout)
                    # One thread polls for other processes. The others are notified.
                    self._condition.wait(pause if self._opener == checkout.thread else LONGEST_PAUSE_S)
                    pause = min(pause * 1.5, LONGEST_PAUSE_S)
                raise KeyboardInterrupt
            finally:
                self._waiters -= 1
                if self._opener == checkout.thread:
                    self._opener = None
                    self._condition.notify_all()
                if not self._waiters:
                    self._queue.leave()

    def _try_acquire(self, checkout: Checkout) -> tuple[Cursor | None, str | None]:
        """A connection, if it is this thread's turn; else None, and why another process prevents opening the file."""
        if interrupts.is_exiting():
            raise closed_error(self.path)
        self._reclaim_orphans()
        if checkout.writes and any(other.writes and other.thread != checkout.thread for other in self._checkouts):
            return None, None
        if self._is_overdue() and not any(other.thread == checkout.thread for other in self._checkouts):
            if self._checkouts:  # current users finish first; the last of them closes the file
                return None, None
            self._close(yield_file=True)
        if checkout.writes and self._connection is not None and self._is_probe:
            if self._checkouts:
                return None, None
            self._close()
        refusal = None
        if self._connection is None and self._opener in (None, checkout.thread):
            self._opener = checkout.thread
            refusal = self._open(checkout)
        return (None, refusal) if self._connection is None else (self._check_out(checkout, self._connection), None)

    def _check_out(self, checkout: Checkout, connection: duckdb.DuckDBPyConnection) -> Cursor:
        try:
            cursor = connection.cursor()
            if not self._in_memory:
                cursor.execute("USE kern_store")
            checkout.connection = cursor
        except duckdb.Error as error:
            self._opened = 0.0  # overdue
            raise invalidated_error(self.path, error) from error
        self._checkouts.append(checkout)
        if not self._in_memory and self._idle_thread is None and not interrupts.is_shut_down():
            self._idle_thread = threading.Thread(target=self._watch, name="kern_nb lease", daemon=True)
            self._idle_thread.start()
        return Cursor(self, checkout)

    def _release(self, checkout: Checkout) -> None:
        with self._condition:
            if checkout not in self._checkouts:
                return
            self._checkouts.remove(checkout)
            with checkout.busy:
                connection, checkout.connection = checkout.connection, None
                if connection is not None:
                    _close_quietly(connection)
            self._used = time.monotonic()
            if not self._checkouts and (self._is_overdue() or (interrupts.is_shut_down() and not self._in_memory)):
                self._close(yield_file=True)
            self._condition.notify_all()

    def _reclaim_orphans(self) -> None:
        """Release the connections that were dropped without being closed."""
        while self.orphans:
            self._release(self.orphans.popleft())

    def _release_abandoned(self, thread: int, running: Collection[int]) -> None:
        with self._condition:
            for checkout in list(self._checkouts):
                if checkout.thread == thread and checkout.frame is not None and checkout.frame not in running:
                    self._release(checkout)

    def _close_when_idle(self, *, only_probe: bool) -> None:
        with self._condition:
            if only_probe and (self._connection is None or not self._is_probe):
                return
            self._reclaim_orphans()
            if not self._checkouts:
                self._close()
            else:
                self._opened = 0.0  # overdue: closed at the last release

    def _is_overdue(self) -> bool:
        if self._connection is None or self._in_memory:
            return False
        open_s = time.monotonic() - self._opened
        turn = max(TURN_S, 2 * self._open_duration)
        longest = LONGEST_HOLD_S if self._queue.supported else UNSEEN_HOLD_S
        return open_s > max(longest, turn) or (open_s > turn and self._queue.has_other_waiters())

    def _open(self, checkout: Checkout) -> str | None:
        """Open the file; the reason why not, where another process has it or comes first."""
        if self._parent_connection is not None:
            raise fork_safety.fork_error(self.path)
        read_only = self.read_only or checkout.probe
        now = time.monotonic()
        if now < self._yield_until:
            return file_holder.YIELDED
        if not self._in_memory:
            if holder := file_holder.find_holder(self.path, shared=read_only):
                self._free_since = 0.0
                self._queue.join()
                return f"It is held (PID {holder})"
            if self._queue.has_other_waiters():
                self._free_since = self._free_since or now
                self._queue.join()
                if now - self._free_since < NO_SHOW_S:
                    return file_holder.QUEUED
        start = time.monotonic()
        config = CONFIG | {"temp_directory": files.spill_folder()}
        if checkout.writes or self._in_memory:
            config |= WRITER_CONFIG
        connection = duckdb.connect(":memory:", config=config)
        try:
            if not self._in_memory:
                mode = "READ_ONLY" if read_only else f"ROW_GROUP_SIZE {ROW_GROUP_SIZE}"
                with file_descriptors.defer_closing():
                    connection.execute(f"ATTACH '{self.path.replace(chr(39), chr(39) * 2)}' AS kern_store ({mode})")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")  # from here on no SQL changes a setting
        except duckdb.Error as error:
            connection.close()
            reason = file_holder.explain_refusal(self.path, error)
            self._queue.join()
            return reason
        self._connection, self._opened, self._free_since = connection, time.monotonic(), 0.0
        self._open_duration = self._opened - start
        self._is_probe = read_only and not self.read_only
        self._reservation = LogReservation(self.path)
        self._queue.leave()
        return None

    def _close(self, *, yield_file: bool = False) -> None:
        if self._connection is not None:
            if not self._in_memory:
                self._reservation.drop_unused()
            connection, self._connection = self._connection, None
            _close_quietly(connection)
            # A queued process comes first in any case.
            unqueued = yield_file and not self._queue.has_other_waiters()
            self._yield_until = time.monotonic() + YIELD_S if unqueued else 0.0
            self._condition.notify_all()

    def _watch(self) -> None:
        """Close the connection once it has been idle for a moment; release connections that were dropped."""
        with self._condition:
            while self._connection is not None:
                self._reclaim_orphans()
                idle = time.monotonic() - self._used
                if not self._checkouts and idle >= IDLE_S:
                    self._close()
                else:
                    self._condition.wait(max(IDLE_S - idle, 0.02))
            self._idle_thread = None

    def before_fork(self) -> None:
        """Block new work, wait for that of other threads (up to a limit), and close the file."""
        self._condition.acquire()
        self._reclaim_orphans()
        self._opened = 0.0  # overdue, unless it is in memory
        own = threading.get_ident()
        self._condition.wait_for(
            lambda: all(checkout.thread == own for checkout in self._checkouts), timeout=fork_safety.WAIT_S
        )
        if not self._checkouts and not self._in_memory:
            self._close()

    def after_fork_in_parent(self) -> None:
        """Allow new work."""
        self._condition.release()

    def after_fork(self) -> None:
        """Reset the lease in a forked child. A file that was open at the fork is the parent's: both would write to it.

        A database in memory has been copied. It is never deallocated: DuckDB would wait for threads that the child
        lacks.
        """
        parent_connection = self._connection
        for checkout in self._checkouts:
            checkout.inherited = True
            fork_safety.leak(checkout.connection)
        self.__init__(self.path, read_only=self.read_only)  # type: ignore[misc]
        if parent_connection is not None:
            fork_safety.leak(parent_connection)  # closing it would write to the file
            if self._in_memory:
                self._connection = parent_connection
            else:
                self._parent_connection = parent_connection


def _close_quietly(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection. What DuckDB then fails to write to the file is still in its log."""
    with contextlib.suppress(duckdb.Error):
        connection.close()


def release_abandoned(*_: object) -> None:
    """Reclaim the connections of this thread's interrupted functions. IPython calls it after each cell."""
    running = running_frames()
    for lease in list(_all_leases):
        lease.release_abandoned(running)


def unwatch_cells(shell: Any) -> None:
    """No longer call `release_abandoned` after each cell."""
    with contextlib.suppress(ValueError):
        shell.events.unregister("post_run_cell", release_abandoned)


def _before_fork() -> None:
    interrupts.run(lambda: None)  # submitted calls have ended and hold no lock
    _leases_lock.acquire()
    _locked_for_fork[:] = list(_all_leases)
    for lease in _locked_for_fork:
        lease.before_fork()


def _after_fork_in_parent() -> None:
    for lease in _locked_for_fork:
        lease.after_fork_in_parent()
    _locked_for_fork.clear()
    _leases_lock.release()


def _after_fork() -> None:
    for lease in _locked_for_fork or list(_all_leases):
        lease.after_fork()
    _locked_for_fork.clear()
    _leases_lock.release()


def _at_exit() -> None:
    """Keep other threads out of DuckDB and stop those within it: Python ends threads where they are."""
    interrupts.shut_down(EXIT_S)
    deadline = time.monotonic() + EXIT_S
    for lease in list(_all_leases):
        lease.at_exit(deadline)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
