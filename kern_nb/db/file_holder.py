"""Which process holds a DuckDB file, and why DuckDB refuses to open one."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
import time
from pathlib import Path

import duckdb

from kern_nb.db import file_descriptors
from kern_nb.db.disk_space import disk_full_error, is_disk_full
from kern_nb.db.file_descriptors import SQLITE_MAGIC, database_engine
from kern_nb.errors import NotAStore, StoreBusy, StoreUnavailable

QUEUED = "Other processes come first in the queue."
YIELDED = "The file is left to other programs for a moment."

_HOLDER_PID = re.compile(r"\(PID (\d+)\)")
# A file that another process is creating looks damaged for a moment.
_HEADER_BYTES, _CREATION_S = 12_288, 1.0
_DAMAGED = ("not a valid DuckDB database", "Corrupt database file", "Could not read enough bytes")
_NEWER_STORAGE = re.compile(r"database file with version number (\d+), but we can only read versions between")
# The library's name follows the magic bytes, the storage version and the flags.
_LIBRARY = slice(52, 84)


def find_holder(path: str, *, shared: bool) -> int | None:
    """The PID of the process that has a file locked, where the kernel tells: microseconds, a refused ATTACH takes 9 ms.

    Raises:
        NotAStore: it is a SQLite file. DuckDB would open and close it, which drops SQLite's locks.
    """
    with contextlib.suppress(OSError), file_descriptors.open_descriptor(path) as file:
        if database_engine(os.read(file, len(SQLITE_MAGIC))) == "sqlite":
            raise NotAStore(f"{path} is a SQLite file.", "Open it with SqliteDb, or by its path with open_store.")
        if sys.platform != "linux":
            return None
        import fcntl

        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        lock = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack("hhqqi", lock)
        return None if kind == fcntl.F_UNLCK else pid
    return None


def explain_refusal(path: str, error: duckdb.Error) -> str:
    """DuckDB's message where the file is in use, so that opening it can be retried.

    Raises:
        StoreFull: the disk has no space left.
        StoreUnavailable: the file cannot be opened, or not by this version of DuckDB.
        NotAStore: the file is damaged.
    """
    reason = str(error).splitlines()[0]
    if "Could not set lock" in reason or "file handle conflict" in reason:
        return str(error)
    if "not a valid DuckDB database" in reason and _is_being_created(path):
        return str(error)
    if storage := _NEWER_STORAGE.search(reason):
        raise StoreUnavailable(
            f"{path} was written by DuckDB 2 or newer ({_library_version(path)}, storage version {storage[1]}); "
            f"this is DuckDB {duckdb.__version__}.",
            "Install a version that can read it: pip install --upgrade duckdb",
        ) from error
    damaged = any(phrase in reason for phrase in _DAMAGED)
    if isinstance(error, duckdb.IOException) and not damaged:
        if is_disk_full(reason):
            raise disk_full_error(path, reason) from error
        raise StoreUnavailable(f"{path}: {reason}", "Check the path and its permissions.") from error
    raise NotAStore(f"{path} cannot be opened: {reason}", "The file may be damaged; restore a copy.") from error


def busy_error(path: str, refusal: str | None, timeout: float) -> StoreBusy:
    """The error for a file that was not released in time.

    Args:
        path: The file.
        refusal: Why it could not be opened; None where another thread of this process uses it.
        timeout: How many seconds this process waited.
    """
    if match := _HOLDER_PID.search(refusal or ""):
        holder = f"process {match[1]}{_command_line(int(match[1]))}"
    elif refusal is None:
        holder = "another thread of this process"
    elif refusal == QUEUED:
        holder = "other processes in its queue"
    else:
        holder = "this process, through a connection outside kern_nb,"
    return StoreBusy(
        f"{path} is held by {holder} and was not free within {timeout:g} s.",
        "End the process that uses it, or store sessions that many processes write in PostgreSQL.",
    )


def _is_being_created(path: str) -> bool:
    """Whether another process may be creating a file that had no header when DuckDB read it, or has just created it."""
    try:
        status = Path(path).stat()
        has_header = database_engine(file_descriptors.read_header(Path(path), 12)) == "duckdb"
    except OSError:
        return True
    return has_header or (status.st_size < _HEADER_BYTES and time.time() - status.st_mtime < _CREATION_S)


def _library_version(path: str) -> str:
    """The version of DuckDB that wrote a file, from its header."""
    with contextlib.suppress(OSError):
        if name := file_descriptors.read_header(Path(path), _LIBRARY.stop)[_LIBRARY].rstrip(b"\0"):
            return name.decode("ascii", "replace")
    return "unknown version"


def _command_line(pid: int) -> str:
    """The command line of a process, in parentheses, where the system tells."""
    with contextlib.suppress(Exception):
        import psutil

        return f" ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return ""
