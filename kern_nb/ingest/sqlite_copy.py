"""Copies of SQLite files that a program may be writing to, without a lock or any other effect on the file.

SQLite itself would create a ``-shm`` file, and might checkpoint the log. A copy is consistent if no new log began
meanwhile: a log is only appended to, and SQLite ignores an incomplete frame at its end. Without a log, no transaction
may have changed the main file. A journal that a killed program left is copied, too, and rolled back in the copy.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kern_nb.db.file_descriptors import open_binary

_ATTEMPTS = 20
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.25
_LOG_HEADER = 32  # with salts, which a new log changes
_MAIN_HEADER = 100  # with a counter of transactions: times of files are coarse
_SUFFIXES = ("", "-wal", "-journal")


@contextlib.contextmanager
def open_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a SQLite file in a temporary folder, with what its log or journal adds.

    Raises:
        OSError: the file does not exist, or cannot be read.
        sqlite3.OperationalError: the file changed during each attempt to copy it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        for attempt in range(_ATTEMPTS):
            before = _state(path)
            _copy(path, copy)
            if _state(path) == before:
                break
            time.sleep(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
        else:
            raise sqlite3.OperationalError(f"{path.name} changes all the time; import it when its program is idle")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.text_factory = lambda value: value.decode(errors="replace")
            yield connection


def _copy(path: Path, copy: Path) -> None:
    for suffix in _SUFFIXES:
        target = copy.with_name(copy.name + suffix)
        target.unlink(missing_ok=True)
        try:
            with open_binary(path.with_name(path.name + suffix)) as original, target.open("wb") as file:
                shutil.copyfileobj(original, file)
        except FileNotFoundError:
            if not suffix:
                raise
            target.unlink(missing_ok=True)


def _state(path: Path) -> object:
    """A value that differs after a change that makes the copy of the files before it useless.

    What a checkpoint writes to the main file is in the log, too, until a new log begins, with another header.
    """
    if log := _read_start(path.with_name(f"{path.name}-wal"), _LOG_HEADER):
        return path.stat().st_ino, log
    times = []
    for suffix in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.with_name(path.name + suffix).stat()
            times.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return times, _read_start(path, _MAIN_HEADER)


def _read_start(path: Path, size: int) -> bytes:
    try:
        with open_binary(path) as file:
            return file.read(size)
    except FileNotFoundError:
        return b""
