"""The messages of entries of a pi session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kern_nb.ingest.parsing import times
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.values import sum_present, to_count, to_flag, to_id, to_number, without
from kern_nb.ingest.run_splitter import SourceMessage, hash_content
from kern_nb.records import PART_TYPES, Message, ToolCall, Usage

Record = dict[str, Any]

SUMMARIES = frozenset({"compaction", "branch_summary"})
"""The types of entries that summarize what is before them, or an abandoned branch."""

_ROLES = {"user": "user", "assistant": "assistant", "toolResult": "tool", "system": "system"}
_MAPPED = frozenset({"role", "content", "toolCallId", "toolName", "isError", "model", "timestamp"})
_ENTRY_FIELDS = frozenset({"type", "id", "parentId", "timestamp", "message", "content", "summary"})
_MAX_COUNT = 2**53


def is_message(entry: Record) -> bool:
    """Whether an entry is a message: said, called, returned, typed in the shell, or a summary."""
    kind, message = entry.get("type"), entry.get("message")
    if isinstance(kind, str) and kind in SUMMARIES:
        return isinstance(entry.get("summary"), str)
    if kind == "custom_message":
        return _is_content(entry.get("content"))
    if kind != "message" or not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    is_shell = isinstance(message.get("command"), str) or isinstance(message.get("summary"), str)
    return is_shell or _is_content(message.get("content"))


def _is_content(content: Any) -> bool:
    return isinstance(content, str) or (isinstance(content, list) and all(isinstance(p, (dict, str)) for p in content))


def to_time(value: Any) -> datetime | None:
    """An ISO time or unix milliseconds in UTC; None if it is neither."""
    return times.to_time(value) or times.to_time_from_ms(value)


def time_of(entry: Record, *, copied: bool) -> datetime | None:
    """When an entry was written, else the time of its message; the entries of a copy are ``copied`` later."""
    message = entry.get("message")
    stated = to_time(message.get("timestamp")) if isinstance(message, dict) else None
    written = to_time(entry.get("timestamp"))
    return (stated or written) if copied and "id" not in entry else (written or stated)


def parse_entry(entry: Record, label: Any = None, *, copied: bool = False) -> SourceMessage:
    """Parse an entry that is a message."""
    body = entry["message"] if entry["type"] == "message" else entry
    role = body["role"] if entry["type"] == "message" else entry["type"]
    message = Message(role=_ROLES.get(role, "system" if "summary" in body else "user"))
    message.created_at = time_of(entry, copied=copied)
    hidden = _MAPPED if entry["type"] == "message" else _ENTRY_FIELDS
    message.extra = without(body, hidden)
    if role == "assistant":
        _fill_answer(message, body)
    elif role == "toolResult":
        message.content = simplify(body.get("content"))
        message.tool_call_id, message.tool_name = to_id(body.get("toolCallId")), to_id(body.get("toolName"))
        message.is_error = to_flag(body.get("isError"))
    elif "command" in body and not _is_content(body.get("content")):
        message.content = f"$ {body['command']}\n{body['output'] if isinstance(body.get('output'), str) else ''}"
        message.extra.pop("output", None)
    else:
        message.content = body["summary"] if isinstance(body.get("summary"), str) else _parts(message, body["content"])
        message.extra.pop("summary", None)
        if role in ("compaction", "compactionSummary"):
            message.extra["compaction"] = True
    if role not in ("user", "assistant", "toolResult"):
        message.extra["role"] = role
    if isinstance(body.get("usage"), dict):
        message.usage = parse_usage(body["usage"])
    record: list[Any] = [{key: value for key, value in body.items() if key not in ("id", "parentId", "timestamp")}]
    if label is not None:
        message.extra["label"] = label
        record.append(label)
    message.message_id = to_id(entry.get("id"))
    return SourceMessage(message, record, _key_of(entry, message), role == "user")


def _key_of(entry: Record, message: Message) -> str:
    if message.message_id is not None:
        return f"{message.message_id}@{entry.get('timestamp')}:{hash_content(message)}"
    body = entry.get("message")
    time = body.get("timestamp") if isinstance(body, dict) else None
    return f"{time or entry.get('timestamp')}:{hash_content(message)}"


def _fill_answer(message: Message, body: Record) -> None:
    content = body.get("content")
    parts = content if isinstance(content, list) else [content]
    message.tool_calls = [
        _parse_call(part, message.created_at) for part in parts if isinstance(part, dict) and _kind(part) == "toolCall"
    ]
    message.content = _parts(message, [part for part in parts if _kind(part) != "toolCall"]) or None
    message.model = to_id(body.get("model"))


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def _parse_call(part: Record, created_at: datetime | None) -> ToolCall:
    extra = {key: value for key, value in part.items() if key not in ("type", "id", "name", "arguments")}
    args = part.get("arguments")
    return ToolCall(
        tool_call_id=to_id(part.get("id")),
        tool_name=to_id(part.get("name")),
        args=args,
        created_at=created_at,
        extra=extra | ({"args_invalid": True} if isinstance(args, str) else {}),
    )


def _parts(message: Message, content: Any) -> Any:
    """A content without the parts of unknown types, which go to ``extra``: they would hide its text."""
    if not isinstance(content, list):
        return content
    is_part = [
        isinstance(part, str) or (isinstance(_kind(part), str) and _kind(part) in PART_TYPES) for part in content
    ]
    others = [part for part, is_part_ in zip(content, is_part, strict=True) if not is_part_]
    if others:
        message.extra["parts"] = others
    return simplify([part for part, is_part_ in zip(content, is_part, strict=True) if is_part_])


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """The usage of a response: input tokens include cached ones."""
    fresh, read, written = (to_count(usage.get(key)) for key in ("input", "cacheRead", "cacheWrite"))
    output = to_count(usage.get("output"))
    cost = usage.get("cost")
    total = to_number(cost.get("total") if isinstance(cost, dict) else cost)
    if total == 0 and any((fresh, read, written, output)):
        total = None
    return Usage(
        input_tokens=sum_present([fresh, read, written]),
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=to_count(usage.get("reasoning")),
        cost=total,
    )
