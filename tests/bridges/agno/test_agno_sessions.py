"""What Agno's methods return of sessions and runs in a store is what its own database returns."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.base import SessionType
from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno.run.agent import RunOutput
from agno.session import AgentSession
from agno_agents import agent, call, image, team, workflow

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import SqliteDb

TIMES = {"duration", "time_to_first_token", "start_time", "end_time", "created_at", "updated_at", "run_index"}


@pytest.fixture
def theirs(tmp_path):
    db = AgnoSqliteDb(db_file=str(tmp_path / "agno.db"))
    yield db
    db.close()


@pytest.fixture
def db(tmp_path):
    with SqliteDb(db_file=tmp_path / "kern.db") as store:
        yield AgnoDb(store)


def comparable(value: Any, ids: dict[str, str]) -> Any:
    """A value without what differs from run to run: times and ids, which are numbered; indexes: the steps of a workflow have some."""
    if isinstance(value, dict):
        return {
            key: type(item).__name__ if key in TIMES else comparable(item, ids) for key, item in sorted(value.items())
        }
    if isinstance(value, (list, tuple)):
        return [comparable(item, ids) for item in value]
    if isinstance(value, str) and len(value) == 36 and value.count("-") == 4:
        return ids.setdefault(value, f"id {len(ids)}")
    return re.sub(r"in \d+\.\d+s", "in a while", value) if isinstance(value, str) else value


def same(first: Any, second: Any) -> None:
    assert comparable(second, {}) == comparable(first, {})


def tools(db):
    answers = [[call("get_weather", city="Paris"), call("failing")], "Sunny.", "Again sunny."]
    options = {"session_state": {"n": 1}, "user_id": "alice", "metadata": {"env": "test"}}
    a = agent(db, answers, add_history_to_context=True, store_history_messages=True, **options)
    a.run("Weather?")
    a.run("And now?")
    a.set_session_name(session_id="s1", session_name="Weather")


def pauses(db):
    agent(db, [[call("delete_file", path="x")]]).run("Delete it")
    agent(db, [[call("send", text="x")]]).run("Send it")
    agent(db, [[call("run_shell", command="ls")]]).run("List it")
    a = agent(db, [[call("delete_file", path="y")], "Deleted."])
    run = a.run("Delete it")
    run.requirements[0].confirm()
    a.continue_run(run_id=run.run_id, requirements=run.requirements, session_id="s1")


def errors(db):
    agent(db, [ValueError("no connection")]).run("Hello")


def teams(db):
    team(db).run("Hello")
    team(db, store_member_responses=True).run("Hello")


def workflows(db):
    workflow(db).run("Go")
    workflow(db).run("Go")


def media(db):
    agent(db, ["A cat."]).run("What is it?", images=[image()])


def streams(db):
    a = agent(db, [[call("get_weather", city="Paris")], "Sunny."], store_events=True)
    list(a.run("Weather?", stream=True, stream_events=True))


def forks_of_runs(db):
    a = agent(db, [[call("get_weather", city="Paris")], "one", "two", "three"])
    run = a.run("Weather?")
    a.continue_run(run_id=run.run_id, session_id="s1", fork=True, input="More.")
    a.continue_run(run_id=run.run_id, session_id="s1", regenerate=True)


SCENARIOS = [tools, pauses, errors, teams, workflows, media, streams, forks_of_runs]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_sessions_and_runs_are_those_of_agnos_database(scenario, theirs, db):
    """Sessions as dicts and as objects, lists of them, and rows of runs are equal, field by field."""
    scenario(theirs)
    scenario(db)
    sessions, total = theirs.get_sessions(deserialize=False)
    own_sessions, own_total = db.get_sessions(deserialize=False)
    assert own_total == total > 0
    same(sessions, own_sessions)
    for session in sessions:
        session_id = session["session_id"]
        same(theirs.get_session(session_id, deserialize=False), db.get_session(session_id, deserialize=False))
        same(theirs.get_session(session_id).to_dict(), db.get_session(session_id).to_dict())
        last = theirs.get_session(session_id, deserialize=False, runs_limit=1)
        same(last, db.get_session(session_id, deserialize=False, runs_limit=1))
        same(
            theirs.get_runs(session_id=session_id, deserialize=False),
            db.get_runs(session_id=session_id, deserialize=False),
        )
    for row in db.get_runs(deserialize=False)[0]:
        run_id = row["run_id"]
        assert db.get_run(run_id).run_id == run_id
    assert db.store.check().problems == []


@pytest.mark.every_engine
def test_every_engine(store):
    """Runs with steps inside, forks, lists by title and rows of all runs."""
    db = AgnoDb(store)
    workflow(db).run("Go")
    tools(db)
    fork_id = agent(db, user_id="alice").fork_session(source_session_id="s1", user_id="alice")
    assert len(db.get_session(fork_id).runs) == 2
    assert len(db.get_session("w1").runs[0].step_executor_runs) == 2
    assert {s.session_id for s in db.get_sessions(session_name="weath")} == {"s1", fork_id}  # Agno copies the title
    rows, total = db.get_runs(deserialize=False, sort_by="created_at", limit=2)
    assert (len(rows), total) == (2, 3)
    assert db.get_session("s1", user_id="alice").session_data["session_metrics"]["total_tokens"] == 57
    assert db.delete_run(db.get_session("w1").runs[0].run_id) is True
    assert store.check().problems == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_read_again_by_another_process(scenario, db, tmp_path):
    """What is read without the cache is what is read with it."""
    scenario(db)
    with SqliteDb(db_file=tmp_path / "kern.db") as store:
        other = AgnoDb(store)
        assert other.get_sessions(deserialize=False) == db.get_sessions(deserialize=False)


def test_frames_of_an_agent(db):
    """Runs, messages and calls in our terms; a copy of the history is marked, and not counted."""
    tools(db)
    store = db.store
    runs = store.runs_df("s1")
    assert runs["run_index"].tolist() == [0, 1]
    assert runs["status"].tolist() == ["COMPLETED", "COMPLETED"]
    assert runs["input"].tolist() == ["Weather?", "And now?"]
    assert runs["output"].tolist() == ["Sunny.", "Again sunny."]
    assert runs["n_messages"].tolist() == [5, 2]
    assert runs["n_tool_calls"].tolist() == [2, 0]
    assert runs["n_tool_errors"].tolist() == [1, 0]
    assert runs["total_tokens"].tolist() == [38, 19]
    calls = store.tool_calls_df("s1")
    assert calls["tool_name"].tolist() == ["get_weather", "failing"]
    assert calls["status"].tolist() == ["completed", "failed"]
    assert calls["args"].tolist()[0] == {"city": "Paris"} or "Paris" in calls["args"].tolist()[0]
    assert store.sessions_df()["session_name"].tolist() == ["Weather"]
    assert [m.role for m in store.history("s1")] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert store.get_session("s1").runs[1].messages[0].from_history is True


def test_frames_of_a_team(db):
    """A member's run has the team's as its parent, and its own tokens."""
    team(db).run("Hello")
    runs = db.store.runs_df("t1")
    assert runs["run_type"].tolist() == ["agent", "team"]
    assert runs["parent_run_id"].tolist()[0] == runs["run_id"].tolist()[1]
    assert runs["total_tokens"].tolist() == [19, 38]


def test_frames_of_a_workflow(db):
    """A step's run is a row of its own, and not one of Agno's list of runs."""
    workflow(db).run("Go")
    runs = db.store.runs_df("w1")
    assert runs["run_type"].tolist() == ["workflow", "agent", "agent"]
    assert set(runs["parent_run_id"].tolist()[1:]) == {runs["run_id"].tolist()[0]}
    assert db.store.sessions_df()["total_tokens"].tolist() == [57]
    assert db.get_runs(deserialize=False)[1] == 1
    assert len(db.get_session("w1").runs) == 1


def test_cached_tokens_are_part_of_the_input(db):
    """Agno's Anthropic states them beside the input, its other models within; both are read back as they were."""
    for provider in ("OpenAI", "Anthropic"):
        a = agent(db, ["Hello."], session_id=provider)
        a.model.provider, a.model.cached = provider, 4
        a.run("Hello")
        (run,) = db.get_session(provider).runs
        assert (run.metrics.input_tokens, run.metrics.cache_read_tokens, run.metrics.total_tokens) == (12, 4, 19)
    runs = db.store.runs_df().set_index("session_id")
    assert runs["input_tokens"].to_dict() == {"OpenAI": 12, "Anthropic": 16}
    assert runs["cache_read_tokens"].to_dict() == {"OpenAI": 4, "Anthropic": 4}
    assert runs["total_tokens"].to_dict() == {"OpenAI": 19, "Anthropic": 23}


