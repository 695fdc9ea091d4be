"""kern_nb shares a process with its user: using it does not change the state of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from processes import HERE, PATIENCE_S, environment


def test_using_everything_does_not_change_the_process_state(tmp_path: Path, postgres_database_url: str):
    """Random generators, locale, warnings, logging, signals, event loops, environment, options of libraries, IPython.

    A seeded notebook gives the same numbers. IPython has no objects of kern_nb after it is unloaded.
    """
    command = [sys.executable, HERE / "process_state.py", tmp_path, postgres_database_url]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout.splitlines()[-1])

    assert report["unsteady"] == []  # parts that change without kern_nb are not compared
    assert {name: [text[:2000] for text in both] for name, both in report["changed"].items()} == {}
