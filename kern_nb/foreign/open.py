"""`open_in_place`: the database of a program whose sessions can be read."""

from __future__ import annotations

from kern_nb.db.store import SessionStore
from kern_nb.foreign.database import ForeignDatabase
from kern_nb.foreign.sqlite import SqliteFile
from kern_nb.foreign.store import ForeignStore


def open_in_place(store: SessionStore) -> ForeignStore | None:
    """Open the database of a store that refused it because it belongs to another program, or that has no tables in it.

    Returns:
        The sessions of the program, read-only; None if no importer reads the database.
    """
    database: ForeignDatabase | None = None
    if store.engine.dialect.name == "sqlite":
        database = SqliteFile.recognize(store)
    elif store.engine.dialect.name == "postgresql":
        from kern_nb.foreign.postgres import PostgresDatabase  # psycopg, which nothing else may have imported yet

        database = PostgresDatabase.recognize(store)
    return None if database is None else ForeignStore(database)
