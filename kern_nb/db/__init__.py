"""Stores of sessions: one `SessionStore`, four engines. `open_store` finds the right one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kern_nb.db.duckdb import DuckDb
    from kern_nb.db.memory import InMemoryDb
    from kern_nb.db.open import open_store
    from kern_nb.db.postgres import PostgresDb
    from kern_nb.db.sqlite import SqliteDb
    from kern_nb.db.store import SessionStore

__all__ = ["DuckDb", "InMemoryDb", "PostgresDb", "SessionStore", "SqliteDb", "open_store"]

_HOMES = {
    "DuckDb": "duckdb",
    "InMemoryDb": "memory",
    "PostgresDb": "postgres",
    "SessionStore": "store",
    "SqliteDb": "sqlite",
    "open_store": "open",
}


def __getattr__(name: str) -> Any:
    """Import an engine where it is first used: nobody pays for the drivers of the others."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"kern_nb.db.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
