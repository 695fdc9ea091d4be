"""A store changes only its own tables: newer schemas and other programs' tables are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from samples import a_run, a_session, all_rows, load_session, table_names

from kern_nb.errors import ForeignLayout, KernError, SchemaTooNew
from kern_nb.records import Message, Session

AGNO_2 = """CREATE TABLE agno_sessions (session_id VARCHAR NOT NULL PRIMARY KEY, session_type VARCHAR NOT NULL, agent_id VARCHAR,
  team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, session_data JSON, agent_data JSON, team_data JSON, workflow_data JSON,
  metadata JSON, runs JSON, summary JSON, created_at BIGINT NOT NULL, updated_at BIGINT)"""
AGNO_3 = AGNO_2.replace("runs JSON, ", "")
AGNO_3_RUNS = """CREATE TABLE agno_runs (run_id VARCHAR NOT NULL PRIMARY KEY, session_id VARCHAR NOT NULL, run_type VARCHAR NOT NULL,
  agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, parent_run_id VARCHAR, status VARCHAR,
  run_index BIGINT, run_data JSON NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT)"""
ROW = """INSERT INTO agno_sessions (session_id, session_type, session_data, created_at)
  VALUES ('theirs', 'agent', '"{}"', 1)"""
OWN_ROWS = "CREATE TABLE agno_sessions (id INTEGER, note VARCHAR)"

# Every way to write, and some ways to read: a test that goes through them all has missed none.
WRITES = {
    "append_run": lambda store: store.append_run("s", a_run()),
    "put_run": lambda store: store.put_run("s", a_run()),
    "transaction": lambda store: store.transaction().__enter__(),
    "delete_run": lambda store: store.delete_run("r"),
    "delete_runs": lambda store: store.delete_runs("s"),
    "clear_session": lambda store: store.clear_session("s"),
    "pop_message": lambda store: store.pop_message("s"),
    "start_run": lambda store: store.start_run("s", input="x"),
    "append_messages": lambda store: store.append_messages("r", [Message(role="user", content="x")]),
    "finish_run": lambda store: store.finish_run("r"),
    "save_session": lambda store: store.save_session(Session(session_id="s")),
    "rename_session": lambda store: store.rename_session("s", "name"),
    "delete_session": lambda store: store.delete_session("s"),
    "branch": lambda store: store.branch("s"),
    "add_score": lambda store: store.add_score("s", "reward", 1.0),
    "repair": lambda store: store.check(repair=True),
    "pause_run": lambda store: store.pause_run("r", []),
    "resolve": lambda store: store.resolve("q", approve=True),
    "claim": lambda store: store.claim("q", by="bob"),
    "handoff": lambda store: store.handoff("s", to="bob"),
    "claim_run": lambda store: store.claim_run("r"),
    "release_run": lambda store: store.release_run(a_run()),
    "forget_answers": lambda store: store.forget_answers("r"),
    "update_session_state": lambda store: store.update_session_state("s", {"a": 1}),
    "save_summary": lambda store: store.save_summary("s", None),
    "put_blob": lambda store: store.put_blob(b"x"),
}
READS = {
    "get_session": lambda store: store.get_session("s"),
    "list_sessions": lambda store: store.list_sessions(),
    "last_runs": lambda store: store.last_runs("s", 1) if store.get_session("s") else [],
    "last_messages": lambda store: store.last_messages("s", 1) if store.get_session("s") else [],
    "sessions_df": lambda store: store.sessions_df(),
    "runs_df": lambda store: store.runs_df(),
    "messages_df": lambda store: store.messages_df(),
    "tool_calls_df": lambda store: store.tool_calls_df(),
    "scores_df": lambda store: store.scores_df(),
    "sql": lambda store: store.sql("SELECT * FROM runs"),
    "check": lambda store: store.check(),
    "requirements": lambda store: store.requirements(),
    "member_runs": lambda store: store.member_runs("r"),
    "get_blob": lambda store: store.get_blob("x"),
}


def make(store, *commands: str) -> None:
    """Execute SQL on the database of a store, like another program."""
    with store.engine.begin() as connection:
        for command in commands:
            connection.exec_driver_sql(command)
    store.close()


def fingerprint(folder: Path) -> dict[str, str]:
    """Return hashes of all files except those that SQLite keeps beside an open file."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_newer_schema_is_refused_by_every_call(store_factory, engine_name, tmp_path):
    """Reads and writes are refused with a hint; nothing changes."""
    store = store_factory()
    a_session(store, "s", runs=1)
    version = store.tables.schema
    store.write(lambda connection: connection.execute(version.update().values(version=version.c.version + 1000)))
    before = all_rows(store)
    if engine_name != "memory":
        store.close()
    files = fingerprint(tmp_path)
    for name, call in (WRITES | READS).items():
        newer = store if engine_name == "memory" else store_factory()
        newer._found = False  # in memory there is no second object to open it anew
        with pytest.raises(SchemaTooNew, match="100") as caught:
            call(newer)
        assert "pgrade" in caught.value.hint, name
        newer.close() if engine_name != "memory" else None
    assert fingerprint(tmp_path) == files
    assert all_rows(store) == before


