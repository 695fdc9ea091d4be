"""One DuckDB file, shared between processes.

DuckDB admits one process at a time. A `Lease` therefore holds its connection only while this process works and a
moment longer, so that a burst of work opens the file once: it lets go after a short idle, and after a longest hold
even in the middle of a burst, so that nobody starves. Whoever comes in between waits with growing pauses, and after a
time-out is told which process holds the file.

All stores of one process on one file share one lease: DuckDB allows a file to be open only once with one configuration.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import re
import struct
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import duckdb

from kern_nb import files
from kern_nb.db import descriptors, forking
from kern_nb.db.descriptors import DUCKDB_MAGIC, SQLITE_MAGIC
from kern_nb.errors import NotAStore, StoreBusy, StoreUnavailable

IDLE_S = 0.05
LONGEST_HOLD_S = 0.5
# After a longest hold the others get this long to take the file. They look again within it.
COURTESY_S = 0.03
LONGEST_PAUSE_S = 0.015

# SQL through a store can neither load code nor see Python's variables; nor, once the file is open, reach any other.
CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

WRITER: dict[str, Any] = {"threads": "1"}

# DuckDB writes a whole row group anew when a table with a key has grown, each time the file is let go. With its default
# of 122,880 rows that took half a second in a store of 400,000 messages; this takes a tenth, and scans as fast.
ROW_GROUP_SIZE = 8192

_HOLDER = re.compile(r"\(PID (\d+)\)")
# A file that another process is just making looks damaged for a moment.
_HEADER_BYTES, _YOUNG_S = 12_288, 1.0

_leases: weakref.WeakValueDictionary[str, Lease] = weakref.WeakValueDictionary()
_leases_lock = threading.Lock()
_in_memory: weakref.WeakSet[Lease] = weakref.WeakSet()


_DAMAGED = ("not a valid DuckDB database", "Corrupt database file", "Could not read enough bytes")


def lease_of(path: Path, *, read_only: bool) -> Lease:
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


class Lease:
    """The connection of this process to one file, open only while it is needed.

    Args:
        path: The file, or ``:memory:``, which is held until `close`.
        read_only: Open it to be read: several processes may, at the same time.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.writer = threading.RLock()  # one writer at a time in this process: they would only conflict
        self._forever = path == ":memory:"
        if self._forever:
            _in_memory.add(self)
        self._changed = threading.Condition()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._users: dict[int, int] = {}  # thread -> connections it has out
        self._opened = self._used = self._others_until = 0.0
        self._watcher: threading.Thread | None = None
        self._parents: duckdb.DuckDBPyConnection | None = None

    def acquire(self, timeout: float, *, write: bool = False) -> duckdb.DuckDBPyConnection:
        """A connection of one's own to the file; give it back with `release`.

        A writer opens the file for one thread, and who reads then shares that until it is closed: DuckDB's other
        threads take a third of the processor time of a small transaction, and a commit that waits for the disk most.

        Raises:
            StoreBusy: another process held the file for all of ``timeout`` seconds.
            NotAStore: the file is no DuckDB database.
        """
        deadline = time.monotonic() + timeout
        pause = 0.001
        me = threading.get_ident()
        while True:
            refusal: Exception | None = None
            with self._changed:
                if me in self._users or not self._overdue():
                    refusal = self._open(WRITER if write or self._forever else {})
                    if self._connection is not None:
                        self._users[me] = self._users.get(me, 0) + 1
                        return self._cursor(self._connection)
                elif self._users:  # those who work finish first; the last of them closes
                    self._changed.wait(LONGEST_PAUSE_S)
                else:
                    self._close(courtesy=True)
            if time.monotonic() > deadline:
                raise self._busy(refusal, timeout)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - to spread waiters, no secret
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def release(self, thread: int) -> None:
        """Give back the connection that a thread acquired."""
        with self._changed:
            left = self._users.get(thread, 0) - 1
            if left > 0:
                self._users[thread] = left
            else:
                self._users.pop(thread, None)
            self._used = time.monotonic()
            if self._overdue() and not self._users:
                self._close(courtesy=True)
            elif not self._forever and self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="kern_nb lease", daemon=True)
                self._watcher.start()

    def close(self) -> None:
        """Let go of the file now, or as soon as the last connection is given back."""
        with self._changed:
            if not self._users:
                self._close()
            else:
                self._opened = 0.0  # overdue: closed at the last release

    def at_exit(self) -> None:
        """Let go of the file before Python ends: a thread that is still within DuckDB then aborts the process."""
        self.close()
        watcher = self._watcher
        if watcher is not None:
            watcher.join(timeout=2.0)

    def _overdue(self) -> bool:
        held = time.monotonic() - self._opened
        return self._connection is not None and not self._forever and held > LONGEST_HOLD_S

    def _open(self, config: dict[str, Any]) -> Exception | None:
        """Open the file, unless it is the others' turn; the driver's refusal where another process has it."""
        if self._connection is not None:
            return None
        if self._parents is not None:
            raise forking.refusal(self.path)
        if time.monotonic() < self._others_until:
            return None  # not yet: the others' turn
        if not self._forever and (holder := _holder(self.path, shared=self.read_only)):
            return duckdb.IOException(f"Could not set lock on file: it is held (PID {holder})")
        connection = duckdb.connect(":memory:", config=CONFIG | config | {"temp_directory": files.spill_folder()})
        try:
            if not self._forever:
                mode = "READ_ONLY" if self.read_only else f"ROW_GROUP_SIZE {ROW_GROUP_SIZE}"
                with descriptors.opening():
                    connection.execute(f"ATTACH '{self.path.replace(chr(39), chr(39) * 2)}' AS kern_store ({mode})")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")  # from here on no SQL changes a setting
        except duckdb.Error as error:
            connection.close()
            return self._refusal(error)
        self._connection, self._opened = connection, time.monotonic()
        return None

    def _refusal(self, error: duckdb.Error) -> Exception:
        """What the driver refuses because the file is in use; else the error that says what is wrong with it."""
        reason = str(error).splitlines()[0]
        if "Could not set lock" in reason or "file handle conflict" in reason:
            return error
        if "not a valid DuckDB database" in reason and _is_being_made(self.path):
            return error
        damaged = any(words in reason for words in _DAMAGED)
        if isinstance(error, duckdb.IOException) and not damaged:
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
            self._connection.close()
            self._connection = None
            self._others_until = time.monotonic() + COURTESY_S if courtesy else 0.0
            self._changed.notify_all()

    def _watch(self) -> None:
        """Close the connection once nobody has used it for a moment."""
        with self._changed:
            while self._connection is not None:
                idle = time.monotonic() - self._used
                if not self._users and idle >= IDLE_S:
                    self._close()
                else:
                    self._changed.wait(max(IDLE_S - idle, 0.005))
            self._watcher = None

    def before_fork(self) -> None:
        """Close the file, after other threads' work on it has ended or for as long as a fork waits; none may start."""
        self._changed.acquire()
        self._opened = 0.0  # overdue, unless it is held for ever
        me = threading.get_ident()
        self._changed.wait_for(lambda: not self._users.keys() - {me}, timeout=forking.WAIT_S)
        if not self._users and not self._forever:
            self._close()

    def after_fork_in_parent(self) -> None:
        """Let work go on."""
        self._changed.release()

    def after_fork(self) -> None:
        """In a forked child. A file that was open at the fork is the parent's: DuckDB would write to it from both.

        Memory has been copied. It is never deallocated: DuckDB waits for threads then which the child does not have.
        """
        parents = self._connection
        self.__init__(self.path, read_only=self.read_only)  # type: ignore[misc]
        if parents is not None:
            forking.leak(parents)  # closing it would write to the file
            self._connection, self._parents = (parents, None) if self._forever else (None, parents)

    def _busy(self, refusal: Exception | None, timeout: float) -> StoreBusy:
        found = _HOLDER.search(str(refusal))
        if found:
            holder = f"process {found[1]}{_command(int(found[1]))}"
        else:  # nobody refused it: those who work on it in this process have not come to an end
            holder = "another thread of this process" if refusal is None else "this process, opened in another way,"
        return StoreBusy(
            f"{self.path} is held by {holder} and was not free within {timeout:g} s.",
            "End what works there, or keep sessions that many processes write in PostgreSQL.",
        )


