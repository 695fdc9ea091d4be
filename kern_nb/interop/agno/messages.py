"""Messages and tool calls of Agno's runs.

Agno states a call in a message, with its arguments as JSON text, and again in the run's ``tools``, with its result. In
a store, both are one call. A copy of an earlier run's message, marked by ``from_history``, has no calls of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kern_nb.interop.agno.usage import metrics_from_usage, usage_from_metrics
from kern_nb.interop.agno.values import (
    JsonObject,
    restore,
    split,
    to_float,
    to_seconds,
    to_text,
    to_time,
    without_none,
)
from kern_nb.records import RESULT_ROLES, Message, ToolCall

AGNO = "agno"
"""In ``internal``: how a record differs from Agno's dict of it. Records with this key are Agno's."""

_TOOL_KEYS: JsonObject = dict.fromkeys(
    (
        "tool_call_id", "tool_name", "tool_args", "tool_call_error", "result", "metrics", "child_run_id",
        "stop_after_tool_call", "created_at", "requires_confirmation", "confirmed", "confirmation_note",
        "requires_user_input", "user_input_schema", "user_feedback_schema", "answered", "external_execution_required",
        "external_execution_silent", "approval_type", "approval_id", "parent_tool_call_id",
    )
) | {"stop_after_tool_call": False}  # fmt: skip
"""What Agno writes of every tool execution, mostly None."""

_NESTED = ("metrics",)


def calls_from_agno(
    messages: Sequence[JsonObject], tools: Sequence[JsonObject], repeated: int
) -> tuple[dict[str, ToolCall], bool]:
    """The calls of a run by id, and whether its lists can be rebuilt from them; otherwise they are kept as they are.

    Each call must have an id of its own, and be of this run: the first ``repeated`` messages are another's.
    """
    stated: list[JsonObject] = []
    copied: set[Any] = set()  # ids
    for index, message in enumerate(messages):
        calls_of_message = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
        if index < repeated:
            copied |= {call.get("id") for call in calls_of_message}
        elif not message.get("from_history"):
            stated += calls_of_message
    executions = [tool for tool in tools if tool.get("tool_call_id") not in copied]
    message_ids, tool_ids = [call.get("id") for call in stated], [tool.get("tool_call_id") for tool in executions]
    counts = (*Counter(map(str, message_ids)).values(), *Counter(map(str, tool_ids)).values())
    is_exact = all(isinstance(i, str) and i for i in (*message_ids, *tool_ids)) and max(counts, default=1) == 1
    is_exact = is_exact and len(executions) == len(tools)
    by_id = {str(tool.get("tool_call_id")): tool for tool in executions}
    calls: dict[str, ToolCall] = {}
    for call in stated:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        args = _decode_args(function.get("arguments"))
        call_id = to_text(call.get("id"))
        calls[call_id or f"call_{len(calls) + 1}"] = _call(
            by_id.get(call_id or ""), call_id, function.get("name"), args
        )
    for tool in executions:
        if (call_id := str(tool.get("tool_call_id"))) not in calls:
            calls[call_id] = _call(tool, to_text(tool.get("tool_call_id")), None, None)
    return calls, is_exact


def _decode_args(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _call(tool: JsonObject | None, call_id: str | None, name: Any, args: Any) -> ToolCall:
    """One call, from its execution and from its message."""
    tool = tool or {}
    metrics = tool.get("metrics")
    failed, result = tool.get("tool_call_error"), tool.get("result")
    call = ToolCall(
        tool_call_id=call_id,
        tool_name=to_text(tool.get("tool_name")) or to_text(name),
        args=args if tool.get("tool_args") is None else tool["tool_args"],
        result=result,
        status="failed" if failed else "completed" if failed is False or result is not None else None,
        duration_s=to_float(metrics.get("duration")) if isinstance(metrics, dict) else None,
        created_at=to_time(tool.get("created_at")),
    )
    if tool:
        rest, note = split(tool, _tool_columns(call), _NESTED)
        if result is None:
            rest["result"] = None  # the store has the content of the tool's message
        call.extra, call.internal = rest, {AGNO: note}
    return call


def _tool_columns(call: ToolCall) -> JsonObject:
    """What Agno's dict of a tool execution has from columns."""
    columns = {"tool_call_id": call.tool_call_id, "tool_name": call.tool_name, "tool_args": call.args}
    columns |= {"tool_call_error": call.is_error, "result": call.result, "created_at": to_seconds(call.created_at)}
    columns["metrics"] = None if call.duration_s is None else {"duration": call.duration_s}
    return _TOOL_KEYS | columns


