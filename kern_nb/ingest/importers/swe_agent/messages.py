"""Messages of SWE-agent and mini-swe-agent: those of the APIs of models, with what the agent adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import READ_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import to_time, to_time_from_ms
from kern_nb.ingest.parsing.values import (
    first_count,
    to_args,
    to_cost,
    to_count,
    to_id,
    to_list,
    to_number,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import PART_TYPES, Message, ToolCall, Usage

Record = dict[str, Any]

_MAPPED_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "tool_call_ids", "thinking_blocks", "output", "name")
_RESULT = "function_call_output"
_MAPPED_EXTRA = ("response", "model_response", "cost", "timestamp")


@dataclass(slots=True)
class Step:
    """A step of a trajectory, and whether the history has it."""

    record: Record
    is_said: bool = False

    @classmethod
    def of(cls, record: Any) -> Step:
        """A step from its record; one that is no object is empty."""
        return cls(to_object(record))

    @property
    def seconds(self) -> float | None:
        """How long the action took."""
        return to_number(self.record.get("execution_time"))


def parse_messages(history: Sequence[Any], steps: list[Step]) -> tuple[list[SourceMessage], list[tuple[int, str]]]:
    """The messages of a history, and the positions of those that are malformed, with the reasons.

    Without a history, the steps have the answers and observations. The times of the steps go to their calls.
    """
    if not any(isinstance(record, dict) and "role" in record for record in history):
        history = [record for step in steps for record in _to_history(step)]
    messages: list[SourceMessage] = []
    errors: list[tuple[int, str]] = []
    next_step, has_task = 0, False
    for index, record in enumerate(history):
        try:
            message = _parse(record)
        except READ_ERRORS as error:
            errors.append((index, error_text(error)))
            continue
        is_demo = _is_demo(record)
        is_task = message.role == "user" and not is_demo and not has_task
        has_task = has_task or is_task
        if message.role == "tool":
            _answer_others(message, messages)
        messages.append(SourceMessage(message, record, None, is_task))
        if message.role == "assistant" and not is_demo:
            next_step = _find_step(record, message, steps, next_step)
    return messages, errors


def _answer_others(result: Message, before: list[SourceMessage]) -> None:
    """Complete the other calls of an answer, if one message is the result of several."""
    ids = to_list(result.extra.get("tool_call_ids"))[1:]
    answer = next((item.message for item in reversed(before) if item.message.role == "assistant"), None)
    for call in answer.tool_calls if answer and ids else ():
        if call.tool_call_id in ids:
            call.result, call.status = result.content, "completed"


def _is_demo(record: Record) -> bool:
    """Whether a message is of a demonstration, which is no turn: not every version marks it in the same way."""
    return record.get("is_demo") is True or record.get("message_type") == "demonstration"


def _to_history(step: Step) -> list[Record]:
    record = step.record
    answer = {"role": "assistant", "content": record.get("response"), "action": record.get("action")}
    return [answer, {"role": "user", "content": record.get("observation"), "message_type": "observation"}]


def _find_step(record: Record, message: Message, steps: list[Step], first: int) -> int:
    """Find the step of an answer by its action, and add its time; return the position after it."""
    action = to_text(record.get("action"))
    if action is None:
        return first
    for index in range(first, len(steps)):
        step = steps[index]
        if str(step.record.get("action")).strip() == action.strip():
            step.is_said = True
            if len(message.tool_calls) == 1:
                message.tool_calls[0].duration_s = step.seconds
            elif step.seconds is not None:
                message.extra["execution_time"] = step.seconds
            return index + 1
    return first


def _parse(record: Any) -> Message:
    if not isinstance(record, dict):
        raise MalformedRecord("it must be an object")
    role = to_text(record.get("role"))
    if role is None and record.get("type") == _RESULT:
        return _parse_result(record)
    if role is None and isinstance(record.get("output"), list):
        return _parse_response(record)
    if role is None:
        raise MalformedRecord("it has no role")
    details = to_object(record.get("extra"))
    extra = without(record, (*_MAPPED_FIELDS, "extra", "timestamp")) | without(details, _MAPPED_EXTRA)
    ids = [call_id for value in to_list(record.get("tool_call_ids")) if (call_id := to_id(value))]
    if len(ids) > 1:
        extra["tool_call_ids"] = ids
    message = Message(role=role, content=_to_content(record), created_at=_time_of(record, details), extra=extra)
    if role == "tool":
        message.tool_call_id = ids[0] if ids else to_id(record.get("tool_call_id"))
        message.tool_name = to_text(record.get("name"))
    calls = [_to_call(call, message.created_at) for call in to_list(record.get("tool_calls")) if isinstance(call, dict)]
    if _is_demo(record):
        message.extra |= {"tool_calls": record["tool_calls"]} if calls else {}
    else:
        message.tool_calls = calls
    if role == "assistant":
        _set_usage(message, details)
    return message


def _to_content(record: Record) -> Any:
    """The content: thinking, then text. A list of other parts is kept as the message has it."""
    content = record.get("content")
    thinking = [block for block in to_list(record.get("thinking_blocks")) if _is_part(block)]
    if not thinking and isinstance(record.get("reasoning_content"), str) and record["reasoning_content"]:
        thinking = [{"type": "thinking", "thinking": record["reasoning_content"]}]
    if isinstance(content, list) and content and all(map(_is_part, content)):
        return simplify([*thinking, *(without(part, ("cache_control",)) for part in content)]) or None
    if thinking and isinstance(content, str):
        return [*thinking, *([{"type": "text", "text": content}] if content else [])]
    return content


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] in PART_TYPES


def _parse_response(record: Record) -> Message:
    """An answer as the Responses API states it."""
    parts: list[Any] = []
    calls: list[ToolCall] = []
    for item in map(to_object, to_list(record.get("output"))):
        if item.get("type") == "message":
            parts += [part for part in to_list(item.get("content")) if _is_part(part)]
        elif item.get("type") == "reasoning":
            parts += [{**part, "type": "reasoning"} for part in to_list(item.get("summary")) if isinstance(part, dict)]
        elif item.get("type") == "function_call":
            calls.append(_to_call({"id": item.get("call_id") or item.get("id"), "function": item}, None))
    details = to_object(record.get("extra"))
    message = Message(
        role="assistant",
        content=parts or None,
        tool_calls=calls,
        message_id=to_id(record.get("id")),
        created_at=_time_of(record, details),
        extra=without(details, _MAPPED_EXTRA),
    )
    _set_usage(message, details | {"response": record})
    return message


def _parse_result(record: Record) -> Message:
    """The output of a call, as the Responses API has it."""
    details = to_object(record.get("extra"))
    return Message(
        role="tool",
        content=record.get("output"),
        tool_call_id=to_id(record.get("call_id")),
        created_at=_time_of(record, details),
        extra=without(record, ("type", "call_id", "output", "extra", "timestamp")) | without(details, _MAPPED_EXTRA),
    )


def _to_call(record: Record, time: datetime | None) -> ToolCall:
    function = to_object(record.get("function"))
    args, notes = to_args(function.get("arguments"))
    return ToolCall(
        tool_call_id=to_id(record.get("id")),
        tool_name=to_text(function.get("name")),
        args=args,
        created_at=time,
        extra=notes,
    )


def _time_of(record: Record, details: Record) -> datetime | None:
    """Unix seconds, or ISO text."""
    for time in (details.get("timestamp"), record.get("timestamp")):
        seconds = to_number(time)
        if seconds is not None:
            return to_time_from_ms(seconds * 1000)
        if (stated := to_time(time)) is not None:
            return stated
    return None


def _set_usage(message: Message, details: Record) -> None:
    """The usage and the model that the response states, which mini-swe-agent keeps."""
    response = to_object(details.get("response")) or to_object(details.get("model_response"))
    usage, cost = to_object(response.get("usage")), to_cost(details.get("cost"))
    cached = to_object(usage.get("prompt_tokens_details")) or to_object(usage.get("input_tokens_details"))
    reasoning = to_object(usage.get("completion_tokens_details")) or to_object(usage.get("output_tokens_details"))
    counts = Usage(
        input_tokens=first_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=first_count(usage, "completion_tokens", "output_tokens"),
        cache_read_tokens=first_count(cached | usage, "cached_tokens", "cache_read_input_tokens"),
        cache_write_tokens=to_count(usage.get("cache_creation_input_tokens")),
        reasoning_tokens=to_count(reasoning.get("reasoning_tokens")),
        cost=cost,
    )
    message.model = to_text(response.get("model"))
    if counts != Usage():
        message.usage = counts
        message.extra |= {"usage": usage} if usage else {}
