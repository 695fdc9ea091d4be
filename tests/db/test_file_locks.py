"""No descriptor is closed while this process may hold locks on its file: POSIX would drop them all."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import duckdb
import pytest

from kern_nb.db import DuckDb, SqliteDb, file_descriptors, open_store
from kern_nb.errors import KernError, NotAStore, StoreBusy
from kern_nb.records import Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="queries locks of the Linux kernel")

QUERY_LOCK = """
import fcntl, os, struct, sys
file = os.open(sys.argv[1], os.O_RDONLY)
query = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
print(struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, query))[4])
"""

NOTEBOOK = """
import sys
from kern_nb.db import open_store
from kern_nb.records import Run
first, second = open_store(sys.argv[1]), open_store(sys.argv[1])
first.append_run("first", Run()), second.append_run("second", Run())
print("ready", flush=True)
sys.stdin.readline()
print(len([first.append_run("first", Run()) for _ in range(10)]), flush=True)
sys.stdin.readline()
"""

SCRIPT = """
import sys
from kern_nb.db import open_store
from kern_nb.records import Run
open_store(sys.argv[1]).append_run("script", Run())
"""


def lock_holder(path):
    """The PID of the process with a lock on a file, as another process sees it; 0 if none."""
    return int(subprocess.run([sys.executable, "-c", QUERY_LOCK, path], check=True, capture_output=True).stdout)


@pytest.fixture
def sqlite_file(tmp_path):
    """A SQLite store that the user has open in a separate connection."""
    path = tmp_path / "s.db"
    SqliteDb(path).append_run("chat", Run())
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("SELECT count(*) FROM sqlite_master").fetchone()
        assert lock_holder(path) == os.getpid()
        yield path


@pytest.fixture
def duckdb_file(tmp_path):
    """A DuckDB store that the user has open in a separate connection."""
    path = tmp_path / "s.duckdb"
    with DuckDb(path) as store:
        store.append_run("chat", Run())
    with duckdb.connect(path) as own:
        own.execute("SELECT 1")
        assert lock_holder(path) == os.getpid()
        yield path


def import_records(path):
    with DuckDb(path.with_name("other.duckdb")) as store:
        store.ingest(path)


def attach_twice(path):
    for _ in range(2):
        with open_store(path) as store:
            store.append_run("chat", Run())


def attach_read_only(path):
    with open_store(path, read_only=True) as store:
        store.runs_df()


def open_as_duckdb(path):
    with pytest.raises(NotAStore, match="is a SQLite file"):
        DuckDb(path).runs_df()


@pytest.mark.parametrize("use", [attach_twice, attach_read_only, open_as_duckdb, import_records])
def test_user_sqlite_connection_keeps_its_locks(sqlite_file, use):
    with contextlib.suppress(KernError):
        use(sqlite_file)

    assert lock_holder(sqlite_file) == os.getpid()


def open_twice(path):
    with pytest.raises(StoreBusy, match="this process"):
        DuckDb(path, timeout=0.05).append_run("chat", Run())


def open_twice_read_only(path):
    with pytest.raises(StoreBusy, match="this process"):
        DuckDb(path, timeout=0.05, read_only=True).runs_df()


def open_as_sqlite(path):
    with pytest.raises(NotAStore, match="is a DuckDB file"):
        SqliteDb(path).runs_df()


def read_header(path):
    assert file_descriptors.read_header(path, 12)[8:] == b"DUCK"


@pytest.mark.parametrize("use", [open_twice, open_twice_read_only, open_as_sqlite, read_header, import_records])
def test_user_duckdb_connection_keeps_its_lock(duckdb_file, use):
    with contextlib.suppress(KernError):
        use(duckdb_file)

    assert lock_holder(duckdb_file) == os.getpid()


def test_header_is_read_from_the_current_file_at_the_path(tmp_path):
    """A parked descriptor belongs to a file, not to its path."""
    path = tmp_path / "s.db"
    SqliteDb(path).append_run("chat", Run())
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("SELECT count(*) FROM sqlite_master").fetchone()
        assert file_descriptors.read_header(path, 6) == b"SQLite"
        path.rename(tmp_path / "old.db")
        path.write_bytes(b"another file")
        assert file_descriptors.read_header(path, 7) == b"another"
        assert file_descriptors.read_header(tmp_path / "old.db", 6) == b"SQLite"
        assert lock_holder(tmp_path / "old.db") == os.getpid()


def test_descriptors_are_closed_when_the_file_is_open_nowhere_else(tmp_path):
    """Closed stores leave no descriptors open."""
    before = file_descriptors.open_files()
    for i in range(4):
        with open_store(tmp_path / f"{i}.db") as store, open_store(tmp_path / f"{i}.db") as again:
            store.append_run("chat", Run())
            again.append_run("chat", Run())
    for i in range(4):
        file_descriptors.read_header(tmp_path / f"{i}.db", 6)

    assert len(file_descriptors.open_files()) <= len(before)


def test_headers_are_read_by_concurrent_threads(tmp_path):
    """No lock is lost and no reader fails."""
    path = tmp_path / "s.db"
    SqliteDb(path).append_run("chat", Run())
    errors = []

    def read():
        try:
            for _ in range(50):
                assert file_descriptors.read_header(path, 6) == b"SQLite"
        except BaseException as error:  # noqa: BLE001 - reported by the assertion
            errors.append(error)

    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("SELECT count(*) FROM sqlite_master").fetchone()
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert lock_holder(path) == os.getpid()


def open_twice_and_kill(target):
    """Open a path twice, run a script in between, append ten runs, kill; the numbers of reported and stored runs."""
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with notebook:
        notebook.stdout.readline()
        subprocess.run([sys.executable, "-c", SCRIPT, target], check=True)
        notebook.stdin.write("\n")
        notebook.stdin.flush()
        completed = int(notebook.stdout.readline())
        notebook.send_signal(signal.SIGKILL)
    with open_store(target) as store:
        return 3 + completed, len(store.runs_df())


def test_store_opened_twice_loses_no_run(persistent_target):
    """The attach cell runs twice, with another process in between, then kill -9."""
    reported, stored = open_twice_and_kill(persistent_target)

    assert reported == 13
    assert stored == reported
