"""Paused runs for the tests of the inbox: a requirement of each kind, with ids that are easy to write."""

from __future__ import annotations

from kern_nb.records import Message, Requirement, ToolCall

DELETE = "0a000000-0000-4000-8000-000000000001"
BOOK = "0b000000-0000-4000-8000-000000000002"
RATE = "0c000000-0000-4000-8000-000000000003"


def pause(store, session_id="chat", *, parent=None, user_id=None, agent_id="clerk", **requirements):
    """Return a paused run with a requirement of these fields for each tool call id."""
    run = store.start_run(session_id, input="x", agent_id=agent_id, parent_run_id=parent, user_id=user_id)
    calls = [
        ToolCall(tool_call_id=n, tool_name=q.get("tool_name"), args=q.get("args")) for n, q in requirements.items()
    ]
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=calls)])
    store.pause_run(run.run_id, [Requirement(**q, tool_call_id=name) for name, q in requirements.items()])
    return store.get_run(run.run_id)


def confirmation(**fields):
    return {"kind": "confirmation", "tool_name": "delete_file", "args": {"path": "x.txt"}} | fields


def user_input(fields=("city", "date"), args=None, **more):
    requirement = {"kind": "user_input", "tool_name": "book", "args": args or {}, "extra": {"fields": list(fields)}}
    return requirement | more
