"""Paused runs of attached agents of the OpenAI Agents SDK, answered and continued by magics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("agents.memory", reason="needs openai-agents")

from agents import Agent, RunContextWrapper, Runner, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import kern_nb
from kern_nb.bridges import detach_agent, run_options
from kern_nb.bridges.openai_agents import KernSession, resume
from kern_nb.errors import BadUsage, RunClosed, StillWaiting

done: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    """Each test starts without calls."""
    done.clear()


@function_tool(needs_approval=True)
def delete(context: RunContextWrapper[Any], path: str) -> str:
    """Delete a file."""
    done.append((path, getattr(context.context, "user", context.context)))
    return f"deleted {path}"


@function_tool(needs_approval=True)
async def post(text: str) -> str:
    """Post a text."""
    await asyncio.sleep(0)
    done.append(text)
    return f"posted {text}"


@pytest.fixture
def attached(notebook):
    """Attach an agent with a scripted model, in the variable ``clerk``, to a store in memory."""
    agents = []

    def attach(*answers):
        agent = Agent(name="assistant", model=ScriptedModel(list(answers)), tools=[delete, post])
        notebook.shell.user_ns["clerk"] = agent
        store = kern_nb.attach(":memory:", name=f"desk{len(agents)}")
        notebook.run("%kern attach-agent clerk")
        agents.append(agent)
        return agent, store

    yield attach
    for agent in agents:
        detach_agent(agent)


def a_call(name: str, call_id: str, **arguments: str) -> Any:
    """A call in an answer."""
    return function_call(name, arguments, call_id=call_id)


def results(run):
    return {m.tool_call_id: m.content for m in run.messages if m.role == "tool"}


def test_approvals_and_rejections_continue_the_run(notebook, attached):
    calls = [a_call("delete", "c1", path="a"), a_call("post", "c2", text="x"), a_call("delete", "c3", path="b")]
    agent, store = attached(calls, [assistant_message("Done.")], [assistant_message("Bye.")])
    session = KernSession("chat", store, user_id="ann")
    asyncio.run(Runner.run(agent, "Go.", session=session))
    ids = {r.tool_call_id: r.requirement_id for r in store.requirements()}
    error, lines = notebook.fails(f'%kern approve {ids["c1"]} --args \'{{"path": "z"}}\'')
    assert isinstance(error, BadUsage)
    assert "cannot be changed" in lines[0]
    notebook.run(f"%kern approve {ids['c1']}")
    notebook.run(f"%kern approve {ids['c2']}")
    assert isinstance(notebook.fails("%kern continue chat")[0], StillWaiting)
    assert done == []
    last = notebook.run(f"%kern reject {ids['c3']} --note 'Keep it.'")
    assert "%kern continue chat/0 --agent clerk" in repr(last)
    run_options.forget(store.get_session("chat").runs[0].run_id)  # as in another process: the session is ours

    run = notebook.run("%kern continue chat")

    assert (run.status, run.output) == ("COMPLETED", "Done.")
    assert results(run) == {"c1": "deleted a", "c2": "posted x", "c3": "Keep it."}
    assert isinstance(notebook.fails("%kern continue chat/0")[0], RunClosed)
    assert len(done) == 2
    asyncio.run(Runner.run(agent, "And?", session=session))  # the memory has what happened after the pause
    assert [item["type"] for item in asyncio.run(session.get_items()) if "type" in item].count(
        "function_call_output"
    ) == 3
    assert [r.status for r in store.get_session("chat").runs] == ["COMPLETED"] * 2


def test_it_continues_inside_a_running_event_loop_and_pauses_again(notebook, attached):
    agent, store = attached(
        [a_call("delete", "c1", path="a")], [a_call("post", "c2", text="x")], [assistant_message("Done.")]
    )
    asyncio.run(Runner.run(agent, "Go.", session=KernSession("chat", store)))
    cell = "import asyncio\nasync def go():\n    return get_ipython().run_line_magic('kern', 'continue chat')\n"
    for status in ("PAUSED", "COMPLETED"):
        notebook.run("%kern approve chat")
        assert notebook.run(f"{cell}asyncio.run(go())").status == status
    assert done == [("a", None), "x"]
    assert len(store.get_session("chat").runs) == 1


@dataclass
class Caller:
    """A context that is not stored."""

    user: str


def test_a_context_and_a_session_are_passed_again_and_another_process_names_them(notebook, attached, tmp_path):
    call, answer = [a_call("delete", "c1", path="a")], [assistant_message("Done.")]
    agent, store = attached(call, answer, call, answer)
    session = SQLiteSession("chat", tmp_path / "theirs.db")
    asyncio.run(Runner.run(agent, "Go.", session=session, context=Caller("ann")))
    notebook.run("%kern approve chat")
    assert notebook.run("%kern continue chat").status == "COMPLETED"
    assert done == [("a", "ann")]
    n_items = len(asyncio.run(session.get_items()))
    assert n_items == 4

    asyncio.run(Runner.run(agent, "Again.", session=session, context=Caller("ann")))
    notebook.run("%kern approve chat")
    run = store.get_session("chat").runs[1]
    run_options.forget(run.run_id)
    error, lines = notebook.fails("%kern continue chat/1")
    assert isinstance(error, BadUsage)
    assert "was started with context, session" in lines[0]
    assert "context=..., session=..." in lines[1]
    assert len(done) == 1
    resumed = resume(agent, store, run, context=Caller("bob"), session=session)
    assert (resumed.status, done[1:]) == ("COMPLETED", [("a", "bob")])
    session.close()


def test_the_hint_without_the_agent_is_of_the_sdk(notebook, attached):
    agent, store = attached([a_call("delete", "c1", path="a")])
    asyncio.run(Runner.run(agent, "Go.", session=KernSession("chat", store)))
    notebook.run("%kern approve chat")
    del notebook.shell.user_ns["clerk"]
    error, lines = notebook.fails("%kern continue chat")
    assert isinstance(error, BadUsage)
    assert "an agent of the OpenAI Agents SDK" in lines[0]
    assert "%kern attach-agent assistant" in lines[1]
