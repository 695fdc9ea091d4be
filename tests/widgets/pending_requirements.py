"""Paused runs for the tests of the inbox and the chat, and the commands that equal their clicks."""

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
QUESTIONS = [
    {
        "question": "Which city?",
        "header": "City",
        "options": [{"label": "Rome", "description": "warm"}, {"label": 'St. John\'s, "NL"'}],
    },
    {
        "question": "Which days?",
        "header": None,
        "options": [{"label": "Mon", "description": None}, {"label": "2", "description": None}, {"label": "a=b"}],
        "multi_select": True,
    },
    {"question": "Anything else?", "header": "More"},
]
FEEDBACK = {
    "kind": "user_feedback",
    "tool_name": "ask_user",
    "args": {"questions": QUESTIONS},
    "extra": {"questions": QUESTIONS},
}
EXTERNAL = {"kind": "external_execution", "tool_name": "rate", "args": {"hotel": "Le Nid"}}


def pause(store, *requirements, session_id="chat", parent=None, user_id=None, agent_id="clerk", prompt="Do it."):
    """Store a run that is paused with these requirements, and return it."""
    run = store.start_run(session_id, input=prompt, agent_id=agent_id, parent_run_id=parent, user_id=user_id)
    numbered = [(str(n), fields) for n, fields in enumerate(requirements)]
    calls = [ToolCall(tool_call_id=n, tool_name=f.get("tool_name"), args=f.get("args")) for n, f in numbered]
    messages = [Message(role="user", content=prompt), Message(role="assistant", tool_calls=calls)]
    store.append_messages(run.run_id, messages)
    store.pause_run(run.run_id, [Requirement(**fields, tool_call_id=n) for n, fields in numbered])
    return store.get_run(run.run_id)


def run_command(line):
    """Run a command as if it were typed."""
    words = parser.split(line.removeprefix("%kern "), {})
    verb = parser.find_verb(words[0])
    return verb.call(parser.parse(verb, words[1:]))


def load_requirement(store, requirement_id):
    """Load a requirement."""
    return next(r for r in store.requirements(status=None) if r.requirement_id == requirement_id)


def key(requirement_id):
    """Encode the id of a requirement as scripts do."""
    return json.dumps(requirement_id)


def wait_until(condition, timeout_s=20):
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"The condition was not true within {timeout_s} s")
