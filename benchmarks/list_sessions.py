"""`list_sessions()`: the newest 50, and the page in the middle, of 100,000 sessions and of 1,000."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import Result, fastest_tenth, median, ms, side_by_side
from benchmarks.samples import fill
from benchmarks.stores import folder
from kern_nb.db import DuckDb, SessionStore, SqliteDb

BAR_MS = 30
BAR_FLAT = 2


def run(*, quick: bool) -> Iterator[Result]:
    """One run per session; a small store and a large one alternate, in bursts as a notebook makes them."""
    many, repeats = (5_000, 20) if quick else (100_000, 60)
    engines: dict[str, Callable[[Path], SessionStore]] = {
        "DuckDB": lambda path: DuckDb(path.with_suffix(".duckdb")),
        "SQLite": lambda path: SqliteDb(path.with_suffix(".db")),
    }
    with folder() as path:
        for name, make in engines.items():
            large, small = make(path / "large"), make(path / "small")
            fill(large, many, runs=1)
            fill(small, 1_000, runs=1)
            cursor = _middle(large, many)
            works = (
                lambda large=large: large.list_sessions(limit=50),
                lambda large=large, cursor=cursor: large.list_sessions(limit=50, cursor=cursor),
                lambda small=small: small.list_sessions(limit=50),
            )
            first, middle, of_few = side_by_side(repeats, *works, at_a_time=10)
            large.close()
            small.close()
            note = f"{fastest_tenth(first)}; a page in the middle: {ms(median(middle))}"
            yield Result(
                f"list_sessions(limit=50) among {many:,}: {name}", median(first) * 1000, "ms", BAR_MS, note=note
            )
            note = f"{ms(median(first))} over {ms(median(of_few))}"
            yield Result(
                f"list_sessions: {many:,} sessions over 1,000: {name}",
                median(first) / median(of_few),
                "x",
                BAR_FLAT,
                note=note,
            )


def _middle(store: SessionStore, sessions: int) -> str | None:
    """Return the cursor of the middle of the list."""
    return store.list_sessions(limit=sessions // 2).cursor
