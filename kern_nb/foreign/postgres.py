"""A PostgreSQL database with tables of other programs whose sessions can be read."""

from __future__ import annotations

from typing import Self

from kern_nb.db.postgres import PostgresDb
from kern_nb.db.store import SessionStore
from kern_nb.errors import StoreUnavailable
from kern_nb.foreign.database import ForeignDatabase
from kern_nb.ingest.postgres import find_tables, read_sessions, read_snapshot
from kern_nb.ingest.writer import write_drafts
from kern_nb.ingest_report import IngestReport


class PostgresDatabase(ForeignDatabase):
    """A database, of which every schema with tables of a known program is read."""

    def __init__(self, store: PostgresDb, format: str) -> None:
        self.url = store.url
        self.format = format
        self._store = store

    @classmethod
    def recognize(cls, store: SessionStore) -> Self | None:
        """The database of a store; None if no schema has tables of a known program."""
        if not isinstance(store, PostgresDb):
            return None
        with read_snapshot(store) as connection:
            names = dict.fromkeys(source.importer.name for source in find_tables(connection))
        return cls(store, ", ".join(names)) if names else None

    def state(self) -> object:
        """None: the server does not tell when its tables changed."""
        return None

    def read_into(self, store: SessionStore) -> IngestReport:
        """Read all sessions, as of one moment."""
        with read_snapshot(self._store) as connection:
            sources = find_tables(connection)
            if not sources:
                hint = "Attach the database again."
                raise StoreUnavailable(f"{self.url} no longer has the tables of {self.format}.", hint)
            return write_drafts(store, read_sessions(connection, sources, self.url))
