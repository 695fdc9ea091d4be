"""Session stores: one `SessionStore`, four engines. `open_store` chooses the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.db.async_stores import AsyncPostgresDb, AsyncSqliteDb
    from kern_nb.db.duckdb import DuckDb
    from kern_nb.db.memory import InMemoryDb
    from kern_nb.db.open import open_store
    from kern_nb.db.postgres import PostgresDb
    from kern_nb.db.sqlite import SqliteDb
    from kern_nb.db.store import SessionStore

__all__ = [
    "AsyncPostgresDb", "AsyncSqliteDb", "DuckDb", "InMemoryDb", "PostgresDb", "SessionStore", "SqliteDb", "open_store",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.db.async_stores": ["AsyncPostgresDb", "AsyncSqliteDb"],
        "kern_nb.db.duckdb": ["DuckDb"],
        "kern_nb.db.memory": ["InMemoryDb"],
        "kern_nb.db.open": ["open_store"],
        "kern_nb.db.postgres": ["PostgresDb"],
        "kern_nb.db.sqlite": ["SqliteDb"],
        "kern_nb.db.store": ["SessionStore"],
    },
)
