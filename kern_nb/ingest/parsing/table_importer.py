"""`TableImporter`: an importer of sessions in tables, which are in a SQLite file or on a PostgreSQL server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from kern_nb.ingest.importer import Draft, Importer
from kern_nb.ingest.parsing.table_rows import READ_TABLE_ERRORS, AnyConnection, Tables
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem


class TableImporter(Importer):
    """A format that the same code reads from a file and from a server."""

    @abstractmethod
    def has_layout(self, tables: Tables) -> bool:
        """Whether a database, or a schema of one, has the tables of the format."""

    @abstractmethod
    def read_tables(
        self, connection: AnyConnection, tables: Tables, *, schema: str | None = None, file: str = "database"
    ) -> Iterator[Draft | Problem]:
        """Yield the sessions in the tables of a database.

        Args:
            connection: A connection of `sqlite3` or of SQLAlchemy, which is only read from.
            tables: The columns of the tables by name; tables of other layouts are passed over.
            schema: The schema of the tables.
            file: What problems call the database.
        """

    def recognizes(self, source: Source) -> bool:
        """Whether a file has the tables."""
        return self.has_layout(source.tables)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the sessions of a file."""
        try:
            with source.open_sqlite() as connection:
                yield from self.read_tables(connection, source.tables, file=source.name)
        except READ_TABLE_ERRORS as error:
            yield Problem(source.name, None, f"The database cannot be read any further: {error}.")
