"""A session that Agno forks is a branch: nothing is copied, and Agno sees copies."""

from __future__ import annotations

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno_agents import agent, call

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import InMemoryDb


@pytest.fixture
def db():
    return AgnoDb(InMemoryDb())


@pytest.fixture
def forking(db):
    answers = [
        [call("get_weather", city="Paris")],
        "one",
        "two",
        [call("delete_file", path="x")],
        "deleted",
        "four",
        "two again",
    ]
    a = agent(db, answers, add_history_to_context=True)
    for text in ("1", "2", "3"):
        a.run(text)
    return a


def contents(db, session_id):
    return [(run.status.value, run.content) for run in db.get_session(session_id).runs]


def test_a_fork_is_a_branch(db, forking):
    """It has no rows of its own, and runs with ids of its own in Agno; the tokens are counted once."""
    fork_id = forking.fork_session(source_session_id="s1")
    store = db.store
    assert len(store.runs_df()) == 3
    session = store.get_session(fork_id)
    assert (session.parent_session_id, session.fork_run_index) == ("s1", 2)
    source, fork = db.get_session("s1"), db.get_session(fork_id)
    assert contents(db, fork_id) == contents(db, "s1")
    assert {run.run_id for run in source.runs}.isdisjoint(run.run_id for run in fork.runs)
    assert [run.session_id for run in fork.runs] == [fork_id] * 3
    assert [run.forked_from_session_id for run in fork.runs] == ["s1"] * 3
    assert fork.session_data["forked_from_session_id"] == "s1"
    assert db.get_runs(session_id=fork_id, deserialize=False)[1] == 3
    assert db.get_run(fork.runs[0].run_id).content == "one"
    assert store.sessions_df()["total_tokens"].sum() == 76


def test_a_fork_goes_on(db, forking):
    """A paused run is resumed and a run regenerated in the fork only, in the place where they are."""
    fork_id = forking.fork_session(source_session_id="s1")
    paused = db.get_session(fork_id).runs[2]
    paused.requirements[0].confirm()
    forking.continue_run(run_id=paused.run_id, requirements=paused.requirements, session_id=fork_id)
    assert contents(db, fork_id)[2] == ("COMPLETED", "deleted")
    assert contents(db, "s1")[2][0] == "PAUSED"
    run = forking.run("4", session_id=fork_id)
    assert [m.content for m in run.messages if m.from_history and m.role == "user"] == ["1", "2", "3"]
    forking.continue_run(run_id=db.get_session(fork_id).runs[1].run_id, regenerate=True, session_id=fork_id)
    statuses = [status for status, _ in contents(db, fork_id)]
    assert statuses == ["COMPLETED", "REGENERATED", "COMPLETED", "COMPLETED", "COMPLETED"]
    assert [status for status, _ in contents(db, "s1")] == ["COMPLETED", "COMPLETED", "PAUSED"]
    runs = db.store.runs_df(fork_id)
    assert runs["run_index"].tolist() == [3, 4, 5, 6]
    assert runs["total_tokens"].tolist() == [19, 19, 0, 19]
    assert db.store.check().problems == []


def test_our_branch_is_continued_by_agno(db, forking):
    """An Agno agent sees the runs up to the branch point, within a run, too."""
    db.store.branch("s1", after=0, new_session_id="what-if")
    run = forking.run("2b", session_id="what-if")
    assert [m.content for m in run.messages if m.from_history and m.role == "user"] == ["1"]
    db.store.branch("s1", after=(0, 2), new_session_id="within")
    (cut,) = db.get_session("within").runs
    assert [m.role for m in cut.messages] == ["user", "assistant", "tool"]
    assert cut.content is None


def test_a_fork_of_a_run_repeats_messages(db):
    """Its messages up to the fork are marked as copies, and counted once."""
    a = agent(db, [[call("get_weather", city="Paris")], "one", "two"])
    run = a.run("1")
    a.continue_run(run_id=run.run_id, session_id="s1", fork=True, input="More.")
    runs = db.store.runs_df("s1")
    assert runs["n_messages"].tolist() == [4, 2]
    assert runs["n_tool_calls"].tolist() == [1, 0]
    assert [m.content for m in db.store.history("s1") if m.role == "user"] == ["1", "More."]
