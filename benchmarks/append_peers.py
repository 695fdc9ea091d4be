"""Appending at run 1,000 and at run 1, beside the SQLite stores of other libraries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count, islice

from benchmarks import peers
from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.samples import SampleRun, sample_runs, to_run
from benchmarks.stores import folder
from kern_nb.db import SqliteDb

BAR = 5

Append = Callable[[str, SampleRun], Callable[[], object]]
"""Builds the records of a sample run for a session and returns the function that stores them, which is measured."""


def run(*, quick: bool) -> Iterator[Result]:
    """Each library writes to its own file, alternating: to one long session, then the first run of many sessions."""
    from agents import SQLiteSession

    last, repeats = (200, 20) if quick else (1_000, 60)
    with folder() as path, asyncio.Runner() as runner:
        kern, agno = SqliteDb(path / "ours.db"), peers.agno_store(path / "agno.db")
        openai = SQLiteSession("long", path / "openai.db")

        def append_ours(session_id: str, sample: SampleRun) -> Callable[[], object]:
            run = to_run(sample)
            return lambda: kern.append_run(session_id, run)

        def append_agno(session_id: str, sample: SampleRun) -> Callable[[], object]:
            run = peers.agno_run(sample, session_id)
            return lambda: peers.agno_append(agno, run)

        def append_openai(_: str, sample: SampleRun) -> Callable[[], object]:
            items = peers.openai_items(sample)
            return lambda: runner.run(openai.add_items(items))

        appends = (append_ours, append_agno, append_openai)
        for sample in islice(sample_runs(), last - 1):
            for append in appends:
                append("long", sample)()
        ours_late, agno_late, openai_late = _times(repeats, appends, lambda _: "long")
        ours_first, agno_first = _times(repeats, appends[:2], lambda n: f"new {n}")
        kern.close()
        openai.close()
    note = f"{ms(ours_late)} against {ms(agno_late)}"
    yield Result(
        f"append at run {last:,}, SQLite: {peers.AGNO} over ours",
        agno_late / ours_late,
        "x",
        BAR,
        at_least=True,
        note=note,
    )
    note = f"{ms(ours_first)} against {ms(agno_first)}"
    yield Result(f"append at run 1, SQLite: {peers.AGNO} over ours", agno_first / ours_first, "x", note=note)
    note = f"{ms(ours_late)} against {ms(openai_late)}; it stores four items, not a run"
    name = f"append at run {last:,}, SQLite: {peers.OPENAI} over ours"
    yield Result(name, openai_late / ours_late, "x", note=note)


def _times(repeats: int, appends: tuple[Append, ...], session: Callable[[int], str]) -> list[float]:
    """Return the median of each append on the same runs; ``session`` returns the session id for the n-th run."""
    some = list(islice(sample_runs(2), repeats + 1))
    ready = [iter([append(session(n), sample) for n, sample in zip(count(), some)]) for append in appends]
    works = [lambda queue=queue: next(queue)() for queue in ready]
    return [median(times) for times in side_by_side(repeats, *works)]
