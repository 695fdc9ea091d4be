"""The contract of Agno's databases for sessions and runs, told by us: on Agno's own SqliteDb, and on ours on every engine.

Agno ships no tests of it. What it returns of agents' sessions, field by field, is in `test_agno_sessions`.
"""

from __future__ import annotations

import contextlib
import os
from importlib.metadata import version
from typing import Any

import pytest
import sqlalchemy as sa

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.base import SessionType
from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.team import TeamRunOutput
from agno.run.workflow import WorkflowRunOutput
from agno.session import AgentSession, TeamSession, WorkflowSession
from agno_agents import agent, call

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import DuckDb, PostgresDb, SqliteDb

ENGINES = ("sqlite", "duckdb", "postgres") if "KERN_PEERS" in os.environ else ("sqlite",)
pytestmark = [
    pytest.mark.filterwarnings("ignore::kern_nb.bridges.agno.SaveFailed"),  # Agno logs what is not saved
    pytest.mark.filterwarnings("ignore:Type object:sqlalchemy.exc.SADeprecationWarning"),  # of Agno's search by title
]


@pytest.fixture(params=["theirs", *ENGINES])
def db(request, tmp_path, record_property):
    record_property("suite", f"agno {version('agno')}: contract of sessions and runs (ours)")
    record_property("store", request.param)
    if request.param == "theirs":
        database = AgnoSqliteDb(db_file=str(tmp_path / "agno.db"))
        yield database
        database.close()
        return
    if request.param == "postgres":
        store = PostgresDb(db_url=request.getfixturevalue("postgres_database_url"))
    else:
        engine = DuckDb if request.param == "duckdb" else SqliteDb
        store = engine(tmp_path / "kern.db")
    with store:
        yield AgnoDb(store)
        assert store.check().problems == []


@contextlib.contextmanager
def statements():
    """Record the SQL that is sent."""
    sent: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    yield sent
    sa.event.remove(sa.Engine, "before_cursor_execute", record)


def test_a_page_of_sessions_costs_as_many_statements_as_one(tmp_path):
    """A page is read in the same number of statements, however many sessions, runs and pauses it has."""
    with SqliteDb(tmp_path / "kern.db") as store:
        writer = AgnoDb(store)
        counts = []
        for stop in (1, 20):
            for index in range(0 if stop == 1 else 1, stop):
                fill(writer, f"s{index + 10}", user_id="ann")
                agent(writer, [[call("delete_file", path="x")]], session_id=f"p{index}").run("Delete it")
            db = AgnoDb(store)  # which has no runs in its cache
            with statements() as sent:
                rows, _ = db.get_sessions(deserialize=False)
            assert sum(len(row["runs"]) for row in rows) == 4 * stop
            assert all(row["runs"] == db.get_session(row["session_id"], deserialize=False)["runs"] for row in rows)
            counts.append(len(sent))
        assert counts[0] == counts[1] <= 10, sent
        store.branch("s10", after=1, new_session_id="branch")
        db = AgnoDb(store)
        branch = next(row for row in db.get_sessions(deserialize=False)[0] if row["session_id"] == "branch")
        assert len(branch["runs"]) == 2
        assert branch["runs"] == db.get_session("branch", deserialize=False)["runs"]


def session(session_id: str = "s1", **fields: Any) -> AgentSession:
    return AgentSession(session_id=session_id, **({"agent_id": "a1", "created_at": 100} | fields))


def run(run_id: str, **fields: Any) -> RunOutput:
    values = {"agent_id": "a1", "status": RunStatus.completed, "content": f"answer {run_id}", "created_at": 100}
    return RunOutput(run_id=run_id, **(values | fields))


def ids(sessions: list[Any]) -> list[str]:
    return [s["session_id"] if isinstance(s, dict) else s.session_id for s in sessions]


def run_ids(runs: Any) -> list[str]:
    return [r["run_id"] if isinstance(r, dict) else r.run_id for r in runs or []]


def fill(db: Any, session_id: str = "s1", count: int = 3, **fields: Any) -> None:
    """A session with runs r0, r1, …"""
    db.upsert_session(session(session_id, **fields))
    prefix = "" if session_id == "s1" else f"{session_id}-"
    for index in range(count):
        db.upsert_run(run(f"{prefix}r{index}"), session_id, run_index=index)


