"""The pages that are made from code say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_generated_pages_are_current():
    """docs/columns.md and docs/magics.md are what `make docs` would write."""
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make.py", "--check"], capture_output=True, text=True, check=False
    )

    assert made.returncode == 0, made.stdout + made.stderr
