"""The messages of LangChain as values: in states of LangGraph, in saved histories, in runs of LangSmith.

One message occurs in four layouts: its fields (``{"type": "human", "content": ...}``), the fields under ``data``
(``message_to_dict``), the fields as the ``kwargs`` of a constructor (``dumpd``; nothing is constructed), and a message
of the chat API (``{"role": "user", ...}``). Its ``usage_metadata`` counts cached tokens as input tokens, as kern_nb
does.
"""

from __future__ import annotations

from typing import Any

from kern_nb.ingest.importer import MalformedRecord, json_type
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import drop_null, first_text, to_args, to_cost, to_id, to_list, to_object
from kern_nb.records import PART_TYPES, RESULT_ROLES, Message, ToolCall, Usage

ROLES = {
    "human": "user", "ai": "assistant", "tool": "tool", "system": "system", "function": "function", "chat": "user",
    "user": "user", "assistant": "assistant", "developer": "developer", "generic": "user",
}  # fmt: skip
"""The roles by the type of a message; a message of the type "chat" states its own."""

REMOVE = "remove"
"""The type of the order to remove a message from a state."""

_CALL_PARTS = frozenset({"tool_use", "tool_call", "function_call", "input_json_delta", "tool_call_chunk"})
# The fields that map to fields of `Message`, or repeat those; the others go to `extra`.
_MAPPED_FIELDS = frozenset(
    {"type", "role", "content", "tool_calls", "invalid_tool_calls", "tool_call_id", "id", "usage_metadata"}
    | {"tool_call_chunks", "example", "status"}
)


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a message in any layout, with its ``type``; None if the value is no message."""
    if not isinstance(value, dict):
        return None
    kind, fields = value.get("type"), value
    if isinstance(value.get("lc"), int):
        path, fields = value.get("id"), to_object(value.get("kwargs"))
        if not isinstance(path, list) or not path:
            return None
        kind = str(path[-1]).removesuffix("Chunk")
        if not kind.endswith("Message"):
            return None
        kind = fields.get("type") or kind.removesuffix("Message").lower()
    elif isinstance(value.get("data"), dict) and "content" not in value:
        fields = value["data"]
    elif "content" not in value and kind != REMOVE and not value.get("tool_calls"):
        return None
    elif isinstance(value.get("role"), str) and kind in (None, "message"):
        kind = value["role"]
    kind = str(kind).removesuffix("MessageChunk").lower()
    return fields | {"type": kind} if kind in ROLES or kind == REMOVE else None


def parse_message(value: Any, created_at: Any = None) -> Message:
    """Parse a message of any layout; raise MalformedRecord for anything else."""
    fields = fields_of(value)
    if fields is None or fields["type"] == REMOVE:
        raise MalformedRecord(f"a message must have a type and a content, got {json_type(value)}")
    role = ROLES[fields["type"]]
    if fields["type"] in ("chat", "generic") and isinstance(fields.get("role"), str):
        role = ROLES.get(fields["role"], fields["role"])
    extra = {key: item for key, item in fields.items() if key not in _MAPPED_FIELDS and item is not None and item != {}}
    calls = _parse_calls(fields, extra)
    response = to_object(fields.get("response_metadata"))
    name = extra.pop("name", None) if role in RESULT_ROLES else None
    status = fields.get("status")
    usage = _parse_usage(fields, response, extra)
    return Message(
        role=role,
        content=_content(fields.get("content"), {call.tool_call_id for call in calls}, role, extra),
        tool_calls=calls,
        tool_call_id=to_id(fields.get("tool_call_id")),
        tool_name=name if isinstance(name, str) else None,
        is_error={"error": True, "success": False}.get(status) if isinstance(status, str) else None,
        model=_first_text(response, "model_name", "model", "model_id") if role == "assistant" else None,
        message_id=to_id(fields.get("id")),
        usage=usage,
        created_at=created_at,
        extra=extra,
    )


def provider_of(message: Message) -> str | None:
    """The provider that a message states."""
    return _first_text(to_object(message.extra.get("response_metadata")), "model_provider", "ls_provider")


def _parse_calls(fields: dict[str, Any], extra: dict[str, Any]) -> list[ToolCall]:
    calls = [_parse_call(call) for call in to_list(fields.get("tool_calls"))]
    for call in to_list(fields.get("invalid_tool_calls")):
        parsed = _parse_call(call)
        parsed.extra["args_invalid"] = True
        calls.append(parsed)
    kwargs = extra.get("additional_kwargs")
    if isinstance(kwargs, dict):  # the provider's own layout: the only one before `tool_calls` was a field
        kwargs = dict(kwargs)
        raw, function = to_list(kwargs.pop("tool_calls", None)), kwargs.pop("function_call", None)
        if not calls:
            calls = [_parse_call(call) for call in raw]
            calls += [_parse_call({"function": function})] if isinstance(function, dict) else []
        extra["additional_kwargs"] = kwargs
        if not kwargs:
            del extra["additional_kwargs"]
    return calls


def _parse_call(call: Any) -> ToolCall:
    if not isinstance(call, dict):
        raise MalformedRecord(f"a tool call must be an object, got {json_type(call)}")
    extra = {key: value for key, value in call.items() if key not in ("id", "name", "args", "type", "function")}
    extra = drop_null(extra)
    body = to_object(call.get("function"))
    name, args = call.get("name", body.get("name")), call.get("args", body.get("arguments"))
    args, notes = to_args(args)
    return ToolCall(
        tool_call_id=to_id(call.get("id")),
        tool_name=name if isinstance(name, str) else None,
        args=args,
        extra=extra | notes,
    )


def _content(content: Any, call_ids: set[str | None], role: str, extra: dict[str, Any]) -> Any:
    """Content without the parts that repeat tool calls; parts that no message has otherwise go to ``extra``."""
    thoughts = to_object(extra.get("additional_kwargs")).get("reasoning_content")
    if isinstance(thoughts, str) and thoughts and isinstance(content, str):
        text = [{"type": "text", "text": content}] if content else []
        return [{"type": "reasoning", "reasoning": thoughts}, *text]
    if not isinstance(content, list) or role in RESULT_ROLES:
        return content
    kept: list[Any] = []
    others: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if (
            isinstance(kind, str)
            and kind in _CALL_PARTS
            and (call_ids & {part.get("id"), part.get("call_id")} or kind == "input_json_delta")
        ):
            continue
        is_known = isinstance(part, str) or (isinstance(kind, str) and kind in PART_TYPES)
        (kept if is_known else others).append(part)
    if others and not kept:
        return content
    if others:
        extra["other_parts"] = others
    return kept if kept or not content else None


def _parse_usage(fields: dict[str, Any], response: dict[str, Any], extra: dict[str, Any]) -> Usage | None:
    stated = to_object(fields.get("usage_metadata"))
    older = to_object(response.get("token_usage") or response.get("usage"))
    if stated:
        extra["usage"] = stated
    usage = parse_usage(stated or older)
    if cost := to_cost(older.get("cost")):
        usage = (usage or Usage()).model_copy(update={"cost": cost})
    return usage


def _first_text(fields: dict[str, Any], *names: str) -> str | None:
    return first_text(fields.get(name) for name in names)
