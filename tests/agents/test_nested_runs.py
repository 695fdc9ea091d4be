"""Agents that run agents, however they do it: nobody waits for another for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from failing_agents import left_running

from kern_nb.agent import Agent
from kern_nb.models.scripted import ScriptedModel, call

DEPTH = 4
AT_ONCE = 50
PATIENCE_S = 60


def asking(store, ask, name: str, **options) -> Agent:
    """An agent that calls its one tool, and says what it gave."""

    def script(messages):
        return f"{name} says {messages[-1].content}" if messages[-1].role == "tool" else call("ask")

    ask.__name__ = "ask"
    return Agent(ScriptedModel(script), db=store, tools=[ask], id=name, session_id=name, **options)


def within(agent: Agent, kind: str):
    """A tool that runs an agent: as a plain function, in a coroutine without awaiting it, or awaited."""

    def plain() -> str:
        return agent.run("x").output

    async def held_up() -> str:
        return agent.run("x").output

    async def awaited() -> str:
        return (await agent.arun("x")).output

    return {"plain": plain, "held up": held_up, "awaited": awaited}[kind]


@pytest.mark.parametrize("inner", ["plain", "held up", "awaited"])
@pytest.mark.parametrize("outer", ["plain", "held up", "awaited"])
def test_nested_runs(store, outer, inner):
    """Each calls the next from a tool, in turn of one kind and of another."""
    agent = Agent(ScriptedModel(lambda _: "hello"), db=store, id="last", session_id="last")
    for depth in range(DEPTH):
        agent = asking(store, within(agent, (inner, outer)[depth % 2]), f"agent {depth}")
    found = in_time(lambda: agent.run("x").output)

    assert found == "".join(f"agent {depth} says " for depth in reversed(range(DEPTH))) + "hello"
    assert left_running(store) == []


def in_time(work):
    """The work, which fails the test where it hangs; a thread that hangs is left behind."""
    found: list = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert found, "it hangs"
    return found[0]


def test_fifty_runs_with_nested_runs(store):
    """More than there are threads in any pool: the tools wait for runs, and these need threads, too."""
    barrier = threading.Barrier(AT_ONCE)
    second = Agent(ScriptedModel(lambda _: "hello"), db=store, id="second")

    def ask(run_context) -> str:
        barrier.wait(PATIENCE_S)  # all of them are within their tools now
        return second.run("x", session_id=f"for {run_context.session_id}").output

    first = asking(store, ask, "first")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda n: first.run("x", session_id=f"chat {n}").output, range(AT_ONCE)))

    assert found == ["first says hello"] * AT_ONCE
    assert left_running(store) == []


def test_runs_continue_while_tool_blocks_loop(store):
    """An async tool that runs an agent without awaiting it stops the loop it is in; the next run gets another."""
    begun, done = threading.Event(), threading.Event()

    def take_time(_) -> str:
        begun.set()
        return f"done: {done.wait(PATIENCE_S)}"

    slow = Agent(ScriptedModel(take_time), db=store, id="slow", session_id="slow")
    outer = asking(store, within(slow, "held up"), "outer")
    with ThreadPoolExecutor(1) as pool:
        held_up = pool.submit(lambda: outer.run("x").output)
        begun.wait()
        quick = Agent(ScriptedModel(lambda _: "quick"), db=store, session_id="quick")
        assert in_time(lambda: quick.run("x").output) == "quick"
        done.set()
        assert held_up.result() == "outer says done: True"
