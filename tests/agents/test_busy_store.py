"""A store that fails in the middle of a run: once it is back, no run says that it runs, and the next one works."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest
from failing_agents import an_agent, left_running, require_the_next_works

from kern_nb.db import DuckDb, SqliteDb
from kern_nb.errors import KernError, StoreBusy

HOLD = """
import sys, time, duckdb
for _ in range(2000):
    try:
        held = duckdb.connect(sys.argv[1])
        break
    except duckdb.Error:
        time.sleep(0.005)
print("held", flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that holds a DuckDB file, or another connection that holds SQLite's lock."""

    def __init__(self, engine: str, path) -> None:
        self.engine, self.path = engine, path
        self.store = {"duckdb": DuckDb, "sqlite": SqliteDb}[engine](path, timeout=0.2)
        self._process: subprocess.Popen | None = None
        self._connection: sqlite3.Connection | None = None

    def hold(self) -> str:
        """Take the store away, until `let_go`."""
        if self.engine == "sqlite":
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._connection.execute("BEGIN IMMEDIATE")
        else:
            command = [sys.executable, "-c", HOLD, str(self.path)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout.readline() == "held\n"
        return "held"

    def let_go(self) -> None:
        """Give it back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.communicate("\n")
            self._process = None


@pytest.fixture(params=["duckdb", "sqlite"])
def holder(request, tmp_path):
    found = Holder(request.param, tmp_path / "s.db")
    yield found
    found.let_go()
    found.store.close()


def test_store_busy_during_run(holder):
    """The caller is told; when the store is back, the run is known to be over, and can be gone on with."""
    store = holder.store
    with pytest.raises(KernError) as caught:
        an_agent(store, holder.hold).run("x")
    assert "StoreBusy" in f"{type(caught.value).__name__}: {caught.value}"
    holder.let_go()

    assert store.check(repair=True)
    assert left_running(store) == []
    (run,) = store.get_session("chat").runs
    assert run.status in ("ERROR", "INTERRUPTED")
    assert [call.status for call in run.tool_calls] == ["unknown"]
    require_the_next_works(store)
    assert "not known" in an_agent(store, holder.hold).continue_run(run.run_id).output


def test_store_busy_at_start(holder):
    """Nothing is stored, the caller is told why, and the next run works."""
    require_the_next_works(holder.store)
    holder.store.close()
    holder.hold()
    with pytest.raises(StoreBusy):
        an_agent(holder.store).run("x")
    holder.let_go()

    assert len(holder.store.runs_df()) == 1
    require_the_next_works(holder.store)
