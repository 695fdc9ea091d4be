"""Paused runs of attached graphs of LangGraph, answered and continued by magics."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("langgraph.graph", reason="needs langgraph")

from graphs import THREAD, ask, chat_graph
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

import kern_nb
from kern_nb.bridges import detach_agent
from kern_nb.bridges.langgraph import resume
from kern_nb.errors import AlreadyClaimed, BadUsage, RunClosed


@pytest.fixture
def attached(notebook):
    """Attach a graph that is in the variable ``graph`` to a store in memory."""
    graphs = []

    def attach(builder, **options):
        graph = builder.compile(**options)
        notebook.shell.user_ns["graph"] = graph
        store = kern_nb.attach(":memory:", name=f"desk{len(graphs)}")
        notebook.run("%kern attach-agent graph")
        graphs.append(graph)
        return graph, store

    yield attach
    for graph in graphs:
        detach_agent(graph)


def tools_that_ask(done):
    """A node that asks to confirm the call, then for a name."""

    def tools(state):
        call = state["messages"][-1].tool_calls[0]
        request = {"name": call["name"], "args": call["args"], "description": "Run it?"}
        [decision] = interrupt({"action_requests": [request]})["decisions"]
        if decision["type"] == "reject":
            return {"messages": [ToolMessage(decision["message"], tool_call_id=call["id"])]}
        args = decision["edited_action"]["args"] if decision["type"] == "edit" else call["args"]
        name = interrupt({"question": "Who is it?"})
        done.append((args["q"], name))
        return {"messages": [ToolMessage(f"{args['q']} for {name}", tool_call_id=call["id"])]}

    return tools


def test_a_requirement_of_each_kind_is_answered_and_the_run_continues(notebook, attached):
    done: list[Any] = []
    graph, store = attached(chat_graph(tools_that_ask(done)))
    ask(graph, "weather")
    (confirmation,) = store.requirements()
    assert confirmation.kind == "confirmation"
    last = notebook.run('%kern approve t --args \'{"q": "edited"}\'')
    assert "%kern continue t/0 --agent graph" in repr(last)
    assert notebook.run("%kern continue t").status == "PAUSED"
    (value,) = store.requirements()
    assert (value.kind, value.prompt) == ("external_execution", "Who is it?")
    notebook.run("%kern answer t Ann")
    run = notebook.run("%kern continue t/0 --agent graph")
    assert (run.status, run.output) == ("COMPLETED", "It is edited for Ann.")
    assert done == [("edited", "Ann")]
    assert isinstance(notebook.fails("%kern continue t/0")[0], RunClosed)

    ask(graph, "rain", {"configurable": {"thread_id": "u"}})
    notebook.run("%kern reject u --note 'Never.'")
    run = notebook.run("%kern continue u")
    assert (run.status, run.output) == ("COMPLETED", "It is Never..")
    assert len(done) == 1


@dataclass
class Context:
    """What a graph gets with each invocation."""

    unit: str


def asynchronous_graph(seen):
    """A node that is a coroutine, reads its configuration and its context, and asks."""

    async def node(state: MessagesState, config: RunnableConfig, runtime: Runtime[Context]) -> Any:
        await asyncio.sleep(0)
        answer = interrupt("Go on?")
        seen.append((answer, config["configurable"]["user_id"], runtime.context and runtime.context.unit))
        return {"messages": [("ai", f"You said {answer}.")]}

    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder


def test_it_continues_inside_a_running_event_loop_with_its_context(notebook, attached):
    seen: list[Any] = []
    graph, store = attached(asynchronous_graph(seen))
    asyncio.run(graph.ainvoke({"messages": [("user", "Hi")]}, THREAD, context=Context("km")))
    notebook.run("%kern answer t yes")
    cell = "import asyncio\nasync def go():\n    return get_ipython().run_line_magic('kern', 'continue t')\n"
    run = notebook.run(f"{cell}asyncio.run(go())")
    assert (run.status, run.output, seen) == ("COMPLETED", "You said yes.", [("yes", "ann", "km")])

    asyncio.run(graph.ainvoke({"messages": [("user", "Hi")]}, THREAD, context=Context("km")))
    notebook.run("%kern answer t no")
    kern_nb.attach_agent(graph, store)  # as in another process
    error, lines = notebook.fails("%kern continue t/1")
    assert isinstance(error, BadUsage)
    assert "has a context, which is not stored" in lines[0]
    assert "context=..." in lines[1]
    assert resume(graph, store, store.get_session("t").runs[1], context=Context("mi")).status == "COMPLETED"
    assert seen[1:] == [("no", "ann", "mi")]


def test_of_two_who_continue_at_a_breakpoint_one_runs_the_node(notebook, attached):
    calls = []

    def look_up(state):
        call = state["messages"][-1].tool_calls[0]
        calls.append(call["args"]["q"])
        return {"messages": [ToolMessage("found", tool_call_id=call["id"])]}

    graph, store = attached(chat_graph(look_up), interrupt_before=["tools"])
    ask(graph, "weather")
    notebook.run("%kern approve t")
    run, outcomes, start = store.get_session("t").runs[0], [], threading.Barrier(2)

    def go_on():
        start.wait()
        try:
            outcomes.append(resume(graph, store, run).status)
        except AlreadyClaimed:
            outcomes.append("refused")

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["COMPLETED", "refused"]
    assert calls == ["weather"]


def test_the_hint_without_the_graph_is_of_langgraph(notebook, attached):
    graph, _store = attached(chat_graph(tools_that_ask([])))
    ask(graph, "weather")
    notebook.run("%kern reject t")
    del notebook.shell.user_ns["graph"]
    error, lines = notebook.fails("%kern continue t")
    assert isinstance(error, BadUsage)
    assert "an agent of LangGraph" in lines[0]
    assert "%kern attach-agent" in lines[1]
