"""Importing recorded sessions: tau2 results into a new DuckDB store, over `json.load` of the same files."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Result, Skipped, Work, median, ms, seconds
from benchmarks.stores import SAMPLE_DATA, folder
from kern_nb.db import DuckDb

BAR = 8


def run(*, quick: bool) -> Iterator[Result]:
    """Import every file into a new store; the first measurement on each side is discarded."""
    files = sorted((SAMPLE_DATA / "tau2").glob("*.json"))
    if not files:
        raise Skipped("no sample data: ../shared/data/tau2, beside the repository, does not exist")
    imports, plain = [], []
    with folder() as path:
        for n in range(2 if quick else 8):
            store = DuckDb(path / f"{n}.duckdb")
            imports.append(
                _without_collector(lambda store=store: store.ingest(files[0].parent, "tau2", progress=False))
            )
            stored = len(store.messages_df())
            store.close()
            plain.append(_without_collector(lambda: _load(files)))
    imported, loaded = median(imports[1:]), median(plain[1:])
    size = sum(file.stat().st_size for file in files) / 1e6
    note = f"{ms(imported)} over {ms(loaded)}; {size:.1f} MB, {stored:,} messages"
    yield Result("ingest of the tau2 sample over json.load, DuckDB", imported / loaded, "x", BAR, note=note)


def _without_collector(work: Work) -> float:
    """Measure without the garbage collector, so that one side does not clean up after the other."""
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
