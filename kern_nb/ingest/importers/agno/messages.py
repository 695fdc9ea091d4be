"""The messages and tool calls of a run of Agno.

A tool's result is stored twice, as a message and in the run's ``tools``, which also have the times of a call, what a
person decided about it, and what was not kept as messages (``store_tool_messages=False``). A message ``from_history``
is a copy of one from an earlier run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kern_nb.extra_keys import ORIGINAL_ARGS
from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.importers.agno.metrics import to_usage
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import (
    checked_id,
    drop_null,
    to_args,
    to_duration,
    to_flag,
    to_id,
    to_list,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import RESULT_ROLES, Message, ToolCall, is_parts

_MEDIA = {"images": "image", "videos": "video", "audio": "audio", "files": "file"}
_MEDIA_FIELDS = frozenset({"content", "filepath", "mime_type", "format"})
_MESSAGE_FIELDS = frozenset(
    {"id", "role", "content", "name", "tool_name", "tool_call_id", "tool_calls", "tool_call_error", "tool_args",
     "from_history", "metrics", "created_at", *_MEDIA}
)  # fmt: skip
_CALL_FIELDS = frozenset({"id", "type", "function"})
_EXECUTION_FIELDS = frozenset(
    {"tool_call_id", "tool_name", "tool_args", "tool_call_error", "result", "metrics", "created_at"}
)


@dataclass
class Conversation:
    """The messages of a run, and the calls that no message has."""

    messages: list[SourceMessage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def parse_conversation(data: Mapping[str, Any], run_id: str) -> Conversation:
    """The messages and calls of a run; what cannot be read is a problem."""
    parsed = Conversation()
    model = to_text(data.get("model_provider")), to_text(data.get("model"))
    for index, record in enumerate(to_list(data.get("messages"))):
        try:
            parsed.messages.append(_parse_message(record, f"{run_id}:{index}", model))
        except RECORD_ERRORS as error:
            parsed.problems.append(f"message {index} of run {run_id!r} is not imported: {error_text(error)}")
    own = [item.message for item in parsed.messages if not item.message.from_history]
    calls = {call.tool_call_id: call for message in own for call in message.tool_calls}
    answered = {message.tool_call_id for message in own if message.role in RESULT_ROLES}
    for index, record in enumerate(to_list(data.get("tools"))):
        try:
            execution = _parse_execution(record)
            call = calls.get(execution.tool_call_id) if execution.tool_call_id is not None else None
            if call is None:
                parsed.calls.append(execution)
            else:
                _complete(call, execution, has_answer=call.tool_call_id in answered)
        except RECORD_ERRORS as error:
            parsed.problems.append(f"tool call {index} of run {run_id!r} is not imported: {error_text(error)}")
    return parsed


def _parse_message(record: Any, default_key: str, model: tuple[str | None, str | None]) -> SourceMessage:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord("it has no role")
    is_copy = record.get("from_history") is True
    message = Message(
        role=record["role"],
        content=record.get("content"),
        tool_calls=[_parse_call(call) for call in to_list(record.get("tool_calls"))],
        tool_call_id=checked_id(record.get("tool_call_id")),
        tool_name=to_text(record.get("tool_name")) or to_text(record.get("name")),
        is_error=to_flag(record.get("tool_call_error")),
        usage=to_usage(record.get("metrics"), *model),
        message_id=to_id(record.get("id")),
        created_at=parse_time(record.get("created_at")),
        from_history=is_copy or None,
        extra=_extra(record),
    )
    if message.usage is not None:
        message.extra["usage"] = record["metrics"]
    _add_parts(message, record)
    if is_copy:  # its own run counts its calls and tokens
        calls = [drop_null({"tool_name": call.tool_name, "args": call.args}) for call in message.tool_calls]
        message.extra |= {"tool_calls": calls} if calls else {}
        message.tool_calls, message.usage = [], None
    key = message.message_id or default_key
    return SourceMessage(message, record, f"{key}:history" if is_copy else key, False if is_copy else None)


def _extra(record: Mapping[str, Any]) -> dict[str, Any]:
    extra = without(record, _MESSAGE_FIELDS)
    if extra.get("stop_after_tool_call") is False:
        del extra["stop_after_tool_call"]
    return extra


def _add_parts(message: Message, record: Mapping[str, Any]) -> None:
    """Make reasoning and media parts of the content, beside its text."""
    media = [part for name in _MEDIA for part in media_parts(record, name)]
    is_result = message.role in RESULT_ROLES  # whose content is a value
    is_value = not (message.content is None or isinstance(message.content, str) or is_parts(message.content))
    if is_result or is_value:
        message.extra |= {"media": media} if media else {}
        return
    parts: list[Any] = []
    if reasoning := to_text(message.extra.pop("reasoning_content", None)):
        parts.append({"type": "reasoning", "reasoning": reasoning})
    if not parts and not media:
        return
    if isinstance(message.content, list):
        parts += message.content
    elif message.content:
        parts.append({"type": "text", "text": message.content})
    message.content = simplify(parts + media)


def media_parts(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The media of a message or a run as parts; a path or URL is named, not opened."""
    kind = _MEDIA[name]
    value = record.get(name)
    parts = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue
        media_type = to_text(item.get("mime_type"))
        if media_type is None and kind != "file" and (suffix := to_text(item.get("format"))):
            media_type = f"{kind}/{suffix}"
        part = {"type": kind, "mime_type": media_type, "path": item.get("filepath")}
        part["content" if kind == "file" else "data"] = item.get("content")
        parts.append(drop_null(part | without(item, _MEDIA_FIELDS)) | {"type": kind})
    return parts


def _parse_call(record: Any) -> ToolCall:
    call = to_object(record)
    function = to_object(call.get("function")) or call
    args, notes = to_args(next((function[key] for key in ("arguments", "args") if key in function), None))
    fields = _CALL_FIELDS if function is not call else _CALL_FIELDS | {"name", "arguments", "args"}
    return ToolCall(
        tool_call_id=checked_id(call.get("id")),
        tool_name=to_text(function.get("name")),
        args=args,
        extra=without(call, fields) | notes,
    )


def _parse_execution(record: Any) -> ToolCall:
    if not isinstance(record, dict):
        raise MalformedRecord("it is not an object")
    failed = to_flag(record.get("tool_call_error"))
    result = record.get("result")
    times = to_object(record.get("metrics"))
    extra = without(record, _EXECUTION_FIELDS)
    if extra.get("stop_after_tool_call") is False:
        del extra["stop_after_tool_call"]
    return ToolCall(
        tool_call_id=checked_id(record.get("tool_call_id")),
        tool_name=to_text(record.get("tool_name")),
        args=record.get("tool_args"),
        result=result,
        status="failed" if failed else "completed" if result is not None else None,
        duration_s=to_duration(times.get("duration")),
        created_at=parse_time(times.get("start_time")) or parse_time(record.get("created_at")),
        extra=extra,
    )


def _complete(call: ToolCall, execution: ToolCall, *, has_answer: bool) -> None:
    """Add to a call of a message what the run states of its execution."""
    call.duration_s, call.created_at = execution.duration_s, execution.created_at
    call.extra |= execution.extra
    if not has_answer:
        call.result, call.status = execution.result, execution.status
    if isinstance(execution.args, dict) and execution.args and execution.args != call.args:
        call.internal = {ORIGINAL_ARGS: call.args}  # a person changed them, or the model wrote invalid ones
        call.args = execution.args
