"""kern_nb shares a process with its user: using all of it leaves the process as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from processes import HERE, PATIENCE_S, environment


def test_using_everything_changes_nothing_for_others(tmp_path: Path, postgres_database_url: str):
    """Random generators, locale, warnings, logging, signals, event loops, environment, options of libraries, IPython.

    A seeded notebook gives the same numbers, whatever it stores. What IPython has of ours is gone once it is unloaded.
    """
    command = [sys.executable, HERE / "process_state.py", tmp_path, postgres_database_url]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])

    assert report["unsteady"] == []  # what changes by itself is not compared
    assert {name: [text[:2000] for text in both] for name, both in report["changed"].items()} == {}
