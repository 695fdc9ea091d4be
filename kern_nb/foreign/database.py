"""`ForeignDatabase`: what a `ForeignStore` needs to know of another program's database."""

from __future__ import annotations

from abc import ABC, abstractmethod

from kern_nb.db.store import SessionStore
from kern_nb.ingest_report import IngestReport


class ForeignDatabase(ABC):
    """A database of another program, which is never written to.

    Attributes:
        url: Its URL, without a password.
        format: The name of the importer that reads it, as in `kern_nb.formats`; several, separated by commas, if a
            PostgreSQL database has tables of several programs.
    """

    url: str
    format: str

    @abstractmethod
    def state(self) -> object:
        """A value that differs after the program has written; None if that cannot be told."""

    @abstractmethod
    def read_into(self, store: SessionStore) -> IngestReport:
        """Read all sessions into an empty store."""
