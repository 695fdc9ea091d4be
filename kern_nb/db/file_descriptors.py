"""Reading the files of stores without dropping a database's locks.

POSIX drops all fcntl locks that a process has on a file as soon as the process closes *any* descriptor of it, including
one opened outside the database library, which then believes that it still holds them. A descriptor of ours is therefore
closed only while the process has the file open nowhere else; until then it is parked, and reused by the next reader of
that file.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

FileId: TypeAlias = tuple[int, int]
"""Device and inode: what locks belong to, whatever the path."""

SQLITE_MAGIC = b"SQLite format 3\x00"

# Where the system lists a process's own descriptors.
_DESCRIPTOR_FOLDER = {"linux": Path("/proc/self/fd"), "darwin": Path("/dev/fd")}.get(sys.platform)

_lock = threading.RLock()
_parked: dict[int, FileId] = {}  # released descriptors that may not be closed yet
_openings: set[object] = set()  # files that a database library is opening


def file_id(file: str | os.PathLike[str] | int) -> FileId:
    """Identify a file, by its path or a descriptor."""
    status = os.fstat(file) if isinstance(file, int) else Path(file).stat()
    return status.st_dev, status.st_ino


def open_files() -> dict[int, FileId] | None:
    """The regular files that this process has open, by descriptor; None where the system does not list them."""
    if _DESCRIPTOR_FOLDER is None:
        return None
    try:
        names = os.listdir(_DESCRIPTOR_FOLDER)  # noqa: PTH208 - paths would cost more than the fstat calls
    except OSError:
        return None
    files = {}
    for name in names:
        try:
            status = os.fstat(int(name))
        except (OSError, ValueError):  # the listing's own descriptor, or one that another thread closed
            continue
        if stat.S_ISREG(status.st_mode):
            files[int(name)] = (status.st_dev, status.st_ino)
    return files


@contextmanager
def defer_closing() -> Iterator[None]:
    """Keep descriptors open while a database library opens a file and takes its locks."""
    token = object()
    try:
        with _lock:
            _openings.add(token)
        yield
    finally:
        with _lock:
            _openings.discard(token)


@contextmanager
def open_descriptor(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a file for reading, at its start, as a descriptor.

    Raises:
        OSError: the file does not exist or is not readable.
    """
    descriptor = _acquire(path)
    try:
        yield descriptor
    finally:
        _release(descriptor)


@contextmanager
def open_binary(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for reading like `open(path, "rb")`."""
    with open_descriptor(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        yield file


def read_header(path: Path, length: int) -> bytes:
    """Read the first bytes of a file, or raise OSError."""
    with open_descriptor(path) as descriptor:
        return os.read(descriptor, length)


def database_engine(header: bytes) -> Literal["duckdb", "sqlite"] | None:
    """The engine of a database file, from its first 16 bytes; for DuckDB 12 are enough."""
    if header.startswith(SQLITE_MAGIC):
        return "sqlite"
    return "duckdb" if header[8:12] == b"DUCK" else None  # after a checksum of eight bytes


def is_database(path: Path) -> bool:
    """Whether a SQLite or DuckDB file exists at a path."""
    try:
        return database_engine(read_header(path, len(SQLITE_MAGIC))) is not None
    except OSError:
        return False


def _acquire(path: str | os.PathLike[str]) -> int:
    with _lock:
        requested = file_id(path)
        for descriptor, file in _parked.items():
            if file == requested:
                del _parked[descriptor]
                os.lseek(descriptor, 0, os.SEEK_SET)
                return descriptor
    return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))


def _release(descriptor: int) -> None:
    """Park a descriptor, and close the parked ones whose files this process has open nowhere else."""
    if os.name != "posix" or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    with _lock:
        _parked[descriptor] = file_id(descriptor)
        if _openings or (files := open_files()) is None:
            return
        uses = Counter(files.values())
        for parked, file in list(_parked.items()):
            if uses[file] == 1:
                del _parked[parked]
                os.close(parked)


def _after_fork_in_child() -> None:
    """Close the parent's parked descriptors: a child has no locks yet that this could drop."""
    _openings.clear()
    for descriptor in _parked:
        os.close(descriptor)
    _parked.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
