"""pydantic-ai's OpenAI models take the test server for the real thing."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai_requests import tokens
from openai_server import Answer, Call, in_turn
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

TWO_CALLS = Answer("Let me see.", calls=[Call("add", {"a": 1}), Call("add", {"a": 2})])


def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatModel])
def with_agent(request, openai_server):
    """Call an asynchronous function with pydantic-ai's agent, on each OpenAI model in turn; it has one tool."""

    async def run(use):
        async with openai.AsyncOpenAI(max_retries=0) as client:
            model = request.param("gpt-5.2", provider=OpenAIProvider(openai_client=client))
            return await use(Agent(model, instructions="Be brief.", tools=[add]))

    return lambda use: asyncio.run(run(use))


def test_parallel_calls_round_trip(with_agent, openai_server):
    """Then comes the final text; the tokens are those of both requests."""
    openai_server.answer = in_turn(TWO_CALLS, "1 and 2")

    result = with_agent(lambda agent: agent.run("Add 0 to 1 and to 2"))

    assert result.output == "1 and 2"
    assert [text for role, text in openai_server.requests[1].conversation if role == "tool"] == ["1", "2"]
    assert result.usage.requests == 2
    said = tokens("Be brief. Add 0 to 1 and to 2")
    assert result.usage.input_tokens == said + (said + tokens("Let me see. 1 2"))
    assert result.usage.output_tokens == tokens('Let me see. {"a": 1} {"a": 2} 1 and 2')


def test_streamed_run_and_history(with_agent, openai_server):
    """Text in pieces after a tool's call, and a history that the next run sends."""
    openai_server.answer = in_turn(Answer(calls=[Call("add", {"a": 1, "b": 2})]), "That makes three, Sir.", "Yes.")

    async def ask(agent):
        async with agent.run_stream("1 + 2?") as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        await agent.run("Sure?", message_history=result.all_messages())
        return pieces, result.usage

    pieces, usage = with_agent(ask)

    assert (len(pieces), "".join(pieces)) == (4, "That makes three, Sir.")
    assert usage.output_tokens == tokens('{"a": 1, "b": 2} That makes three, Sir.')
    texts = [text for _, text in openai_server.requests[2].conversation]
    assert [text for text in texts if text != "Be brief."] == ["1 + 2?", "3", "That makes three, Sir.", "Sure?"]


def test_service_errors_keep_status(with_agent, openai_server):
    """A key that is refused."""
    openai_server.answer = lambda _: Answer(status=401)

    with pytest.raises(ModelHTTPError) as caught:
        with_agent(lambda agent: agent.run("Hello"))
    assert caught.value.status_code == 401


def test_dropped_connection_has_no_status(with_agent, openai_server):
    """It is an error of the model's service all the same."""
    openai_server.answer = lambda _: Answer(drop=True)

    with pytest.raises(ModelAPIError) as caught:
        with_agent(lambda agent: agent.run("Hello"))
    assert not isinstance(caught.value, ModelHTTPError)
