"""What only the conformance tests need: the same empty store on every engine at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kern_nb.db import SessionStore


@pytest.fixture
def every_store(tmp_path: Path, postgres_database_url: str) -> Iterator[dict[str, SessionStore]]:
    """An empty store of each engine, by the engine's name."""
    from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SqliteDb

    stores = {
        "duckdb": DuckDb(tmp_path / "s.duckdb"),
        "sqlite": SqliteDb(tmp_path / "s.db"),
        "postgres": PostgresDb(postgres_database_url),
        "memory": InMemoryDb(),
    }
    with contextlib.ExitStack() as stack:
        for store in stores.values():
            stack.callback(store.close)
        yield stores
