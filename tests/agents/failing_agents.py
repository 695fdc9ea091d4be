"""Agents that fail in the middle, and what must hold afterwards."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kern_nb.agent import Agent
from kern_nb.db import SessionStore
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run


def calls_in_turn(*names: str) -> Any:
    """A script that calls these tools one after the other, then says what the last one gave."""

    def answer(messages: list[Message]) -> object:
        asked = max(i for i, message in enumerate(messages) if message.role == "user")
        done = sum(len(message.tool_calls) for message in messages[asked:])
        return call(names[done]) if done < len(names) else f"got {messages[-1].content}"

    return answer


def an_agent(store: SessionStore, *tools: Any, **options: Any) -> Agent:
    """An agent that calls each of its tools once."""
    names = [getattr(tool, "name", None) or tool.__name__ for tool in tools]
    script = options.pop("script", None) or calls_in_turn(*names)
    return Agent(ScriptedModel(script), db=store, tools=tools, **{"session_id": "chat"} | options)


def left_running(store: SessionStore) -> list[tuple[str, int]]:
    """Runs that nobody works at any more and that say they run."""
    r = store.tables.runs
    query = sa.select(r.c.session_id, r.c.run_index).where(r.c.status.in_(("RUNNING", "PENDING")))
    with store.read_connection() as connection:
        return [(row.session_id, row.run_index) for row in connection.execute(query)]


def statuses(store: SessionStore) -> dict[str, str]:
    """Of each tool's latest call."""
    calls = store.tool_calls_df()
    return dict(zip(calls.tool_name, calls.status, strict=True))


def require_the_next_works(store: SessionStore, session_id: str = "chat") -> Run:
    """That a run in the same session, by another agent, is made and stored as any; and that the store is well."""
    run = Agent(ScriptedModel(["fine"]), db=store, session_id=session_id, add_history_to_context=True).run("And now?")
    assert (run.status, run.output) == ("COMPLETED", "fine")
    assert left_running(store) == []
    assert store.check()
    return run
