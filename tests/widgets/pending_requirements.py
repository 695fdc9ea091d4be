"""Runs that wait, for the tests of the inbox and the chat, and the lines that their clicks are told as."""

from __future__ import annotations

import json
import time

from kern_nb.magics import parser
from kern_nb.records import Message, Requirement, ToolCall

DELETE = "0a000000-0000-4000-8000-000000000001"
BOOK = "0b000000-0000-4000-8000-000000000002"
RATE = "0c000000-0000-4000-8000-000000000003"

CONFIRM = {"kind": "confirmation", "tool_name": "delete_file", "args": {"path": "x.txt", "times": 2}}
FILL = {"kind": "user_input", "tool_name": "book", "args": {"seats": 2}, "extra": {"fields": ["city", "date"]}}
EXTERNAL = {"kind": "external_execution", "tool_name": "rate", "args": {"hotel": "Le Nid"}}


def pause(store, *asked, session_id="chat", parent=None, user_id=None, agent_id="clerk", said="Do it."):
    """A run that waits for these; as stored."""
    run = store.start_run(session_id, input=said, agent_id=agent_id, parent_run_id=parent, user_id=user_id)
    calls = [
        ToolCall(tool_call_id=str(n), tool_name=q.get("tool_name"), args=q.get("args")) for n, q in enumerate(asked)
    ]
    store.append_messages(run.run_id, [Message(role="user", content=said), Message(role="assistant", tool_calls=calls)])
    store.pause_run(run.run_id, [Requirement(**q, tool_call_id=str(n)) for n, q in enumerate(asked)])
    return store.get_run(run.run_id)


def typed(line):
    """What a line does when it is typed."""
    words = parser.split(line.removeprefix("%kern "), {})
    verb = parser.find_verb(words[0])
    return verb.call(parser.parse(verb, words[1:]))


def stored(store, requirement_id):
    """A requirement as it is now."""
    return next(one for one in store.requirements(status=None) if one.requirement_id == requirement_id)


def key(requirement_id):
    """A requirement as scripts name it."""
    return json.dumps(requirement_id)


def until(condition, seconds=20):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not so within {seconds} s")
