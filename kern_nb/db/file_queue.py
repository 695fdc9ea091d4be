"""The order in which processes get a file that admits one at a time.

DuckDB's own lock goes to whoever asks at the right instant. Here a process that has to wait takes a number, and the
lowest number is next. Numbers are record locks on a small file in the system's temporary folder: the kernel drops those
of a killed process, and no file appears beside the database. The order is a courtesy, the database's own lock decides.
Without record locks nobody queues.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from pathlib import Path

from kern_nb import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_COUNTER = struct.Struct("<Q")
# Byte 0 is locked to change the counter; byte `_FIRST + n` by the process that has number n.
_FIRST = 1 << 20


class FileQueue:
    """This process's view of the queue for one file.

    Args:
        path: The database file. Until it exists there is no queue.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._number: int | None = None

    @property
    def supported(self) -> bool:
        """Whether this system has record locks."""
        return fcntl is not None

    @property
    def queued(self) -> bool:
        """Whether this process has a number."""
        return self._number is not None

    def has_other_waiters(self) -> bool:
        """Whether another process comes first: it has a lower number, or any while this one has none."""
        if fcntl is None or (file := self._open(create=False)) is None:
            return False
        if self._number is None:
            return not _is_unlocked(file, _FIRST, 0)
        return self._number > 0 and not _is_unlocked(file, _FIRST, self._number)

    def join(self) -> None:
        """Take a number, unless this process has one."""
        if fcntl is None or self.queued or (file := self._open(create=True)) is None:
            return
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # fails if locked: the next attempt tries again
            try:
                number = _COUNTER.unpack(os.pread(file, _COUNTER.size, _COUNTER.size).ljust(8, b"\0"))[0]
                # Fails while another process checks, which locks all numbers for an instant.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _FIRST + number)
                os.pwrite(file, _COUNTER.pack(number + 1), _COUNTER.size)
                self._number = number
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1)

    def leave(self) -> None:
        """Return the number: this process has the file, or no longer needs it."""
        number, self._number = self._number, None
        if number is not None and self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _FIRST + number)

    def __del__(self) -> None:
        """Close the queue's file, which returns the number."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)

    def _open(self, *, create: bool) -> int | None:
        """Open the queue's file, which is named after the database's inode."""
        if self._file is not None:
            return self._file
        try:
            database = Path(self._path).stat()
            folder = files.private_folder(tempfile.gettempdir(), create=create)
            if folder is None:
                return None
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
            self._file = os.open(folder / f"{database.st_dev:x}-{database.st_ino:x}", flags, 0o600)
        except OSError:
            return None
        return self._file


def _is_unlocked(file: int, start: int, length: int) -> bool:
    """Whether no other process has a lock there, tested with a shared lock of an instant."""
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
    except OSError:
        return False
    fcntl.lockf(file, fcntl.LOCK_UN, length, start)
    return True
