"""Appending costs the same at run 1 and at run 1,000: one session, a run of four messages, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.places import Make, engines
from benchmarks.samples import as_run, turns

BAR = 1.25


def run(*, quick: bool) -> Iterator[Result]:
    """Two sessions, in a store of their own each, take a run in turns: one at runs 900 to 1,000, one at 1 to 100."""
    last = 300 if quick else 1_000
    with engines() as stores:
        for name, make in stores.items():
            yield _growth(name, make, last)


def _growth(name: str, make: Make, last: int) -> Result:
    old, young = make(), make()
    story = turns()
    for turn in islice(story, last - 101):
        old.append_run("conversation", as_run(turn))
    runs = iter([as_run(turn) for turn in islice(story, 202)])
    append_to = [lambda store=store: store.append_run("conversation", next(runs)) for store in (old, young)]
    late, early = map(median, side_by_side(100, *append_to, at_a_time=20))
    note = f"{ms(late)} over {ms(early)}"
    return Result(f"append, runs {last - 100} to {last:,} over runs 1 to 100: {name}", late / early, "x", BAR, note=note)
