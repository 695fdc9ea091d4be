"""SQLite: waits are bounded, Ctrl-C interrupts queries and waits, and errors have hints."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa

from kern_nb.db import SqliteDb, open_store, sqlite_connections
from kern_nb.db.sqlite_connections import SqliteConnection
from kern_nb.errors import KernError, NotAStore, ReadOnlyStore, StoreBusy, StoreUnavailable, UnstorableValue
from kern_nb.records import Message, Run

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"


@pytest.fixture
def store(tmp_path):
    """A SQLite store with a run."""
    with SqliteDb(tmp_path / "s.db") as store:
        store.append_run("chat", Run())
        yield store


@pytest.fixture
def press_ctrl_c():
    """Send SIGINT to the main thread after a delay; the test process may have started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers = []

    def press(delay=0.2):
        timers.append(threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield press
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def locked(store):
    """Another connection holds the writer's lock."""
    with contextlib.closing(sqlite3.connect(store.db_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_interrupted_write_releases_the_lock_while_its_traceback_exists(store):
    """IPython keeps the traceback, which keeps the statement, which keeps SQLite from closing the connection."""
    with contextlib.closing(sqlite3.connect(store.db_file, timeout=0, isolation_level=None)) as other:

        def interrupt(connection, cursor, statement, *rest):
            if statement.startswith("INSERT"):
                raise KeyboardInterrupt

        sa.event.listen(store.engine, "after_cursor_execute", interrupt)
        with pytest.raises(KeyboardInterrupt) as kept:
            store.append_run("chat", Run())
        sa.event.remove(store.engine, "after_cursor_execute", interrupt)

        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        assert store.append_run("chat", Run()).run_index == 1
        assert kept.value.__traceback__ is not None


def sql(store):
    store.sql(ENDLESS.format("count(*)"))


def read(store):
    with store.connect() as connection:
        connection.exec_driver_sql(ENDLESS.format("count(*)")).all()


def read_through_a_function(store):
    with store.connect() as connection:
        connection.exec_driver_sql(ENDLESS.format("count(lower('A' || i))")).all()


def write(store):
    store.write(lambda connection: connection.exec_driver_sql(ENDLESS.format("count(*)")).all())


@pytest.mark.parametrize("query", [sql, read, read_through_a_function, write])
def test_ctrl_c_interrupts_query(store, press_ctrl_c, query):
    press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        query(store)

    assert store.append_run("chat", Run()).run_index == 1


def test_exception_of_signal_handler_interrupts_query(store):
    def handle(_number, _frame):
        raise TimeoutError("too long")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeoutError, match="too long"):
            read(store)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_interrupts_wait_for_writer(store, press_ctrl_c):
    with locked(store):
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            store.append_run("chat", Run())

    assert store.append_run("chat", Run()).run_index == 1


def test_ctrl_c_interrupts_open_of_locked_file(store, press_ctrl_c):
    store.close()
    with contextlib.closing(sqlite3.connect(store.db_file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            store.runs_df()

    assert store.append_run("chat", Run()).run_index == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what Python drops in a finalizer
def test_ctrl_c_at_any_time_leaves_store_usable(store):
    """No appended run is lost, no connection stays checked out and no lock is held."""
    moments, appended = random.Random(1), []
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    for _ in range(40):
        try:
            # Again and again, as Python drops what is raised in a finalizer.
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0005, 0.02), 0.2)
            while True:
                appended.append(store.append_run("chat", Run()).run_id)
                store.runs_df()
                store.close()
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.collect()

    assert not [connection for connection in sqlite_connections._connections if connection.thread is not None]
    thread = threading.Thread(target=store.append_run, args=("chat", Run()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert set(appended) <= set(store.runs_df()["run_id"])


def test_writer_waits_for_timeout_once(store, monkeypatch):
    """The timeout is not repeated for each attempt; the test counts sleeps, as a clock depends on other processes."""
    slept = []
    clock = time.monotonic()
    monkeypatch.setattr(sqlite_connections.time, "monotonic", lambda: clock + sum(slept))
    monkeypatch.setattr(sqlite_connections.time, "sleep", slept.append)
    store.timeout = 3.0

    with locked(store), pytest.raises(StoreBusy, match="is busy: database is locked"):
        store.append_run("chat", Run())

    assert 2.9 < sum(slept) < 3.1


def test_locked_file_raises_store_busy_for_reader(tmp_path):
    with SqliteDb(tmp_path / "s.db", timeout=0.05) as store:
        store.append_run("chat", Run())
        store.close()
        with contextlib.closing(sqlite3.connect(store.db_file, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("BEGIN IMMEDIATE")
            for use in (store.runs_df, lambda: store.sql("SELECT 1")):
                with pytest.raises(StoreBusy):
                    use()


def test_expression_cannot_allocate_gigabytes(store):
    for expression in ("zeroblob(900000000)", "hex(zeroblob(150000000))"):
        with pytest.raises(KernError):
            store.sql(f"SELECT length({expression})")


def test_too_large_value_is_refused_and_store_stays_usable(store, monkeypatch):
    monkeypatch.setattr(sqlite_connections, "MAX_VALUE_BYTES", 1_000_000)
    store.close()
    with pytest.raises(UnstorableValue):
        store.append_run("chat", Run(messages=[Message(role="user", content="x" * 2_000_000)]))

    assert store.append_run("chat", Run()).run_index == 1


def overwrite(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 4000)


@pytest.mark.parametrize(
    "use", [lambda s: s.runs_df(), lambda s: s.sql("SELECT * FROM runs"), lambda s: s.append_run("x", Run())]
)
def test_damaged_file_raises_store_error(tmp_path, use):
    path = tmp_path / "s.db"
    with SqliteDb(path) as store:
        for i in range(20):
            store.append_run("chat", Run(input="x" * 3000, messages=[Message(role="user", content=str(i))]))
    for page in range(1, path.stat().st_size // 4096):
        overwrite(path, page * 4096 + 8)

    with SqliteDb(path) as store, pytest.raises((StoreUnavailable, NotAStore), match="malformed") as caught:
        use(store)
    assert ".recover" in caught.value.hint


def test_non_database_file_raises_not_a_store(tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4080)
    for use in (lambda: SqliteDb(path).runs_df(), lambda: open_store(path)):
        with pytest.raises(NotAStore):
            use()


def test_full_disk_raises_store_full(store):
    def fill(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        try:
            connection.exec_driver_sql(
                "INSERT INTO agno_sessions (session_id, session_type) VALUES (hex(zeroblob(100000)), 'agent')"
            )
        finally:
            connection.exec_driver_sql("PRAGMA max_page_count=4294967294")

    with pytest.raises(StoreUnavailable, match="full") as caught:
        store.write(fill)
    assert "space" in caught.value.hint
    assert store.append_run("chat", Run()).run_index == 1


def test_unwritable_file_raises_read_only_store(store):
    store.close()
    raw = sqlite_connections.open_connection(store.db_file, "ro", 1.0)
    with pytest.raises(sqlite3.OperationalError) as caught, contextlib.closing(raw):
        raw.execute("CREATE TABLE t (a)")

    error = store.translate_error(caught.value)
    assert isinstance(error, ReadOnlyStore)
    assert "writable" in error.hint


def append_many(path, session_id, count):
    with SqliteDb(path) as store:
        for _ in range(count):
            store.append_run(session_id, Run())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_concurrent_writers_all_finish(store):
    """No writer starves, and nothing is lost."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(store.db_file, str(i), 15)) for i in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert [writer.exitcode for writer in writers] == [0] * 6
    assert store.runs_df()["session_id"].value_counts().drop("chat").tolist() == [15] * 6


def test_connection_is_closed_at_the_next_use_if_its_close_was_interrupted(store, monkeypatch):
    """Otherwise it holds the write lock as long as the traceback of the interrupt exists, which IPython keeps."""
    close, interrupts = SqliteConnection.close, iter([True])

    def interrupted_close(connection):
        if next(interrupts, False):
            raise KeyboardInterrupt
        close(connection)

    def interrupted_execute(*args):
        raise KeyboardInterrupt

    def work(connection):
        connection.execute(store.tables.sessions.delete())
        with monkeypatch.context() as patch:
            patch.setattr(connection.dialect, "do_execute", interrupted_execute)
            connection.execute(store.tables.runs.delete())

    monkeypatch.setattr(SqliteConnection, "close", interrupted_close)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        store.write(work)

    store.append_run("chat", Run(run_id="after"))
    assert set(store.runs_df().run_id) >= {"after"}
    assert interrupt.value is not None
