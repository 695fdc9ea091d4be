"""Ctrl-C at any moment: no lock is references, no write is lost, and a heavy query stops."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import kern_nb
from kern_nb.db import DuckDb, InMemoryDb
from kern_nb.db.lease import release_abandoned
from kern_nb.records import Run

SCRIPT = Path(__file__).parents[1] / "stress" / "interrupts.py"
ROOT = Path(kern_nb.__file__).parents[1]
HEAVY = "SELECT count(*) FROM range(100000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3"


@pytest.fixture
def default_handler():
    """Python's default handler, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot send signals")
def test_interrupts_at_random_moments_lose_nothing(tmp_path):
    """Acknowledged writes are stored, another process opens the file, and other threads continue."""
    command = [sys.executable, str(SCRIPT), str(tmp_path / "s.duckdb"), "--interrupts", "60"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["interrupts"] == 60
    assert (report["lost"], report["raw"], report["hung"]) == (0, [], False)


@pytest.mark.parametrize("make", [DuckDb, lambda _: InMemoryDb()], ids=["duckdb", "memory"])
def test_heavy_query_stops(tmp_path, make, default_handler):
    """Through SQL, a frame query and SQLAlchemy; the store stays usable."""
    import sqlalchemy as sa

    store = make(tmp_path / "s.duckdb")
    store.append_run("chat", Run(run_id="r"))

    def execute():
        with store.connect() as connection:
            connection.execute(sa.text(HEAVY)).all()

    for work in (lambda: store.sql(HEAVY), lambda: store.arrow(sa.text(HEAVY)), execute):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            work()
        timer.join()
        assert store.runs_df().run_id.tolist() == ["r"]
    store.close()


def test_connection_referenced_by_a_traceback_is_reclaimed(tmp_path, default_handler):
    """IPython stores the last traceback and thus the interrupted function's objects; the file is released anyway."""
    path = tmp_path / "s.duckdb"
    store = DuckDb(path)
    store.append_run("chat", Run())
    references = []

    def interrupted():
        # As if the interrupt came at the first instruction of the exit of a block: no cleanup runs.
        references.append(store._lease.acquire(5, write=True))
        references.append(sys._getframe())

    interrupted()
    release_abandoned()  # as IPython does after each cell
    code = "import sys, duckdb; duckdb.connect(sys.argv[1]).execute('SELECT 1')"
    end = time.monotonic() + 20
    while subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < end
    thread = threading.Thread(target=store.append_run, args=("chat", Run(run_id="other")))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_thread_reclaims_its_abandoned_connections(tmp_path, default_handler):
    """At its next use of the store; connections in use are not affected."""
    store = DuckDb(tmp_path / "s.duckdb", timeout=20)
    store.append_run("chat", Run())
    references = []

    def interrupted():
        references.append(store._lease.acquire(5, write=True))
        references.append(sys._getframe())

    interrupted()
    with store.connect() as connection:
        assert len(store.runs_df()) == 1
        assert connection.execute(store.tables.runs.select()).all()
    thread = threading.Thread(target=store.append_run, args=("chat", Run(run_id="other")))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    store.close()


CELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import sys; from kern_nb.db import DuckDb; from kern_nb.records import Run").raise_error()
shell.user_ns["store"], shell.user_ns["references"] = shell.user_ns["DuckDb"](sys.argv[1]), []
shell.run_cell("store.append_run('chat', Run())").raise_error()
shell.run_cell("def interrupted(): references.append((store._lease.acquire(5, write=True), sys._getframe()))").raise_error()
shell.run_cell("interrupted(); n_held = len(store._lease._checkouts)").raise_error()
print(shell.user_ns["n_held"], len(shell.user_ns["store"]._lease._checkouts))
"""


def test_abandoned_connections_are_reclaimed_after_a_cell(tmp_path):
    """In a notebook, when the cell ends."""
    command = [sys.executable, "-c", "import sys" + CELL, str(tmp_path / "s.duckdb")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)

    assert result.stdout.splitlines()[-1:] == ["1 0"], result.stdout + result.stderr


def test_garbage_collected_connection_is_returned(tmp_path):
    """It does not block other writers, even if it was never closed."""
    store = DuckDb(tmp_path / "s.duckdb", timeout=20)
    store.append_run("chat", Run())
    store._lease.acquire(5, write=True)

    thread = threading.Thread(target=store.append_run, args=("chat", Run(run_id="other")))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert len(store.runs_df()) == 2
    store.close()


def test_interrupt_ends_the_wait_for_another_writer(tmp_path, default_handler):
    """While another thread writes, Ctrl-C ends the wait; later writes succeed."""
    store = DuckDb(tmp_path / "s.duckdb", timeout=60)
    store.append_run("chat", Run())
    working, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.connect(write=True):
            working.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    working.wait(60)
    threading.Timer(0.2, _thread.interrupt_main).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.append_run("chat", Run())
    assert time.monotonic() - start < 30
    done.set()
    thread.join()
    assert store.append_run("chat", Run()).run_index == 1
    store.close()


ENDING = """
import sys, threading, time
from kern_nb.db import open_store
from kern_nb.records import Run
store = open_store(sys.argv[1])
store.append_run("chat", Run())
def work():
    while True:
        store.sql("SELECT count(*) FROM range(3000) a, range(3000) b WHERE a.range * b.range % 7 = 3")
        store.runs_df()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("target", ["s.duckdb", ":memory:"])
def test_process_may_exit_during_queries_of_threads(tmp_path, target):
    """As with background threads that complete a name."""
    target = target if target == ":memory:" else str(tmp_path / target)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    codes = []
    for i in range(3):
        command = [sys.executable, "-c", ENDING, target, str(0.03 * i)]
        codes.append(subprocess.run(command, env=environment, check=False, timeout=100).returncode)
    assert codes == [0] * 3
