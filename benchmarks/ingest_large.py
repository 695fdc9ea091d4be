"""Importing one large file of JSON lines: megabytes per second beside `json.loads`, and the peak of memory by size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import Result
from benchmarks.stores import ROOT, folder
from kern_nb.db import DuckDb, SessionStore, SqliteDb

BAR = 1.3
"""Four times the file takes at most this much more memory at its peak."""

PARSE_BAR = 8
"""An import takes at most as many times as long as `json.loads` of its lines."""

ENGINES: dict[str, tuple[type[SessionStore], str]] = {"DuckDB": (DuckDb, "s.duckdb"), "SQLite": (SqliteDb, "s.db")}

_TURNS_PER_SESSION = 8
_WORDS = [
    "the",
    "agent",
    "reads",
    "a",
    "file",
    "and",
    "returns",
    "sessions",
    "customer",
    "order",
    "naïve",
    "café",
    "数据",
]
_LINES = (
    'if row["status"] == "failed":',
    "return {'id': row.id, \"name\": row.name}",
    "for key, value in items.items():",
    'print(f"{key}: {value!r}")',
    "# the order is that of the file",
)


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
            note = f"{speed:.1f} MB/s; json.loads of the same lines: {loaded:,.0f} MB/s"
            name = f"import of {large} MB of JSON lines over json.loads: {engine}"
            yield Result(name, loaded / speed, "x", None if quick else PARSE_BAR, note=note)


def _write_file(path: Path, megabytes: int) -> None:
    """Write sessions of eight turns: a question, an answer that calls a tool, and its result."""
    random = Random(1)
    conversations = [json.dumps([m for _ in range(_TURNS_PER_SESSION) for m in _turn(random)]) for _ in range(200)]
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for n, messages in zip(count(), cycle(conversations), strict=False):
            if written >= megabytes * 1_000_000:
                break
            written += file.write(f'{{"id": "s{n}", "messages": {messages}}}\n')


def _turn(random: Random) -> list[dict[str, Any]]:
    call_id = f"call_{random.getrandbits(64):x}"
    arguments = json.dumps({"path": f"src/{random.choice(_WORDS)}.py", "query": _prose(random, 60)})
    call = {"id": call_id, "type": "function", "function": {"name": "read_file", "arguments": arguments}}
    return [
        {"role": "user", "content": _prose(random, random.randint(80, 600))},
        {"role": "assistant", "content": _prose(random, random.randint(100, 1_500)), "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": _code(random, random.randint(200, 4_000))},
    ]


def _prose(random: Random, length: int) -> str:
    """Sentences in paragraphs, with a few words that are not ASCII."""
    sentences = (" ".join(random.choices(_WORDS, k=random.randint(5, 14))) + "." for _ in range(length // 20))
    return "".join(s + ("\n\n" if random.random() < 0.2 else " ") for s in sentences)[:length]


def _code(random: Random, length: int) -> str:
    """Indented lines with quotes, whose escapes take a parser's time."""
    lines = ("    " * random.randint(0, 3) + random.choice(_LINES) for _ in range(length // 10))
    return "\n".join(lines)[:length]


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
    print(seconds, _peak())


def _peak() -> float:
    """The peak of this process's memory, in megabytes.

    Linux counts in ``ru_maxrss`` what the parent occupied when it started this process, but not in ``VmHWM``.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1_000_000 if sys.platform == "darwin" else 1_000)


if __name__ == "__main__":
    _main()
