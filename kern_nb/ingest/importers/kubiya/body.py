"""The body that a worker posts to Kubiya's control plane, told apart from other records with messages."""

from __future__ import annotations

import re
from typing import Any

from kern_nb.ingest.parsing.values import to_object

_METADATA = frozenset({"organization_id", "runtime_type", "turn_count"})
_REPLY = frozenset({"session_id", "execution_id", "message_count"})
_FIELDS = _REPLY | {"user_id", "messages", "metadata"}
_WITH_EXECUTION = re.compile(r".+_((user|assistant|system)_\d+(_pre|_post)?|tool_.+)", re.DOTALL)
_TOOL_FIELDS = frozenset({"tool_execution_id", "tool_output", "tool_status"})


def is_control_plane_body(value: Any) -> bool:
    """Whether a record is the body of a write or the reply of a read: its fields, metadata or messages say so."""
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not ("session_id" in value or "execution_id" in value):
        return False
    if value.keys() >= _REPLY:
        return True
    if len(_METADATA & to_object(value.get("metadata")).keys()) > 1:
        return True
    if any(map(is_tool_message, messages)):
        return True
    return value.keys() <= _FIELDS and any(map(has_execution, messages))


def has_execution(message: Any) -> bool:
    """Whether the id of a message begins with that of its execution, as ``<execution>_user_1``."""
    message_id = to_object(message).get("message_id")
    return isinstance(message_id, str) and _WITH_EXECUTION.fullmatch(message_id) is not None


def is_tool_message(message: Any) -> bool:
    """Whether a message has the result of a tool, whatever its role."""
    if not isinstance(message, dict):
        return False
    return message.get("message_type") == "tool_result" or bool(_TOOL_FIELDS & message.keys())
