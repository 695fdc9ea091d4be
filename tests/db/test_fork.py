"""A forked child uses the stores of its parent."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import warnings

import pytest
import sqlalchemy as sa

from kern_nb.db import DuckDb, SqliteDb, fork_safety, open_store
from kern_nb.errors import StoreUnavailable
from kern_nb.records import Message, Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run_in_child(work):
    """Run work in a forked child; return whether it succeeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads and forks, which is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child must not fall back into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def test_forked_child_appends_and_nothing_is_lost(store, engine_name):
    """Parent and child write in turn; every run is stored."""
    if engine_name == "memory":
        pytest.skip("memory is not shared between processes")
    store.append_run("chat", Run(run_id="before"))

    assert run_in_child(lambda: store.append_run("chat", Run(run_id="child")))

    store.append_run("chat", Run(run_id="after"))
    assert store.runs_df()["run_id"].tolist() == ["before", "child", "after"]


def test_duckdb_file_in_use_at_the_fork_is_refused_to_the_child(tmp_path, monkeypatch):
    """A child that shared the parent's open file would damage it; the hint recommends spawn."""
    monkeypatch.setattr(fork_safety, "WAIT_S", 0.05)
    store = DuckDb(tmp_path / "s.duckdb")
    store.append_run("chat", Run())
    working = threading.Event()

    def work():
        with store.connect():
            working.set()
            time.sleep(0.5)

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()

    def refused():
        with pytest.raises(StoreUnavailable, match="forked"):
            store.append_run("chat", Run())

    assert run_in_child(refused)
    thread.join()
    assert store.append_run("chat", Run()).run_index == 1


def refused(store):
    """Work for `run_in_child`: the store refuses to append."""

    def work():
        with pytest.raises(StoreUnavailable, match="forked"):
            store.append_run("chat", Run())

    return work


@pytest.fixture
def persistent_store(persistent_target):
    """An empty store that several processes can share."""
    with open_store(persistent_target) as store:
        yield store


