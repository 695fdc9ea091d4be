"""Messages of ChatGPT: their contents, which have some twenty types, calls and results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import json_type
from kern_nb.ingest.parsing.times import to_time, to_time_from_ms
from kern_nb.ingest.parsing.values import to_args, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall

Record = dict[str, Any]

_ROLES = ("user", "assistant", "system", "tool")
_MAPPED_FIELDS = frozenset({"id", "author", "create_time", "content"})
_TEXT_FIELDS = ("text", "result", "content", "summary")
_MAPPED_CONTENT = frozenset({"content_type", "parts", "thoughts", *_TEXT_FIELDS})
_INSTRUCTIONS = ("user_editable_context", "model_editable_context")
_MEDIA = {"image": "image", "audio": "audio", "video": "video"}


def is_message(value: Any) -> bool:
    """Whether a value is a message: it has an author and a content."""
    if not isinstance(value, dict) or not isinstance(value.get("author"), dict):
        return False
    return isinstance(value["author"].get("role"), str) and isinstance(value.get("content"), (dict, str))


def time_of(message: Record) -> datetime | None:
    """When a message was written, in unix seconds; some tools that edit exports write ISO text."""
    time = message.get("create_time")
    if type(time) in (int, float) and time:
        return to_time_from_ms(min(time, 1e15) * 1000)
    return to_time(time)


def is_hidden(message: Record) -> bool:
    """Whether the page does not show a message."""
    metadata, kind = to_object(message.get("metadata")), to_object(message.get("content")).get("content_type")
    return (
        metadata.get("is_visually_hidden_from_conversation") is True
        or (type(message.get("weight")) in (int, float) and message["weight"] == 0)
        or kind in _INSTRUCTIONS
    )


def parse_line(line: Sequence[tuple[str, Record]]) -> list[SourceMessage]:
    """Parse the messages of a line, each with its key.

    Results belong to the calls of their tool before them, in order; further ones to the latest such call. A result of
    a tool that was not called belongs to the latest call without a result.
    """
    parsed = []
    calls: list[ToolCall] = []
    pending: list[ToolCall] = []
    has_results = False
    for key, record in line:
        message = _parse(record)
        is_prompt = message.role == "user" and not is_hidden(record)
        if is_prompt:
            calls.clear()
        if is_prompt or (message.tool_calls and has_results):
            pending, has_results = [], False
        calls += message.tool_calls
        pending += message.tool_calls
        if message.role == "tool":
            own = [call for call in pending if _is_same_tool(call.tool_name, message.tool_name)]
            own = own or [call for call in calls if _is_same_tool(call.tool_name, message.tool_name)][-1:]
            answered = next(iter(own or pending[-1:]), None)
            message.tool_call_id = answered.tool_call_id if answered else None
            pending, has_results = [call for call in pending if call is not answered], True
        parsed.append(SourceMessage(message, record, key, is_prompt))
    return parsed


def _is_same_tool(called: str | None, author: str | None) -> bool:
    """A call of "web.run" is answered by "web.run" or "web"."""
    return called is not None and author is not None and called.partition(".")[0] == author.partition(".")[0]


def _parse(record: Record) -> Message:
    author, content = record["author"], record["content"]
    content = {"content_type": "text", "parts": [content]} if isinstance(content, str) else content
    metadata, kind = to_object(record.get("metadata")), content.get("content_type")
    role = author["role"] if author["role"] in _ROLES else "system"
    extra = {key: value for key, value in record.items() if key not in _MAPPED_FIELDS and value not in (None, {})}
    extra |= {"author": author} if author.get("metadata") or role != author["role"] else {}
    extra |= {"content_type": kind} if kind not in (None, "text") else {}
    extra |= {"hidden": True} if is_hidden(record) else {}
    details = without(content, _MAPPED_CONTENT)
    parts, others = _to_parts(content, kind)
    details |= {"parts": others} if others else {}
    message = Message(
        role=role,
        content=_simplify(parts),
        message_id=to_id(record.get("id")),
        created_at=time_of(record),
        extra=extra,
    )
    if role == "tool":
        message.tool_name = to_text(author.get("name"))
        message.is_error = _find_error(kind, metadata)
    elif role == "assistant":
        message.model = to_text(metadata.get("model_slug"))
        finish = to_object(metadata.get("finish_details")).get("type")
        message.partial = True if finish == "interrupted" or record.get("status") == "in_progress" else None
        recipient = to_text(record.get("recipient"))
        if recipient not in (None, "all"):
            message.tool_calls = [_to_call(recipient, message, details)]
            message.content, details = None, {}
    if details:
        message.extra["content"] = details
    return message


def _to_call(recipient: str | None, message: Message, details: Record) -> ToolCall:
    """The call that a message to a tool is. Its text is JSON or code."""
    text = message.content
    args: Any = text
    notes: Record = {}
    language = details.get("language")
    if isinstance(text, str) and (language == "json" or text.lstrip().startswith("{")):
        args, notes = to_args(text)
    extra = details | (notes if language == "json" else {})
    call_id = message.message_id
    return ToolCall(tool_call_id=call_id, tool_name=recipient, args=args, created_at=message.created_at, extra=extra)


def _find_error(kind: Any, metadata: Record) -> bool | None:
    """Whether a tool failed: the result of code states it, and an error of the system is one."""
    if kind == "system_error":
        return True
    status = to_object(metadata.get("aggregate_result")).get("status")
    if not isinstance(status, str):
        return None
    return True if status.startswith("failed") else False if status == "success" else None


def _to_parts(content: Record, kind: Any) -> tuple[list[Any], list[Any]]:
    """The message parts of a content, and the parts of it that are none."""
    parts: list[Any] = []
    others: list[Any] = []
    if kind in _INSTRUCTIONS:
        texts = [value for key, value in content.items() if key != "content_type" and isinstance(value, str) and value]
        return [{"type": "text", "text": text} for text in texts], []
    if kind == "reasoning_recap" and isinstance(content.get("content"), str):
        return [{"type": "thinking", "thinking": content["content"]}], []
    for thought in to_list(content.get("thoughts")):
        words = [to_text(to_object(thought).get(name)) for name in ("summary", "content")]
        if text := "\n".join(word for word in words if word):
            parts.append({"type": "thinking", "thinking": text})
    for part in to_list(content.get("parts")):
        _add_part(part, parts, others)
    for name in _TEXT_FIELDS:
        value = content.get(name)
        if isinstance(value, str) and value and not any(isinstance(p, dict) and p["type"] == "text" for p in parts):
            parts.append({"type": "text", "text": value})
        elif value not in (None, ""):
            others.append({name: value})
    return parts, others


def _add_part(part: Any, parts: list[Any], others: list[Any]) -> None:
    if isinstance(part, str):
        if part:
            parts.append({"type": "text", "text": part})
        return
    kind = part.get("content_type") if isinstance(part, dict) else json_type(part)
    kind = kind if isinstance(kind, str) else ""
    media = next((media for word, media in _MEDIA.items() if word in kind), None)
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        parts.append(part | {"type": "text"})
    elif isinstance(part, dict) and media:
        parts.append(part | {"type": media})
    elif part is not None:
        others.append(part)


def _simplify(parts: list[Any]) -> Any:
    """Plain text if all parts are that."""
    if all(isinstance(part, dict) and part.keys() == {"type", "text"} for part in parts):
        return "\n".join(part["text"] for part in parts) if parts else None
    return parts
