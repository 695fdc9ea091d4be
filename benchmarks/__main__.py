"""`python -m benchmarks [NAME...] [--quick] [--write]`: print each result with its target.

A missed target is reported and is not an error; tests never measure time.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time

from benchmarks.measure import Result, Skipped
from benchmarks.page import describe_environment, write_table

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
    "ingest_large",
    "load_extension",
)


def main() -> int:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure our speed beside that of other libraries."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that the benchmarks run")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/benchmarks.md")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(NAMES)}")
    if args.write and (args.names or args.quick):
        parser.error("--write replaces the whole table: omit names and --quick")
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
    print(f"{describe_environment()} Took {time.perf_counter() - start:.0f} s.")
    if args.write:
        write_table(results, skipped)
    return 0


def line(result: Result) -> str:
    """Format a result for the terminal."""
    figure = f"{result.formatted:>9}  {result.formatted_bar:<9} {result.verdict:<6}"
    return f"{result.name:<82} {figure} {result.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
