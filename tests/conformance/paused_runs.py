"""Runs that are paused, and ways to inspect them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kern_nb.db import SessionStore
from kern_nb.records import Message, Requirement, Run, ToolCall

PAST = datetime.now(UTC) - timedelta(days=1)
FUTURE = datetime.now(UTC) + timedelta(days=1)


def a_requirement(requirement_id: str, kind: str = "confirmation", **fields: Any) -> Requirement:
    """A requirement: to confirm sending mail, or for a value."""
    tool = {"tool_call_id": "call", "tool_name": "send_mail", "args": {"to": "bob", "text": "hi"}}
    return Requirement(**{"requirement_id": requirement_id, "kind": kind} | tool | fields)


def a_paused_run(store: SessionStore, session_id: str = "chat", *requirements: Requirement, **fields: Any) -> Run:
    """A run that called a tool and is paused, by default for one approval with the id ``ask``. As stored."""
    run = store.start_run(session_id, input="send it", **fields)
    call = ToolCall(tool_call_id="call", tool_name="send_mail", args={"to": "bob", "text": "hi"})
    store.append_messages(
        run.run_id, [Message(role="user", content="send it"), Message(role="assistant", tool_calls=[call])]
    )
    store.pause_run(run.run_id, requirements or [a_requirement("ask")])
    return store.get_run(run.run_id)


def stored_requirement(store: SessionStore, requirement_id: str = "ask") -> Requirement:
    """A requirement as it is stored."""
    return next(r for r in store.requirements(status=None) if r.requirement_id == requirement_id)


def ids(requirements: list[Requirement]) -> list[str]:
    """Their ids."""
    return [requirement.requirement_id for requirement in requirements]
