"""The growth of the cost of an append from run 1 to run 1,000, on each engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from benchmarks.measure import Result, median, ms, seconds, side_by_side
from benchmarks.samples import fill, sample_runs, to_run
from benchmarks.stores import StoreFactory, engines
from kern_nb.db import SessionStore

BAR = 1.25


def run(*, quick: bool) -> Iterator[Result]:
    """Append alternately to two sessions, each in its own store: one at runs 900 to 1,000, one at 1 to 100."""
    last = 300 if quick else 1_000
    with engines() as stores:
        for name, make in stores.items():
            yield _growth(name, make, last)
        yield _large(stores["DuckDB"], 1_000 if quick else 10_000)


def _growth(name: str, make: StoreFactory, last: int) -> Result:
    old, young = make(), make()
    samples = sample_runs()
    for sample in islice(samples, last - 101):
        old.append_run("conversation", to_run(sample))
    runs = iter([to_run(sample) for sample in islice(samples, 202)])
    works = [lambda store=store: store.append_run("conversation", next(runs)) for store in (old, young)]
    late, early = map(median, side_by_side(100, *works, at_a_time=20))
    note = f"{ms(late)} over {ms(early)}"
    return Result(
        f"append, runs {last - 100} to {last:,} over runs 1 to 100: {name}", late / early, "x", BAR, note=note
    )


def _large(make: StoreFactory, sessions: int) -> Result:
    """Append to a large store with pauses, so that DuckDB opens the file for each append."""
    large, empty = make(), make()
    fill(large, sessions, runs=10, messages=4)
    runs = iter([to_run(sample) for sample in islice(sample_runs(), 32)])

    def append_to(store: SessionStore) -> float:
        time.sleep(0.2)
        return seconds(lambda: store.append_run("conversation", next(runs)))

    times = [(append_to(large), append_to(empty)) for _ in range(16)][1:]
    of_large, of_empty = (median(list(side)) for side in zip(*times, strict=True))
    note = f"{ms(of_large)} over {ms(of_empty)}, each after a pause of 0.2 s"
    return Result(
        f"append, a store of {sessions * 40:,} messages over an empty one: DuckDB", of_large / of_empty, "x", note=note
    )
