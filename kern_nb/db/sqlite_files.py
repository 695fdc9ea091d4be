"""Reading a SQLite file without side effects: no lock, no replay of a write-ahead log, no rollback of a journal.

SQLite has side effects on a file that it only reads: it creates a ``-shm`` file, and the last connection to close
checkpoints the log and deletes it. ``immutable=1`` avoids them, but ignores the ``-wal`` file, which is therefore
parsed here. No other descriptor of the database itself is opened: closing it would drop all locks of this process on
the file. The ``-wal`` and ``-journal`` files have no locks.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from kern_nb.db.sqlite_connections import require_usable
from kern_nb.errors import NotAStore

_ATTEMPTS, _PAUSE_S = 5, 0.02
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC, _FILE_HEADER, _TABLE_LEAF_PAGE = b"\x37\x7f\x06", 100, 0x0D
_CHUNK, _MAX_ROW_BYTES = 2**20, 100
SCHEMA_TABLE = "kern_schema"
# The row of kern_schema in sqlite_master: type, name and table name are adjacent.
_SCHEMA_ROW = re.compile(rb"tablekern_schemakern_schema.{0,8}CREATE TABLE ", re.DOTALL)


@contextlib.contextmanager
def open_without_side_effects(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Return a read-only connection that shows the tables of a file; None if SQLite may open it as usual.

    SQLite may if the file cannot be opened at all, or if only the ``-wal`` or ``-journal`` contains ``kern_schema``:
    then the file is a store, which only SQLite can read.

    Raises:
        NotAStore: the file cannot be read without changing it.
    """
    connection = _read(path)
    if connection is None:
        yield None
        return
    with contextlib.closing(connection):
        tables = _tables(connection)
        if SCHEMA_TABLE in tables or not _has_log(path):
            yield connection
        elif _log_has_schema(path) or SCHEMA_TABLE in _reread_tables(path):  # after a checkpoint by another process
            yield None
        elif tables:
            yield connection
        else:
            with _open_log(path) as log:
                yield log or connection


def _read(path: Path) -> sqlite3.Connection | None:
    require_usable(path)
    for attempt in range(_ATTEMPTS):
        connection = _connect(path)
        try:
            _tables(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if "unable to open" in str(error) or _log_has_schema(path):
                return None
            if attempt == _ATTEMPTS - 1 or not _has_log(path):
                raise _unreadable_error(path, error) from error
            time.sleep(_PAUSE_S)  # another process may be writing these pages
        else:
            return connection
    raise AssertionError("unreachable")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(path.absolute().as_posix())}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda value: value.decode(errors="replace")
    return connection


def _tables(connection: sqlite3.Connection) -> set[str]:
    # After a killed checkpoint a file is shorter than its header says, as pages are still in the log. This pragma makes
    # SQLite accept such a file; the connection is read-only.
    connection.execute("PRAGMA writable_schema=ON")
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _reread_tables(path: Path) -> set[str]:
    with contextlib.closing(_connect(path)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        return _tables(connection)
    return set()


def _has_log(path: Path) -> bool:
    """Whether a file has a log or a journal, so that the file itself may be outdated."""
    for suffix in ("-wal", "-journal"):
        with contextlib.suppress(OSError):
            if _log_path(path, suffix).stat().st_size:
                return True
    return False


def _unreadable_error(path: Path, error: sqlite3.DatabaseError) -> NotAStore:
    if _has_log(path):
        return NotAStore(
            f"{path} cannot be read without changing it: {error}.",
            "A program was interrupted while it wrote to the file: open it once in that program, then attach it.",
        )
    hint = "Restore a backup, or recover what can be read: sqlite3 FILE .recover"
    return NotAStore(f"{path} is damaged: {error}.", hint)


def _log_path(path: Path, suffix: str) -> Path:
    real = path.resolve()  # SQLite names these files after the target of a link
    return real.with_name(real.name + suffix)


def _log_has_schema(path: Path) -> bool:
    leaf = {}  # by page: whether its latest version has the row
    for number, page in _read_log(path):
        start = _FILE_HEADER if number == 1 else 0
        leaf[number] = page[start] == _TABLE_LEAF_PAGE and _SCHEMA_ROW.search(page) is not None
    if any(leaf.values()):
        return True
    end = b""
    with contextlib.suppress(OSError), _log_path(path, "-journal").open("rb") as journal:
        while chunk := journal.read(_CHUNK):
            if _SCHEMA_ROW.search(end + chunk):
                return True
            end = chunk[-_MAX_ROW_BYTES:]
    return False


def _read_log(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the committed pages of a write-ahead log and their numbers, in order."""
    with contextlib.suppress(OSError), _log_path(path, "-wal").open("rb") as log:
        header = log.read(_WAL_HEADER)
        if len(header) < _WAL_HEADER or header[:3] != _WAL_MAGIC:
            return
        size, salt = struct.unpack(">8xI4x8s8x", header)
        frames = committed = 0
        while len(frame := log.read(_FRAME_HEADER)) == _FRAME_HEADER and frame[8:16] == salt:
            frames += 1
            if frame[4:8] != b"\0\0\0\0":  # the last frame of a transaction
                committed = frames
            log.seek(size, 1)
        log.seek(_WAL_HEADER)
        for _ in range(committed):
            frame, page = log.read(_FRAME_HEADER), log.read(size)
            if len(page) < size:
                return
            yield int.from_bytes(frame[:4], "big"), page


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Return a database of the pages in the log, for a file that has no table itself."""
    if next(_read_log(path), None) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kern_nb-") as folder:
        copy = Path(folder) / "log.db"
        with copy.open("xb") as file:
            for number, page in _read_log(path):
                file.seek((number - 1) * len(page))
                # Bytes 18 and 19 declare that the file has a log.
                file.write(page[:18] + b"\x01\x01" + page[20:] if number == 1 else page)
        connection = _connect(copy)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise _unreadable_error(path, error) from error
        else:
            yield connection
        finally:
            connection.close()
