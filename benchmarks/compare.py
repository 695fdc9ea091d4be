"""Two sessions compared to the end: of 1,000 runs each, and how the time grows from 2,000 messages to 20,000."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from random import Random

from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.places import folder
from benchmarks.samples import Turn, as_run, text, turns
from kern_nb.analysis.compare import compare
from kern_nb.db import DuckDb, SessionStore
from kern_nb.records import Session

BAR_S = 2
BAR_GROWTH = 15
"""Ten times the messages take ten times as long where nothing is quadratic; a hundred times where it is."""

MESSAGES_A_RUN = 4


def run(*, quick: bool) -> Iterator[Result]:
    """One of three runs differs, so that the two have to be aligned; frames and markup are made, too."""
    sizes = (50, 100, 500) if quick else (500, 1_000, 5_000)
    with folder() as path, DuckDb(path / "ours.duckdb") as store:
        for runs in sizes:
            _write(store, runs)
        works = [lambda runs=runs: _compare(store, runs) for runs in sizes]
        small, middle, large = (median(times) for times in side_by_side(1 if quick else 5, *works))
    note = f"{sizes[1] * MESSAGES_A_RUN:,} messages a side, one run in three differs; frames and markup included"
    yield Result(f"compare two sessions of {sizes[1]:,} runs, DuckDB", middle, "s", BAR_S, note=note)
    few, many = (runs * MESSAGES_A_RUN for runs in (sizes[0], sizes[2]))
    name = f"compare: {many:,} messages a side over {few:,}"
    yield Result(name, large / small, "x", BAR_GROWTH, note=f"{ms(large)} over {ms(small)}")


def _write(store: SessionStore, runs: int) -> None:
    for side in "ab":
        made = [as_run(turn) for turn in islice(_differing(Random(side)), runs)]
        store.save_session(Session(session_id=f"{side}{runs}", runs=made))


def _differing(chance: Random) -> Iterator[Turn]:
    """The same turns for everyone, of which one in three has an answer of its own."""
    for turn in turns():
        yield replace(turn, answer=text(chance)) if chance.random() < 1 / 3 else turn


def _compare(store: SessionStore, runs: int) -> None:
    found = compare(f"a{runs}", f"b{runs}", store=store)
    found.metrics, found.turns, found.tool_calls, found._repr_html_()
