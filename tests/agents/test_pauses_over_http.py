"""Paused runs and OpenAI's models, over real HTTP: the service takes what an agent says when it goes on."""

from __future__ import annotations

import pytest
from openai_server import Answer, Call, in_turn
from pausing_agents import pending_tools, requirement_id, results, sender

from kern_nb.agent import Agent, handoff
from kern_nb.db import SqliteDb
from kern_nb.errors import RunFailed
from kern_nb.models import openai
from kern_nb.team import Team


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


@pytest.fixture(params=["OpenAIResponses", "OpenAIChat"])
def model(request, openai_server):
    """A model behind either of the APIs."""
    return getattr(openai, request.param)(id="gpt-5.2", max_retries=0)


def look(city: str) -> str:
    """Look at the weather."""
    return f"sun in {city}"


def test_resume_over_http(store, model, openai_server):
    """Another one, from the store alone: each call has its result, edited, refused or given beside the pause."""
    letters = [Call("send", {"to": name}) for name in ("ann", "bob")]
    asked = Answer(
        "Let me see.", calls=[*letters, Call("look", {"city": "Paris"}), Call("hand_to_human", {"reason": "?"})]
    )
    openai_server.answer = in_turn(asked, "done", "yes")
    sent = []

    def agent():
        tools = [sender(sent), look, handoff(to="carol")]
        return Agent(model, db=store, session_id="chat", tools=tools, add_history_to_context=True)

    run = agent().run("go")
    assert (run.status, pending_tools(run)) == ("PAUSED", ["send", "send", "hand_to_human"])
    store.resolve(requirement_id(run, 0), args={"to": "eve"})
    store.resolve(requirement_id(run, 1), approve=False, note="not bob")
    store.resolve(requirement_id(run, 2), value="go ahead")
    done = agent().continue_run("chat/0")
    assert (done.status, done.output, sent) == ("COMPLETED", "done", [("eve", 1)])
    agent().run("sure?")

    heard = openai_server.requests[1].conversation
    assert heard[:2] == [("user", "go"), ("assistant", "Let me see.")]
    told = sorted(text for role, text in heard[2:] if role == "tool")
    assert told == ["go ahead", "not bob", "sent 1 to eve", "sun in Paris"]
    assert openai_server.requests[2].conversation[-2:] == [("assistant", "done"), ("user", "sure?")]


def test_repeated_ids_over_http(store, model, openai_server):
    """Each call is answered for itself, and the service is told so in ids that are each used once."""
    openai_server.answer = in_turn(
        Answer(calls=[Call("send", {"to": "ann"}, id="call_0")]),
        Answer(calls=[Call("send", {"to": "bob"}, id="call_0")]),
        "done",
    )
    sent = []
    agent = Agent(model, db=store, session_id="chat", tools=[sender(sent)])
    run = agent.run("go")
    for _ in range(2):
        store.resolve("chat/0", approve=True)
        run = agent.continue_run("chat/0")

    assert (run.status, sent, results(run)) == (
        "COMPLETED",
        [("ann", 1), ("bob", 1)],
        ["sent 1 to ann", "sent 1 to bob"],
    )
    assert [text for role, text in openai_server.requests[2].conversation if role == "tool"] == results(run)


@pytest.mark.parametrize("trouble", [{"status": 500}, {"drop": True}, {"status": 401}])
def test_service_down_on_resume(store, model, openai_server, trouble):
    """The approved tool has run, once; the run goes on from its result when the service is there again."""
    openai_server.answer = in_turn(Answer(calls=[Call("send", {"to": "ann"})]), Answer(**trouble), "done")
    sent = []
    agent = Agent(model, db=store, session_id="chat", tools=[sender(sent)])
    agent.run("go")
    store.resolve("chat/0", approve=True)
    with pytest.raises(RunFailed):
        agent.continue_run("chat/0")
    done = agent.continue_run("chat/0")

    assert (done.status, done.output, sent) == ("COMPLETED", "done", [("ann", 1)])
    assert openai_server.requests[2].conversation == openai_server.requests[1].conversation


def test_resume_team_over_http(store, model, openai_server):
    """The member's conversation and the leader's, each with its own results."""
    openai_server.answer = in_turn(
        Answer(calls=[Call("delegate_task_to_member", {"member_id": "ann", "task": "write"})]),
        Answer(calls=[Call("send", {"to": "bob"})]),
        "written",
        "all done",
    )
    sent = []

    def team():
        return Team([Agent(model, name="Ann", tools=[sender(sent)])], model, db=store, session_id="chat")

    team().run("go")
    store.resolve("chat/0", approve=True)
    done = team().continue_run("chat/0")

    assert (done.output, sent) == ("all done", [("bob", 1)])
    assert openai_server.requests[2].conversation == [("user", "write"), ("tool", "sent 1 to bob")]
    assert [m for m in openai_server.requests[3].conversation if m[0] in ("user", "tool")] == [
        ("user", "go"),
        ("tool", "written"),
    ]
