"""An agent's sessions: which one a run goes into, its title, what it took, kept in memory on request, deleted."""

from __future__ import annotations

import asyncio

import pytest
from recording_models import RecordingModel, calls_once

from kern_nb import Agent, store_registry
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, HasBranches, RunFailed, SessionNotFound
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Run, Usage


def talk(db, *inputs, model=None, **options):
    """An agent in the session "chat" that was told these."""
    agent = Agent(model or RecordingModel(), db=db, **{"session_id": "chat"} | options)
    for one in inputs:
        agent.run(one)
    return agent


# Which session, which store


def test_first_run_creates_session(db):
    """Without a session_id; the agent says which one it is."""
    agent = Agent(RecordingModel(), db=db)
    assert agent.session_id is None
    first, second = agent.run("x"), agent.run("y")

    assert first.session_id == second.session_id == agent.session_id
    assert agent.session_id in repr(agent)
    assert [run.run_index for run in agent.get_session().runs] == [0, 1]
    assert Agent(RecordingModel(), db=db).run("z").session_id != first.session_id


def test_session_id_of_run_is_not_remembered(db):
    """The agent's own stays what it was."""
    agent = talk(db, "x")
    assert agent.run("y", session_id="other").session_id == "other"
    assert agent.run("z").session_id == "chat"

    unbound = Agent(RecordingModel(), db=db)
    unbound.run("x", session_id="somewhere")
    assert unbound.session_id is None
    with pytest.raises(BadUsage, match="has no session"):
        unbound.get_session()


def test_threads_share_generated_session(db):
    """Whichever runs first makes it."""

    async def at_once():
        agent = Agent(RecordingModel(), db=db)
        return await asyncio.gather(*(agent.arun("x") for _ in range(5)))

    runs = asyncio.run(at_once())
    assert len({run.session_id for run in runs}) == 1
    assert sorted(run.run_index for run in runs) == list(range(5))


def test_attached_store_is_resolved_at_each_run(db):
    """The one in use then, not the one when the agent was made; without any, one in memory."""
    agent = Agent(RecordingModel(), session_id="chat")
    try:
        agent.run("nowhere")
        assert [len(agent.get_session().runs), db.get_session("chat")] == [1, None]
        store_registry.attach(db, name="first")
        agent.run("first")
        with InMemoryDb() as other:
            store_registry.attach(other, name="second")
            agent.run("second")
            assert [run.input for run in other.get_session("chat").runs] == ["second"]
            store_registry.use("first")
            assert [run.input for run in agent.get_session().runs] == ["first"]
    finally:
        for name in store_registry.names():
            store_registry.detach(name)
    assert agent.get_session().runs[0].input == "nowhere"


def test_own_store_takes_precedence(db):
    """db= is meant."""
    with InMemoryDb() as other:
        store_registry.attach(other, name="other")
        try:
            talk(db, "x")
        finally:
            store_registry.detach("other")
    assert db.get_session("chat") is not None


def test_session_stores_agent_fields(store):
    """On every engine: its id, made of its name, and its settings are kept with a new session."""
    talk(store, "x", name="Weather Expert!", instructions="Be kind.", user_id="ann")
    session = store.get_session("chat")

    assert (session.session_type, session.agent_id, session.user_id) == ("agent", "weather-expert", "ann")
    assert session.agent_data["name"] == "Weather Expert!"
    assert session.agent_data["instructions"] == "Be kind."
    assert [s.session_id for s in store.list_sessions(agent_id="weather-expert")] == ["chat"]


# Titles


def test_set_session_name(store):
    """On every engine: by the agent, and seen wherever sessions are listed."""
    agent = talk(store, "x")
    assert agent.get_session_name() is None
    assert agent.set_session_name("Paris <b>trip</b> \x00\ud800") == "Paris <b>trip</b> \x00\ud800"

    assert agent.get_session_name() == "Paris <b>trip</b> \x00\ud800"
    assert store.list_sessions()[0].session_name == "Paris <b>trip</b> \x00\ud800"
    agent.set_session_name("another", "chat")
    assert store.get_session("chat").session_name == "another"


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("A trip to Paris", "A trip to Paris"),
        ('"A trip to Paris"\n', "A trip to Paris"),
        ("A trip\nto Paris", "A trip"),
        ("x" * 500, "x" * 80),
        ('""', "Untitled"),
    ],
    ids=["plain", "quoted", "two lines", "long", "empty"],
)
def test_model_generates_title(db, answer, title):
    """Of what was said first; one line, not too long, and never empty."""
    model = RecordingModel(["hello", answer])
    agent = talk(db, "I plan a trip", model=model)

    assert agent.set_session_name(autogenerate=True) == title
    assert agent.get_session_name() == title
    assert "I plan a trip" in str(model.heard())
    assert agent.get_session_metrics().n_runs == 1


