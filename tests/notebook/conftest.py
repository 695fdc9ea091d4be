"""Stores, paused runs and agents for the tests of the magics, in a real IPython."""

from __future__ import annotations

from typing import Any

import pytest
from notebook_shell import Notebook, attached_stores, notebook, plain_notebook

__all__ = ["attached_stores", "notebook", "plain_notebook"]  # fixtures


@pytest.fixture
def chats(notebook: Notebook, store: Any) -> Any:
    """The store under test, attached as ``chats``, with two sessions: ``alpha`` of three runs and ``alps`` of one."""
    from kern_nb import store_registry
    from kern_nb.records import Message, Run, ToolCall, Usage

    def run(question: str, answer: str, **fields: Any) -> Run:
        call = ToolCall(tool_call_id="c", tool_name="get_order", args={"order_id": "W1"})
        messages = [
            Message(role="user", content=question),
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id="c", content="shipped"),
            Message(role="assistant", content=answer),
        ]
        return Run(input=question, output=answer, model="m-1", messages=messages, agent_id="clerk", **fields)

    for i in range(3):
        usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cost=0.25)
        store.append_run("alpha", run(f"question {i}", f"answer {i}", usage=usage), user_id="alice")
    store.append_run("alps", run("hello", "bye"), user_id="bob")
    store_registry.attach(store, name="chats")
    return store


@pytest.fixture
def main(notebook: Notebook, store: Any) -> Any:
    """The store under test, attached as ``main``."""
    from kern_nb import store_registry

    store_registry.attach(store, name="main")
    return store


@pytest.fixture
def paused(main: Any) -> Any:
    """A run `chat/0` that waits for an approval, for two fields and for a value."""
    from paused_notebook import BOOK, DELETE, RATE, confirmation, pause, user_input

    return pause(
        main,
        a=confirmation(requirement_id=DELETE, prompt="Delete it?", assignee="ann"),
        b=user_input(requirement_id=BOOK),
        c={"kind": "external_execution", "tool_name": "rate", "args": {"n": 2}, "requirement_id": RATE},
    )


@pytest.fixture
def memory(notebook: Notebook) -> Any:
    """A store in memory, in use."""
    from kern_nb import store_registry

    return store_registry.attach(":memory:")


@pytest.fixture
def shredder() -> Any:
    """A tool that must not run unasked."""
    from scripted_agents import Shredder

    return Shredder()


@pytest.fixture
def clerk(notebook: Notebook, memory: Any, shredder: Any) -> Any:
    """An agent in the variable ``boss``, with the id ``clerk-1`` and the name ``The Clerk``."""
    from scripted_agents import shredding

    agent = shredding(shredder, "x.txt", "y.txt", id="clerk-1", name="The Clerk", session_id="chat")
    notebook.shell.user_ns["boss"] = agent
    return agent
