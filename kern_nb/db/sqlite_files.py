"""A look into a SQLite file that leaves no trace: no lock, no write-ahead log replayed, no journal rolled back.

SQLite itself has side effects on a file that it merely reads: it makes a ``-shm`` file, and the last connection to
close checkpoints the log and deletes it. ``immutable=1`` has none, and does not see what is only in the ``-wal`` file.
That file is therefore read here as well. No descriptor of the database itself is opened beside SQLite's: closing it
would drop all locks that this process has on the file. Locks are never on the ``-wal`` or ``-journal``.
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

_TRIES, _PAUSE_S = 5, 0.02
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC, _FILE_HEADER, _LEAF_OF_TABLE = b"\x37\x7f\x06", 100, 0x0D
_CHANGES = ("-wal", "-journal")
_CHUNK, _LONGEST_ROW = 2**20, 100
SCHEMA_TABLE = "kern_schema"
# A row of sqlite_master for the table kern_schema: type, name and table name stand one after the other.
_OUR_ROW = re.compile(rb"tablekern_schemakern_schema.{0,8}CREATE TABLE ", re.DOTALL)


@contextlib.contextmanager
def open_without_side_effects(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A read-only connection that shows the tables of a file; None where SQLite may open the file as usual.

    That is where the ``-wal`` or ``-journal`` holds a ``kern_schema`` that the file itself does not show: only SQLite
    can then tell what is in it, and it may, as the file is ours. And where the file cannot be opened at all.

    Raises:
        NotAStore: the file cannot be read without changing it.
    """
    connection = _read(path)
    if connection is None:
        yield None
        return
    with contextlib.closing(connection):
        tables = _tables(connection)
        if tables & {SCHEMA_TABLE} or not _has_changes(path):
            yield connection
        elif _holds_ours(path) or SCHEMA_TABLE in _tables_now(path):  # a checkpoint may have ended meanwhile
            yield None
        elif tables:
            yield connection
        else:
            with _log_alone(path) as logged:
                yield logged or connection


def _read(path: Path) -> sqlite3.Connection | None:
    require_usable(path)
    for attempt in range(_TRIES):
        connection = _connected(path)
        try:
            _tables(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if "unable to open" in str(error) or _holds_ours(path):
                return None
            if attempt == _TRIES - 1 or not _has_changes(path):
                raise _unreadable(path, error) from error
            time.sleep(_PAUSE_S)  # its owner may be writing these pages
        else:
            return connection
    raise AssertionError("unreachable")


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(path.absolute().as_posix())}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda value: value.decode(errors="replace")
    return connection


def _tables(connection: sqlite3.Connection) -> set[str]:
    # A file may be shorter than its header says: the pages that a killed checkpoint did not copy are still in the log.
    # SQLite is to go on then. Nothing can be written, as the connection is read-only.
    connection.execute("PRAGMA writable_schema=ON")
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _tables_now(path: Path) -> set[str]:
    with contextlib.closing(_connected(path)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        return _tables(connection)
    return set()


def _has_changes(path: Path) -> bool:
    """Whether a log or a journal stands beside a file, which may not show all that is in the database then."""
    for ending in _CHANGES:
        with contextlib.suppress(OSError):
            if _beside(path, ending).stat().st_size:
                return True
    return False


def _unreadable(path: Path, error: sqlite3.DatabaseError) -> NotAStore:
    if _has_changes(path):
        return NotAStore(
            f"{path} cannot be read as it is: {error}.",
            "A program was interrupted while it wrote to it: open it there once, then attach it.",
        )
    hint = "Restore a copy of it, or save what can be read: sqlite3 FILE .recover"
    return NotAStore(f"{path} is damaged: {error}.", hint)


def _beside(path: Path, ending: str) -> Path:
    real = path.resolve()  # SQLite names these files after the file that a link points to
    return real.with_name(real.name + ending)


def _holds_ours(path: Path) -> bool:
    """Whether the log or the journal beside a file has the row that makes a database one of ours."""
    leaf = {}  # by page: whether its latest version has the row
    for number, page in _committed(path):
        start = _FILE_HEADER if number == 1 else 0
        leaf[number] = page[start] == _LEAF_OF_TABLE and _OUR_ROW.search(page) is not None
    if any(leaf.values()):
        return True
    end = b""
    with contextlib.suppress(OSError), _beside(path, "-journal").open("rb") as journal:
        while chunk := journal.read(_CHUNK):
            if _OUR_ROW.search(end + chunk):
                return True
            end = chunk[-_LONGEST_ROW:]
    return False


def _committed(path: Path) -> Iterator[tuple[int, bytes]]:
    """The pages in a write-ahead log, with their numbers, in the order in which they were committed."""
    with contextlib.suppress(OSError), _beside(path, "-wal").open("rb") as log:
        header = log.read(_WAL_HEADER)
        if len(header) < _WAL_HEADER or header[:3] != _WAL_MAGIC:
            return
        size, salt = struct.unpack(">8xI4x8s8x", header)
        frames = committed = 0
        while len(frame := log.read(_FRAME_HEADER)) == _FRAME_HEADER and frame[8:16] == salt:
            frames += 1
            if frame[4:8] != b"\0\0\0\0":  # the last of a transaction
                committed = frames
            log.seek(size, 1)
        log.seek(_WAL_HEADER)
        for _ in range(committed):
            frame, page = log.read(_FRAME_HEADER), log.read(size)
            if len(page) < size:
                return
            yield int.from_bytes(frame[:4], "big"), page


@contextlib.contextmanager
def _log_alone(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A database made of the pages in the log: all that there is, where the file itself has no table yet."""
    if next(_committed(path), None) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kern_nb-") as folder:
        copy = Path(folder) / "log.db"
        with copy.open("xb") as file:
            for number, page in _committed(path):
                file.seek((number - 1) * len(page))
                # Bytes 18 and 19 of the file say that it has a log.
                file.write(page[:18] + b"\x01\x01" + page[20:] if number == 1 else page)
        connection = _connected(copy)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise _unreadable(path, error) from error
        else:
            yield connection
        finally:
            connection.close()
