"""Runs of attached agents are recorded as they happen: messages, calls, usage, members, pauses and endings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kern_nb import attach_agent
from kern_nb.bridges import detach_agent
from kern_nb.db import InMemoryDb, SessionStore
from kern_nb.errors import AlreadyResolved, RunClosed
from kern_nb.records import Run

pytest.importorskip("agents.memory", reason="needs openai-agents")

from agents import (
    GuardrailFunctionOutput,
    MaxTurnsExceeded,
    ModelSettings,
    RunConfig,
    RunHooks,
    Runner,
    RunState,
    SQLiteSession,
    function_tool,
    input_guardrail,
    output_guardrail,
)
from agents.testing import assistant_message, function_call
from pydantic import BaseModel

from kern_nb.bridges.openai_agents import KernSession, load_state

deleted: list[str] = []


@pytest.fixture(autouse=True)
def nothing_deleted() -> None:
    """Each test starts without calls of `delete`."""
    deleted.clear()


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@function_tool
def refuse() -> str:
    """Fail; the model is told."""
    raise ValueError("no")


@function_tool(failure_error_function=None)
def crash() -> str:
    """Fail; the run ends."""
    raise ValueError("no")


@function_tool
async def wait(seconds: float) -> str:
    """Return later."""
    await asyncio.sleep(seconds)
    return f"waited {seconds}"


@function_tool(needs_approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    deleted.append(path)
    return f"deleted {path}"


def _run(agent: Any, value: Any, **options: Any) -> Any:
    return asyncio.run(Runner.run(agent, value, **options))


def _call(name: str, call_id: str, **args: Any) -> Any:
    return function_call(name, args, call_id=call_id)


def _says(text: str) -> list[Any]:
    return [assistant_message(text)]


def _runs(store: SessionStore, session_id: str = "chat") -> list[Run]:
    session = store.get_session(session_id)
    assert session is not None
    assert session.runs is not None
    return session.runs


MakeAgent = Callable[..., Any]


@pytest.mark.every_engine
def test_run(store: SessionStore, make_agent: MakeAgent) -> None:
    """A run has its messages, its calls with their status and time, and the usage of each answer."""
    agent = make_agent(
        [_call("add", "c1", a=1, b=2), _call("refuse", "c2")],
        _says("It is 3."),
        tools=[add, refuse],
        instructions="Add.",
    )
    session = KernSession("chat", store)
    result = _run(agent, "Add 1 and 2.", session=session)
    assert result.final_output == "It is 3."
    (run,) = _runs(store)
    assert (run.status, run.input, run.output, run.agent_id) == ("COMPLETED", "Add 1 and 2.", "It is 3.", "assistant")
    assert run.model == "ScriptedModel"
    assert [m.role for m in run.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [m.usage.input_tokens for m in run.messages if m.usage] == [10, 10]
    assert run.usage is not None
    assert run.usage.total_tokens == 30
    assert {call.tool_call_id: call.status for call in run.tool_calls} == {"c1": "completed", "c2": "failed"}
    assert all(call.duration_s is not None for call in run.tool_calls)
    items = asyncio.run(session.get_items())
    assert [item.get("type", "message") for item in items] == [
        "message", "function_call", "function_call", "function_call_output", "function_call_output", "message"
    ]  # fmt: skip
    assert store.check().problems == []


def test_failed_tool_without_tracing(store: SessionStore, make_agent: MakeAgent) -> None:
    """A tool that failed is known without tracing, too."""
    agent = make_agent([_call("refuse", "c")], _says("No."), tools=[refuse])
    _run(agent, "Hello", run_config=RunConfig(group_id="chat", tracing_disabled=True))
    assert [call.status for call in _runs(store)[0].tool_calls] == ["failed"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_items_are_those_of_the_sdk(store: SessionStore, make_agent: MakeAgent, *, is_streamed: bool) -> None:
    """The items are exactly those that the SDK's own session has, also if tools end in another order."""
    answers = [[_call("wait", "c1", seconds=0.2), _call("wait", "c2", seconds=0.01)], _says("Done."), _says("Again.")]

    async def converse(session: Any) -> list[Any]:
        agent = make_agent(*answers, tools=[wait], model_settings=ModelSettings(parallel_tool_calls=True))
        for prompt in ("Wait.", "And now?"):
            if is_streamed:
                async for _ in Runner.run_streamed(agent, prompt, session=session).stream_events():
                    pass
            else:
                await Runner.run(agent, prompt, session=session)
        items: list[Any] = await session.get_items()
        for limit in range(1, len(items)):
            assert await session.get_items(limit=limit) == items[-limit:]
        return items

    expected = asyncio.run(converse(SQLiteSession("theirs")))
    assert asyncio.run(converse(KernSession("chat", store))) == expected
    assert [run.status for run in _runs(store) + _runs(store, "theirs")] == ["COMPLETED"] * 4


