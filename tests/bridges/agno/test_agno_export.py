"""`export(..., format="agno")`: a database that Agno's agents continue."""

from __future__ import annotations

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno_agents import agent, call, team, workflow
from test_agno_sessions import same

from kern_nb import Agent, Team, Workflow, export
from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import ScriptedModel
from kern_nb.models.scripted import call as delegation


@pytest.fixture
def store():
    return InMemoryDb()


@pytest.fixture
def exported(store, tmp_path):
    databases = []

    def write(*references, **options):
        path = tmp_path / f"{len(databases)}.db"
        export(*references, path=path, format="agno", store=store, **options)
        databases.append(AgnoSqliteDb(db_file=str(path)))
        return databases[-1]

    yield write
    for db in databases:
        db.close()


def test_what_agno_stored_is_what_it_reads(store, exported):
    """Sessions of Agno's agents, teams and workflows are equal, field by field."""
    db = AgnoDb(store)
    agent(db, [[call("get_weather", city="Paris")], "Sunny."], user_id="alice").run("Weather?")
    team(db).run("Hello")
    workflow(db).run("Go")
    theirs = exported(everything=True)
    for session_id in ("s1", "t1", "w1"):
        same(db.get_session(session_id, deserialize=False), theirs.get_session(session_id, deserialize=False))


def test_sessions_of_kern_nb_are_continued(store, exported):
    """An Agno agent sees the messages and calls of an agent, and adds its own."""
    a = Agent(model=ScriptedModel(["Hello, Alice."]), db=store, session_id="s1", id="a")
    a.run("I am Alice.")
    theirs = exported("s1")
    again = agent(theirs, ["You are Alice."], add_history_to_context=True)
    run = again.run("Who am I?")
    assert [m.content for m in run.messages if m.from_history] == ["I am Alice.", "Hello, Alice."]
    assert [r.content for r in theirs.get_session("s1").runs] == ["Hello, Alice.", "You are Alice."]
    assert [row["run_index"] for row in theirs.get_runs(session_id="s1", deserialize=False)[0]] == [0, 1]


def test_teams_and_workflows_of_kern_nb(store, exported):
    """Agno reads them as a team's and a workflow's session."""
    member = Agent(model=ScriptedModel(["The member's answer."]), id="m", name="m")
    task = delegation("delegate_task_to_member", member_id="m", task="x")
    leader = ScriptedModel([task, "The team's answer."])
    Team(model=leader, members=[member], db=store, session_id="t1", id="t").run("Hello")
    Workflow(steps=[Agent(model=ScriptedModel(["One."]), id="one")], db=store, session_id="w1", id="w").run("Go")
    theirs = exported("t1", "w1")
    runs = theirs.get_session("t1").runs
    assert [(run.content, run.parent_run_id is None) for run in runs] == [
        ("The team's answer.", True),
        ("The member's answer.", False),
    ]
    flow = theirs.get_session("w1")
    assert (flow.workflow_id, [run.content for run in flow.runs]) == ("w", ["One."])


def test_a_branch_is_resolved(store, exported):
    """Both sessions have all their runs; those of the branch have ids of their own."""
    db = AgnoDb(store)
    a = agent(db, ["one", "two", "two b"])
    a.run("1")
    a.run("2")
    store.branch("s1", after=0, new_session_id="what-if")
    a.run("2b", session_id="what-if")
    theirs = exported("s1", "what-if")
    for session_id, contents in (("s1", ["one", "two"]), ("what-if", ["one", "two b"])):
        assert [run.content for run in theirs.get_session(session_id).runs] == contents
        same(db.get_session(session_id, deserialize=False), theirs.get_session(session_id, deserialize=False))
    alone = exported("what-if")
    assert [run.content for run in alone.get_session("what-if").runs] == ["one", "two b"]


def test_only_a_db_file(store, tmp_path):
    """Another suffix is refused."""
    agent(AgnoDb(store), ["Hello."]).run("Hello")
    with pytest.raises(BadUsage, match=r"\.db"):
        export("s1", path=tmp_path / "x.json", format="agno", store=store)