# Sessions -----------------------------------------------------------------------------------------------------------

SESSIONS = {
    SessionType.AGENT: session(agent_data={"name": "Ann"}),
    SessionType.TEAM: TeamSession(session_id="s1", team_id="t1", team_data={"name": "Team"}, created_at=100),
    SessionType.WORKFLOW: WorkflowSession(session_id="s1", workflow_id="w1", workflow_data={"n": 1}, created_at=100),
}


@pytest.mark.parametrize("kind", SESSIONS, ids=lambda kind: kind.value)
def test_a_session_of_each_type_comes_back(db, kind):
    saved = SESSIONS[kind]
    saved.session_data, saved.metadata = {"session_state": {"a": [1, None]}}, {"é": "\u2028"}
    returned = db.upsert_session(saved)
    assert type(returned) is type(saved)
    for loaded in (returned, db.get_session("s1"), db.get_session("s1", kind), db.get_sessions(kind)[0]):
        assert type(loaded) is type(saved)
        assert loaded.session_data == saved.session_data
        assert loaded.metadata == saved.metadata
        assert loaded.created_at == 100
    row = db.get_session("s1", deserialize=False)
    assert (row["session_type"], row[f"{kind.value}_id"]) == (kind.value, getattr(saved, f"{kind.value}_id"))
    assert row[f"{kind.value}_data"] == getattr(saved, f"{kind.value}_data")


def test_a_session_that_does_not_exist(db):
    assert db.get_session("s1") is None
    assert db.get_session("s1", deserialize=False) is None
    assert db.get_sessions() == []
    assert db.get_sessions(deserialize=False) == ([], 0)
    assert db.rename_session("s1", SessionType.AGENT, "x") is None
    assert db.delete_session("s1") is False
    assert db.delete_sessions(["s1"]) is None
    db.upsert_session(session())
    assert db.get_session("s2") is None
    assert db.delete_session("s2") is False


def test_a_second_upsert_replaces_the_fields(db):
    db.upsert_session(session(session_data={"a": 1, "b": 2}, metadata={"x": 1}))
    loaded = db.get_session("s1")
    loaded.session_data, loaded.metadata = {"b": 3}, None
    db.upsert_session(loaded)
    again = db.get_session("s1")
    assert (again.session_data, again.metadata, again.created_at) == ({"b": 3}, None, 100)
    assert len(db.get_sessions()) == 1


def test_an_upsert_keeps_created_at_and_sets_updated_at(db):
    first = db.upsert_session(session(), deserialize=False)
    assert (first["created_at"], first["updated_at"]) == (100, 100)
    second = db.upsert_session(session(created_at=500), deserialize=False)
    assert second["created_at"] == 100
    assert second["updated_at"] > 1_000_000


def test_an_upsert_returns_the_runs_it_was_passed(db):
    runs = [run("r0")]
    assert db.upsert_session(session(runs=runs)).runs == runs
    assert run_ids(db.upsert_session(session(runs=runs), deserialize=False)["runs"]) == ["r0"]
    assert not db.get_session("s1").runs  # they are saved by `upsert_run`


def test_a_summary_comes_back(db):
    from agno.session.summary import SessionSummary

    db.upsert_session(session(summary=SessionSummary(summary="short", topics=["x"])))
    assert db.get_session("s1").summary.summary == "short"
    assert db.get_session("s1", deserialize=False)["summary"]["topics"] == ["x"]


def test_several_sessions_at_once(db):
    team = TeamSession(session_id="s2", team_id="t1", created_at=100, updated_at=77)
    saved = db.upsert_sessions([session(updated_at=55), team])
    assert sorted(ids(saved)) == ["s1", "s2"]
    rows = db.upsert_sessions([session(updated_at=55), team], deserialize=False, preserve_updated_at=True)
    assert {row["session_id"]: row["updated_at"] for row in rows} == {"s1": 55, "s2": 77}
    assert db.upsert_sessions([]) == []
    assert sorted(ids(db.get_sessions())) == ["s1", "s2"]


