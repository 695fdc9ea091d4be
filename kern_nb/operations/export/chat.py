"""The messages of a conversation in the shape of chat APIs, for formats that have texts and calls only.

Pictures, usage and the runs of members and steps are left out. A copy of an earlier message is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from kern_nb.operations.export.conversations import Conversation, messages_of, reasoning_of
from kern_nb.operations.export.plain import to_json
from kern_nb.records import RESULT_ROLES, Message, Run, ToolCall, is_parts, text_of

_ROLES = {"developer": "system", "function": "tool"}
_KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})


class ChatCall(NamedTuple):
    """A call; its arguments are JSON text."""

    id: str
    name: str
    arguments: str


class ChatMessage(NamedTuple):
    """A message; unknown is None."""

    role: str
    content: str
    reasoning: str | None = None
    calls: tuple[ChatCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None
    model: str | None = None
    created_at: datetime | None = None


def chat_messages(conversation: Conversation) -> Iterator[ChatMessage]:
    """Yield the messages of a conversation, those that a branch inherits first."""
    for index, run in enumerate(conversation.runs):
        messages = [m for m in messages_of(run) if index == 0 or not m.from_history]
        answered = {m.tool_call_id for m in messages if m.role in RESULT_ROLES}
        in_messages = {id(call) for message in messages for call in message.tool_calls}
        orphans = [c for c in run.tool_calls if c.message_index is None and id(c) not in in_messages]
        for message in messages:
            yield _to_chat(message, message.tool_calls)
            yield from _results(message.tool_calls, answered)
        if orphans:
            yield _to_chat(Message(role="assistant", model=run.model), orphans)
            yield from _results(orphans, answered)


def _results(calls: list[ToolCall], answered: set[str | None]) -> Iterator[ChatMessage]:
    """Yield the results of calls that no message states."""
    for call in calls:
        stem = (call.tool_call_id or "").rpartition("~")[0]
        if call.result is not None and not {call.tool_call_id, stem} & answered and None not in answered:
            yield ChatMessage("tool", _result_text(call.result), None, (), call.tool_call_id, call.tool_name)


def _to_chat(message: Message, calls: list[ToolCall]) -> ChatMessage:
    role = _ROLES.get(message.role, message.role)
    is_result = message.role in RESULT_ROLES
    return ChatMessage(
        role=role if role in _KNOWN_ROLES else "system",
        content=_result_text(message.content) if is_result else _text(message.content),
        reasoning=None if is_result else reasoning_of(message),
        calls=tuple(_to_call(call) for call in calls),
        tool_call_id=message.tool_call_id,
        tool_name=message.tool_name if is_result else None,
        model=message.model,
        created_at=message.created_at,
    )


def _text(content: Any) -> str:
    """The text of a message, without reasoning and pictures; a value as JSON."""
    if content is None or isinstance(content, str):
        return content or ""
    if not is_parts(content):
        return to_json(content)
    texts = [part for part in content if isinstance(part, str) or part["type"] in ("text", "input_text", "output_text")]
    return text_of([part if isinstance(part, dict) else {"type": "text", "text": part} for part in texts]) or ""


def _result_text(content: Any) -> str:
    """The text of a result: of parts that are texts, else the JSON of the value."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and is_parts(content):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part["type"] == "text"]
        known = [text for text in texts if isinstance(text, str)]
        if len(known) == len(content):
            return "\n".join(known)
    return to_json(content)


def _to_call(call: ToolCall) -> ChatCall:
    arguments = call.args if isinstance(call.args, str) else to_json({} if call.args is None else call.args)
    return ChatCall(call.tool_call_id or "", call.tool_name or "", arguments)


def stated_models(runs: list[Run]) -> list[str]:
    """The models of the answers, each once."""
    models = (m.model or run.model for run in runs for m in messages_of(run) if m.role == "assistant")
    return list(dict.fromkeys(model for model in models if model))
