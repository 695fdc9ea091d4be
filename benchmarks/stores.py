"""Temporary stores of every engine."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SessionStore, SqliteDb

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_DATA = ROOT.parent / "shared" / "data"
"""Recorded sessions, which are not part of the repository."""

StoreFactory = Callable[[], SessionStore]


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kern-bench-") as path:
        yield Path(path)


@contextmanager
def engines() -> Iterator[dict[str, StoreFactory]]:
    """For each engine, a function that opens a new empty store; all are closed afterwards."""
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres_server import postgres

    with ExitStack() as stack:
        path = stack.enter_context(folder())
        url = stack.enter_context(postgres())
        opened: list[SessionStore] = []

        def open_new(make: Callable[[str], SessionStore]) -> SessionStore:
            opened.append(make(f"s{secrets.token_hex(4)}"))
            return opened[-1]

        makers: dict[str, Callable[[str], SessionStore]] = {
            "DuckDB": lambda name: DuckDb(path / f"{name}.duckdb"),
            "SQLite": lambda name: SqliteDb(path / f"{name}.db"),
            "PostgreSQL": lambda name: PostgresDb(url, session_table=name),
            "memory": lambda _: InMemoryDb(),
        }
        stack.callback(lambda: [store.close() for store in opened])
        yield {name: partial(open_new, make) for name, make in makers.items()}