def test_run_sync(store: SessionStore, make_agent: MakeAgent) -> None:
    """``run_sync`` is recorded, too, also as it fails."""
    agent, loop = make_agent(_says("Hi")), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # which the SDK would open, and leave open
    try:
        Runner.run_sync(agent, "Hello", session=KernSession("chat", store))
        with pytest.raises(Exception, match="no scripted steps"):
            Runner.run_sync(agent, "Hello", session=KernSession("chat", store))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert [(run.status, run.output) for run in _runs(store)] == [("COMPLETED", "Hi"), ("ERROR", None)]


def test_without_a_session(store: SessionStore, make_agent: MakeAgent) -> None:
    """A run without a session has one of its own, or its group's; a history in the input is not counted again."""

    class Sum(BaseModel):
        value: int

    agent = make_agent(_says('{"value": 3}'), output_type=Sum)
    result = _run(agent, "Add 1 and 2.")
    (session,) = store.list_sessions()
    (run,) = _runs(store, session.session_id)
    assert run.output == {"value": 3}
    agent = make_agent(_says("Yes."))
    history = [*result.to_input_list(), {"role": "user", "content": "Really?"}]
    _run(agent, history, run_config=RunConfig(group_id="group", tracing_disabled=True))
    (run,) = _runs(store, "group")
    assert (run.input, run.output) == ("Really?", "Yes.")
    assert [message.from_history for message in run.messages] == [True, True, None, None]
    assert len(asyncio.run(KernSession("group", store).get_items())) == 4


def test_handoff(store: SessionStore, make_agent: MakeAgent) -> None:
    """A handoff is a call with its result; who answers after it is named."""
    second = make_agent(_says("I am B."), name="b", instructions="You are B.", is_attached=False)
    first = make_agent([_call("transfer_to_b", "h")], name="a", handoffs=[second])
    _run(first, "Hello", run_config=RunConfig(group_id="chat"))
    (run,) = _runs(store)
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "system", "assistant"]
    assert run.messages[-1].extra["agent"] == "b"
    assert [call.status for call in run.tool_calls] == ["completed"]


