"""`python -m benchmarks [NAME...] [--quick] [--write]`: one line a row, its ratio and its bar.

A missed bar is reported, not an error: these are measurements, and tests are never timed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time

from benchmarks.measure import Result, Skipped
from benchmarks.page import renew, surroundings

NAMES = (
    "append_growth",
    "append_peers",
    "live_run",
    "branch",
    "messages_df",
    "list_sessions",
    "browse",
    "compare",
    "ingest",
    "load_extension",
)


def main() -> int:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Promises about speed, beside the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not how fast")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/benchmarks.md")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    if args.write and (args.names or args.quick):
        parser.error("--write renews the whole table: leave out names and --quick")
    logging.getLogger("agno").setLevel(logging.ERROR)
    start = time.perf_counter()
    results, skipped = [], []
    for name in args.names or NAMES:
        try:
            for result in importlib.import_module(f"benchmarks.{name}").run(quick=args.quick):
                results.append(result)
                print(line(result), flush=True)
        except Skipped as reason:
            skipped.append(f"{name}, {reason}")
            print(f"skipped: {name}, {reason}", flush=True)
    print(f"{surroundings()} Took {time.perf_counter() - start:.0f} s.")
    if args.write:
        renew(results, skipped)
    return 0


def line(result: Result) -> str:
    """A row for the terminal."""
    return f"{result.name:<82} {result.shown:>9}  {result.shown_bar:<9} {result.verdict:<11} {result.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
