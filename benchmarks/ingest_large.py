"""Importing one large file of JSON lines: megabytes per second beside `json.loads`, and the peak of memory by size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Result
from benchmarks.stores import ROOT, folder
from kern_nb.db import DuckDb, SessionStore, SqliteDb

BAR = 1.3
"""Four times the file takes at most this much more memory at its peak."""

ENGINES: dict[str, tuple[type[SessionStore], str]] = {"DuckDB": (DuckDb, "s.duckdb"), "SQLite": (SqliteDb, "s.db")}

_TURNS_PER_SESSION = 8


def run(*, quick: bool) -> Iterator[Result]:
    """Import a small and a large file, each in a process of its own: the peak is that of a process."""
    small, large = (5, 20) if quick else (75, 300)
    with folder() as path:
        for megabytes in (small, large):
            _write_file(path / f"{megabytes}.jsonl", megabytes)
        loaded = _megabytes_per_second(path / f"{small}.jsonl")
        for engine in ENGINES:
            (_, small_peak), (speed, large_peak) = (_import(path, engine, megabytes) for megabytes in (small, large))
            note = f"{large_peak:,.0f} MB over {small_peak:,.0f} MB"
            name = f"import of {large} MB over {small} MB, peak memory: {engine}"
            yield Result(name, large_peak / small_peak, "x", None if quick else BAR, note=note)
            note = f"json.loads of the same lines: {loaded:,.0f} MB/s"
            yield Result(f"import of {large} MB of JSON lines: {engine}", speed, "MB/s", note=note)


def _write_file(path: Path, megabytes: int) -> None:
    """Write sessions of eight turns: a question, an answer that calls a tool, and its result."""
    arguments = json.dumps({"query": "z" * 500})
    turn = [
        {"role": "user", "content": "x" * 2_000},
        {
            "role": "assistant",
            "content": "y" * 8_000,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "find", "arguments": arguments}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r" * 3_000},
    ]
    line = json.dumps({"messages": turn * _TURNS_PER_SESSION}) + "\n"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line for _ in range(megabytes * 1_000_000 // len(line)))


def _megabytes_per_second(path: Path) -> float:
    start = time.perf_counter()
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
    return path.stat().st_size / 1e6 / (time.perf_counter() - start)


def _import(path: Path, engine: str, megabytes: int) -> tuple[float, float]:
    """Import a file into a new store, in another process; return megabytes per second, and the peak in megabytes."""
    command = [sys.executable, "-m", "benchmarks.ingest_large", engine, str(path / f"{megabytes}.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, peak = map(float, done.stdout.split())
    return megabytes / seconds, peak


def _main() -> None:
    engine, file = sys.argv[1], Path(sys.argv[2])
    make, name = ENGINES[engine]
    with folder() as path, make(path / name) as store:  # type: ignore[call-arg]
        start = time.perf_counter()
        store.ingest(file, progress=False)
        seconds = time.perf_counter() - start
    unit = 1_000_000 if sys.platform == "darwin" else 1_000
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


if __name__ == "__main__":
    _main()
