"""Runs of pydantic-ai agents in a store: what they stored, and when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelRetry, RunContext, ToolReturn
from pydantic_ai.agent import AbstractAgent, AgentRunResult, WrapperAgent
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from kern_nb import attach_agent, detach_agent
from kern_nb.bridges.pydantic_ai import attach
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage, ReadOnlyStore
from kern_nb.records import Run

PNG = b"\x89PNG" + bytes(range(64))


def runs(store: InMemoryDb, session_id: str = "chat") -> list[Run]:
    session = store.get_session(session_id)
    return list(session.runs or []) if session else []


def run(agent: AbstractAgent[None, Any], *args: Any, **options: Any) -> AgentRunResult[Any]:
    return asyncio.run(agent.run(*args, **options))


@pytest.fixture
def event_loop_of_thread() -> Iterator[None]:
    """The loop that synchronous methods of pydantic-ai use; they leave open one that they make."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def outline(run: Run) -> list[tuple[str, Any]]:
    """The role and content of each message; of an answer with calls, their names."""
    return [(m.role, [c.tool_name for c in m.tool_calls] if m.tool_calls else m.content) for m in run.messages]


def call_then_answer(*calls: ToolCallPart, answer: str = "done") -> FunctionModel:
    """A model that makes the calls, then answers."""

    def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        n = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([calls[n]] if n < len(calls) else [TextPart(answer)])

    return FunctionModel(respond)


class Rows(BaseModel):
    n: int


def greeter(store: InMemoryDb, **options: Any) -> Agent[None, str]:
    agent = Agent(TestModel(custom_output_text="Hello!"), name="greeter", **options)
    attach(agent, store)
    return agent


def test_a_run_with_a_tool_is_stored_with_its_messages_usage_and_model():
    store = InMemoryDb()
    agent = Agent(TestModel(), name="adder", instructions="Be brief.", system_prompt="You add.")

    @agent.tool_plain
    def add(x: int, y: int) -> int:
        return x + y

    attach(agent, store)
    run(agent, "Add.", conversation_id="chat", metadata={"task": "t1"})
    [stored] = runs(store)
    assert (stored.status, stored.agent_id, stored.model, stored.model_provider) == (
        "COMPLETED",
        "adder",
        "test",
        "test",
    )
    assert (stored.input, stored.output) == ("Add.", '{"add":0}')
    assert [role for role, _ in outline(stored)] == ["system", "system", "user", "assistant", "tool", "assistant"]
    assert outline(stored)[:3] == [("system", "Be brief."), ("system", "You add."), ("user", "Add.")]
    [call] = stored.tool_calls
    assert (call.tool_name, call.args, call.result, call.status) == ("add", {"x": 0, "y": 0}, 0, "completed")
    assert call.duration_s is not None
    assert stored.usage is not None
    assert stored.usage.input_tokens == sum(m.usage.input_tokens or 0 for m in stored.messages if m.usage)
    assert stored.extra == {"metadata": {"task": "t1"}}
    assert stored.session_state is None


@pytest.mark.parametrize("how", ["run", "run_sync", "run_stream", "run_stream_sync", "run_stream_events", "iter"])
def test_every_way_to_run_is_recorded_alike(how, event_loop_of_thread):
    store = InMemoryDb()
    agent = greeter(store)

    async def start() -> None:
        if how == "run":
            await agent.run("Hi", conversation_id="chat")
        elif how == "run_stream":
            async with agent.run_stream("Hi", conversation_id="chat") as stream:
                assert [text async for text in stream.stream_text()][-1] == "Hello!"
        elif how == "run_stream_events":
            async with agent.run_stream_events("Hi", conversation_id="chat") as events:
                assert [event async for event in events]
        else:
            async with agent.iter("Hi", conversation_id="chat") as nodes:
                assert [node async for node in nodes]

    if how == "run_sync":
        agent.run_sync("Hi", conversation_id="chat")
    elif how == "run_stream_sync":
        with agent.run_stream_sync("Hi", conversation_id="chat") as stream:
            assert list(stream.stream_text())
    else:
        asyncio.run(start())
    [stored] = runs(store)
    assert (stored.status, stored.output, outline(stored)) == (
        "COMPLETED",
        "Hello!",
        [("user", "Hi"), ("assistant", "Hello!")],
    )


