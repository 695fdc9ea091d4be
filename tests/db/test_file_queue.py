"""Processes that wait for a DuckDB file get it in order of arrival."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import kern_nb
from kern_nb.db import DuckDb
from kern_nb.db.file_queue import FileQueue
from kern_nb.records import Run

ROOT = Path(kern_nb.__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no record locks")

WAITER = """
import sys
from kern_nb.db.file_queue import FileQueue
queue = FileQueue(sys.argv[1])
queue.join()
print(queue.queued, flush=True)
for line in sys.stdin:
    if line == "leave\\n":
        queue.leave()
    print(not queue.has_other_waiters(), flush=True)
"""


class Waiter:
    """A queued process."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WAITER, str(path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "True\n"

    def __call__(self, line: str) -> str:
        """Send a line; return the answer."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file to wait for, with its own temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "s.duckdb"
    file.touch()
    yield file
    tempfile.tempdir = None


def test_queue_is_first_in_first_out(path):
    """A process that is killed or leaves loses its number."""
    waiters = [Waiter(path) for _ in range(3)]
    own = FileQueue(str(path))
    try:
        assert own.has_other_waiters()
        assert [waiter("check") for waiter in waiters] == ["True", "False", "False"]
        waiters[0].stop()
        assert [waiter("check") for waiter in waiters[1:]] == ["True", "False"]
        own.join()
        assert own.has_other_waiters()
        assert waiters[1]("leave") == "False"
        assert waiters[2]("check") == "True"
        waiters[2].stop()
        assert not own.has_other_waiters()
    finally:
        for waiter in waiters:
            waiter.stop()


def test_missing_file_has_no_queue(tmp_path):
    """Checking creates neither folder nor file."""
    queue = FileQueue(str(tmp_path / "none.duckdb"))
    queue.join()
    assert not queue.queued
    assert not queue.has_other_waiters()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_another_owner_is_not_used(path, tmp_path):
    """A link in the temporary folder, which other users may write to, is not followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"kern_nb-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    queue = FileQueue(str(path))
    queue.join()
    assert not queue.queued
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_single_process_creates_no_file_and_draws_no_random_number(path, tmp_path):
    """Only a process that waits creates the queue's file; a seeded notebook gets the same numbers with a store."""
    path.unlink()
    random.seed(7)
    state = random.getstate()
    store = DuckDb(path)
    for _ in range(3):
        store.append_run("chat", Run())
        store.close()
    assert len(store.runs_df()) == 3
    store.close()
    assert random.getstate() == state
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["s.duckdb"]


def test_stopped_process_at_the_head_of_the_queue_blocks_nobody(path):
    """It keeps its number but does not open the file, which goes to the next process after a moment."""
    path.unlink()
    with DuckDb(path, timeout=30) as store:
        store.append_run("chat", Run())
        store.close()
        waiter = Waiter(path)
        try:
            start = time.monotonic()
            assert store.append_run("chat", Run()).run_index == 1
            assert time.monotonic() - start > 0.2  # it had its chance
        finally:
            waiter.stop()
