"""Attaching agents, teams and workflows of Agno; what a store has no place for; savers beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.base import BaseDb
from agno.db.in_memory import InMemoryDb as AgnoInMemoryDb
from agno.db.schemas import UserMemory
from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno.run import RunContext
from agno.session import AgentSession
from agno_agents import agent, call, team, workflow

from kern_nb.bridges import attach_agent, detach_agent
from kern_nb.bridges.agno import AgnoDb, NotInStore, SaveFailed
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage, KernError


@pytest.fixture
def store():
    return InMemoryDb()


@pytest.mark.parametrize("make", [agent, team, workflow], ids=lambda make: make.__name__)
def test_attach_and_detach(make, store):
    """Its runs are in the store while it is attached; its own database is as before."""
    own = AgnoInMemoryDb()
    a = make(own)
    attachment = attach_agent(a, store)
    assert attachment.framework == "agno"
    a.run("Hello")
    n_runs = len(store.runs_df())
    assert n_runs > 0
    assert own.get_sessions() == []
    detach_agent(a)
    assert a.db is own
    a.run("Hello")
    assert len(store.runs_df()) == n_runs


def test_members_of_a_team(store):
    """A member that runs alone writes to the store, too, and is as before when the team is detached."""
    t = team()
    attach_agent(t, store)
    t.members[0].run("Alone", session_id="alone")
    assert store.get_session("alone") is not None
    detach_agent(t)
    assert t.members[0].db is None


def test_only_agnos_own_classes(store):
    """Another object of Agno's is refused, and so is an asynchronous database."""
    from agno.db.base import AsyncBaseDb

    class Asynchronous(AsyncBaseDb):
        __init__ = object.__init__

    Asynchronous.__abstractmethods__ = frozenset()
    with pytest.raises(BadUsage, match="not an agent"):
        attach_agent(agent().model, store)
    with pytest.raises(BadUsage, match="asynchronous"):
        attach_agent(agent(Asynchronous()), store)


def test_what_a_store_has_no_place_for(store):
    """Each other method of Agno's is refused by name, and the hint names the other database."""
    db = AgnoDb(store)
    with pytest.raises(NotInStore, match="no place for Agno's memories") as error:
        db.get_user_memories()
    assert "others=" in error.value.hint
    with pytest.warns(SaveFailed, match="memories"), pytest.raises(KernError):
        db.upsert_user_memory(UserMemory(memory="x", memory_id="1"))
    with pytest.raises(NotInStore, match="knowledge"):
        db.get_knowledge_contents()
    with pytest.raises(NotInStore, match="traces"):
        db.get_traces()
    with pytest.raises(NotInStore, match="learnings"):
        db.get_learnings()
    silent = {"close", "delete_run", "delete_runs", "get_latest_configs", "get_run", "get_runs", "to_dict"}
    inherited = {
        name for name in dir(BaseDb) if not name.startswith("_") and getattr(AgnoDb, name) is getattr(BaseDb, name)
    }
    assert inherited <= silent | {"default_schema_version"}


def test_another_database_for_memories(store):
    """What the store has no place for goes where it went before."""
    own = AgnoInMemoryDb()
    a = agent(own)
    attach_agent(a, store)
    a.db.upsert_user_memory(UserMemory(memory="Alice likes tea.", memory_id="1", user_id="alice"))
    assert [m.memory for m in own.get_user_memories(user_id="alice")] == ["Alice likes tea."]
    detach_agent(a)


def test_a_run_that_is_not_saved_is_warned_of(tmp_path):
    """Agno logs the error and returns the run as completed; the user sees a warning."""
    with SqliteDb(db_file=tmp_path / "s.db") as writer:
        agent(AgnoDb(writer), ["Hello."]).run("Hello")
    with SqliteDb(db_file=tmp_path / "s.db", read_only=True) as store:
        with pytest.warns(SaveFailed, match="read-only"):
            run = agent(AgnoDb(store), ["Hello."]).run("Hello")
        assert run.status.value == "COMPLETED"


def test_savers_beside_each_other(store):
    """Each keeps the keys of the other, and counts are added up; what a saver removes is removed."""
    first, second = AgnoDb(store), AgnoDb(store)
    first.upsert_session(
        AgentSession("s", session_data={"session_state": {"a": 1}, "session_metrics": {"total_tokens": 5}})
    )
    one, two = first.get_session("s"), second.get_session("s")
    one.session_data["session_state"]["b"] = 2
    one.session_data["session_metrics"]["total_tokens"] += 10
    two.session_data["session_state"]["c"] = 3
    del two.session_data["session_state"]["a"]
    two.session_data["session_metrics"]["total_tokens"] += 20
    first.upsert_session(one)
    saved = second.upsert_session(two)
    assert saved.session_data == {"session_state": {"b": 2, "c": 3}, "session_metrics": {"total_tokens": 35}}


