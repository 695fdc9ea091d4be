"""SQLite connections that survive a fork of the process and can be interrupted.

SQLite keeps one table per process of its open files and of their locks. A forked child inherits the table but not the
locks: it would write without them, while the parent may remove the write-ahead log. Therefore the connections of this
process are closed before a fork. If another thread uses one, or other code owns it, the child refuses to open its file.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.pool import NullPool

from kern_nb.db import file_descriptors, fork_safety
from kern_nb.db.file_descriptors import FileId, database_engine
from kern_nb.db.pools import InterruptSafePool
from kern_nb.errors import KernError, NotAStore, ReadOnlyStore, StoreBusy, StoreFull, StoreUnavailable, UnstorableValue

# Idle connections cost memory; those above this number are closed on return to the pool.
MAX_IDLE = 5

# Instructions of SQLite's virtual machine between two checks for a signal: some 10 ms of a busy query.
SIGNAL_CHECK_STEPS = 500_000

# The maximum length of a text or blob: SQLite's own limit is a gigabyte, and an expression may create several.
MAX_VALUE_BYTES = 256 * 2**20

# Pauses between two attempts of a writer: with SQLite's own pauses of up to 0.1 s it may starve.
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.001, 0.01

_random = random.SystemRandom()  # independent of the user's generator, and not shared with forked processes

_connections: weakref.WeakSet[SqliteConnection] = weakref.WeakSet()
_pools: weakref.WeakSet[SqlitePool] = weakref.WeakSet()
# Guards all of this state. Acquire it directly, not through the condition: that is Python code, where Ctrl-C would
# leave the lock acquired forever.
_lock = threading.RLock()
_changed = threading.Condition(_lock)
_forking: set[int] = set()  # the thread that is forking
_inherited: set[FileId] = set()  # files that were open when this process was forked
_interruptions: dict[int, BaseException] = {}  # exceptions of signal handlers during a query, by thread


class SqliteConnection(sqlite3.Connection):
    """A connection that records which thread uses it.

    Attributes:
        thread: The thread that uses it, None while it is idle in a pool.
        path: The file.
        inherited: Whether it belongs to the parent of this forked process.
        wal: Whether it has enabled the write-ahead log.
    """

    thread: int | None = None
    path: str = ""
    inherited = False
    wal = False

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse an inherited connection: it would write without locks."""
        self._require_own()
        return super().cursor(*args, **kwargs)

    def execute(self, *args: Any) -> Any:
        """See `cursor`."""
        self._require_own()
        return super().execute(*args)

    def executemany(self, *args: Any) -> Any:
        """See `cursor`."""
        self._require_own()
        return super().executemany(*args)

    def commit(self) -> None:
        """See `cursor`."""
        self._require_own()
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless the connection is inherited."""
        if not self.inherited:
            super().rollback()

    def close(self) -> None:
        """Close, unless the connection is inherited."""
        if not self.inherited:
            # SQLite defers the close while a traceback keeps a statement alive: the lock must not wait for that.
            with contextlib.suppress(sqlite3.Error):  # closed before
                super().rollback()
            super().close()
            with _lock:
                _connections.discard(self)
                _changed.notify_all()

    def _require_own(self) -> None:
        if self.inherited:
            raise fork_safety.fork_error(self.path)


class SqlitePool(InterruptSafePool, NullPool):
    """An unlimited pool whose idle connections are closed before a fork. `NullPool` has `recreate`."""

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        self._idle: list[Any] = []
        _pools.add(self)

    def _do_get(self) -> Any:
        self._close_pending()
        with _lock:
            _wait_for_fork()
            if self._idle:
                record = self._idle.pop()
                record.dbapi_connection.thread = threading.get_ident()
                return record
        return self._create_connection()

    def _do_return_conn(self, record: Any) -> None:
        connection = record.dbapi_connection
        with _lock:
            usable = connection is not None and not connection.inherited
            if usable and len(self._idle) < MAX_IDLE and not _forking:
                connection.thread = None
                self._idle.append(record)
                return
        record.close()

    def dispose(self) -> None:
        """Close the idle connections."""
        self._close_pending()
        with _lock:
            records, self._idle = self._idle, []
        for record in records:
            record.close()

    def forget(self) -> None:
        """Drop the idle connections without closing them."""
        self._idle.clear()
        self._to_close.clear()


def open_connection(path: Path, mode: str, timeout: float) -> SqliteConnection:
    """Open a file for the calling thread, with a mode of SQLite's URLs: ``ro``, ``rw`` or ``rwc``.

    Raises:
        StoreUnavailable: this process was forked while its parent had the file open.
        NotAStore: it is a DuckDB file.
        sqlite3.Error: SQLite cannot open it.
    """
    require_usable(path)
    with _lock:
        _wait_for_fork()
        with file_descriptors.defer_closing():
            connection: SqliteConnection = sqlite3.connect(
                f"file:{quote(path.absolute().as_posix())}?mode={mode}",
                uri=True,
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
                factory=SqliteConnection,
            )
        connection.thread, connection.path = threading.get_ident(), str(path)
        _connections.add(connection)
    signals = _watch_signals()
    next(signals)
    connection.set_progress_handler(signals.__next__, SIGNAL_CHECK_STEPS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    try:  # the first access to the file
        _retry_busy(lambda: connection.execute("PRAGMA synchronous=NORMAL"), timeout)
        connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
        connection.execute("PRAGMA trusted_schema=OFF")  # no side effects by functions in views and triggers
    except BaseException:
        connection.close()
        raise
    return connection


def require_usable(path: Path) -> None:
    """Check a file before SQLite opens it, which could drop another library's locks on it.

    Raises:
        StoreUnavailable: this process was forked while its parent had the file open.
        NotAStore: it is a DuckDB file.
    """
    try:
        file, header = file_descriptors.file_id(path), file_descriptors.read_header(path, 12)
    except OSError:  # SQLite reports the error, or creates the file
        return
    if file in _inherited:
        raise fork_safety.fork_error(path)
    if database_engine(header) == "duckdb":  # SQLite would open and close it, which drops DuckDB's lock
        raise NotAStore(f"{path} is a DuckDB file.", "Open it with DuckDb or open_store.")


# Transactions ---------------------------------------------------------------------------------------------------------


def begin_transaction(connection: SqliteConnection, *, write: bool, timeout: float) -> None:
    """Begin a transaction and take its lock: a writer cannot fail midway, and Ctrl-C interrupts the wait.

    Raises:
        sqlite3.OperationalError: the file was locked for ``timeout`` seconds.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        _retry_busy(lambda: _begin(connection, write=write), timeout)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")  # for COMMIT in a file without WAL


