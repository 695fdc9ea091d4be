"""Agents with OpenAI's models, over real HTTP: tools, errors of the service, and connections that nobody leaves open."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from openai_server import Answer, Call, in_turn
from openai_server import openai_server as run_openai_server


@pytest.fixture(params=["OpenAIResponses", "OpenAIChat"])
def new_agent(request, openai_server):
    """Make an agent on either of the APIs; it remembers."""
    from kern_nb.agent import Agent
    from kern_nb.db import InMemoryDb
    from kern_nb.models import openai

    with InMemoryDb() as db:
        yield lambda **options: Agent(
            model=getattr(openai, request.param)(id="gpt-5.2", max_retries=0),
            db=db,
            session_id="chat",
            add_history_to_context=True,
            **options,
        )


def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


def open_connections(server):
    """How many connections to the server this process holds open, as their client."""
    found = psutil.Process().net_connections("tcp")
    return sum(1 for connection in found if connection.raddr and connection.raddr.port == server.server_port)


def test_history_is_in_service_format(new_agent, openai_server):
    """Of runs with several calls at once, too; the server refuses what the real one would."""
    two_calls = Answer("Let me see.", calls=[Call("add", {"a": 1}), Call("add", {"a": 2})])
    openai_server.answer = in_turn(two_calls, "1 and 2", "Quite.")
    agent = new_agent(tools=[add])

    agent.run("Add 0 to 1 and to 2")
    agent.run("Sure?")

    assert openai_server.requests[2].conversation == [
        ("user", "Add 0 to 1 and to 2"),
        ("assistant", "Let me see."),
        ("tool", "1"),
        ("tool", "2"),
        ("assistant", "1 and 2"),
        ("user", "Sure?"),
    ]
    calls = agent.get_session().runs[0].tool_calls
    assert [(call.tool_name, call.args, call.result, call.status) for call in calls] == [
        ("add", {"a": 1}, 1, "completed"),
        ("add", {"a": 2}, 2, "completed"),
    ]


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"status": 401}, "Incorrect API key"),
        ({"status": 429}, "Rate limit"),
        ({"status": 500}, "server had an error"),
        ({"status": 500, "after": 5}, "server had an error"),
        ({"drop": True}, "Connection error"),
        ({"drop": True, "after": 5}, "Connection error"),
    ],
    ids=["401", "429", "500", "500 in the middle", "dropped", "dropped in the middle"],
)
def test_service_error_is_raised_and_stored(new_agent, openai_server, trouble, told):
    """At the start of an answer and in the middle of it; the session goes on afterwards as if nothing had been said."""
    from kern_nb.errors import RunFailed

    openai_server.answer = in_turn(Answer("one two three four five", **trouble), "Hello")
    agent = new_agent()

    with pytest.raises(RunFailed, match=told):
        agent.print_response("My name is Alice")
    agent.run("Hello")

    failed, well = agent.get_session().runs
    assert (failed.status, failed.input, well.status, well.output) == (
        "ERROR",
        "My name is Alice",
        "COMPLETED",
        "Hello",
    )
    assert told in failed.error
    assert openai_server.requests[-1].conversation == [("user", "Hello")]


def test_connections_close_with_run(new_agent, openai_server):
    """From sync code and in event loops that come and go, whether the run succeeds or not."""
    from kern_nb.errors import RunFailed

    seen = []

    def answer(_):
        seen.append(open_connections(openai_server))
        return Answer("one two three", status=500 if len(seen) == 4 else 200, after=3)

    openai_server.answer = answer
    new_agent().run("Hello")
    for _ in range(2):
        asyncio.run(new_agent().arun("Hello"))
    with pytest.raises(RunFailed):
        new_agent().run("Hello")

    assert seen == [1, 1, 1, 1]
    assert open_connections(openai_server) == 0


def test_environment_is_read_for_each_run(new_agent, openai_server, monkeypatch):
    """Who corrects a key or an address in a cell need not restart the kernel."""
    from kern_nb.agent import Agent

    by_name, by_default = Agent("openai:gpt-5.2"), Agent()
    agents = [new_agent(), by_name, by_default]
    for agent in agents:
        agent.run("Hello")
    with run_openai_server() as another:
        monkeypatch.setenv("OPENAI_BASE_URL", another.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-corrected")
        for agent in agents:
            agent.run("Hello")

    assert len(openai_server.requests) == 3
    assert [request.headers["authorization"] for request in another.requests] == ["Bearer sk-corrected"] * 3
