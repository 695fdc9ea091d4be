"""A SQLite file of another program, read by the importer that recognizes its tables.

The importer reads a copy, which includes the write-ahead log: a program that has the file open is not disturbed, and
neither the file nor its log changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from kern_nb.db.sqlite import SqliteDb
from kern_nb.db.store import SessionStore
from kern_nb.errors import StoreUnavailable
from kern_nb.foreign.database import ForeignDatabase
from kern_nb.ingest import ingest, registry
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import IngestReport


class SqliteFile(ForeignDatabase):
    """A file, and the importer that reads it."""

    def __init__(self, url: str, path: Path, format: str) -> None:
        self.url = url
        self.format = format
        self._path = path

    @classmethod
    def recognize(cls, store: SessionStore) -> Self | None:
        """The file of a store; None if no importer recognizes its tables."""
        if not isinstance(store, SqliteDb):
            return None
        path = store.db_file
        importer = registry.find_importer(Source(path, path.name))
        return None if importer is None else cls(store.url, path, importer.name)

    def state(self) -> object:
        """The sizes and times of the file and its write-ahead log."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        stats = (file.stat() for file in files if file.exists())
        return [(stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats]

    def read_into(self, store: SessionStore) -> IngestReport:
        """Read all sessions with the importer."""
        if not self._path.exists():
            raise StoreUnavailable(f"{self.url} was removed.", "Restore the file, or attach another store.")
        return ingest(store, self._path, self.format)
