"""Processes that wait for a DuckDB file get it in the order in which they came."""

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
turns = FileQueue(sys.argv[1])
turns.join()
print(turns.queued, flush=True)
for line in sys.stdin:
    if line == "leave\\n":
        turns.leave()
    print(turns.is_next(), turns.has_other_waiters(), flush=True)
"""


class Waiter:
    """A process that waits in line."""

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
        """Tell it something; what it answers."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file to wait for, with a folder for temporary files of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "s.duckdb"
    file.touch()
    yield file
    tempfile.tempdir = None


def test_the_first_to_come_is_next(path):
    """Then the second; who is killed or leaves is no longer before anyone."""
    waiters = [Waiter(path) for _ in range(3)]
    me = FileQueue(str(path))
    try:
        assert me.has_other_waiters()
        assert [waiter("look") for waiter in waiters] == ["True False", "False True", "False True"]
        waiters[0].stop()
        assert [waiter("look") for waiter in waiters[1:]] == ["True False", "False True"]
        me.join()
        assert not me.is_next()
        assert waiters[1]("leave").startswith("False")
        assert waiters[2]("look") == "True False"
        waiters[2].stop()
        assert me.is_next()
    finally:
        for waiter in waiters:
            waiter.stop()
    me.close()


def test_nobody_waits_for_a_file_that_is_not_there(tmp_path):
    """No folder and no file is made by a look."""
    turns = FileQueue(str(tmp_path / "none.duckdb"))
    turns.join()
    assert not turns.queued
    assert turns.is_next()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_owner_is_not_used(path, tmp_path):
    """A link in the folder for temporary files, which others may write, is not followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"kern_nb-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    turns = FileQueue(str(path))
    turns.join()
    assert not turns.queued
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_work_alone_makes_no_file_and_draws_no_random_number(path, tmp_path):
    """Only who has to wait makes the file of the line; a notebook's seed gives the same numbers with a store."""
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


def test_a_process_that_is_next_and_stopped_keeps_nobody_away(path):
    """It holds its number, and does not come: the file goes to the next one after a moment."""
    path.unlink()
    with DuckDb(path, timeout=30) as store:
        store.append_run("chat", Run())
        store.close()
        waiter = Waiter(path)
        try:
            began = time.monotonic()
            assert store.append_run("chat", Run()).run_index == 1
            assert time.monotonic() - began > 0.2  # it was given its chance
        finally:
            waiter.stop()