def require_integrity(store):
    """Check the integrity of a SQLite file."""
    if isinstance(store, SqliteDb):
        with contextlib.closing(sqlite3.connect(store.db_file)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def append_many(target, worker, count):
    with open_store(target) as store:
        for n in range(count):
            store.append_run("chat", Run(input=f"{worker}-{n}", messages=[Message(role="user", content="x" * 200)]))
            time.sleep(0.005)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("end", ["closed", "collected", "unreferenced"])
def test_parent_releases_its_store_while_forked_workers_write(persistent_target, end):
    """No run is lost, whether it closes the store or only drops it, before or after the fork."""
    if end != "closed" and persistent_target.startswith("postgresql"):
        pytest.skip("psycopg warns of connections that are not closed")
    workers, runs = 2, 6
    context = multiprocessing.get_context("fork")
    gc.disable()  # so that a dropped store keeps its connections
    try:
        parent = open_store(persistent_target)
        parent.append_run("chat", Run(input="first"))
        if end == "unreferenced":
            del parent
        processes = [context.Process(target=append_many, args=(persistent_target, i, runs)) for i in range(workers)]
        for process in processes:
            process.start()
        time.sleep(0.05)
        if end == "closed":
            parent.close()
        elif end == "collected":
            del parent
        gc.collect()
        for process in processes:
            process.join(60)
    finally:
        gc.enable()

    assert [process.exitcode for process in processes] == [0] * workers
    with open_store(persistent_target) as store:
        assert len(store.runs_df()) == 1 + workers * runs
        require_integrity(store)


def test_fork_waits_for_the_transaction_of_another_thread(persistent_store):
    """The child can then use the store."""
    store = persistent_store
    store.append_run("chat", Run())
    working = threading.Event()

    def work():
        with store.connect():
            working.set()
            time.sleep(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()

    assert run_in_child(lambda: store.append_run("chat", Run()))
    thread.join()
    assert store.append_run("chat", Run()).run_index == 2


def test_sqlite_file_in_use_at_the_fork_is_refused_to_the_child(tmp_path, monkeypatch):
    """If another thread's transaction takes longer than a fork waits."""
    monkeypatch.setattr(fork_safety, "WAIT_S", 0.05)
    store = SqliteDb(tmp_path / "s.db")
    store.append_run("chat", Run())
    working, forked = threading.Event(), threading.Event()

    def work():
        with store.connect() as connection:
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master").all()
            working.set()
            forked.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()

    assert run_in_child(refused(store))
    assert run_in_child(refused(SqliteDb(tmp_path / "s.db")))
    assert run_in_child(lambda: SqliteDb(tmp_path / "other.db").append_run("chat", Run()))
    forked.set()
    thread.join()
    assert run_in_child(lambda: store.append_run("chat", Run()))
    assert store.append_run("chat", Run()).run_index == 2


@pytest.mark.parametrize("name", ["s.db", "link.db"])
def test_sqlite_file_that_the_user_has_open_is_refused_to_the_child(tmp_path, name):
    """SQLite would share the lock table of the user's own connection, which a fork cannot close."""
    store = SqliteDb(tmp_path / "s.db")
    store.append_run("chat", Run())
    (tmp_path / "link.db").symlink_to(tmp_path / "s.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as own:
        own.execute("SELECT count(*) FROM sqlite_master").fetchone()
        assert run_in_child(refused(SqliteDb(tmp_path / name)))
    assert run_in_child(lambda: store.append_run("chat", Run()))


def test_cursor_that_outlives_its_connection_is_detected(tmp_path):
    """SQLite keeps the file open for the cursor."""
    store = SqliteDb(tmp_path / "s.db")
    store.append_run("chat", Run())
    store.append_run("chat", Run())
    raw = store._connect("ro")
    cursor = raw.execute("SELECT * FROM agno_sessions_runs")
    cursor.fetchone()
    raw.close()

    assert run_in_child(refused(store))
    del cursor
    assert run_in_child(lambda: store.append_run("chat", Run()))


def test_transaction_at_the_fork_belongs_to_the_parent(persistent_store):
    """The child can neither write in it, nor end it, nor break its connection."""
    store = persistent_store
    store.append_run("chat", Run())
    runs = store.tables.runs

    def use_connection(connection):
        with pytest.raises((sa.exc.StatementError, StoreUnavailable)):
            connection.execute(runs.delete())
        gc.collect()

    def rename(text):
        return runs.update().values(input=text)

    with store.connect(write=True) as connection:
        connection.execute(rename("parent"))
        child_ended = run_in_child(lambda: use_connection(connection))
        connection.execute(rename("parent again"))

    assert child_ended
    assert store.runs_df()["input"].tolist() == ["parent again"]
    require_integrity(store)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_that_leaves_the_transaction_block_is_refused(persistent_store):
    """Nothing is committed twice when it runs to the end of the block with the fork."""
    store = persistent_store
    store.append_run("chat", Run(input="before"))
    code = None
    try:
        with store.connect(write=True) as connection:
            connection.execute(store.tables.runs.update().values(input="after"))
            pid = os.fork()
            if pid:
                code = os.waitpid(pid, 0)[1]
    except StoreUnavailable:
        if pid == 0:
            os._exit(3)
        raise
    except BaseException:
        if pid == 0:
            os._exit(4)
        raise
    if pid == 0:
        os._exit(5)

    assert os.waitstatus_to_exitcode(code) == 3
    assert store.runs_df()["input"].tolist() == ["after"]
    require_integrity(store)


EXITING = """
import os, sys, warnings
from kern_nb.db import InMemoryDb, open_store
from kern_nb.records import Run
warnings.simplefilter("ignore")
stores = [open_store(target) for target in sys.argv[1:]] + [InMemoryDb()]
for store in stores:
    store.append_run("chat", Run())
pid = os.fork()
for store in stores:
    store.append_run("chat", Run())
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    for store in stores:
        store.append_run("chat", Run())
"""


def test_forked_child_exits_normally(persistent_target):
    """Unlike os._exit, a normal exit deallocates inherited objects."""
    subprocess.run([sys.executable, "-c", EXITING, persistent_target], check=True, timeout=120)

    with open_store(persistent_target) as store:
        assert sorted(store.runs_df()["run_index"]) == [0, 1, 2, 3]
        require_integrity(store)
