"""Free space on the disk of a store, checked before a commit.

DuckDB ends the whole process when it cannot write its write-ahead log in a commit. Space for the log is therefore
allocated before the commit, where the system supports that, so that no other process can take it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Any

from kern_nb.errors import StoreFull, StoreUnavailable

CHUNK = 1 << 20  # the log's space is allocated in pieces of this size
_KEEP_SIZE = 1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL = ("No space left", "disk is full", "Disk quota exceeded", "File too large", "could not extend file")


def is_disk_full(error: object) -> bool:
    """Whether an engine's error reports a full disk."""
    text = str(error)
    return any(phrase in text for phrase in _DISK_FULL)


def unavailable_error(url: str, cause: object, path: Path | None = None) -> StoreUnavailable:
    """Convert an engine's error about its files or connection."""
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if is_disk_full(reason):
        return disk_full_error(url, reason)
    free = _free_space(str(path)) if "disk I/O error" in reason and path is not None else None
    if free is not None and free < CHUNK:
        return disk_full_error(url, f"{reason}, {free:,} bytes free")
    return StoreUnavailable(f"{url}: {reason}.", "Check that the store is reachable, then attach it again.")


def disk_full_error(url: str, reason: str) -> StoreFull:
    """The error for a disk without space."""
    return StoreFull(
        f"The disk of {url} has no space left: {reason.rstrip('.')}.",
        "Free space there, then try again. This write was not stored; earlier writes are safe.",
    )


class LogReservation:
    """Disk space allocated for the write-ahead log of one database.

    Args:
        path: The database; its log is the file of the same name with ``.wal``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._log = Path(f"{path}.wal")
        self._allocated = 0
        self._can_allocate = _fallocate is not None

    def require(self, size: int) -> None:
        """Reserve space for the log to grow by so many bytes.

        Raises:
            StoreFull: the disk has too little space.
        """
        if self._can_allocate:
            try:
                self._allocate(size)
            except OSError as error:
                if error.errno in _NO_SPACE:
                    raise disk_full_error(self.path, self._shortage(size, error)) from error
                if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):  # unsupported by this file system
                    self._can_allocate = False
            else:
                return
        free = _free_space(self.path)
        if free is not None and free < size + CHUNK:
            raise disk_full_error(self.path, self._shortage(size, None))

    def drop_unused(self) -> None:
        """Remove an empty log. Call it only while this process has the database open for writing."""
        if self._allocated:
            with contextlib.suppress(OSError):
                if self._log.stat().st_size == 0:
                    self._log.unlink()
            self._allocated = 0

    def _allocate(self, size: int) -> None:
        try:
            end = self._log.stat().st_size
        except FileNotFoundError:
            end, self._allocated = 0, 0
        if end + size <= self._allocated:
            return
        file = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, Path(self.path).stat().st_mode & 0o777)
        try:
            length = end + size + CHUNK
            if _fallocate(file, _KEEP_SIZE, 0, length) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            self._allocated = length
        finally:
            os.close(file)

    def _shortage(self, size: int, error: OSError | None) -> str:
        free = _free_space(self.path)
        text = "unknown" if free is None else f"{free:,} bytes"
        reason = "" if error is None or error.errno == errno.ENOSPC else f" ({os.strerror(error.errno or 0)})"
        return f"{text} free, {size + CHUNK:,} needed{reason}"


def _free_space(path: str) -> int | None:
    """The free bytes for this user on the disk of a file; None if the system does not tell."""
    try:
        disk = os.statvfs(Path(path).parent)
    except (AttributeError, OSError):
        return None
    return disk.f_bavail * disk.f_frsize


# Linux's fallocate, which allocates space beyond a file's end without extending the file.
_fallocate: Any = None
if sys.platform == "linux":
    with contextlib.suppress(OSError, AttributeError):
        _fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        _fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
