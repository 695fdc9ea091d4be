"""Which run is gone on with: by its id, its place or a prefix; and by whom it may be."""

from __future__ import annotations

import asyncio

import pytest
from pausing_agents import calls, clerk, requirement_id, sender

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import (
    BadUsage,
    KernError,
    OwnerMismatch,
    RequirementNotFound,
    RunNotFound,
    SessionNotFound,
    StillWaiting,
)
from kern_nb.models.scripted import call
from kern_nb.team import Team
from kern_nb.workflow import Step, Workflow


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


LETTER = call("send", to="bob")
NAMES = {
    "id": lambda run: (run.run_id, {}),
    "id in its session": lambda run: (run.run_id, {"session_id": "chat"}),
    "place": lambda run: ("chat/1", {}),
    "place in its session": lambda run: ("chat/1", {"session_id": "chat"}),
    "index in a session": lambda run: ("1", {"session_id": "chat"}),
    "number": lambda run: (1, {"session_id": "chat"}),
    "number in the agent's own session": lambda run: (1, {}),
    "prefix in a session": lambda run: (run.run_id[:12], {"session_id": "chat"}),
}


@pytest.mark.parametrize("name", NAMES)
def test_run_reference_forms(store, name):
    """Each of them means the same run."""
    sent = []
    clerk(store, "hello").run("a run before")
    agent = clerk(store, LETTER, "done", tools=[sender(sent)])
    run = agent.run("go")
    reference, options = NAMES[name](run)
    with pytest.raises(StillWaiting, match="chat/1"):
        agent.continue_run(reference, **options)
    store.resolve(requirement_id(run), approve=True)

    assert agent.continue_run(reference, **options).run_id == run.run_id
    assert sent == [("bob", 1)]


def test_continue_run_inside_running_loop(store):
    """Awaited, or called without an await; from a session that is not the agent's own."""
    sent = []
    agent = Agent(clerk(store, LETTER, "done").model, db=store, tools=[sender(sent)])

    async def cell():
        first = await agent.arun("go", session_id="a")
        second = agent.run("go", session_id="b")
        store.resolve(requirement_id(first), approve=True)
        store.resolve(requirement_id(second), approve=True)
        return await agent.acontinue_run("a/0"), agent.continue_run("b/0")

    assert [(run.session_id, run.status) for run in asyncio.run(cell())] == [("a", "COMPLETED"), ("b", "COMPLETED")]
    assert sent == [("bob", 1)] * 2


@pytest.mark.parametrize(
    ("reference", "options", "error"),
    [
        ("nothing", {}, (RunNotFound, SessionNotFound)),
        ("", {}, (RunNotFound, SessionNotFound, BadUsage)),
        ("chat/7", {}, RunNotFound),
        ("nowhere/0", {}, SessionNotFound),
        ("0", {"session_id": "nowhere"}, SessionNotFound),
        ("\x00", {}, (RunNotFound, SessionNotFound)),
        ("\ud800/0", {}, SessionNotFound),
        ("chat", {}, (RunNotFound, SessionNotFound, BadUsage)),
        (-1, {}, (RunNotFound, BadUsage)),
    ],
)
def test_unknown_run_reference_is_rejected(store, reference, options, error):
    """With a clear error; the run that waits is left alone."""
    agent = clerk(store, LETTER, tools=[sender([])])
    agent.run("go")
    with pytest.raises(error) as caught:
        agent.continue_run(reference, **options)

    assert isinstance(caught.value, KernError)
    assert [run.status for run in store.get_session("chat").runs] == ["PAUSED"]


@pytest.mark.parametrize("length", [12, 36])
def test_run_of_other_session_is_not_found(store, length):
    """Where a session is named, the run is one of it."""
    agent = clerk(store, LETTER, tools=[sender([])])
    run = agent.run("go")
    clerk(store, "hello", session_id="other").run("hello")
    store.resolve(requirement_id(run), approve=True)
    with pytest.raises((RunNotFound, BadUsage)):
        agent.continue_run(run.run_id[:length], session_id="other")

    assert store.get_run(run.run_id).status == "PAUSED"


def test_continue_run_of_other_user_is_rejected(store):
    """Invariant 6: it is not there for them, whatever they call it; its tool does not run."""
    sent = []
    run = clerk(store, LETTER, "done", tools=[sender(sent)], user_id="alice").run("go")
    store.resolve(requirement_id(run), approve=True)
    bob = clerk(store, LETTER, "stolen", tools=[sender(sent)], user_id="bob")
    for reference in (run.run_id, "chat/0"):
        with pytest.raises((RunNotFound, SessionNotFound, OwnerMismatch)):
            bob.continue_run(reference)
    assert (sent, store.get_run(run.run_id).status) == ([], "PAUSED")

    assert clerk(store, LETTER, "done", tools=[sender(sent)], user_id="alice").continue_run("chat/0").output == "done"


def runners(store):
    """One of each kind, in the session ``chat``."""
    steps = [Step(lambda given: given.input, name="only", requires_confirmation=True)]
    team = Team(
        [Agent(clerk(store, "ann").model, name="Ann")], clerk(store, LETTER, "led").model, tools=[sender([])], db=store
    )
    return {
        "agent": clerk(store, LETTER, "done", tools=[sender([])]),
        "team": team,
        "workflow": Workflow(steps, db=store),
    }


@pytest.mark.parametrize("whose", ["agent", "team", "workflow"])
def test_continue_run_of_other_kind_is_rejected(store, whose):
    """An agent's by a workflow, say: it is refused before anything is changed, and its own goes on with it."""
    every = runners(store)
    own = every.pop(whose)
    run = own.run("go", session_id="chat")
    store.resolve(requirement_id(run), approve=True)
    before = store.get_run(run.run_id)
    for other in every.values():
        with pytest.raises(BadUsage, match=whose):
            other.continue_run(run.run_id)
    assert store.get_run(run.run_id) == before

    assert own.continue_run(run.run_id).status == "COMPLETED"


def test_inherited_run_is_continued_in_own_session(store):
    """Not from a branch: that shows it as it was."""
    sent = []
    agent = clerk(store, LETTER, "done", tools=[sender(sent)])
    run = agent.run("go")
    store.branch("chat", new_session_id="what-if")
    store.resolve(requirement_id(run), approve=True)
    with pytest.raises(BadUsage, match="inherited"):
        agent.continue_run("what-if/0")
    agent.continue_run("chat/0")

    assert sent == [("bob", 1)]
    assert [len(store.get_session(name).runs[0].messages) for name in ("chat", "what-if")] == [4, 2]
    assert calls(store.get_session("what-if").runs[0]) == [("send", "unknown", None)]


def test_continue_run_updates_cache(store):
    """At its place among the others."""
    agent = clerk(store, LETTER, "done", tools=[sender([])], cache_session=True)
    agent.run("go")
    agent.get_session()
    agent.run("again")
    store.resolve("chat/0", approve=True)
    agent.continue_run("chat/0")

    assert [(run.run_index, run.status) for run in agent.get_session().runs] == [(0, "COMPLETED"), (1, "PAUSED")]


def test_resolve_without_pending_requirement(store):
    """A run or session that is there and has its answers: it is named, with the way to see it."""
    agent = clerk(store, LETTER, "done", tools=[sender([])])
    agent.run("go")
    store.resolve("chat/0", approve=True)
    for place in ("chat/0", "chat"):
        with pytest.raises(RequirementNotFound, match=f"No requirement of '{place}' is pending") as late:
            store.resolve(place, approve=True)
        assert f"%kern show {place}" in late.value.hint
