"""Taking in recorded sessions: tau2 results into a new DuckDB store, over `json.load` of the same files."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Result, Skipped, Work, median, ms, seconds
from benchmarks.places import SAMPLE_DATA, folder
from kern_nb.db import DuckDb

BAR = 8


def run(*, quick: bool) -> Iterator[Result]:
    """Every file, into a store that is not there yet; a first time on each side goes unmeasured."""
    files = sorted((SAMPLE_DATA / "tau2").glob("*.json"))
    if not files:
        raise Skipped("no sample data: ../shared/data/tau2, beside the repository, does not exist")
    ours, plain = [], []
    with folder() as path:
        for n in range(2 if quick else 8):
            store = DuckDb(path / f"{n}.duckdb")
            ours.append(_undisturbed(lambda store=store: store.ingest(files[0].parent, "tau2", progress=False)))
            stored = len(store.messages_df())
            store.close()
            plain.append(_undisturbed(lambda: _load(files)))
    taken, loaded = median(ours[1:]), median(plain[1:])
    size = sum(file.stat().st_size for file in files) / 1e6
    note = f"{ms(taken)} over {ms(loaded)}; {size:.1f} MB, {stored:,} messages"
    yield Result("ingest of the tau2 sample over json.load, DuckDB", taken / loaded, "x", BAR, note=note)


def _undisturbed(work: Work) -> float:
    """How long it takes while no garbage is collected: what one side leaves behind is not the other's to clear up."""
    gc.collect()
    gc.disable()
    try:
        return seconds(work)
    finally:
        gc.enable()


def _load(files: list[Path]) -> None:
    for file in files:
        with file.open(encoding="utf-8") as opened:
            json.load(opened)