def test_a_session_of_kern_nb_is_continued(db):
    """An Agno agent reads the runs of another agent, and continues the session."""
    from kern_nb import Agent
    from kern_nb.models.scripted import ScriptedModel

    Agent(model=ScriptedModel(["Hello, Alice."]), db=db.store, session_id="s1").run("I am Alice.")
    a = agent(db, ["You are Alice."], add_history_to_context=True)
    run = a.run("Who am I?")
    assert [m.content for m in run.messages if m.from_history] == ["I am Alice.", "Hello, Alice."]
    assert db.store.runs_df("s1")["output"].tolist() == ["Hello, Alice.", "You are Alice."]


def test_values_that_agno_cannot_store(db):
    """A Decimal loses no run."""
    from decimal import Decimal

    agent(db, ["Hello."], metadata={"price": Decimal("1.10")}).run("Hello")
    assert db.get_session("s1").runs[0].metadata == {"price": Decimal("1.10")}


def test_a_deleted_run_is_not_read(db):
    """Deleting a workflow's run deletes its steps; a run or session that does not exist is no error."""
    workflow(db).run("Go")
    (run,) = db.get_session("w1").runs
    assert db.delete_run(run.run_id) is True
    assert db.delete_run(run.run_id) is False
    assert db.get_session("w1").runs == []
    assert len(db.store.runs_df()) == 0
    assert db.delete_session("w1") is True
    assert db.delete_session("w1") is False
    assert db.get_session("w1") is None