@pytest.mark.parametrize("deserialize", [True, False])
def test_renaming(db, deserialize):
    fill(db, count=1, session_data={"session_state": {"a": 1}}, user_id="ann")
    renamed = db.rename_session("s1", SessionType.AGENT, "Title", deserialize=deserialize)
    data = renamed.session_data if deserialize else renamed["session_data"]
    assert data == {"session_state": {"a": 1}, "session_name": "Title"}
    assert run_ids(renamed.runs if deserialize else renamed["runs"]) == ["r0"]
    assert db.get_session("s1").session_data == data
    assert db.rename_session("s1", None, "Again", user_id="ann").session_data["session_name"] == "Again"


def test_deleting_takes_the_runs_along(db):
    fill(db)
    fill(db, "s2")
    assert db.delete_session("s1") is True
    assert db.get_session("s1") is None
    assert db.get_run("r0") is None
    assert db.get_runs(session_id="s1") == []
    assert run_ids(db.get_session("s2").runs) == ["s2-r0", "s2-r1", "s2-r2"]
    fill(db, count=1)
    assert run_ids(db.get_session("s1").runs) == ["r0"]
    db.delete_sessions(["s1", "s2", "s3"])
    assert db.get_sessions() == []
    assert db.get_runs() == []


# Users --------------------------------------------------------------------------------------------------------------


def test_a_session_is_its_users(db):
    fill(db, count=1, user_id="ann")
    assert db.get_session("s1", user_id="bob") is None
    assert db.get_session("s1", user_id="ann").user_id == "ann"
    assert db.get_session("s1") is not None
    assert ids(db.get_sessions(user_id="ann")) == ["s1"]
    assert db.get_sessions(user_id="bob") == []
    assert db.rename_session("s1", SessionType.AGENT, "x", user_id="bob") is None
    assert db.delete_session("s1", user_id="bob") is False
    db.delete_sessions(["s1"], user_id="bob")
    assert run_ids(db.get_session("s1", user_id="ann").runs) == ["r0"]
    assert db.delete_session("s1", user_id="ann") is True


@pytest.mark.parametrize("user_id", ["bob", None])
def test_an_upsert_for_another_user_changes_nothing(db, user_id):
    db.upsert_session(session(user_id="ann", session_data={"a": 1}))
    assert db.upsert_session(session(user_id=user_id, session_data={"a": 2})) is None
    assert db.upsert_session(session(user_id=user_id, session_data={"a": 2}), deserialize=False) is None
    assert db.upsert_sessions([session(user_id=user_id, session_data={"a": 2})]) == []
    loaded = db.get_session("s1")
    assert (loaded.user_id, loaded.session_data) == ("ann", {"a": 1})


def test_a_session_without_a_user_is_claimed(db):
    db.upsert_session(session())
    assert db.upsert_session(session(user_id="ann")).user_id == "ann"
    assert db.get_session("s1", user_id="ann") is not None
    assert db.upsert_session(session(user_id="bob")) is None


def test_changing_the_user(db):
    fill(db, count=1, user_id="ann")
    assert db.reassign_session_owner("s1", previous_user_id="bob", user_id="cy") is False
    assert db.reassign_session_owner("s2", previous_user_id="ann", user_id="cy") is False
    assert db.reassign_session_owner("s1", previous_user_id="ann", user_id="cy") is True
    assert db.get_session("s1", user_id="ann") is None
    assert run_ids(db.get_session("s1", user_id="cy").runs) == ["r0"]
    assert db.reassign_session_owner("s1", previous_user_id="cy", user_id=None) is True
    assert db.get_session("s1").user_id is None


@pytest.mark.parametrize("status", [RunStatus.pending, RunStatus.running, RunStatus.paused], ids=lambda s: s.value)
def test_the_user_of_an_active_session_is_not_changed(db, status):
    fill(db, count=1, user_id="ann")
    db.upsert_run(run("r1", status=status), "s1", run_index=1)
    assert db.reassign_session_owner("s1", previous_user_id="ann", user_id="cy") is False
    assert db.get_session("s1", user_id="ann") is not None


# Lists of sessions --------------------------------------------------------------------------------------------------


def several(db: Any) -> None:
    for index, (user_id, title) in enumerate([("ann", "Paris"), ("bob", "Rome"), ("ann", "Paris, again"), (None, "x")]):
        data = {"session_name": title}
        db.upsert_session(
            session(f"s{index}", agent_id=f"a{index}", user_id=user_id, session_data=data, created_at=100 + index)
        )
    db.upsert_session(TeamSession(session_id="t", team_id="a0", session_data={"session_name": "Team"}, created_at=104))
    db.upsert_session(WorkflowSession(session_id="w", workflow_id="w1", created_at=105))


FILTERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all": ({}, ["s0", "s1", "s2", "s3", "t", "w"]),
    "agents": ({"session_type": SessionType.AGENT}, ["s0", "s1", "s2", "s3"]),
    "teams": ({"session_type": SessionType.TEAM}, ["t"]),
    "workflows": ({"session_type": SessionType.WORKFLOW}, ["w"]),
    "user": ({"user_id": "ann"}, ["s0", "s2"]),
    "component": ({"component_id": "a0"}, ["s0", "t"]),
    "component of a type": ({"component_id": "a0", "session_type": SessionType.TEAM}, ["t"]),
    "workflow": ({"component_id": "w1", "session_type": SessionType.WORKFLOW}, ["w"]),
    "title": ({"session_name": "paris"}, ["s0", "s2"]),
    "part of a title": ({"session_name": "ari"}, ["s0", "s2"]),
    "no such title": ({"session_name": "Berlin"}, []),
    "from": ({"start_timestamp": 103}, ["s3", "t", "w"]),
    "until": ({"end_timestamp": 101}, ["s0", "s1"]),
    "from and until": ({"start_timestamp": 101, "end_timestamp": 102}, ["s1", "s2"]),
    "several": ({"user_id": "ann", "component_id": "a2", "session_name": "again"}, ["s2"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(db, name):
    several(db)
    filters, expected = FILTERS[name]
    assert sorted(ids(db.get_sessions(**filters))) == expected
    rows, total = db.get_sessions(**filters, deserialize=False)
    assert (sorted(ids(rows)), total) == (expected, len(expected))


@pytest.mark.parametrize("column", ["created_at", "updated_at", "session_id", "agent_id"])
def test_sorting(db, column):
    several(db)
    agents = {"session_type": SessionType.AGENT, "sort_by": column}
    assert ids(db.get_sessions(**agents, sort_order="asc")) == ["s0", "s1", "s2", "s3"]
    assert ids(db.get_sessions(**agents, sort_order="desc")) == ["s3", "s2", "s1", "s0"]
    assert ids(db.get_sessions(**agents)) == ["s3", "s2", "s1", "s0"]


def test_pages(db):
    several(db)
    options: dict[str, Any] = {"sort_by": "created_at", "sort_order": "asc", "deserialize": False}
    pages = [db.get_sessions(limit=4, page=page, **options) for page in (1, 2, 3)]
    assert [ids(rows) for rows, _ in pages] == [["s0", "s1", "s2", "s3"], ["t", "w"], []]
    assert {total for _, total in pages} == {6}
    assert ids(db.get_sessions(limit=2, sort_by="created_at", sort_order="asc")) == ["s0", "s1"]
    assert ids(db.get_sessions(sort_by="nothing like it")) != []


@pytest.mark.parametrize("page", [{"page": 1}, {"limit": 2, "page": 0}, {"limit": 2, "page": -1}], ids=str)
def test_pages_that_are_refused(db, page):
    for method in (db.get_sessions, db.get_runs):
        with pytest.raises(ValueError):  # noqa: PT011 - each database has its own words
            method(**page)


def test_lists_with_and_without_runs(db):
    fill(db)
    fill(db, "s2", count=1)
    by_id = {s.session_id: run_ids(s.runs) for s in db.get_sessions()}
    assert by_id == {"s1": ["r0", "r1", "r2"], "s2": ["s2-r0"]}
    assert all(not s.runs for s in db.get_sessions(include_runs=False))
    assert all(row["runs"] is None for row in db.get_sessions(include_runs=False, deserialize=False)[0])
    assert len(db.get_session("s1").runs) == 3


# Runs ---------------------------------------------------------------------------------------------------------------

RUNS = {
    "agent": run("r1", content="Hi", metadata={"a": 1}),
    "team": TeamRunOutput(run_id="r1", team_id="t1", content="Hi", status=RunStatus.completed, metadata={"a": 1}),
    "workflow": WorkflowRunOutput(
        run_id="r1", workflow_id="w1", content="Hi", status=RunStatus.completed, metadata={"a": 1}
    ),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("is_dict", [False, True], ids=["object", "dict"])
def test_a_run_of_each_type_comes_back(db, kind, is_dict):
    saved = RUNS[kind]
    db.upsert_session(SESSIONS[SessionType(kind)])
    db.upsert_run(saved.to_dict() if is_dict else saved, "s1", run_index=0)
    loaded = db.get_run("r1")
    assert type(loaded) is type(saved)
    assert (loaded.content, loaded.status, loaded.metadata) == ("Hi", RunStatus.completed, {"a": 1})
    row = db.get_run("r1", deserialize=False)
    expected = {"run_id": "r1", "session_id": "s1", "run_type": kind, "status": "COMPLETED", "run_index": 0}
    assert {name: row[name] for name in expected} == expected
    assert row["run_data"]["content"] == "Hi"
    assert type(db.get_session("s1").runs[0]) is type(saved)


def test_a_run_that_does_not_exist(db):
    assert db.get_run("r1") is None
    assert db.get_runs() == []
    assert db.get_runs(deserialize=False) == ([], 0)
    assert db.delete_run("r1") is False
    fill(db)
    assert db.get_run("nothing like it") is None
    assert db.delete_run("nothing like it") is False
    db.delete_runs(["nothing like it"])
    assert db.get_runs(session_id="s2") == []


def test_a_run_without_an_id_is_refused(db):
    db.upsert_session(session())
    with pytest.raises(ValueError, match="run_id"):
        db.upsert_run(run(None), "s1", run_index=0)
    assert db.get_runs() == []


def test_a_second_upsert_replaces_the_run_and_keeps_its_position(db):
    fill(db)
    db.upsert_run(run("r1", content="changed", status=RunStatus.error), "s1")
    loaded = db.get_session("s1")
    assert run_ids(loaded.runs) == ["r0", "r1", "r2"]
    assert (loaded.runs[1].content, loaded.runs[1].status) == ("changed", RunStatus.error)
    assert db.get_run("r1", deserialize=False)["run_index"] == 1
    assert db.get_runs(status=RunStatus.error)[0].run_id == "r1"


def test_a_run_without_an_index_is_the_last(db):
    fill(db)
    db.upsert_run(run("r3"), "s1")
    assert run_ids(db.get_session("s1").runs) == ["r0", "r1", "r2", "r3"]
    assert db.get_run("r3", deserialize=False)["run_index"] == 3


def test_the_last_runs_of_the_context(db):
    fill(db)
    db.upsert_run(run("r3", parent_run_id="r2"), "s1", run_index=3)
    for index, status in enumerate((RunStatus.cancelled, RunStatus.error, RunStatus.paused), 4):
        db.upsert_run(run(f"r{index}", status=status), "s1", run_index=index)
    for deserialize in (True, False):
        for limit, expected in ((1, ["r2"]), (2, ["r1", "r2"]), (9, ["r0", "r1", "r2"])):
            loaded = db.get_session("s1", deserialize=deserialize, runs_limit=limit)
            assert run_ids(loaded.runs if deserialize else loaded["runs"]) == expected
    assert len(db.get_session("s1").runs) == 7


def test_messages_and_tools_come_back(db):
    from agno.models.message import Message
    from agno.models.response import ToolExecution

    messages = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello", tool_calls=None)]
    tools = [ToolExecution(tool_call_id="c1", tool_name="add", tool_args={"a": 1}, result="2")]
    db.upsert_session(session())
    db.upsert_run(run("r1", messages=messages, tools=tools), "s1", run_index=0)
    (loaded,) = db.get_session("s1").runs
    assert [(m.role, m.content, m.id) for m in loaded.messages] == [(m.role, m.content, m.id) for m in messages]
    assert (loaded.tools[0].tool_name, loaded.tools[0].tool_args, loaded.tools[0].result) == ("add", {"a": 1}, "2")


@pytest.mark.parametrize("deserialize", [True, False])
def test_filters_of_runs(db, deserialize):
    fill(db)
    db.upsert_session(TeamSession(session_id="t", team_id="t1"))
    db.upsert_run(TeamRunOutput(run_id="tr", team_id="t1", status=RunStatus.paused), "t", user_id="ann", run_index=0)
    db.upsert_session(WorkflowSession(session_id="w", workflow_id="w1"))
    db.upsert_run(WorkflowRunOutput(run_id="wr", workflow_id="w1", status=RunStatus.running), "w", run_index=0)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["r0", "r1", "r2", "tr", "wr"]),
        ({"session_id": "s1"}, ["r0", "r1", "r2"]),
        ({"agent_id": "a1"}, ["r0", "r1", "r2"]),
        ({"team_id": "t1"}, ["tr"]),
        ({"workflow_id": "w1"}, ["wr"]),
        ({"user_id": "ann"}, ["tr"]),
        ({"status": RunStatus.running}, ["wr"]),
        ({"status": "PAUSED"}, ["tr"]),
        ({"session_id": "s1", "status": RunStatus.running}, []),
    ]
    for filters, expected in cases:
        result = db.get_runs(**filters, deserialize=deserialize)
        runs, total = (result, len(expected)) if deserialize else result
        assert (sorted(run_ids(runs)), total) == (expected, len(expected)), filters


def test_pages_and_order_of_runs(db):
    fill(db, count=5)
    assert run_ids(db.get_runs(session_id="s1")) == ["r0", "r1", "r2", "r3", "r4"]
    rows, total = db.get_runs(session_id="s1", limit=2, page=2, deserialize=False)
    assert (run_ids(rows), total) == (["r2", "r3"], 5)
    assert run_ids(db.get_runs(session_id="s1", limit=2)) == ["r0", "r1"]
    for session_id in ("s1", None):
        options: dict[str, Any] = {"session_id": session_id, "sort_by": "run_index"}
        assert run_ids(db.get_runs(**options, sort_order="asc")) == ["r0", "r1", "r2", "r3", "r4"]
        assert run_ids(db.get_runs(**options, sort_order="desc", limit=1)) == ["r4"]
        assert run_ids(db.get_runs(**options, limit=2, page=2)) == ["r2", "r1"]


def test_deleting_runs(db):
    fill(db, count=5)
    assert db.delete_run("r1") is True
    assert db.delete_run("r1") is False
    assert run_ids(db.get_session("s1").runs) == ["r0", "r2", "r3", "r4"]
    db.delete_runs(["r0", "r4", "nothing like it"])
    assert run_ids(db.get_session("s1").runs) == ["r2", "r3"]
    db.upsert_run(run("r5"), "s1")
    assert run_ids(db.get_session("s1").runs) == ["r2", "r3", "r5"]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_cancelling_a_run_that_waits(db, status):
    fill(db, count=1)
    db.upsert_run(
        run("r1", status=RunStatus(status), content=None, metadata={"a": 1}), "s1", user_id="ann", run_index=1
    )
    options = {"reason": "lost", "expected_status": status}
    other = "RUNNING" if status == "PENDING" else "PENDING"
    assert db.cancel_pending_run("r1", session_id="s1", user_id="ann", reason="x", expected_status=other) is False
    assert db.cancel_pending_run("r1", session_id="s2", user_id="ann", **options) is False
    assert db.cancel_pending_run("r1", session_id="s1", user_id="bob", **options) is False
    assert db.cancel_pending_run("nothing like it", session_id="s1", **options) is False
    assert db.get_run("r1").status == RunStatus(status)
    assert db.cancel_pending_run("r1", session_id="s1", user_id="ann", **options) is True
    assert db.cancel_pending_run("r1", session_id="s1", user_id="ann", **options) is False
    loaded = db.get_run("r1")
    assert (loaded.status, loaded.content, loaded.metadata) == (RunStatus.cancelled, "lost", {"a": 1})
    assert db.get_run("r1", deserialize=False)["status"] == "CANCELLED"
    assert run_ids(db.get_session("s1").runs) == ["r0", "r1"]


def test_a_cancelled_run_keeps_its_content(db):
    db.upsert_session(session())
    db.upsert_run(run("r0", status=RunStatus.pending, content="so far"), "s1", run_index=0)
    assert db.cancel_pending_run("r0", session_id="s1", reason="lost") is True
    assert db.get_run("r0").content == "so far"
    with pytest.raises(ValueError, match="Pending or Running"):
        db.cancel_pending_run("r0", session_id="s1", reason="x", expected_status="PAUSED")
