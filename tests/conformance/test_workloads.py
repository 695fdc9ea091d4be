"""Workloads in one database: session_table names one, and none sees, touches or hides another's."""

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
    """Make two workloads in one database; one in memory belongs to one store."""
    with contextlib.ExitStack() as stack:

        def make(*names: str) -> list[SessionStore]:
            return [stack.enter_context(open_store(persistent_target, session_table=name)) for name in names]

        yield make


def test_workloads_do_not_see_each_other(pair):
    """The same ids in both, each with its own runs, branches and totals."""
    one, two = pair("first", "second")
    a_session(one, "chat", runs=3)
    two.append_run("chat", a_run("other"))
    one.branch("chat", new_session_id="b")
    one.add_score("chat", "reward", 1.0)

    assert inputs(load_session(one, "chat")) == ["chat 0", "chat 1", "chat 2"]
    assert inputs(load_session(two, "chat")) == ["other"]
    assert two.get_session("b") is None
    assert [s.session_id for s in two.list_sessions()] == ["chat"]
    assert (len(one.runs_df()), len(two.runs_df())) == (3, 1)
    assert (len(one.scores_df()), len(two.scores_df())) == (1, 0)
    for store, n in ((one, 3), (two, 1), (one, 3)):
        assert len(store.sql("SELECT * FROM runs")) == n
    two.delete_session("chat")
    assert len(load_session(one, "chat").runs) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_may_have_any_name(store_factory, engine_name, name):
    """Also that of a view of sql(), of a keyword, with quotes or capitals; reading SQL before and after writing."""
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


def test_workloads_of_the_views_names_beside_each_other(pair):
    """One called sessions, one called runs: each has its own six views."""
    one, two = pair("sessions", "agents")
    a_session(one, "chat", runs=2)
    a_session(two, "chat", runs=1)
    for _ in range(2):
        assert one.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [2]
        assert two.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1]
        assert load_session(one, "chat").runs[0].input == "chat 0"


def test_names_that_overlap_are_refused(pair):
    """The workload x has a table x_runs, which another workload cannot be; the first stays as it is."""
    one, two = pair("x", "x_runs")
    a_session(one, "chat")
    before = all_rows(one)
    with pytest.raises(ForeignLayout, match="x_runs"):
        two.append_run("chat", a_run())
    with pytest.raises(KernError):
        two.save_session(Session(session_id="s"))

    assert all_rows(one) == before


def test_names_that_overlap_are_refused_the_other_way_round(pair):
    """Where x_runs is a workload already, x cannot be made."""
    two, one = pair("x_runs", "x")
    a_session(two, "chat")
    before = all_rows(two)
    with pytest.raises(ForeignLayout, match="x_runs"):
        one.append_run("chat", a_run())

    assert all_rows(two) == before


FILES = ("main", "temp", "system", "a%20b", "no#1", "sp ace", "quo'te", 'dou"ble', "semi;colon", "ü.b.c")


@pytest.mark.parametrize(("kind", "ending", "names"), [(DuckDb, "duckdb", FILES), (SqliteDb, "db", (*FILES, "what?"))])
def test_a_file_may_have_any_name(tmp_path, kind, ending, names):
    """Every sign that a file system and the engine take, and the names that the engines use themselves."""
    for name in names:
        path = tmp_path / f"{name}.{ending}"
        with kind(path) as store:
            a_session(store, "chat", runs=1)
            assert store.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1], name
        with kind(path) as again:
            assert len(again.messages_df()) == 4, name
            assert again.sql("SELECT count(*) AS n FROM messages").n.tolist() == [4], name
    made = {path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm", ".wal"))}

    assert made == {f"{name}.{ending}" for name in names}


def test_a_schema_of_postgres_holds_a_workload(postgres_database_url):
    """db_schema says where the tables are; without it they are in the connection's own schema."""
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