def test_users(db):
    """A session is its user's: others do not find, save, rename or delete it, and their runs are refused."""
    from kern_nb.bridges.agno import SaveFailed
    from kern_nb.errors import OwnerMismatch

    agent(db, ["Hello."], user_id="alice").run("Hello")
    assert db.get_session("s1", user_id="bob") is None
    assert db.get_sessions(user_id="bob") == []
    assert db.rename_session("s1", SessionType.AGENT, "x", user_id="bob") is None
    assert db.delete_session("s1", user_id="bob") is False
    for user_id in ("bob", None):
        with pytest.warns(SaveFailed, match="another user"):
            assert db.upsert_session(AgentSession(session_id="s1", agent_id="a", user_id=user_id)) is None
    with pytest.warns(SaveFailed, match="another user"), pytest.raises(OwnerMismatch):
        db.upsert_run(RunOutput(run_id="r", agent_id="a"), "s1", user_id="bob")
    assert len(db.get_session("s1", user_id="alice").runs) == 1


def test_lists_of_sessions(db):
    """Filtered by type, agent, title and time; sorted; in pages, with the number of all."""
    for index, name in enumerate(["Paris", "Rome", "100% rain"]):
        data = {"session_name": name, "session_state": {"city": "Rome"}}
        session = AgentSession(session_id=f"s{index}", agent_id=f"a{index}", session_data=data, created_at=100 + index)
        db.upsert_session(session)
    assert [s.session_id for s in db.get_sessions(session_name="rome")] == ["s1"]
    assert [s.session_id for s in db.get_sessions(session_name="%")] == ["s2"]
    assert [s.session_id for s in db.get_sessions(component_id="a1")] == ["s1"]
    assert [s.session_id for s in db.get_sessions(SessionType.TEAM)] == []
    assert [s.session_id for s in db.get_sessions(start_timestamp=101, end_timestamp=101)] == ["s1"]
    page, total = db.get_sessions(limit=2, page=2, sort_by="created_at", deserialize=False)
    assert ([s["session_id"] for s in page], total) == (["s0"], 3)
    with pytest.raises(ValueError, match="page"):
        db.get_sessions(page=2)