def _begin(connection: SqliteConnection, *, write: bool) -> None:
    if write:
        if not connection.wal:  # set by the first writer: reading must not change the file
            connection.execute("PRAGMA journal_mode=WAL")
            connection.wal = True
        connection.execute("BEGIN IMMEDIATE")
        return
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except BaseException:
        connection.rollback()
        raise


def _retry_busy(call: Callable[[], object], timeout: float) -> object:
    deadline = time.monotonic() + timeout
    pause = _MIN_PAUSE_S
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            remaining = deadline - time.monotonic()
            if not is_busy(error) or remaining <= 0:
                raise
        time.sleep(min(pause * _random.uniform(0.5, 1.5), remaining))
        pause = min(pause * 2, _MAX_PAUSE_S)


# Errors ---------------------------------------------------------------------------------------------------------------


_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_ERRORS: dict[int, tuple[type[KernError], str]] = {
    **dict.fromkeys(_BUSY_CODES, (StoreBusy, "Another process is writing to it; try again later.")),
    sqlite3.SQLITE_READONLY: (ReadOnlyStore, "Make the file and its folder writable, or attach it with --read-only."),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "Check the disk, or copy the file to another disk and attach the copy."),
    sqlite3.SQLITE_CORRUPT: (
        StoreUnavailable,
        "Run store.check(), restore a backup, or recover what can be read: sqlite3 FILE .recover",
    ),
    sqlite3.SQLITE_NOTADB: (NotAStore, "Restore a backup."),
    sqlite3.SQLITE_FULL: (StoreFull, "Free disk space and try again; nothing of this write was stored."),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "Check that its folder exists, and the permissions of both."),
    sqlite3.SQLITE_TOOBIG: (UnstorableValue, f"The maximum size of a value is {MAX_VALUE_BYTES // 2**20} MiB."),
}
"""By result code: the error to raise and its hint."""


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; 0 if the error is not from SQLite."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_busy(error: Exception) -> bool:
    """Whether an error means that another connection has locked the file."""
    return isinstance(error, sqlite3.Error) and _code(error) in _BUSY_CODES