def _is_being_made(path: str) -> bool:
    """Whether another process may be making a file that had no header when DuckDB looked, or has just made it."""
    try:
        found = Path(path).stat()
        made = descriptors.read_header(Path(path), 12)[8:] == DUCKDB_MAGIC
    except OSError:
        return True
    return made or (found.st_size < _HEADER_BYTES and time.time() - found.st_mtime < _YOUNG_S)


def _holder(path: str, *, shared: bool) -> int | None:
    """The process that has a file locked, where the kernel tells. A look costs microseconds, a refused ATTACH 9 ms."""
    with contextlib.suppress(OSError), descriptors.opened(path) as file:
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


_at_fork: list[Lease] = []  # locked while this process forks


def _before_fork() -> None:
    _leases_lock.acquire()
    _at_fork[:] = [*_leases.values(), *_in_memory]
    for lease in _at_fork:
        lease.before_fork()


def _after_fork_in_parent() -> None:
    for lease in _at_fork:
        lease.after_fork_in_parent()
    _at_fork.clear()
    _leases_lock.release()


def _after_fork() -> None:
    for lease in _at_fork or [*_leases.values(), *_in_memory]:
        lease.after_fork()
    _at_fork.clear()
    _leases_lock.release()


def _at_exit() -> None:
    for lease in list(_leases.values()):
        lease.at_exit()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def _command(pid: int) -> str:
    """What the process is, where the system tells."""
    with contextlib.suppress(Exception):
        import psutil

        return f" ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return ""