def test_a_key_that_another_saver_deleted_stays_deleted(store):
    """Also where a run that had the key ends later: the run has its own state, a branch after it the session's."""

    def forget(run_context: RunContext) -> str:
        """Forget."""
        del run_context.session_state["old"]
        del run_context.session_state["deep"]["old"]
        return "forgotten"

    def work(run_context: RunContext) -> str:
        """Work, while another agent forgets."""
        agent(AgnoDb(store), [[call("forget")], "Forgotten."], tools=[forget]).run("Forget")
        run_context.session_state["new"] = 1
        run_context.session_state["deep"]["new"] = 1
        return "worked"

    state = {"old": 1, "deep": {"old": 1, "same": 1}}
    db = AgnoDb(store)
    agent(db, ["Hello."], session_state=state).run("Hello")
    agent(db, [[call("work")], "Worked."], tools=[work]).run("Work")

    assert db.get_session("s1").session_data["session_state"] == {"new": 1, "deep": {"same": 1, "new": 1}}
    by_input = {run.input: run.session_state for run in store.get_session("s1").runs}
    assert by_input["Work"] == {"old": 1, "new": 1, "deep": {"old": 1, "same": 1, "new": 1}}
    (index,) = [run.run_index for run in store.get_session("s1").runs if run.input == "Work"]
    assert store.branch("s1", after=index).session_state == {"new": 1, "deep": {"same": 1, "new": 1}}
    agent(db, ["Bye."]).run("Bye")
    assert store.get_session("s1").session_state == {"new": 1, "deep": {"same": 1, "new": 1}}


def test_two_savers_of_a_new_session(store):
    """Both saw none: the second one adds."""
    first, second = AgnoDb(store), AgnoDb(store)
    assert (first.get_session("s"), second.get_session("s")) == (None, None)
    first.upsert_session(AgentSession("s", session_data={"session_state": {"a": 1}}))
    second.upsert_session(AgentSession("s", session_data={"session_state": {"b": 1}}))
    assert first.get_session("s").session_data["session_state"] == {"a": 1, "b": 1}


N_RUNS = 100 if "KERN_PEERS" in os.environ else 15


def write_in_two_processes(path, whose):
    """Write to one session in two processes, and return it."""
    script = str(Path(__file__).parent / "agno_writer.py")
    command = [sys.executable, script, str(path)]
    processes = [subprocess.Popen([*command, who, str(N_RUNS), whose]) for who in "ab"]
    return [process.wait(timeout=280) for process in processes]


def record_counts(record_property, store, session):
    """Record how many runs and keys of the state a session has."""
    runs = len({run.input.input_content for run in session.runs})
    keys = len(session.session_data["session_state"])
    record_property("suite", f"agno {version('agno')}: two processes, {N_RUNS} runs each, one session")
    record_property("store", store)
    record_property("note", f"{runs} runs and {keys} keys of {2 * N_RUNS}")


def test_two_processes_on_one_session(tmp_path, record_property):
    """No run is lost or doubled, all keys of the state are there, and the tokens are those of all runs."""
    path = tmp_path / "s.db"
    assert write_in_two_processes(path, "ours") == [0, 0]
    with SqliteDb(db_file=path) as store:
        session = AgnoDb(store).get_session("s1")
        record_counts(record_property, "sqlite", session)
        inputs = {f"{who}{i}" for who in "ab" for i in range(N_RUNS)}
        assert sorted(run.input.input_content for run in session.runs) == sorted(inputs)
        assert session.session_data["session_state"].keys() == inputs
        assert session.session_data["session_metrics"]["total_tokens"] == 2 * N_RUNS * 38
        assert store.runs_df()["run_index"].tolist() == list(range(2 * N_RUNS))
        assert store.check().problems == []


@pytest.mark.skipif("KERN_PEERS" not in os.environ, reason="figures for the table of `make peers`")
def test_two_processes_on_one_session_of_agnos_database(tmp_path, record_property):
    """What Agno's own database keeps of the same."""
    path = tmp_path / "agno.db"
    write_in_two_processes(path, "theirs")
    db = AgnoSqliteDb(db_file=str(path))
    session = db.get_session("s1")
    record_counts(record_property, "theirs", session)
    assert session.runs
    db.close()


def test_saved_and_read_by_name(tmp_path):
    """A saved agent names the store by its URL."""
    with SqliteDb(db_file=tmp_path / "s.db") as store:
        db = AgnoDb(store)
        agent(db, ["Hello."]).run("Hello")
        with AgnoDb.from_dict(db.to_dict()).store as again:
            assert again.get_session("s1") is not None
    assert call("f", x=1)["function"]["name"] == "f"
