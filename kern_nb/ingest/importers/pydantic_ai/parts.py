"""The messages of a request or a response of pydantic-ai, by the kinds of its parts."""

from __future__ import annotations

from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import drop_null, to_args, to_id, to_text
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall, Usage

_FAILED, _COMPLETED = ("failed", "retried"), "success"
_MEDIA = ("image", "audio", "video", "document")
_CALLS = ("tool-call", "builtin-tool-call")
_RESULTS = ("tool-return", "builtin-tool-return")
_COUNTS = {
    "input_tokens": ("input_tokens", "request_tokens"),
    "output_tokens": ("output_tokens", "response_tokens"),
    "cache_read_tokens": ("cache_read_tokens",),
    "cache_write_tokens": ("cache_write_tokens",),
    "reasoning_tokens": ("output_reasoning_tokens",),
}
_MAX_TOKENS = 10**15


def parse_request(record: dict[str, Any]) -> list[SourceMessage]:
    """The messages of a request, one for each part."""
    messages: list[SourceMessage] = []
    others: list[Any] = []
    for part in record["parts"]:
        item = _parse_request_part(_require_part(part))
        if item is None:
            others.append(part)
            continue
        item.message.created_at = item.message.created_at or to_time(record.get("timestamp"))
        messages.append(item)
    if messages:
        facts = {"parts": others, "metadata": record.get("metadata")}
        messages[-1].message.extra |= {key: value for key, value in facts.items() if value}
    return messages


def _parse_request_part(part: dict[str, Any]) -> SourceMessage | None:
    """The message of a part; None for one that says nothing, such as a change of settings."""
    kind, content = part["part_kind"], part.get("content")
    message = Message(role="user", created_at=to_time(part.get("timestamp")))
    if kind == "system-prompt":
        message.role, message.content = "system", content
    elif kind == "user-prompt":
        message.content = _parse_user_content(content)
        return SourceMessage(message, None, starts_run=True)
    elif kind in _RESULTS or (kind == "retry-prompt" and part.get("tool_name")):
        _set_result(message, part, is_retry=kind == "retry-prompt")
    elif kind in ("retry-prompt", "retry-feedback", "compaction"):
        message.content = content
        message.extra = {"compaction": True} if kind == "compaction" else {"part_kind": kind}
        return SourceMessage(message, None, starts_run=False)
    elif kind == "speech":
        message.content = _text_of(part)
        return SourceMessage(message, None, starts_run=True)
    else:
        return None
    return SourceMessage(message, None)


def parse_response(record: dict[str, Any]) -> list[SourceMessage]:
    """The message of a response, and those of the tools that the provider has run meanwhile."""
    parts: list[Any] = []
    others: list[Any] = []
    results: list[SourceMessage] = []
    message = Message(role="assistant", created_at=to_time(record.get("timestamp")))
    for part in record["parts"]:
        kind, content = _require_part(part)["part_kind"], part.get("content")
        if kind in ("text", "speech"):
            parts += [{"type": "text", "text": _text_of(part)}] if _text_of(part) else []
        elif kind == "thinking":
            kept = ("id", "signature", "provider_name")
            facts = {name: part[name] for name in kept if part.get(name) is not None}
            parts.append({"type": "thinking", "thinking": content, **facts})
        elif kind in _CALLS:
            message.tool_calls.append(_parse_call(part))
        elif kind in _RESULTS:
            result = Message(role="tool", created_at=to_time(part.get("timestamp")))
            _set_result(result, part)
            results.append(SourceMessage(result, None))
        elif kind == "file":
            parts.append(_parse_media(content))
        elif kind == "compaction":
            parts += [{"type": "text", "text": content}] if isinstance(content, str) else []
            message.extra["compaction"] = True
        else:
            others.append(part)
    is_text = len(parts) == 1 and parts[0]["type"] == "text"
    message.content = parts[0]["text"] if is_text else parts or None
    _set_facts(message, record)
    message.extra |= {"parts": others} if others else {}
    return [SourceMessage(message, None), *results]