def explain_error(error: sqlite3.Error, url: str) -> BaseException | None:
    """Translate an error of SQLite; None if it is about the statement or its values."""
    code, reason = _code(error), str(error)
    # No function of kern_nb raises, except for a signal.
    at_signal = code == sqlite3.SQLITE_ERROR and "user-defined function raised" in reason
    if code == sqlite3.SQLITE_INTERRUPT or (at_signal and threading.current_thread() is threading.main_thread()):
        return _interruptions.pop(threading.get_ident(), None) or KeyboardInterrupt()
    if code in _ERRORS:
        kind, hint = _ERRORS[code]
        return kind(f"{url}: {reason}.", hint)
    if isinstance(error, sqlite3.OperationalError):
        return StoreUnavailable(f"{url}: {reason}.", "Check that it is accessible, then attach it again.")
    return None


def _watch_signals() -> Generator[int, None, None]:
    """Yield 1 to abort the query after a signal handler raised, else 0; SQLite's progress handler.

    Python runs a signal handler when it resumes Python code in the main thread: here inside the ``try`` of a generator.
    In a plain function that would be before its first line, and SQLite would drop the exception.
    """
    stop = 0
    while True:
        try:
            yield stop
            stop = 0
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by `explained`
            _interruptions[threading.get_ident()] = error
            stop = 1


# Fork -----------------------------------------------------------------------------------------------------------------


def _wait_for_fork() -> None:
    """Wait while another thread forks, unless this thread already has a connection: the fork waits for it."""
    me = threading.get_ident()
    while _forking and not any(connection.thread == me for connection in _connections):
        _changed.wait()


def _before_fork() -> None:
    """Wait for the connections of other threads, then close all idle ones."""
    _lock.acquire()
    _forking.add(threading.get_ident())
    usable = (None, threading.get_ident())
    _changed.wait_for(lambda: all(c.thread in usable for c in _connections), timeout=fork_safety.WAIT_S)
    for pool in list(_pools):
        with contextlib.suppress(Exception):  # the child refuses a file whose connection cannot be closed
            pool.dispose()


def _after_fork_in_parent() -> None:
    _forking.clear()
    _changed.notify_all()
    _lock.release()


def _after_fork_in_child() -> None:
    """Record the files that are still open: SQLite would write to them without locks."""
    _forking.clear()
    _interruptions.clear()
    me = threading.get_ident()
    for connection in list(_connections):
        connection.inherited = True
        fork_safety.leak(connection)
        with contextlib.suppress(OSError):
            _inherited.add(file_descriptors.file_id(connection.path))
        if connection.thread == me:  # that of another thread may be locked forever
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    _connections.clear()
    for pool in list(_pools):
        pool.forget()
    # Connections of other code, and closed ones with open cursors.
    _inherited.update((file_descriptors.open_files() or {}).values())
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
