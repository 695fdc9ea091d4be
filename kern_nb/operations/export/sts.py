"""A session in the Session Trace Simple Format (STS-Format), which the Hugging Face Hub shows: a header, then messages.

The format has roles, texts, reasoning, calls and times. Usage, errors and pictures are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern_nb.operations.export.chat import ChatMessage, chat_messages
from kern_nb.operations.export.conversations import Conversation
from kern_nb.operations.export.plain import to_json, without_none

HARNESS = "kern_nb"
"""The harness of a session whose agent is unknown."""


def sts_lines(conversation: Conversation) -> Iterator[str]:
    """Yield the lines of a session."""
    header = {
        "type": "session",
        "harness": conversation.owner or HARNESS,
        "id": conversation.session_id,
        "name": conversation.session.session_name,
    }
    yield to_json(without_none(header))
    for message in chat_messages(conversation):
        yield to_json({"type": "message", "message": _to_record(message)})


def _to_record(message: ChatMessage) -> dict[str, Any]:
    time = message.created_at
    calls = [{"id": c.id, "function": {"name": c.name, "arguments": c.arguments}} for c in message.calls]
    record = {
        "role": message.role,
        "content": message.content,
        "reasoningContent": message.reasoning,
        "toolCalls": calls or None,
        "toolCallId": message.tool_call_id,
        "timestamp": None if time is None else round(time.timestamp() * 1000),
        "model": message.model,
    }
    return without_none(record)
