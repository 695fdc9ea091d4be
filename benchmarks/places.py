"""Where the benchmarks write: stores of every engine, in a folder that is gone afterwards."""

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

Make = Callable[[], SessionStore]


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kern-bench-") as path:
        yield Path(path)


@contextmanager
def engines() -> Iterator[dict[str, Make]]:
    """For each engine, what makes another empty store of it; all are closed afterwards."""
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres_server import postgres

    with ExitStack() as stack:
        path = stack.enter_context(folder())
        url = stack.enter_context(postgres())
        made: list[SessionStore] = []

        def one(make: Callable[[str], SessionStore]) -> SessionStore:
            made.append(make(f"s{secrets.token_hex(4)}"))
            return made[-1]

        makers: dict[str, Callable[[str], SessionStore]] = {
            "DuckDB": lambda name: DuckDb(path / f"{name}.duckdb"),
            "SQLite": lambda name: SqliteDb(path / f"{name}.db"),
            "PostgreSQL": lambda name: PostgresDb(url, session_table=name),
            "memory": lambda _: InMemoryDb(),
        }
        stack.callback(lambda: [store.close() for store in made])
        yield {name: partial(one, make) for name, make in makers.items()}
