"""The table in docs/benchmarks.md, between two markers; the rest of the page is written by hand."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measure import Result
from benchmarks.places import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: made by python -m benchmarks --write -->", "<!-- end -->"
PACKAGES = ("duckdb", "sqlalchemy", "pandas", "pyarrow", "psycopg", "ipython", "agno", "openai-agents")


def renew(results: Sequence[Result], skipped: Sequence[str]) -> None:
    """Put the table between the markers."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results, skipped)}\n{END}{after}", encoding="utf-8")


def table(results: Sequence[Result], skipped: Sequence[str]) -> str:
    """The rows, and below them what they were measured with."""
    lines = ["", "| what | figure | bar | | behind it |", "|---|--:|--:|---|---|"]
    lines += [f"| {r.name} | {r.shown} | {r.shown_bar} | {r.verdict} | {r.note} |" for r in results]
    lines += ["", *(f"Skipped: {reason}." for reason in skipped)]
    return "\n".join([*lines, surroundings(), ""])


def surroundings() -> str:
    """When and with what: the date, the number of cores, the versions."""
    versions = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}. {python}, {', '.join(versions)}."
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