def test_the_run_is_stored_before_the_model_and_its_calls_before_the_tools():
    store, seen = InMemoryDb(), []

    def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        [stored] = runs(store)
        seen.append((stored.status, [m.role for m in stored.messages]))
        return ModelResponse([ToolCallPart("look", {}, "c1")] if len(messages) == 1 else [TextPart("done")])

    agent = Agent(FunctionModel(respond))

    @agent.tool_plain
    def look() -> str:
        [stored] = runs(store)
        seen.append((stored.status, [m.role for m in stored.messages], stored.tool_calls[0].status))
        return "seen"

    attach(agent, store)
    run(agent, "Look.", conversation_id="chat")
    assert seen == [
        ("RUNNING", ["user"]),
        ("RUNNING", ["user", "assistant"], "started"),
        ("RUNNING", ["user", "assistant", "tool"]),
    ]


def test_history_is_not_stored_again():
    store = InMemoryDb()
    agent = greeter(store)
    first = run(agent, "One", conversation_id="chat")
    second = run(agent, "Two", message_history=first.all_messages())
    run(agent, "Three", conversation=second.conversation)
    assert [outline(run) for run in runs(store)] == [
        [("user", text), ("assistant", "Hello!")] for text in ("One", "Two", "Three")
    ]


def test_history_from_elsewhere_is_stored_once_and_marked():
    store = InMemoryDb()
    agent = greeter(store)
    old = [ModelRequest([UserPromptPart("Old")]), ModelResponse([TextPart("Answer"), ToolCallPart("f", {}, "c")])]
    old += [ModelResponse([TextPart("End")])]
    first = run(agent, "One", message_history=old, conversation_id="chat")
    run(agent, "Two", message_history=first.all_messages())
    one, two = runs(store)
    assert [(m.role, m.from_history) for m in one.messages[-2:]] == [("user", None), ("assistant", None)]
    assert {m.from_history for m in one.messages[:-2]} == {True}
    assert one.messages[0].content == "Old"
    assert one.usage == two.usage.model_copy(update=one.usage.model_dump())  # the copies have none
    assert not one.tool_calls
    assert [m.from_history for m in two.messages] == [None, None]


def test_another_conversation_from_a_history_is_a_branch():
    store = InMemoryDb()
    agent = greeter(store)
    first = run(agent, "One", conversation_id="chat")
    second = run(agent, "Two", message_history=first.all_messages())
    run(agent, "Else", message_history=second.all_messages()[:2], conversation_id="other")
    run(agent, "More", message_history=second.all_messages(), conversation_id="end")
    other = store.get_session("other")
    assert (other.parent_session_id, other.fork_run_index) == ("chat", 0)
    assert [run.input for run in runs(store, "other")] == ["One", "Else"]
    assert [run.input for run in runs(store, "end")] == ["One", "Two", "More"]
    assert len(store.messages_df()) == 8


def test_a_branch_within_a_run_ends_at_its_last_message():
    store = InMemoryDb()
    agent = Agent(call_then_answer(ToolCallPart("look", {}, "c1"), ToolCallPart("look", {}, "c2")))

    @agent.tool_plain
    def look() -> str:
        return "seen"

    attach(agent, store)
    first = run(agent, "Look.", conversation_id="chat")
    run(
        agent,
        "And?",
        message_history=[*first.all_messages()[:3], ModelResponse([TextPart("Stop")])],
        conversation_id="other",
    )
    cut, own = runs(store, "other")
    assert outline(cut) == [("user", "Look."), ("assistant", ["look"]), ("tool", "seen")]
    assert [(m.role, m.content, m.from_history) for m in own.messages] == [
        ("assistant", "Stop", True), ("user", "And?", None), ("assistant", "done", None)
    ]  # fmt: skip


def test_an_error_of_the_model_ends_the_run():
    store = InMemoryDb()

    def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ValueError("out of order")

    agent = Agent(FunctionModel(respond))
    attach(agent, store)
    with pytest.raises(ValueError, match="out of order"):
        run(agent, "Hi", conversation_id="chat")
    [stored] = runs(store)
    assert (stored.status, stored.error, outline(stored)) == ("ERROR", "ValueError: out of order", [("user", "Hi")])


