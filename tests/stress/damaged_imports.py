"""Import damaged versions of recorded files: nothing but a KernError is raised, and what is intact is stored.

    python tests/stress/damaged_imports.py [--places 200] [--seed 1] [--largest 300000] FILE ...

Each file is truncated, torn, overwritten and changed in its records, members or cells, at random places; each version is
imported twice into a new SQLite store, followed by the intact file. FILE may be a folder. Not part of the test suite,
which has a small version (``tests/ingest/test_damaged_imports.py``). Prints counts; exits with 1 after a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))

from damage import Inspector, damages


def shorten(data: bytes, largest: int) -> bytes:
    """A shorter version of a large file: fewer lines, or fewer items of its longest list."""
    if len(data) <= largest or data.startswith((b"SQLite", b"PK")):
        return data
    lines = data.split(b"\n")
    if len(lines) > 2 and lines[1].startswith(b"{") and lines[1].endswith(b"}"):
        while len(data) > largest:
            lines = lines[: len(lines) * 2 // 3]
            data = b"\n".join(lines) + b"\n"
        return data
    document = json.loads(data)
    longest = max((value for value in document.values() if isinstance(value, list)), key=len)
    while len(data) > largest and len(longest) > 2:
        del longest[len(longest) * 2 // 3 :]
        data = json.dumps(document, indent=1).encode()
    return data


def main() -> int:
    """Damage each file at a number of places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--places", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--largest", type=int, default=300_000)
    parser.add_argument("--keep", type=Path, help="a folder for the damaged files that have faults")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    files = [file for path in options.files for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    for file in files:
        if file.is_file():
            counts += inspect_file(file, options)
    print(dict(counts), flush=True)
    return bool(counts["faults"])


def inspect_file(file: Path, options: argparse.Namespace) -> Counter[str]:
    """Import damaged versions of a file; return the counts."""
    counts: Counter[str] = Counter()
    intact = shorten(file.read_bytes(), options.largest)
    with tempfile.TemporaryDirectory(prefix="kern-damage-") as name:
        inspector = Inspector(Path(name), file.name, intact)
        if not inspector.contents:
            print(f"{file}: no format reads the intact file", flush=True)
            return counts
        lowest = (2.0, "")
        for number, damage in enumerate(damages(file.name, intact, options.places, options.seed)):
            counts["files"] += 1
            label = f"{number}: {damage.kind} at {damage.place}"
            try:
                faults = inspector.inspect(damage)
            except Exception as error:  # noqa: BLE001 - every failure is counted
                where = traceback.extract_tb(error.__traceback__)[-1]
                faults = [f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:300]]
            figures = inspector.figures
            counts["refused"] += figures.is_refused
            if "wrong type" in damage.kind:
                lowest = min(lowest, (figures.damaged / figures.intact, label + " refused" * figures.is_refused))
            for fault in faults:
                print(f"{file.parent.name}/{file.name} {label}: {fault}", flush=True)
            counts["faults"] += bool(faults)
            if faults and options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{file.parent.name}-{number}-{file.name}").write_bytes(damage.data)
        print(f"{file}: {dict(counts)}; the lowest share of messages after a wrong type: {lowest}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