def tool_to_agno(call: ToolCall) -> JsonObject:
    """Agno's dict of a tool execution."""
    columns = _tool_columns(call)
    if AGNO in call.internal:
        return restore(columns, call.extra, call.internal[AGNO], _NESTED)
    result = columns["result"]
    columns["result"] = result if result is None or isinstance(result, str) else json.dumps(result, default=str)
    columns["tool_args"] = call.args if isinstance(call.args, dict) else None
    return columns


def message_from_agno(
    data: JsonObject,
    calls: dict[str, ToolCall],
    provider: str | None,
    model: str | None,
    *,
    is_exact: bool,
    is_repeated: bool,
) -> Message:
    """A message of a store; ``calls`` are those of its run. A repeated one is another run's."""
    role = to_text(data.get("role")) or "user"
    is_copy = is_repeated or data.get("from_history") is True
    message = Message(
        role=role,
        content=data.get("content"),
        message_id=to_text(data.get("id")),
        tool_call_id=to_text(data.get("tool_call_id")),
        tool_name=to_text(data.get("tool_name")),
        is_error=error if type(error := data.get("tool_call_error")) is bool else None,
        model=model if role == "assistant" and not is_copy else None,
        usage=usage_from_metrics(data.get("metrics"), provider),
        created_at=to_time(data.get("created_at")),
        from_history=True if is_copy else None,
    )
    if not is_copy:
        ids = [call.get("id") for call in data.get("tool_calls") or () if isinstance(call, dict)]
        message.tool_calls = [calls[call_id] for call_id in ids if call_id in calls]
    rest, note = split(data, _message_columns(message, provider, is_exact=is_exact), _NESTED)
    message.extra, message.internal = rest, {AGNO: note}
    return message


def message_to_agno(message: Message, provider: str | None, *, is_exact: bool = True) -> JsonObject:
    """Agno's dict of a message."""
    columns = _message_columns(message, provider, is_exact=is_exact)
    if AGNO in message.internal:
        return restore(columns, message.extra, message.internal[AGNO], _NESTED)
    if not isinstance(columns.get("content"), (str, type(None), list)):
        columns["content"] = json.dumps(message.content, default=str, ensure_ascii=False)
    return columns


def _message_columns(message: Message, provider: str | None, *, is_exact: bool) -> JsonObject:
    """What Agno's dict of a message has from columns."""
    columns: JsonObject = {
        "id": message.message_id,
        "content": message.content,
        "role": message.role,
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
        "tool_call_error": message.is_error if message.role in RESULT_ROLES else None,
        "metrics": metrics_from_usage(message.usage, provider),
        "created_at": to_seconds(message.created_at),
    }
    if is_exact and message.tool_calls:
        columns["tool_calls"] = [_call_to_agno(call) for call in message.tool_calls]
    marks = {"from_history": message.from_history is True, "stop_after_tool_call": False}
    return without_none(columns) | marks


def _call_to_agno(call: ToolCall) -> JsonObject:
    """A call in Agno's dict of a message."""
    text = call.args if isinstance(call.args, str) else json.dumps(call.args or {}, default=str)
    function = {"name": call.tool_name, "arguments": text}
    return {"id": call.tool_call_id, "type": "function", "function": function}