def test_an_error_of_a_tool_is_its_result():
    store = InMemoryDb()
    agent = Agent(call_then_answer(ToolCallPart("fail", {}, "c1")))

    @agent.tool_plain
    def fail() -> str:
        raise OSError("disk full")

    attach(agent, store)
    with pytest.raises(OSError, match="disk full"):
        run(agent, "Hi", conversation_id="chat")
    [stored] = runs(store)
    assert stored.status == "ERROR"
    assert (stored.tool_calls[0].status, stored.tool_calls[0].result) == ("failed", "OSError: disk full")


def test_retries_and_failures_that_the_model_sees_are_results():
    store = InMemoryDb()
    calls = [ToolCallPart("guess", {"n": n}, f"c{i}") for i, n in enumerate(["x", 1, 2, 3])]
    agent = Agent(call_then_answer(*calls), retries=5)

    @agent.tool_plain
    def guess(n: int) -> str:
        if n == 1:
            raise ModelRetry("Higher.")
        if n == 2:
            raise ToolFailed("Not today.")
        return "right"

    attach(agent, store)
    result = run(agent, "Guess.", conversation_id="chat")
    [stored] = runs(store)
    assert [call.status for call in stored.tool_calls] == ["failed", "failed", "failed", "completed"]
    assert "Higher." in stored.tool_calls[1].result
    assert stored.tool_calls[2].result == "Not today."
    assert [m.role for m in stored.messages] == ["user", *["assistant", "tool"] * 4, "assistant"]
    assert len(result.all_messages()) == len(stored.messages)


def test_what_a_tool_returns_beside_its_result_and_files_are_stored():
    store = InMemoryDb()
    agent = Agent(call_then_answer(ToolCallPart("draw", {}, "c1")))

    @agent.tool_plain
    def draw() -> ToolReturn:
        return ToolReturn({"ok": True}, content=["A drawing:", BinaryContent(PNG, media_type="image/png")])

    attach(agent, store)
    run(agent, ["Draw this:", BinaryContent(PNG, media_type="image/png")], conversation_id="chat")
    [stored] = runs(store)
    prompt, _, result, beside, _ = stored.messages
    assert prompt.content[1]["type"] == "image"
    assert store.get_blob(prompt.content[1]["sha256"]).content == PNG
    assert (result.content, beside.role, beside.content[0]) == (
        {"ok": True},
        "user",
        {"type": "text", "text": "A drawing:"},
    )
    assert stored.input == prompt.content


def test_parallel_calls_and_an_id_that_the_model_uses_again():
    store = InMemoryDb()

    def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        n = sum(isinstance(message, ModelResponse) for message in messages)
        calls = [ToolCallPart("look", {"at": f"{n}{i}"}, f"c{i}") for i in range(3)]
        return ModelResponse(calls if n < 2 else [TextPart("done")])

    agent = Agent(FunctionModel(respond))

    @agent.tool_plain
    async def look(at: str) -> str:
        await asyncio.sleep(0.02 if at.endswith("0") else 0)
        return f"seen {at}"

    attach(agent, store)
    run(agent, "Look.", conversation_id="chat")
    [stored] = runs(store)
    assert [(c.args["at"], c.result) for c in stored.tool_calls] == [
        (f"{n}{i}", f"seen {n}{i}") for n in (0, 1) for i in range(3)
    ]
    assert sum(m.role == "tool" for m in stored.messages) == 6


def test_structured_output_ends_the_output_call():
    store = InMemoryDb()
    agent = Agent(TestModel(custom_output_args={"n": 3}), output_type=Rows)
    attach(agent, store)
    assert run(agent, "Count.", conversation_id="chat").output == Rows(n=3)
    [stored] = runs(store)
    assert stored.output == {"n": 3}
    assert [call.status for call in stored.tool_calls] == ["completed"]


def test_thinking_is_kept_for_the_provider():
    store = InMemoryDb()
    thinking = ThinkingPart("Hm.", signature="s", provider_name="p")
    agent = Agent(FunctionModel(lambda _messages, _info: ModelResponse([thinking, TextPart("Yes.")])))
    attach(agent, store)
    run(agent, "Is it?", conversation_id="chat")
    answer = runs(store)[0].messages[-1]
    assert answer.content == "Yes."
    assert answer.internal["parts"][0]["signature"] == "s"


