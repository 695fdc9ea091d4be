"""The order in which processes get a file that admits one at a time.

DuckDB's own lock goes to whoever asks at the right instant. Here, who has to wait takes a number, and the lowest number
is next. Numbers are record locks on a small file in the system's folder for temporary files, so that the kernel drops
those of a killed process, and no file appears beside the database. The order is a courtesy: the database's own lock
decides. Where there are no record locks, nobody waits in line.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_COUNTER = struct.Struct("<Q")
# Byte 0 is locked to change the counter; byte `_FIRST + n` by the process that has number n.
_FIRST = 1 << 20


class FileQueue:
    """The waiting line of one file, as one process sees it.

    Args:
        path: The database file. Until it exists there is no line.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._name: Path | None = None
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

    def others_wait(self) -> bool:
        """Whether another process waits in line."""
        if fcntl is None or (file := self._open(create=False)) is None:
            return False
        if self._number is None:
            return not _free(file, _FIRST, 0)
        return self._number > 0 and not _free(file, _FIRST, self._number)

    def is_next(self) -> bool:
        """Whether this process may try: it has the lowest number, or nobody else has one."""
        return not self.others_wait()

    def join(self) -> None:
        """Take a number, unless this process has one."""
        if fcntl is None or self.queued or (file := self._open(create=True)) is None:
            return
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # taken: the next look tries again
            try:
                number = _COUNTER.unpack(os.pread(file, _COUNTER.size, _COUNTER.size).ljust(8, b"\0"))[0]
                # A process that looks locks all numbers for an instant.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _FIRST + number)
                os.pwrite(file, _COUNTER.pack(number + 1), _COUNTER.size)
                self._number = number
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1)

    def leave(self) -> None:
        """Give the number back: this process has the file, or no longer wants it."""
        number, self._number = self._number, None
        if number is not None and self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _FIRST + number)

    def close(self) -> None:
        """Close the file of the line, which gives a number back."""
        file, self._file, self._number = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def __del__(self) -> None:
        """Close the file of the line."""
        self.close()

    def _open(self, *, create: bool) -> int | None:
        """Open the file of the line, which is named after the database's inode."""
        if self._file is not None:
            return self._file
        try:
            database = Path(self._path).stat()
            folder = Path(tempfile.gettempdir()) / f"kern_nb-{os.getuid()}"
            if create:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            owner = folder.lstat()
            if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid():  # another user's: not to be trusted
                return None
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
            self._file = os.open(folder / f"{database.st_dev:x}-{database.st_ino:x}", flags, 0o600)
        except OSError:
            return None
        return self._file


def _free(file: int, start: int, length: int) -> bool:
    """Whether no other process has a lock there. A shared lock of an instant tells."""
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
    except OSError:
        return False
    fcntl.lockf(file, fcntl.LOCK_UN, length, start)
    return True
