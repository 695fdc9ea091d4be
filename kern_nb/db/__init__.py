"""Session stores: one `SessionStore`, four engines. `open_store` chooses the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.db.duckdb import DuckDb
    from kern_nb.db.memory import InMemoryDb
    from kern_nb.db.open import open_store
    from kern_nb.db.postgres import PostgresDb
    from kern_nb.db.sqlite import SqliteDb
    from kern_nb.db.store import SessionStore

__all__ = ["DuckDb", "InMemoryDb", "PostgresDb", "SessionStore", "SqliteDb", "open_store"]

_MODULES = {
    "DuckDb": "duckdb",
    "InMemoryDb": "memory",
    "PostgresDb": "postgres",
    "SessionStore": "store",
    "SqliteDb": "sqlite",
    "open_store": "open",
}


def __getattr__(name: str) -> Any:
    """Import an engine at first use, so that the drivers of the others are not loaded."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"kern_nb.db.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
