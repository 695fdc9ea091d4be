"""A branch in the middle of a session of 1,000 runs: how long, how many rows, and Agno's copy of the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import duckdb
import sqlalchemy as sa

from benchmarks import peers
from benchmarks.measure import Result, fastest_tenth, median, ms, seconds, side_by_side
from benchmarks.samples import sample_runs, to_run
from benchmarks.stores import folder
from kern_nb.db import DuckDb, SessionStore, SqliteDb

BAR_MS = 2
BAR_PEER = 500


def run(*, quick: bool) -> Iterator[Result]:
    """Each round branches on our engines, alternating, and then forks once in Agno, which takes a second or more."""
    runs, rounds = (200, 1) if quick else (1_000, 5)
    with folder() as path:
        stores = {"DuckDB": DuckDb(path / "ours.duckdb"), "SQLite": SqliteDb(path / "ours.db")}
        agno = peers.agno_store(path / "agno.db")
        for sample in islice(sample_runs(), runs):
            for store in stores.values():
                store.append_run("long", to_run(sample))
            peers.agno_append(agno, peers.agno_run(sample, "long"))
        before = [_rows(store) for store in stores.values()]
        stores["DuckDB"].close()
        one_row, raw = _one_row(path / "ours.duckdb"), []
        works = [lambda store=store: store.branch("long", after=runs // 2) for store in stores.values()]
        agent = peers.agno_agent(agno)
        times: dict[str, list[float]] = {name: [] for name in stores}
        forks = []
        for _ in range(rounds):
            os.sync()  # the writes of a fork must not delay the next branch
            for name, durations in zip(stores, side_by_side(20, *works, at_a_time=10), strict=True):
                times[name] += durations
            raw += side_by_side(20, one_row)[0]
            forks.append(seconds(lambda: agent.fork_session(source_session_id="long")))
        fork = median(forks)
        copied = [_rows(store) - n for store, n in zip(stores.values(), before, strict=True)]
        for store in stores.values():
            store.close()
    for name, durations in times.items():
        note = fastest_tenth(durations)
        yield Result(
            f"branch in the middle of {runs:,} runs: {name}", median(durations) * 1000, "ms", BAR_MS, note=note
        )
    name = f"branch in the middle of {runs:,} runs over a plain INSERT in DuckDB"
    note = f"{ms(median(times['DuckDB']))} over {ms(median(raw))}, an INSERT and its COMMIT"
    yield Result(name, median(times["DuckDB"]) / median(raw), "x", note=note)
    note = f"{21 * rounds} branches on each of {', '.join(stores)}"
    yield Result("runs, messages and tool calls that a branch copies", sum(copied), "rows", 0, note=note)
    for name, durations in times.items():
        note = f"{ms(median(durations))} against {ms(fork)}"
        yield Result(
            f"branch: {peers.AGNO} fork_session over ours, {name}",
            fork / median(durations),
            "x",
            BAR_PEER,
            at_least=True,
            note=note,
        )


def _one_row(file: Path) -> Callable[[], object]:
    """Insert a session row into a copy of the file with DuckDB alone: the minimum for any branch."""
    copy = shutil.copy(file, file.with_name("copy.duckdb"))
    raw = duckdb.connect(copy)
    ids = count()
    into = "INSERT INTO agno_sessions (session_id, session_type, parent_session_id) VALUES (?, 'agent', 'long')"
    return lambda: raw.execute(into, [f"row {next(ids)}"])


def _rows(store: SessionStore) -> int:
    """Count the rows of runs, messages and tool calls (and requirements and scores) of all sessions."""
    counts = [sa.select(sa.func.count()).select_from(table) for table in store.tables.session_tables]
    with store.read_connection() as connection:
        return sum(connection.execute(count).scalar_one() for count in counts)
