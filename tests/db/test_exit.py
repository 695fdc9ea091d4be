"""A process that exits right after its last write exits with code 0."""

from __future__ import annotations

import subprocess
import sys
import time

SCRIPT = """
import sys, time
from kern_nb.db import DuckDb
from kern_nb.records import Run
store = DuckDb(sys.argv[1])
store.append_run("chat", Run())
time.sleep(float(sys.argv[2]))
"""


def test_process_may_exit_at_any_moment_after_a_write(tmp_path):
    """Also while the file is closed in the background, 0.05 s after the write."""
    path, pauses = tmp_path / "s.duckdb", [0.0, 0.03, 0.045, 0.05, 0.052, 0.055, 0.06, 0.07]
    codes = []
    for pause in pauses:
        codes.append(subprocess.run([sys.executable, "-c", SCRIPT, path, str(pause)], check=False).returncode)
        time.sleep(0.01)

    assert codes == [0] * len(pauses)
    from kern_nb.db import DuckDb

    assert len(DuckDb(path).runs_df()) == len(pauses)
