"""Sessions in the tables of other programs in a PostgreSQL database, in any schema: Agno's is ``ai`` by default.

Every importer that is a `TableImporter` is tried. The tables are read in one transaction that may only read, through
the rights of the role in the URL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.postgres import PostgresDb
from kern_nb.errors import UnknownFormat
from kern_nb.ingest import registry
from kern_nb.ingest.importer import Draft, ImportItem, hash_record
from kern_nb.ingest.parsing.table_importer import TableImporter
from kern_nb.ingest.parsing.table_rows import Tables

_COLUMNS = """SELECT table_schema, table_name, column_name FROM information_schema.columns
    WHERE table_schema NOT IN ('information_schema', 'pg_catalog') ORDER BY table_schema, table_name, column_name"""


class ProgramTables(NamedTuple):
    """The tables of a schema, and what reads the sessions in them."""

    schema: str
    tables: Tables
    importer: TableImporter


@contextmanager
def read_snapshot(database: PostgresDb) -> Iterator[Connection]:
    """A connection that sees the database as of one moment, and may only read."""
    try:
        with database.connect() as connection:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield connection
    finally:
        database.close()  # no connection waits for the next snapshot


def find_tables(connection: Connection, format: str | None = None) -> list[ProgramTables]:
    """The tables of a format, or of all formats, that the role may read.

    Raises:
        UnknownFormat: No format has that name, or it is not read from PostgreSQL.
    """
    importers = [importer for importer in registry.load_importers().values() if isinstance(importer, TableImporter)]
    if format is not None:
        importer = registry.get_importer(format)
        if not isinstance(importer, TableImporter):
            names = ", ".join(importer.name for importer in importers)
            raise UnknownFormat(f"The format {format!r} is not read from PostgreSQL.", f"Import a file, or {names}.")
        importers = [importer]
    schemas: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for schema, table, column in connection.execute(sa.text(_COLUMNS)):
        schemas[schema][table].add(column)
    return [
        ProgramTables(schema, dict(tables), importer)
        for schema, tables in schemas.items()
        for importer in importers
        if importer.has_layout(tables)
    ]


def read_sessions(connection: Connection, sources: Sequence[ProgramTables], url: str) -> Iterator[ImportItem]:
    """Yield the sessions of all tables; two sessions of one id are a problem, as in two files."""
    for schema, tables, importer in sources:
        file = url if len(sources) == 1 else f"{url}, schema {schema}"
        path_hash = hash_record(url, schema)
        for item in importer.read_tables(connection, tables, schema=schema, file=file):
            if isinstance(item, Draft):
                item.path_hash = path_hash
            yield item