def test_failed_title_keeps_old_one(db):
    """The model's error is told."""
    agent = talk(db, "x", model=RecordingModel(["hello", ValueError("boom")]))
    agent.set_session_name("old")
    with pytest.raises(RunFailed, match="failed to title session 'chat': ValueError: boom") as failed:
        agent.set_session_name()
    assert "set_session_name(" in failed.value.hint

    assert agent.get_session_name() == "old"


def test_title_of_unknown_session(db):
    """Said as such, and none is made."""
    agent = Agent(RecordingModel(), db=db, session_id="chat")
    for ask in (agent.get_session_name, agent.set_session_name, lambda: agent.set_session_name("x")):
        with pytest.raises(SessionNotFound, match="chat"):
            ask()
    assert db.get_session("chat") is None


# What it took


def test_session_metrics_are_sums(store):
    """On every engine: runs, messages, calls, failures, tokens, cost and time, whoever wrote them."""

    def fail():
        raise ValueError("boom")

    agent = talk(store, "x", "y", model=calls_once("fail"), tools=[fail])
    used = Usage(input_tokens=1000, output_tokens=100, total_tokens=1100, cost=0.5)
    store.append_run("chat", Run(messages=[Message(role="user", content="imported")], usage=used, duration_s=7.0))
    metrics = agent.get_session_metrics()
    own = [run.usage for run in (store.get_run(r.run_id) for r in agent.get_session().runs)][:2]

    assert (metrics.n_runs, metrics.n_messages, metrics.n_tool_calls, metrics.n_tool_errors) == (3, 9, 2, 2)
    assert metrics.input_tokens == 1000 + sum(one.input_tokens for one in own)
    assert metrics.cost == 0.5
    assert metrics.duration_s > 7


def test_unknown_metrics_are_none(db):
    """A price that nobody knows is not 0."""
    metrics = talk(db, "x").get_session_metrics()

    assert (metrics.n_runs, metrics.cost, metrics.reasoning_tokens) == (1, None, None)
    with pytest.raises(SessionNotFound):
        Agent(RecordingModel(), db=db, session_id="none").get_session_metrics()


def test_session_metrics_include_failed_runs(db):
    """They took what they took."""
    with pytest.raises(RunFailed):
        talk(db, "x", "y", model=ScriptedModel(["hello", ValueError("boom")]))

    assert Agent(RecordingModel(), db=db, session_id="chat").get_session_metrics().n_runs == 2


def test_branch_metrics_exclude_inherited_runs(db):
    """Usage is not inherited."""
    agent = talk(db, "x", "y")
    db.branch("chat", new_session_id="fork")
    agent.run("z", session_id="fork")

    assert (agent.get_session_metrics().n_runs, agent.get_session_metrics("fork").n_runs) == (2, 1)


# Gone


def test_delete_session(store):
    """On every engine; the next run begins it anew."""
    agent = talk(store, "x", session_state={"n": 1})
    agent.delete_session()

    assert (agent.get_session(), agent.get_session_state()) == (None, {})
    assert [len(frame) for frame in (store.runs_df(), store.messages_df(), store.sessions_df())] == [0, 0, 0]
    assert agent.run("y").run_index == 0
    agent.delete_session("chat")
    with pytest.raises(SessionNotFound):
        agent.delete_session("chat")


def test_delete_session_with_branches(db):
    """By name, or the branches take their own copy."""
    agent = talk(db, "x")
    db.branch("chat", new_session_id="fork")
    with pytest.raises(HasBranches, match="fork"):
        agent.delete_session()
    agent.delete_session(detach_branches=True)

    assert [m.content for m in agent.get_chat_history("fork")] == ["x", "answer 0"]
