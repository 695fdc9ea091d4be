"""Agents of pydantic-ai: `attach` records their runs in a store; `KernConversationStore` keeps their conversations.

Example:
    >>> from kern_nb.bridges.pydantic_ai import attach
    >>> from kern_nb.db import InMemoryDb
    >>> from pydantic_ai import Agent
    >>> from pydantic_ai.models.test import TestModel
    >>> store, agent = InMemoryDb(), Agent(TestModel(custom_output_text="Hello!"), name="greeter")
    >>> undo = attach(agent, store)
    >>> result = agent.run_sync("Hi", conversation_id="chat")
    >>> store.get_session("chat").runs
    [<Run chat/0 COMPLETED, 2 messages, 0 tool calls: 'Hello!'>]
    >>> undo()
"""

from kern_nb.bridges.pydantic_ai.agents import attach
from kern_nb.bridges.pydantic_ai.conversations import KernConversationStore
from kern_nb.bridges.pydantic_ai.resume import deferred_tool_results, owner_names, resume

__all__ = ["KernConversationStore", "attach", "deferred_tool_results", "owner_names", "resume"]
