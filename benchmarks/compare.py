"""Comparing two sessions of 1,000 runs, and the growth of the time from 2,000 messages to 20,000."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from random import Random

from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.samples import SampleRun, sample_runs, text, to_run
from benchmarks.stores import folder
from kern_nb.analysis.compare import compare
from kern_nb.db import DuckDb, SessionStore
from kern_nb.records import Session

BAR_S = 2
BAR_GROWTH = 15
"""Ten times the messages take ten times as long if nothing is quadratic, and a hundred times otherwise."""

MESSAGES_A_RUN = 4


def run(*, quick: bool) -> Iterator[Result]:
    """One of three runs differs, so that alignment is needed; frames and markup are included."""
    sizes = (50, 100, 500) if quick else (500, 1_000, 5_000)
    with folder() as path, DuckDb(path / "ours.duckdb") as store:
        for runs in sizes:
            _write(store, runs)
        works = [lambda runs=runs: _compare(store, runs) for runs in sizes]
        small, middle, large = (median(times) for times in side_by_side(1 if quick else 5, *works))
    note = f"{sizes[1] * MESSAGES_A_RUN:,} messages per side, one run in three differs; frames and markup included"
    yield Result(f"compare two sessions of {sizes[1]:,} runs, DuckDB", middle, "s", BAR_S, note=note)
    few, many = (runs * MESSAGES_A_RUN for runs in (sizes[0], sizes[2]))
    name = f"compare: {many:,} messages per side over {few:,}"
    yield Result(name, large / small, "x", BAR_GROWTH, note=f"{ms(large)} over {ms(small)}")


def _write(store: SessionStore, runs: int) -> None:
    for side in "ab":
        runs_of_side = [to_run(sample) for sample in islice(_differing(Random(side)), runs)]
        store.save_session(Session(session_id=f"{side}{runs}", runs=runs_of_side))


def _differing(chance: Random) -> Iterator[SampleRun]:
    """Yield the same runs for both sides, one in three with a different answer."""
    for sample in sample_runs():
        yield replace(sample, answer=text(chance)) if chance.random() < 1 / 3 else sample


def _compare(store: SessionStore, runs: int) -> None:
    result = compare(f"a{runs}", f"b{runs}", store=store)
    result.metrics, result.turns, result.tool_calls, result._repr_html_()
