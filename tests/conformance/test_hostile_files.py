"""A store's file may be somebody else's: what its author put in place of tables, functions and plain rows is never run."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from pathlib import Path

import duckdb
import pytest
from samples import a_run, a_session

from kern_nb.db import DuckDb, SqliteDb, open_store
from kern_nb.errors import KernError, NotAStore, QueryFailed, QueryRefused, StoreUnavailable

DUCKDB_CHANGES = {
    "a macro for a function": ["CREATE MACRO lower(x) AS 'changed'"],
    "a macro in another schema": ["CREATE SCHEMA other", "CREATE MACRO other.COALESCE_(x) AS x", "CREATE MACRO other.Upper(x) AS 1"],
    "a macro for an operator": ['CREATE MACRO "+"(a, b) AS 0'],
    "a macro for an aggregate": ["CREATE MACRO max(x) AS 7"],
    "a table macro": ["CREATE MACRO duckdb_functions() AS TABLE SELECT 'none' AS function_name, true AS internal"],
    "an endless macro": ["CREATE MACRO count(x) AS (SELECT sum(a.range) FROM range(10000000) a, range(10000000) b)"],
    "a type": ["CREATE TYPE json AS ENUM ('a')"],
    "a view for a table": [
        "ALTER TABLE agno_sessions_scores RENAME TO hidden",
        "CREATE VIEW agno_sessions_scores AS SELECT * FROM hidden",
    ],
    "a view for the schema table": [
        "ALTER TABLE kern_schema RENAME TO hidden",
        "CREATE VIEW kern_schema AS SELECT * FROM hidden",
    ],
    "computed columns": ["DROP TABLE agno_sessions_scores", ("CREATE TABLE agno_sessions_scores (score_id VARCHAR, session_id "
                         "VARCHAR, run_id VARCHAR, name VARCHAR, value DOUBLE, source VARCHAR, at_s BIGINT, created_at BIGINT "
                         "GENERATED ALWAYS AS (at_s + 1))")],
}  # fmt: skip
SQLITE_CHANGES = {
    "a trigger": [
        "CREATE TRIGGER t AFTER INSERT ON agno_sessions_runs BEGIN DELETE FROM agno_sessions_runs WHERE run_id = new.run_id; END"
    ],
    "a view for a table": [
        "ALTER TABLE agno_sessions_scores RENAME TO hidden",
        "CREATE VIEW agno_sessions_scores AS SELECT * FROM hidden",
    ],
    "a virtual table": ["DROP TABLE agno_sessions_scores", ("CREATE VIRTUAL TABLE agno_sessions_scores USING fts5(score_id, "
                        "session_id, run_id, name, value, source, created_at)")],
    "computed columns": ["DROP TABLE agno_sessions_scores", ("CREATE TABLE agno_sessions_scores (score_id TEXT, session_id TEXT, "
                         "run_id TEXT, name TEXT, value REAL, source TEXT, created_at INTEGER AS (abs(-1)))")],
}  # fmt: skip


def changed(path: Path, statements: list[str]) -> str:
    """A store's file with a session, changed by somebody with the engine's own tools; its digest."""
    with open_store(path) as store:
        a_session(store, "chat", runs=1)
        store.add_score("chat", "reward", 1.0)
    connect = duckdb.connect if path.suffix == ".duckdb" else sqlite3.connect
    connection = connect(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "statements"),
    [*(("s.duckdb", s) for s in DUCKDB_CHANGES.values()), *(("s.db", s) for s in SQLITE_CHANGES.values())],
    ids=[*(f"duckdb-{change}" for change in DUCKDB_CHANGES), *(f"sqlite-{change}" for change in SQLITE_CHANGES)],
)
def test_a_file_that_would_run_its_authors_code_is_not_opened(tmp_path, name, statements):
    """For reading, writing and SQL; and the file stays as it is."""
    digest = changed(tmp_path / name, statements)
    kind = DuckDb if name.endswith(".duckdb") else SqliteDb
    for use in (
        lambda: open_store(tmp_path / name, read_only=True),
        lambda: kind(tmp_path / name).append_run("chat", a_run()),
        lambda: kind(tmp_path / name).sql("SELECT * FROM sessions"),
    ):
        with pytest.raises(NotAStore) as caught:
            use()
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.hint
    kind(tmp_path / name).close()

    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_other_objects_of_a_file_do_no_harm(tmp_path):
    """Tables, views and macros of a person's own stay beside ours; SQL reads the tables."""
    own = ["CREATE TABLE labels AS SELECT 'chat' AS session_id, 'good' AS label", "CREATE VIEW v AS SELECT 1 AS a",
           "CREATE VIEW sessions AS SELECT 'other' AS session_id", "CREATE MACRO twice(x) AS x * 2"]  # fmt: skip
    changed(tmp_path / "s.duckdb", own)
    changed(tmp_path / "s.db", own[:3])
    for name in ("s.duckdb", "s.db"):
        with open_store(tmp_path / name) as store:
            store.append_run("chat", a_run())
            joined = store.sql("SELECT label, n_runs FROM sessions JOIN labels USING (session_id)")
            assert joined.iloc[0].tolist() == ["good", 2]
            for query in ("SELECT * FROM v", "SELECT count(*) FROM v", "SELECT twice(1)", "SELECT * FROM main.sessions",
                          "WITH x AS (SELECT * FROM v), v AS (SELECT 2 AS a) SELECT * FROM x"):  # fmt: skip
                with pytest.raises((QueryFailed, QueryRefused)):
                    store.sql(query)


def test_a_trigger_calls_no_function_with_effects(tmp_path):
    """On a table of the author's own, too: SQLite's schema is not trusted."""
    changed(tmp_path / "s.db", ["CREATE VIEW v AS SELECT load_extension('x') AS a", "CREATE TABLE t (a)"])
    with open_store(tmp_path / "s.db") as store, store.connect() as connection:
        with pytest.raises(KernError) as caught, store.connect() as other:
            other.exec_driver_sql("SELECT * FROM v").all()
        assert "load_extension" in str(caught.value)
        assert connection.exec_driver_sql("PRAGMA trusted_schema").scalar() == 0


def set_storage_version(path: Path, version: int) -> None:
    """Change the storage version in the main header of a DuckDB file, and its checksum."""
    data = bytearray(path.read_bytes())
    data[12:20] = struct.pack("<Q", version)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", data[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    data[:8] = struct.pack("<Q", checksum)
    path.write_bytes(data)


@pytest.mark.skipif(not duckdb.__version__.startswith("1."), reason="DuckDB 2 reads this storage version")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_of_a_newer_duckdb_is_refused_with_the_command_that_helps(tmp_path, read_only):
    """The error names the version that wrote the file; the file does not change."""
    path = tmp_path / "s.duckdb"
    duckdb.connect(str(path)).close()
    set_storage_version(path, 69)
    content = path.read_bytes()

    with pytest.raises(StoreUnavailable) as caught:
        open_store(path, read_only=read_only)

    assert f"written by DuckDB 2 or newer (v{duckdb.__version__}, storage version 69)" in str(caught.value)
    assert "pip install --upgrade duckdb" in caught.value.hint
    assert path.read_bytes() == content
