"""Offline graphs, and a saver that writes to two others, so that what they return can be compared."""

import copy
import operator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.graph", reason="needs langgraph")

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

THREAD = {"configurable": {"thread_id": "t", "user_id": "ann"}}


class BothSavers(BaseCheckpointSaver):
    """Writes to two savers and reads from the second. What they get is copied: messages get their ids later."""

    def __init__(self, theirs, ours):
        super().__init__()
        self.theirs, self.ours = theirs, ours

    def get_tuple(self, config):
        return self.ours.get_tuple(config)

    def list(self, config, **options):
        return self.ours.list(config, **options)

    def put(self, config, checkpoint, metadata, new_versions):
        checkpoint = copy.deepcopy(checkpoint)
        self.theirs.put(config, checkpoint, metadata, new_versions)
        return self.ours.put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config, writes, task_id, task_path=""):
        writes = copy.deepcopy(list(writes))
        self.theirs.put_writes(config, writes, task_id, task_path)
        self.ours.put_writes(config, writes, task_id, task_path)

    def get_next_version(self, current, channel):
        return self.theirs.get_next_version(current, channel)


def answer(state):
    """Greets at once, fails, or calls a tool and repeats its result."""
    last = state["messages"][-1]
    count = sum(isinstance(message, HumanMessage) for message in state["messages"])
    model = {"model_name": "fake-1", "model_provider": "fake"}
    if isinstance(last, ToolMessage):
        usage = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25, "input_token_details": {"cache_read": 4}}
        return {"messages": [AIMessage(f"It is {last.content}.", usage_metadata=usage, response_metadata=model)]}
    if "hello" in last.content:
        return {"messages": [AIMessage("Hello!")]}
    if "fail" in last.content:
        raise ValueError("no answer")
    usage = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    call = {"name": "lookup", "args": {"q": last.content}, "id": f"call_{count}"}
    return {"messages": [AIMessage("", tool_calls=[call], usage_metadata=usage, response_metadata=model)]}


def look_up(state):
    call = state["messages"][-1].tool_calls[0]
    return {"messages": [ToolMessage(f"found {call['args']['q']}", tool_call_id=call["id"], name="lookup")]}


def confirm_and_look_up(state):
    call = state["messages"][-1].tool_calls[0]
    request = {"name": call["name"], "args": call["args"], "description": "Run it?"}
    answer = interrupt({"action_requests": [request]})
    return {"messages": [ToolMessage(f"{answer} {call['args']['q']}", tool_call_id=call["id"], name="lookup")]}


def chat_graph(tools: Any = look_up):
    """A model that calls a tool."""
    builder = StateGraph(MessagesState)
    builder.add_node("agent", answer)
    builder.add_node("tools", tools)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "agent")
    return builder


def nested_graph(tools: Any = look_up):
    """A graph whose node is that graph."""
    builder = StateGraph(MessagesState)
    builder.add_node("child", chat_graph(tools).compile())
    builder.add_edge(START, "child")
    builder.add_edge("child", END)
    return builder


class Items(TypedDict):
    items: Annotated[list, operator.add]
    total: int


def parallel_graph():
    """A map over three items by messages to a node, and their sum."""
    builder = StateGraph(Items)
    builder.add_node("fan", lambda state: {})
    builder.add_node("work", lambda state: {"items": [state["n"] * 2]})
    builder.add_node("sum", lambda state: {"total": sum(state["items"])})
    builder.add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: [Send("work", {"n": n}) for n in range(3)], ["work"])
    builder.add_edge("work", "sum")
    builder.add_edge("sum", END)
    return builder


def join_graph():
    """Two branches of different lengths that a node waits for."""
    builder = StateGraph(Items)
    for name in ("a", "b", "c", "middle", "d"):
        builder.add_node(name, lambda state, name=name: {"items": [name]})
    for start, end in ((START, "a"), ("a", "b"), ("a", "c"), ("c", "middle"), (["b", "middle"], "d"), ("d", END)):
        builder.add_edge(start, end)
    return builder


def delta_graph():
    """A node that repeats what was said; of most states, the saver stores the new messages only."""
    delta = pytest.importorskip("langgraph.channels.delta")

    def reduce(messages, writes):
        return add_messages(messages, [m for w in writes for m in (w if isinstance(w, list) else [w])])

    class State(TypedDict):
        messages: Annotated[list, delta.DeltaChannel(reduce, snapshot_frequency=5)]

    builder = StateGraph(State)
    builder.add_node("echo", lambda state: {"messages": [AIMessage(f"echo {state['messages'][-1].content}")]})
    builder.add_edge(START, "echo")
    builder.add_edge("echo", END)
    return builder


def ask(graph, text, config=THREAD, **options):
    return graph.invoke({"messages": [("user", text)]}, config, **options)
