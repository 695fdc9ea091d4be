"""`cache_session`: a session that was read is kept in memory until the agent itself changes it."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls_once

from kern_nb import Agent, Team, store_registry
from kern_nb.agent import SessionSummaryManager, tool
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import call


class Counting(SqliteDb):
    """A store that counts how often it was asked for a session with its runs."""

    reads = 0

    def get_session(self, session_id, *, user_id=None, runs=True):
        self.reads += runs
        return super().get_session(session_id, user_id=user_id, runs=runs)


@pytest.fixture
def db(tmp_path):
    """A store that counts."""
    with Counting(tmp_path / "s.db") as store:
        yield store


def caching(db, model=None, **options):
    """An agent in the session "chat" that keeps it in memory."""
    return Agent(model or RecordingModel(), db=db, session_id="chat", cache_session=True, **options)


def same_as_stored(agent, db):
    """Whether the agent gives what the store holds, run for run."""
    given, stored = agent.get_session(), db.get_session("chat")
    return [comparable(run) for run in given.runs] == [comparable(run) for run in stored.runs]


def comparable(run):
    """A run without what a read adds to it."""
    return run.run_index, run.status, run.output, [m.content for m in run.messages], run.session_state, run.error


def test_no_cache_reads_store_each_time(db):
    """So that what others add is seen."""
    agent = Agent(RecordingModel(), db=db, session_id="chat")
    agent.run("x")
    agent.get_session()
    agent.get_session()

    assert db.reads == 2


def test_cached_session_is_read_once(db):
    """However often it is asked for, until the agent itself changes it."""
    agent = caching(db)
    for n in (1, 2):
        agent.run("x")
        for _ in range(3):
            assert len(agent.get_session().runs) == n
        assert db.reads == n

    assert same_as_stored(agent, db)


def test_cached_runs_are_ordered_by_index(db):
    """A run that paused keeps its place."""

    model = RecordingModel([call("look"), "two", "one at last"])
    agent = caching(db, model, tools=[tool(lambda: 1, name="look", requires_confirmation=True)])
    paused = agent.run("one")
    agent.get_session()
    agent.run("two")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent.continue_run(paused.run_id)

    assert [(run.run_index, run.output) for run in agent.get_session().runs] == [(0, "one at last"), (1, "two")]
    assert same_as_stored(agent, db)


def test_cached_session_includes_failed_run(db):
    """It is one of the agent's own."""
    agent = caching(db, RecordingModel(["hello", ValueError("boom")]))
    agent.run("x")
    agent.get_session()
    with pytest.raises(RunFailed):
        agent.run("y")

    assert [run.status for run in agent.get_session().runs] == ["COMPLETED", "ERROR"]
    assert same_as_stored(agent, db)


def test_cached_session_has_current_state_title_and_summary(db):
    """Whatever the agent itself has changed since the session was read."""

    def count(session_state):
        session_state["n"] = session_state.get("n", 0) + 1

    manager = SessionSummaryManager(RecordingModel(["FIRST", "SECOND"]))
    options = {"enable_session_summaries": True, "session_summary_manager": manager}
    agent = caching(db, calls_once("count"), tools=[count], **options)
    agent.run("x")
    agent.get_session_summary()
    assert agent.get_session().session_state == {"n": 1}
    agent.run("y")
    assert agent.get_session().session_state == agent.get_session_state() == {"n": 2}
    agent.update_session_state({"n": 9})
    assert agent.get_session().session_state["n"] == 9
    agent.set_session_name("title")
    assert agent.get_session().session_name == agent.get_session_name() == "title"
    agent.delete_session()
    assert agent.get_session() is None


def test_cached_session_has_current_summary(db):
    """It is made by the agent itself."""
    manager = SessionSummaryManager(RecordingModel(["FIRST", "SECOND"]))
    agent = caching(db, enable_session_summaries=True, session_summary_manager=manager)
    agent.run("x")
    agent.get_session()
    agent.run("y")
    assert agent.get_session_summary().summary in ("FIRST", "SECOND")

    assert agent.get_session().summary["summary"] == agent.get_session_summary().summary


def test_cached_session_is_copied_for_callers(db):
    """The next one is given the session as it is stored."""
    agent = caching(db)
    agent.run("x")
    found = agent.get_session()
    found.runs[0].messages.clear()
    found.runs.clear()
    found.session_data = {"session_name": "wrong"}

    assert agent.get_session().session_name is None
    assert same_as_stored(agent, db)


def test_cached_session_includes_member_runs(db):
    """They are made within the team's own."""
    leader = RecordingModel(["hello", call("delegate_task_to_member", member_id="m", task="look"), "done"])
    team = Team([Agent(RecordingModel(), name="m")], leader, db=db, session_id="chat", cache_session=True)
    team.run("x")
    team.get_session()
    team.run("y")

    assert same_as_stored(team, db)


def test_cache_is_per_store(db):
    """Where the attached store changes, so does the session."""
    agent = Agent(RecordingModel(), session_id="chat", cache_session=True)
    try:
        with InMemoryDb() as other:
            for store, name in ((db, "first"), (other, "second")):
                store_registry.attach(store, name=name)
                agent.run(name)
                assert [run.input for run in agent.get_session().runs] == [name]
            store_registry.use("first")
            assert [run.input for run in agent.get_session().runs] == ["first"]
    finally:
        for name in store_registry.names():
            store_registry.detach(name)


def test_cached_session_ignores_changes_by_others(tmp_path):
    """As documented: that is the price."""
    with SqliteDb(db_file=tmp_path / "s.db") as db, SqliteDb(db_file=tmp_path / "s.db") as other:
        agent = caching(db)
        agent.run("x")
        agent.get_session()
        Agent(RecordingModel(), db=other, session_id="chat").run("y")

        assert len(agent.get_session().runs) == 1
        assert len(Agent(RecordingModel(), db=db, session_id="chat").get_session().runs) == 2


def test_missing_session_is_not_cached(db):
    """That there is none is not kept."""
    agent = caching(db)
    assert agent.get_session() is None
    Agent(RecordingModel(), db=db, session_id="chat").run("x")

    assert len(agent.get_session().runs) == 1
