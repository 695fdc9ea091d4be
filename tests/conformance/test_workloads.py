"""Workloads in one database: each session_table has its own sessions, and none reads or changes another's."""

from __future__ import annotations

import contextlib

import pytest
from samples import a_run, a_session, a_small_run, all_rows, inputs, load_session, table_names

from kern_nb.db import DuckDb, PostgresDb, SessionStore, SqliteDb, open_store
from kern_nb.errors import ForeignLayout, KernError
from kern_nb.records import Session

VIEWS = ("sessions", "runs", "messages", "tool_calls", "scores", "requirements")
NAMES = ("sessions", "runs", 'Mixed "Case"', "100%", "group", "ünï")


@pytest.fixture
def pair(persistent_target):
    """Return a function that creates two workloads in one database; an in-memory database has a single store."""
    with contextlib.ExitStack() as stack:

        def make(*names: str) -> list[SessionStore]:
            return [stack.enter_context(open_store(persistent_target, session_table=name)) for name in names]

        yield make


def test_workloads_are_isolated(pair):
    """Both have the same ids, with their own runs, branches and totals."""
    first, second = pair("first", "second")
    a_session(first, "chat", runs=3)
    second.append_run("chat", a_run("other"))
    first.branch("chat", new_session_id="b")
    first.add_score("chat", "reward", 1.0)

    assert inputs(load_session(first, "chat")) == ["chat 0", "chat 1", "chat 2"]
    assert inputs(load_session(second, "chat")) == ["other"]
    assert second.get_session("b") is None
    assert [s.session_id for s in second.list_sessions()] == ["chat"]
    assert (len(first.runs_df()), len(second.runs_df())) == (3, 1)
    assert (len(first.scores_df()), len(second.scores_df())) == (1, 0)
    for store, n in ((first, 3), (second, 1), (first, 3)):
        assert len(store.sql("SELECT * FROM runs")) == n
    second.delete_session("chat")
    assert len(load_session(first, "chat").runs) == 3


@pytest.mark.parametrize("name", NAMES)
def test_workload_may_have_any_name(store_factory, engine_name, name):
    """The name of a view, a keyword, with quotes or capitals; SQL is read before and after writing."""
    store = store_factory(session_table=name)
    a_session(store, "chat", runs=2)
    for _ in range(2):
        assert len(store.sql("SELECT * FROM sessions")) == 1
        runs = store.sql("SELECT s.session_id, r.run_index FROM runs r JOIN sessions s USING (session_id) ORDER BY 2")
        assert runs.run_index.tolist() == list(range(len(runs)))
        for view in VIEWS:
            store.sql(f"SELECT count(*) FROM {view}")
        store.append_run("chat", a_small_run("after sql"))
        store.rename_session("chat", "title")
    assert inputs(load_session(store, "chat")) == ["chat 0", "chat 1", "after sql", "after sql"]
    assert len(store.runs_df()) == 4
    assert name in table_names(store)
    if engine_name != "memory":
        again = store_factory(session_table=name)
        assert len(again.sql("SELECT * FROM runs")) == 4
        assert not store_factory(session_table="another").list_sessions()


def test_workloads_named_like_views(pair):
    """Named sessions and agents: each has its own six views."""
    first, second = pair("sessions", "agents")
    a_session(first, "chat", runs=2)
    a_session(second, "chat", runs=1)
    for _ in range(2):
        assert first.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [2]
        assert second.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1]
        assert load_session(first, "chat").runs[0].input == "chat 0"


def test_overlapping_names_are_refused(pair):
    """Workload x has a table x_runs, which no other workload can be named; the first is unchanged."""
    first, second = pair("x", "x_runs")
    a_session(first, "chat")
    before = all_rows(first)
    with pytest.raises(ForeignLayout, match="x_runs"):
        second.append_run("chat", a_run())
    with pytest.raises(KernError):
        second.save_session(Session(session_id="s"))

    assert all_rows(first) == before


def test_overlapping_names_are_refused_in_reverse_order(pair):
    """If x_runs is a workload, x is refused."""
    second, first = pair("x_runs", "x")
    a_session(second, "chat")
    before = all_rows(second)
    with pytest.raises(ForeignLayout, match="x_runs"):
        first.append_run("chat", a_run())

    assert all_rows(second) == before


FILES = ("main", "temp", "system", "a%20b", "no#1", "sp ace", "quo'te", 'dou"ble', "semi;colon", "ü.b.c")


@pytest.mark.parametrize(("kind", "ending", "names"), [(DuckDb, "duckdb", FILES), (SqliteDb, "db", (*FILES, "what?"))])
def test_file_may_have_any_name(tmp_path, kind, ending, names):
    """All characters that a file system and the engine accept, and the names that engines use themselves."""
    for name in names:
        path = tmp_path / f"{name}.{ending}"
        with kind(path) as store:
            a_session(store, "chat", runs=1)
            assert store.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1], name
        with kind(path) as again:
            assert len(again.messages_df()) == 4, name
            assert again.sql("SELECT count(*) AS n FROM messages").n.tolist() == [4], name
    created = {path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm", ".wal"))}

    assert created == {f"{name}.{ending}" for name in names}


def test_postgres_schema_has_a_workload(postgres_database_url):
    """db_schema selects the schema; by default it is that of the connection."""
    with PostgresDb(postgres_database_url) as public:
        with public.engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA ai")
        a_session(public, "chat", runs=1)
        with PostgresDb(postgres_database_url, db_schema="ai") as other:
            assert other.get_session("chat") is None
            a_session(other, "chat", runs=2)
            assert other.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [2]
            assert len(other.messages_df()) == 8
        assert public.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1]