@pytest.mark.parametrize("layout", ["Agno 2", "Agno 3", "own"])
def test_foreign_session_table_is_refused(store_factory, engine_name, tmp_path, layout):
    """The error names the program and suggests another session_table; no table and no row changes."""
    store = store_factory()
    created = {"Agno 2": [AGNO_2, ROW], "Agno 3": [AGNO_3, AGNO_3_RUNS, ROW], "own": [OWN_ROWS]}[layout]
    with store.engine.begin() as connection:
        for command in created:
            connection.exec_driver_sql(command)
    before = all_rows(store)
    for name, call in WRITES.items():
        with pytest.raises(ForeignLayout) as caught:
            call(store)
        assert "agno_sessions" in str(caught.value), name
        assert layout == "own" or layout in str(caught.value), name
        assert "session_table" in caught.value.hint, name

    assert all_rows(store) == before
    beside = store if engine_name == "memory" else store_factory(session_table="kern_sessions")
    if engine_name != "memory":
        a_session(beside, "ours")
        assert len(load_session(beside, "ours").runs) == 3
        after = all_rows(store)
        assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("suffix", ["_runs", "_messages", "_tool_calls", "_scores", "_requirements", "_blobs"])
def test_foreign_table_of_any_own_name_is_refused(store, suffix):
    """Agno names its runs table like kern_nb; it is not mistaken for a kern_nb table."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE agno_sessions{suffix} (run_id VARCHAR, run_data VARCHAR)")
        connection.exec_driver_sql(f"INSERT INTO agno_sessions{suffix} VALUES ('theirs', '{{}}')")
    before = all_rows(store)
    for call in (WRITES["append_run"], WRITES["save_session"], WRITES["append_run"]):
        with pytest.raises(ForeignLayout, match=f"agno_sessions{suffix}"):
            call(store)

    assert all_rows(store) == before


def test_view_of_own_name_is_refused(store):
    """kern_nb does not write into it."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW agno_sessions AS SELECT 1 AS session_id")
    before = all_rows(store)
    with pytest.raises(KernError):
        WRITES["append_run"](store)

    assert all_rows(store) == before


def test_foreign_kern_schema_table_is_refused(store):
    """A table of that name with other columns is left unchanged."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kern_schema (id INTEGER)")
    before = all_rows(store)
    for call in (WRITES["append_run"], READS["sessions_df"]):
        with pytest.raises(KernError, match="kern_schema"):
            call(store)

    assert all_rows(store) == before


def test_opening_and_reading_create_nothing(store_factory, engine_name, tmp_path):
    """No file, no table: reading does not create an empty store."""
    store = store_factory()
    for call in READS.values():
        call(store)
    with pytest.raises(KernError):
        store.history("s")
    with pytest.raises(KernError):
        store.locate("s")
    store.close()

    assert list(tmp_path.iterdir()) == []
    if engine_name == "postgres":
        assert table_names(store) == []


def test_failed_writes_create_no_session(store):
    """A branch or score of an unknown session is refused and writes no session."""
    for name in ("rename_session", "delete_session", "branch", "add_score", "append_messages", "finish_run"):
        with pytest.raises(KernError):
            WRITES[name](store)

    assert all(rows == [] for table, rows in all_rows(store).items() if table != "kern_schema")


def test_reading_does_not_change_file(store_factory, engine_name, tmp_path):
    """Byte for byte: a file under version control stays clean."""
    store = store_factory()
    a_session(store, "s")
    store.add_score("s", "reward", 1.0)
    store.close()
    if engine_name == "sqlite":
        with sa.create_engine(f"sqlite:///{tmp_path / 's.db'}").begin() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    before = fingerprint(tmp_path)
    again = store_factory()
    for call in READS.values():
        call(again)
    again.history("s", last_runs=1) if engine_name != "memory" else None
    again.close()

    assert fingerprint(tmp_path) == before
    assert engine_name in ("memory", "postgres") or before


def test_schema_is_created_once(store_factory, engine_name):
    """The next open finds it; one row has its version."""
    a_session(store_factory(), "s", runs=1)
    if engine_name == "memory":
        return
    store = store_factory()
    a_session(store, "s", runs=1)

    assert len(all_rows(store)["kern_schema"]) == 1
    assert len(load_session(store, "s").runs) == 2