def _set_facts(message: Message, record: dict[str, Any]) -> None:
    name, identifier = record.get("model_name"), record.get("provider_response_id", record.get("vendor_id"))
    message.model = name if isinstance(name, str) and name else None
    message.message_id = identifier if isinstance(identifier, str) and identifier else None
    message.partial = True if record.get("state") in ("interrupted", "incomplete") else None
    message.usage = _parse_usage(record.get("usage"))
    names = ("usage", "finish_reason", "provider_name", "provider_details", "metadata", "failed_attempts", "state")
    message.extra |= {name: record[name] for name in names if record.get(name) not in (None, {}, [], "complete")}


def _parse_usage(record: Any) -> Usage | None:
    if not isinstance(record, dict):
        return None
    counts: dict[str, int | None] = {}
    for field, names in _COUNTS.items():
        values = (record.get(name) for name in names)
        counts[field] = next((v for v in values if type(v) is int and 0 <= v < _MAX_TOKENS), None)
    details = record.get("details")
    if counts["reasoning_tokens"] is None and isinstance(details, dict):
        value = details.get("reasoning_tokens")
        counts["reasoning_tokens"] = value if type(value) is int and 0 <= value < _MAX_TOKENS else None
    if not counts["input_tokens"] and not counts["output_tokens"]:
        return None
    try:
        cost = float(record.get("cost") or 0)
    except (TypeError, ValueError, OverflowError):
        cost = 0
    is_stated = 0 < cost < float("inf")
    return Usage(**counts, cost=cost if is_stated else None)


def _set_result(message: Message, part: dict[str, Any], *, is_retry: bool = False) -> None:
    outcome, name, content = part.get("outcome"), part.get("tool_name"), part.get("content")
    message.role, message.content = "tool", content
    message.tool_call_id = to_id(part.get("tool_call_id"))
    message.tool_name = name if isinstance(name, str) and name else None
    if is_retry or outcome in _FAILED:
        message.is_error = True
    elif outcome == _COMPLETED:
        message.is_error = False
    facts: dict[str, Any] = {"outcome": outcome if outcome != _COMPLETED else None, "metadata": part.get("metadata")}
    facts |= {"retry": part.get("retry"), "part_kind": part["part_kind"] if is_retry else None}
    message.extra = drop_null(facts)


def _parse_call(part: dict[str, Any]) -> ToolCall:
    args, name = part.get("args"), part.get("tool_name")
    extra: dict[str, Any] = {"native": True} if part["part_kind"] == "builtin-tool-call" else {}
    args, notes = to_args(args)
    call = ToolCall(tool_call_id=to_id(part.get("tool_call_id")), args=args, extra=extra | notes)
    call.tool_name = name if isinstance(name, str) and name else None
    return call


def _parse_user_content(content: Any) -> Any:
    """The content of a prompt: text, or parts under the types that the store knows."""
    if not isinstance(content, list):
        return content
    parts: list[dict[str, Any]] = []
    for item in content:
        if isinstance(item, str):
            parts.append({"type": "text", "text": item})
        elif isinstance(item, dict) and item.get("kind") == "text-content":
            parts.append({"type": "text", "text": item.get("content")})
        elif not isinstance(item, dict) or item.get("kind") != "cache-point":
            parts.append(_parse_media(item))
    return parts


def _parse_media(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"type": "file", "content": value}
    names = [str(value.get("kind")).partition("-")[0], str(value.get("media_type")).partition("/")[0]]
    kind = next((name for name in names if name in _MEDIA), "file")
    kind = f"{kind}_url" if isinstance(value.get("url"), str) and kind != "file" else kind
    return {"type": kind, **{key: item for key, item in value.items() if key != "type" and item is not None}}


def _text_of(part: dict[str, Any]) -> str | None:
    return to_text(part.get("content", part.get("transcript")))


def _require_part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict) or not isinstance(part.get("part_kind"), str):
        raise MalformedRecord("a part must be an object with a part_kind")
    return part
