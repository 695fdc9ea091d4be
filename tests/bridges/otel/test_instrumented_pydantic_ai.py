"""pydantic-ai's own instrumentation, in this process and through a listener: what it records is what was said."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent, InstrumentationSettings
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from kern_nb.bridges.otel import KernSpanExporter


def respond(messages, info):
    """Call each tool once, then answer with the number of messages."""
    last = messages[-1].parts[-1]
    if last.part_kind == "user-prompt" and info.function_tools:
        calls = [
            ToolCallPart(tool.name, {"topic": "x"}, f"{tool.name}-{len(messages)}") for tool in info.function_tools
        ]
        return ModelResponse([ThinkingPart("Tools know more."), *calls])
    return ModelResponse([TextPart(f"answer {len(messages)}")])


async def stream(messages, info):
    for word in ("It ", "is ", "so."):
        yield word


@pytest.fixture(params=["exporter", "listener"])
def instrument(request, provider, store, eager):
    """Instruments agents with the provider; its spans go to the store, directly or through a listener."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    if request.param == "exporter":
        exporter = KernSpanExporter(store)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        listener = request.getfixturevalue("listener")
        exporter = OTLPSpanExporter(f"{listener.url}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
    yield provider
    Agent.instrument_all(instrument=False)


def test_a_conversation_with_tools_and_a_nested_agent(instrument, store):
    expert = Agent(FunctionModel(respond), name="expert")
    desk = Agent(FunctionModel(respond), name="desk", instructions="Be brief.")
    seen = []

    @desk.tool_plain
    async def ask(topic: str) -> str:
        seen.append(list(store.runs_df()["status"]))
        return (await expert.run(f"about {topic}")).output

    @desk.tool_plain
    def look(topic: str) -> str:
        return f"saw {topic}"

    async def talk():
        first = await desk.run("one")
        return await desk.run("two", message_history=first.all_messages())

    second = asyncio.run(talk())
    assert seen[0] == ["RUNNING"], "the run is there while its tool works"
    runs = store.runs_df()
    desks = runs[runs["agent_id"] == "desk"].reset_index(drop=True)
    assert list(desks["input"]) == ["one", "two"]
    assert desks["output"][1] == second.output
    assert list(desks["n_messages"]) == [5, 5]
    assert set(runs["status"]) == {"COMPLETED"}
    assert runs["session_id"].nunique() == 1
    experts = runs[runs["agent_id"] == "expert"]
    assert list(experts["parent_run_id"]) == list(desks["run_id"])
    messages = store.messages_df()
    roles = [list(messages[messages["run_id"] == run_id]["role"]) for run_id in desks["run_id"]]
    assert roles == [["user", "assistant", "tool", "tool", "assistant"]] * 2
    calls = store.tool_calls_df()
    assert sorted(calls["tool_name"]) == ["ask", "ask", "look", "look"]
    assert set(calls["status"]) == {"completed"}
    assert desks["input_tokens"][1] == second.usage.input_tokens
    assert store.check().problems == []


def test_a_failing_tool_a_retry_and_a_stream(instrument, store):
    from pydantic_ai import ModelRetry

    clerk = Agent(FunctionModel(respond, stream_function=stream), name="clerk")
    attempts = []

    @clerk.tool_plain(retries=2)
    def look(topic: str) -> str:
        attempts.append(topic)
        if len(attempts) == 1:
            raise ModelRetry("try again")
        raise ValueError("no such topic")

    async def read_stream():
        async with clerk.run_stream("stream it") as result:
            return await result.get_output()

    first = asyncio.run(clerk.run("retry"))
    with pytest.raises(ValueError, match="no such topic"):
        asyncio.run(clerk.run("fail"))
    assert asyncio.run(read_stream()) == "It is so."
    runs = store.runs_df().sort_values("created_at")
    assert list(runs["status"]) == ["COMPLETED", "ERROR", "COMPLETED"]
    assert list(runs["output"].fillna("")) == [first.output, "", "It is so."]
    assert "no such topic" in runs["error"].iloc[1]
    assert store.check().problems == []


@pytest.mark.filterwarnings("ignore:Instrumentation format versions 2, 3, and 4")
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_version_of_the_conventions_gives_the_same_messages(provider, store, eager, version):
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider.add_span_processor(BatchSpanProcessor(KernSpanExporter(store)))
    settings = InstrumentationSettings(tracer_provider=provider, version=version)
    agent = Agent(FunctionModel(respond), name="desk")
    agent.instrument = settings

    @agent.tool_plain
    def look(topic: str) -> str:
        return f"saw {topic}"

    asyncio.run(agent.run("one"))
    provider.shutdown()
    messages = store.messages_df()
    assert list(messages["role"]) == ["user", "assistant", "tool", "assistant"]
    assert [messages["content"][0], messages["content"][2], messages["content"][3]] == ["one", "saw x", "answer 3"]


def test_without_content_there_are_times_and_usage(provider, store, eager):
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider.add_span_processor(BatchSpanProcessor(KernSpanExporter(store)))
    agent = Agent(FunctionModel(respond), name="desk")
    agent.instrument = InstrumentationSettings(tracer_provider=provider, include_content=False)
    asyncio.run(agent.run("secret"))
    provider.shutdown()
    run = store.runs_df().iloc[0]
    assert (run["agent_id"], run["status"]) == ("desk", "COMPLETED")
    assert run["input_tokens"] > 0
    assert "secret" not in str(store.get_session(run["session_id"]).model_dump())
