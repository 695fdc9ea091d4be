"""One DuckDB file, shared between processes.

DuckDB admits one process at a time. A `Lease` therefore holds its connection only while this process works and a
moment longer, so that a burst of work opens the file once: it closes the file after a short idle, after a short hold
where another process waits in line (see `turns`), and after a longest hold in any case, for programs that do not line
up. Who has to wait tries again with growing pauses, and after a time-out gets the name of the process that holds the
file.

All stores of one process on one file share one lease: DuckDB allows a file to be open only once with one configuration.

A connection on loan is a `Cursor`. Ctrl-C may strike between any two instructions of the code that uses it, so nothing
depends on that code being run to its end: the lease's own bookkeeping runs where no signal is raised (see `signals`), a
cursor that is dropped returns itself, and one whose user's function has ended is taken back by the thread's next use of
the lease, or after the cell.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import re
import struct
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import duckdb

from kern_nb import files
from kern_nb.db import file_descriptors, fork_safety, interrupts
from kern_nb.db.disk_space import LogReservation, disk_full_error, is_disk_full
from kern_nb.db.file_descriptors import DUCKDB_MAGIC, SQLITE_MAGIC
from kern_nb.db.file_queue import FileQueue
from kern_nb.errors import NotAStore, StoreBusy, StoreUnavailable

T = TypeVar("T")

IDLE_S = 0.05
# The longest hold while another process waits in line; longer on a slow machine, where opening and closing take more
# than a fraction of it (20 ms on a fast one).
TURN_S = 0.2
# The longest hold for programs that do not wait in line, and where the system cannot tell that another process waits.
LONGEST_HOLD_S = 2.0
UNSEEN_HOLD_S = 0.5
# After a longest hold other programs get this long to take the file. They look again within it.
COURTESY_S = 0.03
LONGEST_PAUSE_S = 0.015
# A file that is free for so long is not left to a process that is next in line and does not come.
NO_SHOW_S = 0.3
# The end of Python waits so long for threads that are still within DuckDB.
EXIT_S = 5.0

# SQL through a store can neither load code nor see Python's variables; nor, once the file is open, reach any other.
CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

# A writer opens the file for one thread, and who reads then shares that until it is closed: DuckDB's other threads take
# a third of the processor time of a small transaction, and of a commit that waits for the disk most.
WRITER: dict[str, Any] = {"threads": "1"}

# DuckDB writes a whole row group anew when a table with a key has grown, each time the file is let go. With its default
# of 122,880 rows that took half a second in a store of 400,000 messages; this takes a tenth, and scans as fast.
ROW_GROUP_SIZE = 8192

_IN_LINE = "Other processes are before this one in line."
_HOLDER = re.compile(r"\(PID (\d+)\)")
# A file that another process is just making looks damaged for a moment.
_HEADER_BYTES, _YOUNG_S = 12_288, 1.0

_leases: weakref.WeakValueDictionary[str, Lease] = weakref.WeakValueDictionary()
_all_leases: weakref.WeakSet[Lease] = weakref.WeakSet()  # those in memory, too
_leases_lock = threading.Lock()


# Room in the log for what a commit writes besides the values that were sent.
_LEAST_BYTES = 1 << 18
_DAMAGED = ("not a valid DuckDB database", "Corrupt database file", "Could not read enough bytes")


def shared_lease(path: Path, *, read_only: bool) -> Lease:
    """The one lease of this process on a file; once a store wants to write, it is open to be written."""
    real = os.path.realpath(path)
    with _leases_lock:
        lease = _leases.get(real)
        if lease is None:
            lease = _leases[real] = Lease(real, read_only=read_only)
    if lease.read_only and not read_only:
        lease.read_only = False
        lease.close()
    return lease


class _Grant:
    """What the lease knows of a connection on loan."""

    __slots__ = ("busy", "connection", "frame", "inherited", "looks", "size", "thread", "writes")

    def __init__(self, thread: int, frame: int | None, *, writes: bool, looks: bool) -> None:
        self.thread = thread
        self.frame = frame  # the id of the frame that uses it, see `_user_frame`
        self.writes = writes
        self.looks = looks
        self.connection: duckdb.DuckDBPyConnection | None = None
        self.busy = threading.Lock()  # while a call is within DuckDB
        self.size = 0  # bytes of what was sent in the transaction
        self.inherited = False  # by a forked child: the connection is its parent's


class Cursor:
    """A connection on loan, which has DuckDB's methods. Ctrl-C stops what it runs.

    It returns to the lease when it is closed, or dropped.
    """

    def __init__(self, lease: Lease, grant: _Grant) -> None:
        self._lease = lease
        self._grant = grant

    @property
    def inherited(self) -> bool:
        """Whether this process was forked while the connection was on loan: it would write to the parent's file."""
        return self._grant.inherited

    def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run calls on DuckDB's connection, which Ctrl-C interrupts together.

        Raises:
            KeyboardInterrupt: the user interrupted it; what ran was stopped.
            StoreUnavailable: the connection is the parent's of this forked process.
        """
        if self._grant.inherited:
            raise fork_safety.fork_error(self._lease.path)
        try:
            return interrupts.run(lambda: self._enter(work), self._interrupt)
        except duckdb.InterruptException as error:
            if self._grant.connection is None or _ending:
                raise _ended(self._lease.path) from error
            raise KeyboardInterrupt from error
        except RuntimeError as error:  # DuckDB saw the signal itself
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        except duckdb.Error as error:
            if _is_fatal(error):
                self._lease.discard()
                raise _invalidated(self._lease.path, error) from error
            raise

    def execute(self, statement: Any, parameters: Any = None) -> Cursor:
        """Run a statement; the result is fetched from this cursor."""
        if self._grant.writes:
            self._grant.size += len(str(statement)) + _size(parameters)
        self.run(lambda raw: raw.execute(statement, parameters))
        return self

    def executemany(self, statement: Any, parameters: Any = None) -> Cursor:
        """Run a statement for each row of parameters."""
        if self._grant.writes:
            self._grant.size += sum(map(_size, parameters or ()))
        self.run(lambda raw: raw.executemany(statement, parameters))
        return self

    def register(self, name: str, table: Any) -> None:
        """Make an Arrow table known under a name."""
        self._grant.size += int(getattr(table, "nbytes", 0))
        self.run(lambda raw: raw.register(name, table))

    def commit(self) -> None:
        """Commit, once the disk has room for what was written.

        Raises:
            StoreFull: it has not; the transaction is still open.
        """
        if self._grant.writes:
            self._lease.reserve(self._grant.size)
        try:
            self.run(lambda raw: raw.commit())
        except duckdb.Error as error:
            if "COMMIT succeeded" not in str(error):  # only writing the log's content to the file did not
                raise
        self._grant.size = 0

    def close(self) -> None:
        """Return the connection to the lease. Again does nothing, nor in a forked child."""
        if not self._grant.inherited:
            self._lease.release(self._grant)

    def __getattr__(self, name: str) -> Any:
        """DuckDB's other methods, and what it says of a result."""
        value = getattr(self._grant.connection, name)
        if not callable(value):
            return value
        return lambda *args, **options: self.run(lambda raw: getattr(raw, name)(*args, **options))

    def __del__(self) -> None:
        """Return a connection that was not closed, whichever thread drops it."""
        self._lease.orphans.append(self._grant)

    def _enter(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with self._grant.busy:
            raw = self._grant.connection
            if raw is None or (_ending and threading.current_thread() is not threading.main_thread()):
                raise _ended(self._lease.path)
            result = work(raw)
            return self if result is raw else result  # type: ignore[return-value]

    def _interrupt(self) -> None:
        raw = self._grant.connection
        if raw is not None:
            raw.interrupt()


class Lease:
    """The connection of this process to one file, open only while it is needed.

    Args:
        path: The file, or ``:memory:``, which is held until `close`.
        read_only: Open it to be read: several processes may, at the same time.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.orphans: deque[_Grant] = deque()  # dropped without being closed; appending is all that `__del__` may do
        self._forever = path == ":memory:"
        # Taken only where no signal is raised: within `signals.run`, or in another thread than the main one.
        self._changed = threading.Condition()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._grants: list[_Grant] = []
        self._opener: int | None = None  # the one thread that waits for other processes
        self._waiting = 0
        self._turns = FileQueue(path)
        self._reserve = LogReservation(path)
        self._opened = self._used = self._others_until = self._free_since = 0.0
        self._cost = 0.0  # seconds that opening the file took
        self._is_look = False  # whether the file is open to be read only, for a look
        self._watcher: threading.Thread | None = None
        self._parents: duckdb.DuckDBPyConnection | None = None
        _all_leases.add(self)
        _watch_cells()

    def acquire(self, timeout: float, *, write: bool = False, look: bool = False) -> Cursor:
        """A connection to the file; close it to give it back.

        Args:
            timeout: Seconds to wait for the file.
            write: Wait for the other writers of this process as well: two at a time would only conflict.
            look: Open the file to be read only, unless this process has it open: it may be another program's.

        Raises:
            StoreBusy: another process held the file for all of ``timeout`` seconds.
            NotAStore: the file is no DuckDB database.
        """
        grant = _Grant(threading.get_ident(), _user_frame(), writes=write, looks=look)
        cancelled = threading.Event()
        running = _running_frames()

        def work() -> Cursor:
            self._release_abandoned(grant.thread, running)
            return self._acquire(grant, timeout, cancelled)

        return interrupts.run(work, cancelled.set)

    def release(self, grant: _Grant) -> None:
        """Take back a connection. Again does nothing."""
        interrupts.submit(lambda: self._release(grant))

    def release_abandoned(self, running: Collection[int]) -> None:
        """Take back the connections of this thread whose users' frames are not among those that run."""
        if self._grants:
            thread = threading.get_ident()
            interrupts.run(lambda: self._release_abandoned(thread, running))

    def reserve(self, size: int) -> None:
        """Make sure that the disk has room to commit so many bytes.

        Raises:
            StoreFull: it has not.
        """
        if not self._forever:
            interrupts.run(lambda: self._reserve.require(2 * size + _LEAST_BYTES))

    def close(self) -> None:
        """Close the file now, or as soon as the last connection is given back."""
        interrupts.run(self._close_soon)

    def end_look(self) -> None:
        """Close the file if it is open for a look."""
        interrupts.run(self._end_look)

    def discard(self) -> None:
        """Close the file as soon as may be: DuckDB refuses all further work on this connection."""
        self.close()

    def at_exit(self, deadline: float) -> None:
        """Before Python ends: stop threads that are within DuckDB, which would abort the process; close the file."""
        with self._changed:
            mine = threading.get_ident()
            grants = [grant for grant in self._grants if grant.thread != mine]
        for grant in grants:
            while not grant.busy.acquire(timeout=0.01):
                if time.monotonic() > deadline:
                    return
                if grant.connection is not None:
                    grant.connection.interrupt()
            grant.busy.release()
            self._release(grant)
        self.close()
        watcher = self._watcher
        if watcher is not None:
            watcher.join(timeout=2.0)

    def _acquire(self, grant: _Grant, timeout: float, cancelled: threading.Event) -> Cursor:
        deadline = time.monotonic() + timeout
        pause = 0.001
        with self._changed:
            self._waiting += 1
            try:
                while not cancelled.is_set():
                    cursor, refusal = self._try(grant)
                    if cursor is not None:
                        return cursor
                    if time.monotonic() > deadline:
                        raise self._busy(refusal, timeout)
                    # One thread looks out for other processes. The rest is notified.
                    self._changed.wait(pause if self._opener == grant.thread else LONGEST_PAUSE_S)
                    pause = min(pause * 1.5, LONGEST_PAUSE_S)
                raise KeyboardInterrupt  # nobody takes the connection
            finally:
                self._waiting -= 1
                if self._opener == grant.thread:
                    self._opener = None
                    self._changed.notify_all()
                if not self._waiting:
                    self._turns.leave()

    def _try(self, grant: _Grant) -> tuple[Cursor | None, str | None]:
        """A connection, if it is this thread's turn; else None, and why other processes keep it from the file."""
        if _ending and threading.current_thread() is not threading.main_thread():
            raise _ended(self.path)
        self._take_back()
        if grant.writes and any(other.writes and other.thread != grant.thread for other in self._grants):
            return None, None
        if self._overdue() and not any(other.thread == grant.thread for other in self._grants):
            if self._grants:  # those who work finish first; the last of them closes
                return None, None
            self._close(courtesy=True)
        if grant.writes and self._connection is not None and self._is_look:
            if self._grants:
                return None, None
            self._close()
        refusal = None
        if self._connection is None and self._opener in (None, grant.thread):
            self._opener = grant.thread
            refusal = self._open(grant)
        return (None, refusal) if self._connection is None else (self._grant(grant, self._connection), None)

    def _grant(self, grant: _Grant, connection: duckdb.DuckDBPyConnection) -> Cursor:
        try:
            grant.connection = self._cursor(connection)
        except duckdb.Error as error:
            self._opened = 0.0  # overdue
            raise _invalidated(self.path, error) from error
        self._grants.append(grant)
        if not self._forever and self._watcher is None and not _ending:
            self._watcher = threading.Thread(target=self._watch, name="kern_nb lease", daemon=True)
            self._watcher.start()
        return Cursor(self, grant)

    def _release(self, grant: _Grant) -> None:
        with self._changed:
            if grant not in self._grants:
                return
            self._grants.remove(grant)
            with grant.busy:
                connection, grant.connection = grant.connection, None
                if connection is not None:
                    _close_quietly(connection)
            self._used = time.monotonic()
            if not self._grants and (self._overdue() or (_ending and not self._forever)):
                self._close(courtesy=True)
            self._changed.notify_all()

    def _take_back(self) -> None:
        """Take back connections that were dropped without being closed."""
        while self.orphans:
            self._release(self.orphans.popleft())

    def _release_abandoned(self, thread: int, running: Collection[int]) -> None:
        with self._changed:
            for grant in list(self._grants):
                if grant.thread == thread and grant.frame is not None and grant.frame not in running:
                    self._release(grant)

    def _close_soon(self) -> None:
        with self._changed:
            self._take_back()
            if not self._grants:
                self._close()
            else:
                self._opened = 0.0  # overdue: closed at the last release

    def _end_look(self) -> None:
        with self._changed:
            if self._connection is not None and self._is_look:
                self._close_soon()

    def _overdue(self) -> bool:
        if self._connection is None or self._forever:
            return False
        held = time.monotonic() - self._opened
        turn = max(TURN_S, 2 * self._cost)
        longest = LONGEST_HOLD_S if self._turns.supported else UNSEEN_HOLD_S
        return held > max(longest, turn) or (held > turn and self._turns.others_wait())

    def _open(self, grant: _Grant) -> str | None:
        """Open the file, unless it is the others' turn; why not, where another process has it."""
        if self._parents is not None:
            raise fork_safety.fork_error(self.path)
        read_only = self.read_only or grant.looks
        now = time.monotonic()
        if now < self._others_until:
            return "Other programs have their turn."
        if not self._forever:
            if holder := _holder(self.path, shared=read_only):
                self._free_since = 0.0
                self._turns.join()
                return f"It is held (PID {holder})"
            if not self._turns.is_next():
                self._free_since = self._free_since or now
                self._turns.join()
                if now - self._free_since < NO_SHOW_S:
                    return _IN_LINE
        began = time.monotonic()
        config = CONFIG | {"temp_directory": files.spill_folder()} | (WRITER if grant.writes or self._forever else {})
        connection = duckdb.connect(":memory:", config=config)
        try:
            if not self._forever:
                mode = "READ_ONLY" if read_only else f"ROW_GROUP_SIZE {ROW_GROUP_SIZE}"
                with file_descriptors.defer_closing():
                    connection.execute(f"ATTACH '{self.path.replace(chr(39), chr(39) * 2)}' AS kern_store ({mode})")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")  # from here on no SQL changes a setting
        except duckdb.Error as error:
            connection.close()
            reason = self._refusal(error)
            self._turns.join()
            return reason
        self._connection, self._opened, self._free_since = connection, time.monotonic(), 0.0
        self._cost = self._opened - began
        self._is_look = read_only and not self.read_only
        self._reserve = LogReservation(self.path)
        self._turns.leave()
        return None

    def _refusal(self, error: duckdb.Error) -> str:
        """What the driver refuses because the file is in use; else the error that says what is wrong with it."""
        reason = str(error).splitlines()[0]
        if "Could not set lock" in reason or "file handle conflict" in reason:
            return str(error)
        if "not a valid DuckDB database" in reason and _is_being_made(self.path):
            return str(error)
        damaged = any(words in reason for words in _DAMAGED)
        if isinstance(error, duckdb.IOException) and not damaged:
            if is_disk_full(reason):
                raise disk_full_error(self.path, reason) from error
            raise StoreUnavailable(f"{self.path}: {reason}", "Check the path and its permissions.") from error
        raise NotAStore(
            f"{self.path} cannot be opened: {reason}", "The file may be damaged; restore a copy."
        ) from error

    def _cursor(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        cursor = connection.cursor()
        if not self._forever:
            cursor.execute("USE kern_store")
        return cursor

    def _close(self, *, courtesy: bool = False) -> None:
        if self._connection is not None:
            if not self._forever:
                self._reserve.drop_unused()
            connection, self._connection = self._connection, None
            _close_quietly(connection)
            # Who waits in line comes first in any case.
            alone = courtesy and not self._turns.others_wait()
            self._others_until = time.monotonic() + COURTESY_S if alone else 0.0
            self._changed.notify_all()

    def _watch(self) -> None:
        """Close the connection once nobody has used it for a moment; take back what its users left behind."""
        with self._changed:
            while self._connection is not None:
                self._take_back()
                idle = time.monotonic() - self._used
                if not self._grants and idle >= IDLE_S:
                    self._close()
                else:
                    self._changed.wait(max(IDLE_S - idle, 0.02))
            self._watcher = None

    def before_fork(self) -> None:
        """Close the file, after other threads' work on it has ended or for as long as a fork waits; none may start."""
        self._changed.acquire()
        self._take_back()
        self._opened = 0.0  # overdue, unless it is held for ever
        me = threading.get_ident()
        self._changed.wait_for(lambda: all(grant.thread == me for grant in self._grants), timeout=fork_safety.WAIT_S)
        if not self._grants and not self._forever:
            self._close()

    def after_fork_in_parent(self) -> None:
        """Let work go on."""
        self._changed.release()

    def after_fork(self) -> None:
        """In a forked child. A file that was open at the fork is the parent's: DuckDB would write to it from both.

        Memory has been copied. It is never deallocated: DuckDB waits for threads then which the child does not have.
        """
        parents = self._connection
        for grant in self._grants:
            grant.inherited = True
            fork_safety.leak(grant.connection)
        self.__init__(self.path, read_only=self.read_only)  # type: ignore[misc]
        if parents is not None:
            fork_safety.leak(parents)  # closing it would write to the file
            self._connection, self._parents = (parents, None) if self._forever else (None, parents)

    def _busy(self, refusal: str | None, timeout: float) -> StoreBusy:
        match = _HOLDER.search(refusal or "")
        if match:
            holder = f"process {match[1]}{_command(int(match[1]))}"
        elif refusal is None:  # no process refused it: another thread of this one is at work
            holder = "another thread of this process"
        elif refusal == _IN_LINE:
            holder = "other processes that wait in line for it"
        else:
            holder = "this process, opened in another way,"
        return StoreBusy(
            f"{self.path} is held by {holder} and was not free within {timeout:g} s.",
            "End what works there, or keep sessions that many processes write in PostgreSQL.",
        )


def _is_being_made(path: str) -> bool:
    """Whether another process may be making a file that had no header when DuckDB looked, or has just made it."""
    try:
        found = Path(path).stat()
        made = file_descriptors.read_header(Path(path), 12)[8:] == DUCKDB_MAGIC
    except OSError:
        return True
    return made or (found.st_size < _HEADER_BYTES and time.time() - found.st_mtime < _YOUNG_S)


def _holder(path: str, *, shared: bool) -> int | None:
    """The process that has a file locked, where the kernel tells. A look costs microseconds, a refused ATTACH 9 ms."""
    with contextlib.suppress(OSError), file_descriptors.open_descriptor(path) as file:
        if (
            os.read(file, len(SQLITE_MAGIC)) == SQLITE_MAGIC
        ):  # DuckDB would open and close it, which drops SQLite's locks
            raise NotAStore(f"{path} is a SQLite file.", "Open it with SqliteDb, or by its path with open_store.")
        if sys.platform != "linux":
            return None
        import fcntl

        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        asked = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack("hhqqi", asked)
        return None if kind == fcntl.F_UNLCK else pid
    return None


def _size(parameters: Any) -> int:
    """About how many bytes the parameters of a statement take in the log."""
    if isinstance(parameters, dict):
        parameters = parameters.values()
    return sum(16 + (len(value) if isinstance(value, (str, bytes)) else 0) for value in parameters or ())


def _close_quietly(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection. What DuckDB could not write to the file then is in its log, and read from there."""
    with contextlib.suppress(duckdb.Error):
        connection.close()


def _is_fatal(error: duckdb.Error) -> bool:
    """Whether DuckDB will do no more work on this connection."""
    return isinstance(error, (duckdb.FatalException, duckdb.InternalException)) or "has been invalidated" in str(error)


def _invalidated(path: str, error: duckdb.Error) -> StoreUnavailable:
    reason = str(error).splitlines()[0]
    return StoreUnavailable(
        f"{path}: DuckDB stopped after an internal error: {reason}.",
        "Try again: the file is opened anew. If it happens again, run %kern check.",
    )


def _ended(path: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path}: the connection was closed while it was in use.",
        "Python is ending, or the call was interrupted; use the store again in a new block.",
    )


# Frames of these stand between a user's function and the lease.
_BETWEEN = ("contextlib", "sqlalchemy.", "duckdb_sqlalchemy", "kern_nb.db.database", "kern_nb.db.duckdb", __name__)


def _user_frame() -> int | None:
    """The frame of the function that uses the connection which is acquired now, by its id.

    An interrupt may keep a function from giving its connection back, and the traceback, which IPython keeps, from
    dropping it. The function's frame is then no longer on the stack of its thread, and as the traceback keeps it, its
    id names no other frame. None where a function's end means nothing: a generator may go on elsewhere. Each thread
    looks at its own stack only: that of a thread which goes on meanwhile is not safe to walk.
    """
    frame = sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_BETWEEN):
        frame = frame.f_back
    suspendable = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    switched = "greenlet" in sys.modules and getattr(sys.modules["greenlet"].getcurrent(), "parent", None)
    return None if frame.f_code.co_flags & suspendable or switched else id(frame)


def _running_frames() -> frozenset[int]:
    """The frames on the stack of this thread, by their ids."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    ids = []
    while frame is not None:
        ids.append(id(frame))
        frame = frame.f_back
    return frozenset(ids)


def release_abandoned(*_: object) -> None:
    """Take back what interrupted functions of this thread have left behind. IPython calls it after each cell."""
    running = _running_frames()
    for lease in list(_all_leases):
        lease.release_abandoned(running)


def _watch_cells() -> None:
    """Have `release_abandoned` called after each cell, where this is a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        shell.events.register("post_run_cell", release_abandoned)  # once, however often


_ending = False


_at_fork: list[Lease] = []  # locked while this process forks


def _before_fork() -> None:
    interrupts.run(lambda: None)  # what was submitted has ended, and holds no lock
    _leases_lock.acquire()
    _at_fork[:] = list(_all_leases)
    for lease in _at_fork:
        lease.before_fork()


def _after_fork_in_parent() -> None:
    for lease in _at_fork:
        lease.after_fork_in_parent()
    _at_fork.clear()
    _leases_lock.release()


def _after_fork() -> None:
    for lease in _at_fork or list(_all_leases):
        lease.after_fork()
    _at_fork.clear()
    _leases_lock.release()


def _at_exit() -> None:
    """Let no other thread into DuckDB any more, and those within it out: Python ends threads where they are."""
    global _ending  # noqa: PLW0603
    _ending = True
    interrupts.shut_down(EXIT_S)
    deadline = time.monotonic() + EXIT_S
    for lease in list(_all_leases):
        lease.at_exit(deadline)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def _command(pid: int) -> str:
    """What the process is, where the system tells."""
    with contextlib.suppress(Exception):
        import psutil

        return f" ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return ""


def unwatch_cells(shell: Any) -> None:
    """Undo `_watch_cells`."""
    with contextlib.suppress(ValueError):
        shell.events.unregister("post_run_cell", release_abandoned)
