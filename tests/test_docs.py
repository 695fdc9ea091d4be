"""The pages that are made from code say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_generated_pages_are_current():
    """The pages are what `make docs` would write."""
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make.py", "--check"], capture_output=True, text=True, check=False
    )

    assert made.returncode == 0, made.stdout + made.stderr


def test_every_format_is_in_the_docs():
    """With what it reads and the places of its files."""
    from kern_nb import formats

    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for info in formats():
        assert f"* `{info.name}`: {info.reads}\n" in page
        assert all(f"`{place.partition(' (')[0]}`" in page for place in info.locations)


def test_every_page_is_in_the_table_of_contents():
    """The site has no page that nothing leads to."""
    docs = ROOT / "docs"
    entries = (docs / "index.md").read_text(encoding="utf-8").splitlines()

    assert {page.stem for page in docs.glob("*.md")} - {"index"} <= set(entries)
