"""Reading SQLite files that their program is writing to."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from kern_nb.ingest.sqlite_copy import open_copy

# Each transaction moves an amount between two rows and appends one: every consistent state has the same sum.
WRITER = textwrap.dedent(
    """
    import os, sqlite3, sys
    path, mode = sys.argv[1:]
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA wal_autocheckpoint = 20")
    n = 0
    while os.getppid() != 1:
        n += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE account SET amount = amount - 1 WHERE id = 1")
        connection.execute("INSERT INTO entry VALUES (?, ?)", (n, "x" * 3000))
        connection.execute("UPDATE account SET amount = amount + 1 WHERE id = 2")
        connection.execute("UPDATE account SET amount = amount + 1 WHERE id = 3")
        connection.execute("COMMIT")
        if n == 5:
            print("ready", flush=True)
        if n % 500 == 0:
            connection.execute("DELETE FROM entry")
            connection.execute("UPDATE account SET amount = 0 WHERE id = 3")
    """
)


@contextmanager
def writer(path, mode):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)")
        connection.execute("CREATE TABLE entry (n INTEGER, text TEXT)")
        connection.executemany("INSERT INTO account VALUES (?, ?)", [(1, 0), (2, 0), (3, 0)])
    connection.close()
    with subprocess.Popen([sys.executable, "-c", WRITER, path, mode], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_copy_of_a_file_that_is_being_written_is_consistent(tmp_path, mode):
    path = tmp_path / "busy.db"
    with writer(path, mode):
        refusals = [error for _ in range(25) if (error := check_copy(path))]
    assert len(refusals) < 25
    assert {"all the time" in str(error) for error in refusals} <= {True}


def check_copy(path):
    """Check that a copy is consistent; return the error if the file changed during every attempt."""
    try:
        with open_copy(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT sum(amount) FROM account WHERE id < 3").fetchone() == (0,)
    except sqlite3.OperationalError as error:
        return error
    return None


def test_what_a_killed_program_had_not_committed_is_not_read(tmp_path):
    path = tmp_path / "killed.db"
    program = textwrap.dedent(
        """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.execute("INSERT INTO t VALUES ('committed')")
        connection.execute("BEGIN")
        for n in range(200):
            connection.execute("INSERT INTO t VALUES (?)", ("lost" * 1000,))
        os._exit(1)
        """
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    assert path.with_name("killed.db-journal").stat().st_size > 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with open_copy(path) as connection:
        assert connection.execute("SELECT count(*), min(x) FROM t").fetchone() == (1, "committed")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), open_copy(tmp_path / "missing.db"):
        pass