def test_endings(store: SessionStore, make_agent: MakeAgent) -> None:
    """Each way to end has a status and an error; a call that ended the run has failed."""

    @input_guardrail
    async def no_input(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    @output_guardrail
    async def no_output(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    cases: dict[str, tuple[Any, str, str]] = {
        "turns": (make_agent(*[[_call("add", f"c{i}", a=1, b=2)] for i in range(3)], tools=[add]), "ERROR", "MaxTurns"),
        "crash": (make_agent([_call("crash", "c")], tools=[crash]), "ERROR", "UserError: Error running tool crash"),
        "input": (make_agent(_says("Hi"), input_guardrails=[no_input]), "ERROR", "InputGuardrailTripwire"),
        "output": (make_agent(_says("Hi"), output_guardrails=[no_output]), "ERROR", "OutputGuardrailTripwire"),
        "model": (make_agent(), "ERROR", "UnexpectedModelCall"),
    }
    for name, (agent, status, error) in cases.items():
        with pytest.raises(Exception, match=r".") as raised:
            _run(agent, "Hello", session=KernSession(name, store), max_turns=2)
        assert (name != "turns") or isinstance(raised.value, MaxTurnsExceeded)
        (run,) = _runs(store, name)
        assert run.status == status
        assert run.error is not None
        assert error in run.error
    assert [call.status for call in _runs(store, "crash")[0].tool_calls] == ["failed"]
    assert store.check().problems == []


def test_cancelled_streams(store: SessionStore, make_agent: MakeAgent) -> None:
    """A cancelled stream is a cancelled run, whether it stops at once or after the turn."""

    async def cancel(session_id: str, mode: str, tool: Any, **args: Any) -> None:
        agent = make_agent([_call(tool.name, "c", **args)], _says("Done."), tools=[tool])
        result = Runner.run_streamed(agent, "Hello", session=KernSession(session_id, store))
        async for event in result.stream_events():
            if event.type == "run_item_stream_event" and event.name == "tool_called":
                result.cancel(mode)  # type: ignore[arg-type]
        assert result.run_loop_task is not None
        await asyncio.wait([result.run_loop_task])
        await asyncio.sleep(0)

    asyncio.run(cancel("at once", "immediate", wait, seconds=30))
    asyncio.run(cancel("later", "after_turn", add, a=1, b=2))
    for name, status in (("at once", "unknown"), ("later", "completed")):
        (run,) = _runs(store, name)
        assert run.status == "CANCELLED"
        assert [call.status for call in run.tool_calls] == [status]


def _pause(store: SessionStore, make_agent: MakeAgent, *paths: str) -> tuple[Any, Any, KernSession]:
    calls = [_call("delete", path, path=path) for path in paths]
    agent = make_agent(calls, _says("Done."), tools=[delete])
    session = KernSession("chat", store)
    return agent, _run(agent, "Delete.", session=session), session


@pytest.mark.every_engine
def test_pause_is_resumed_once(store: SessionStore, make_agent: MakeAgent) -> None:
    """An interruption is a requirement; a copy of the state resumes the run once, and is refused before the tool runs."""
    agent, result, session = _pause(store, make_agent, "x")
    copy = result.to_state().to_json()
    (requirement,) = store.requirements()
    assert (requirement.tool_name, requirement.args, requirement.kind) == ("delete", {"path": "x"}, "confirmation")
    assert [run.status for run in _runs(store)] == ["PAUSED"]
    state = result.to_state()
    state.approve(result.interruptions[0])
    assert _run(agent, state, session=session).final_output == "Done."
    (run,) = _runs(store)
    assert run.status == "COMPLETED"
    assert [call.status for call in run.tool_calls] == ["completed"]
    assert [r.approved for r in run.requirements] == [True]
    assert run.usage is not None
    assert run.usage.input_tokens == 20
    again = asyncio.run(RunState.from_json(agent, copy))
    again.approve(again.get_interruptions()[0])
    with pytest.raises(RunClosed, match="resumed with this state before"):
        _run(agent, again, session=session)
    with pytest.raises(RunClosed, match="resumed with this state before"):
        asyncio.run(_stream(agent, again))
    assert deleted == ["x"]
    assert [item.get("type", "message") for item in asyncio.run(session.get_items())] == [
        "message", "function_call", "function_call_output", "message"
    ]  # fmt: skip


async def _stream(agent: Any, value: Any) -> Any:
    result = Runner.run_streamed(agent, value)
    async for _ in result.stream_events():
        pass
    return result.final_output


def test_answers_of_the_store(store: SessionStore, make_agent: MakeAgent) -> None:
    """What was answered in the store counts: the state need not repeat it, and cannot contradict it."""
    agent, result, session = _pause(store, make_agent, "x", "y")
    first, second = store.requirements()
    store.resolve(first, approve=True)
    store.resolve(second, approve=False, note="Keep it.")
    state = result.to_state()
    state.reject(result.interruptions[0])
    with pytest.raises(AlreadyResolved):
        _run(agent, state, session=session)
    loaded = asyncio.run(load_state(agent, first.run_id or "", store))
    assert _run(agent, loaded, session=session).final_output == "Done."
    assert deleted == ["x"]
    (run,) = _runs(store)
    assert [m.content for m in run.messages if m.role == "tool"] == ["deleted x", "Keep it."]
    with pytest.raises(RunClosed):
        asyncio.run(load_state(agent, first.run_id or "", store))


def test_partly_answered(store: SessionStore, make_agent: MakeAgent) -> None:
    """With one of two answers the run goes on, and pauses again for the other."""
    agent, result, session = _pause(store, make_agent, "x", "y")
    state = result.to_state()
    state.approve(result.interruptions[0])
    result = _run(agent, state, session=session)
    assert [r.tool_call_id for r in store.requirements()] == ["y"]
    assert deleted == ["x"]
    state = result.to_state()
    state.approve(result.interruptions[0])
    assert _run(agent, state, session=session).final_output == "Done."
    assert deleted == ["x", "y"]
    assert [r.status for r in _runs(store)[0].requirements] == ["resolved", "resolved"]


def test_agent_as_tool(store: SessionStore, make_agent: MakeAgent) -> None:
    """An agent that is a tool has a member's run, which pauses with the run that called it."""
    inner = make_agent(
        [_call("delete", "d", path="x")], _says("Gone."), name="inner", tools=[delete], is_attached=False
    )
    outer = make_agent([_call("inner", "t", input="Go.")], _says("Done."), tools=[inner.as_tool("inner", "Deletes.")])
    config = RunConfig(group_id="chat")
    result = _run(outer, "Delete.", run_config=config)
    run, member = _runs(store)
    assert (run.status, member.status, member.parent_run_id) == ("PAUSED", "PAUSED", run.run_id)
    (requirement,) = store.requirements(run_id=run.run_id)
    assert requirement.run_id == member.run_id
    state = result.to_state()
    state.approve(result.interruptions[0])
    assert _run(outer, state, run_config=config).final_output == "Done."
    run, member = _runs(store)
    assert (run.status, member.status, member.output) == ("COMPLETED", "COMPLETED", "Gone.")
    assert run.usage is not None
    assert run.usage.input_tokens == 20
    assert member.usage is not None
    assert member.usage.input_tokens == 20
    assert deleted == ["x"]
    assert len(asyncio.run(KernSession("chat", store).get_items())) == 4


def test_concurrent_resumes(store: SessionStore, make_agent: MakeAgent) -> None:
    """Of several copies of a state that are resumed at once, one goes on."""
    agent, result, _ = _pause(store, make_agent, "x")
    copy = result.to_state().to_json()
    store.resolve(store.requirements()[0], approve=True)

    async def resume() -> list[Any]:
        states = [await RunState.from_json(agent, copy) for _ in range(3)]
        return await asyncio.gather(*(Runner.run(agent, state) for state in states), return_exceptions=True)

    outcomes = asyncio.run(resume())
    assert sum(isinstance(outcome, RunClosed) for outcome in outcomes) == 2
    assert deleted == ["x"]


def test_hooks_and_detaching(store: SessionStore, make_agent: MakeAgent) -> None:
    """A caller's hooks are called; a detached agent is recorded no more, others are."""
    seen = []

    class Hooks(RunHooks[Any]):
        async def on_llm_end(self, *_: Any) -> None:
            seen.append("answer")

    agent, other = make_agent(_says("1"), _says("2")), make_agent(_says("3"))
    _run(agent, "Hello", hooks=Hooks())
    detach_agent(agent)
    _run(agent, "Hello")
    _run(other, "Hello")
    assert seen == ["answer"]
    assert sorted(store.runs_df()["output"]) == ["1", "3"]


def test_the_session_names_the_store(make_agent: MakeAgent, store: SessionStore) -> None:
    """A run with a session of another store is recorded there."""
    agent = make_agent(_says("Hi"))
    with InMemoryDb() as target:
        _run(agent, "Hello", session=KernSession("chat", target))
        assert [run.output for run in _runs(target)] == ["Hi"]
    assert not store.list_sessions()


def test_killed_run_keeps_what_happened(store: SessionStore, make_agent: MakeAgent) -> None:
    """While a tool runs, the store has the prompt, the answer and the started call."""
    found: list[Any] = []

    @function_tool
    def look() -> str:
        """Look into the store."""
        (run,) = _runs(store)
        found.extend([run.status, [m.role for m in run.messages], [call.status for call in run.tool_calls]])
        return "seen"

    agent = make_agent([_call("look", "c")], _says("Done."), tools=[look])
    _run(agent, "Look.", session=KernSession("chat", store))
    assert found == ["RUNNING", ["user", "assistant"], ["started"]]


def test_attached_twice(store: SessionStore, make_agent: MakeAgent) -> None:
    """An agent that is attached again writes to the new store only."""
    agent = make_agent(_says("Hi"))
    with InMemoryDb() as target:
        attach_agent(agent, target)
        _run(agent, "Hello")
        assert len(target.list_sessions()) == 1
        detach_agent(agent)
    assert not store.list_sessions()