async def _slow(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    yield "The first part "
    await asyncio.sleep(30)
    yield "and the rest."


def slow_agent(store: InMemoryDb) -> Agent[None, str]:
    async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(30)
        raise AssertionError

    agent = Agent(FunctionModel(respond, stream_function=_slow))
    attach(agent, store)
    return agent


@pytest.mark.parametrize("how", ["task", "break", "close"])
def test_a_stream_that_is_cancelled_keeps_its_part(how):
    store = InMemoryDb()
    agent = slow_agent(store)
    has_text = asyncio.Event()

    async def read() -> None:
        async with agent.run_stream("Tell.", conversation_id="chat") as stream:
            async for _ in stream.stream_text(delta=True, debounce_by=None):
                has_text.set()
                if how == "break":
                    return
                if how == "close":
                    raise KeyError("the reader failed")

    async def cancel() -> None:
        task = asyncio.create_task(read())
        await has_text.wait()
        if how == "task":
            task.cancel()
        await task

    with pytest.raises((asyncio.CancelledError, KeyError)) if how != "break" else contextlib.nullcontext():
        asyncio.run(cancel())
    [stored] = runs(store)
    assert stored.status == ("ERROR" if how == "close" else "CANCELLED")
    assert [(m.role, m.content, m.partial) for m in stored.messages] == [
        ("user", "Tell.", None),
        ("assistant", "The first part ", True),
    ]


def test_a_run_that_is_out_of_time_is_cancelled():
    store = InMemoryDb()
    with pytest.raises(TimeoutError):
        run(slow_agent(store), "Tell.", conversation_id="chat", timeout=0.1)
    [stored] = runs(store)
    assert (stored.status, outline(stored)) == ("CANCELLED", [("user", "Tell.")])


def test_agents_called_in_tools_are_members_runs():
    store = InMemoryDb()
    lead, member = Agent(TestModel(), name="lead"), greeter(store)

    @lead.tool
    async def ask(ctx: RunContext[None], question: str) -> str:
        return (await member.run(question, usage=ctx.usage)).output

    attach(lead, store)
    run(lead, "Go.", conversation_id="chat")
    stored, asked = runs(store)
    assert (asked.parent_run_id, asked.agent_id, asked.output) == (stored.run_id, "greeter", "Hello!")
    assert [r.run_id for r in store.member_runs(stored.run_id)] == [asked.run_id]
    assert stored.usage.input_tokens == sum(m.usage.input_tokens for m in stored.messages if m.usage)
    assert store.runs_df()["session_id"].tolist() == ["chat", "chat"]


def test_a_failed_runs_id_can_be_used_again():
    store = InMemoryDb()
    agent = greeter(store)
    for _ in range(2):
        run(agent, "Hi", conversation_id="chat", run_id="r1")
    assert [run.status for run in runs(store)] == ["COMPLETED", "COMPLETED"]
    assert runs(store)[0].run_id == "r1"


def test_a_wrapper_is_attached_like_its_agent_and_both_record_once():
    store = InMemoryDb()
    wrapper = WrapperAgent(greeter(store))
    attach(wrapper, store)
    run(wrapper, "Hi", conversation_id="chat")
    assert len(runs(store)) == 1


def test_realtime_sessions_are_refused():
    agent = Agent(TestModel())
    undo = attach(agent, InMemoryDb())
    with pytest.raises(BadUsage, match="Realtime"):
        agent.realtime("openai:gpt-realtime")
    undo()
    assert "realtime" not in vars(agent)


def test_detached_agents_record_nothing():
    store, other = InMemoryDb(), InMemoryDb()
    agent = Agent(TestModel(custom_output_text="Hello!"))
    attach_agent(agent, store)
    run(agent, "Hi", conversation_id="chat")
    attach_agent(agent, other)
    run(agent, "Hi", conversation_id="chat")
    detach_agent(agent)
    run(agent, "Hi", conversation_id="chat")
    assert [len(runs(store)), len(runs(other))] == [1, 1]
    assert "iter" not in vars(agent)


def test_a_store_that_fails_stops_the_run_before_the_model(tmp_path):
    SqliteDb(tmp_path / "s.db").append_run("x", Run())
    called = []

    def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        called.append(1)
        return ModelResponse([TextPart("x")])

    agent = Agent(FunctionModel(respond))
    attach(agent, SqliteDb(tmp_path / "s.db", read_only=True))
    with pytest.raises(ReadOnlyStore):
        run(agent, "Hi")
    assert not called
