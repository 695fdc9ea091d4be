"""Tables of Agno or of the OpenAI Agents SDK in a PostgreSQL database, in any schema: Agno's is ``ai`` by default.

They are read in one transaction that may only read, through the rights of the role in the URL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.postgres import PostgresDb
from kern_nb.db.store import SessionStore
from kern_nb.errors import StoreUnavailable
from kern_nb.foreign.database import ForeignDatabase
from kern_nb.ingest.importer import ImportItem
from kern_nb.ingest.importers import agno, openai_agents
from kern_nb.ingest.importers.agno.tables import find_layouts as find_agno
from kern_nb.ingest.importers.openai_agents.tables import find_layouts as find_openai_agents
from kern_nb.ingest.parsing.table_rows import Tables
from kern_nb.ingest.writer import write_drafts
from kern_nb.ingest_report import IngestReport

_Reader: TypeAlias = Callable[..., Iterator[ImportItem]]

_FORMATS: dict[str, tuple[Callable[[Tables], object], _Reader]] = {
    agno.NAME: (find_agno, agno.read_agno_tables),
    openai_agents.NAME: (find_openai_agents, openai_agents.read_openai_agents_tables),
}

_COLUMNS = """SELECT table_schema, table_name, column_name FROM information_schema.columns
    WHERE table_schema NOT IN ('information_schema', 'pg_catalog') ORDER BY table_schema, table_name, column_name"""


class PostgresTables(ForeignDatabase):
    """The tables of a program in a schema of a database."""

    def __init__(self, store: PostgresDb, schema: str, format: str) -> None:
        self.url = store.url
        self.format = format
        self._store = store
        self._schema = schema

    @classmethod
    def recognize(cls, store: SessionStore) -> Self | None:
        """The tables in the database of a store; None if no schema has tables of a known program."""
        if not isinstance(store, PostgresDb):
            return None
        with _read(store) as connection:
            for schema, tables in _tables_by_schema(connection).items():
                for name, (find_layouts, _) in _FORMATS.items():
                    if find_layouts(tables):
                        return cls(store, schema, name)
        return None

    def state(self) -> object:
        """None: the server does not tell when its tables changed."""
        return None

    def read_into(self, store: SessionStore) -> IngestReport:
        """Read all sessions, as of one moment."""
        with _read(self._store) as connection:
            tables = _tables_by_schema(connection).get(self._schema)
            find_layouts, read = _FORMATS[self.format]
            if tables is None or not find_layouts(tables):
                hint = "Attach the database again."
                raise StoreUnavailable(f"{self.url} no longer has the tables of {self.format}.", hint)
            return write_drafts(store, read(connection, tables, schema=self._schema, file=self.url))


@contextmanager
def _read(store: PostgresDb) -> Iterator[Connection]:
    try:
        with store.connect() as connection:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield connection
    finally:
        store.close()  # no connection waits for the next refresh


def _tables_by_schema(connection: Connection) -> dict[str, dict[str, set[str]]]:
    schemas: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for schema, table, column in connection.execute(sa.text(_COLUMNS)):
        schemas[schema][table].add(column)
    return {schema: dict(tables) for schema, tables in schemas.items()}
