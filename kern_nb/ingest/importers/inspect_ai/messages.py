"""The messages of an inspect_ai sample, with the usage and times that only its events state."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.importers.inspect_ai.events import ModelCall, SampleEvents, message_key
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import (
    checked_id,
    first_text,
    to_args,
    to_count,
    to_id,
    to_list,
    to_number,
    to_object,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import PART_TYPES, Message, ToolCall, Usage

_MAPPED_FIELDS = frozenset({"id", "role", "content", "tool_calls", "tool_call_id", "function", "model"})
_MAPPED_CALL_FIELDS = frozenset({"id", "function", "arguments", "type", "parse_error"})


class Answers:
    """The model calls of a thread by their answers: each is the call of one message."""

    def __init__(self, calls: Iterable[ModelCall]) -> None:
        self._calls: dict[str, deque[ModelCall]] = {}
        for call in calls:
            if call.output is not None:
                self._calls.setdefault(message_key(call.output), deque()).append(call)

    def take(self, message: dict[str, Any]) -> ModelCall | None:
        """Remove and return the call that wrote a message."""
        calls = self._calls.get(message_key(message)) if message.get("role") == "assistant" else None
        return calls.popleft() if calls else None

    def rest(self) -> Iterator[ModelCall]:
        """The calls that no message took."""
        for calls in self._calls.values():
            yield from calls


def parse_message(
    record: dict[str, Any], call: ModelCall | None, transcript: SampleEvents, model: Any, *, is_summary: bool = False
) -> SourceMessage:
    """A message of a sample or of an event; raise MalformedRecord if it has no role or a value of a wrong type."""
    role = record.get("role")
    if not isinstance(role, str):
        raise MalformedRecord("a message must have a role")
    extra = without(record, _MAPPED_FIELDS)
    event = call.event if call else {}
    error = record.get("error") or record.get("tool_error")  # the latter in version 1
    result_of = _take_tool(transcript, record.get("tool_call_id")) if role == "tool" else {}
    stated = [event.get("completed"), event.get("timestamp"), result_of.get("completed")]
    is_compaction = is_summary or bool(to_object(record.get("metadata")).get("summary"))
    if is_compaction:
        extra["compaction"] = True
    content = _parse_content(record.get("content"), extra)
    if role == "assistant" and isinstance(record.get("reasoning"), str):  # version 1
        text = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
        content = [{"type": "reasoning", "reasoning": extra.pop("reasoning")}, *text]
    if role == "tool" and not content:
        content = error.get("message") if isinstance(error, dict) else error
    usage = None
    if call is not None and call.usage is not None:
        extra["usage"] = call.usage
        usage = None if event.get("cache") == "read" else parse_usage(call.usage)
    try:
        message = Message(
            role=role,
            content=content,
            tool_calls=[_parse_call(item, transcript) for item in to_list(record.get("tool_calls"))],
            tool_call_id=checked_id(record.get("tool_call_id")) if role == "tool" else None,
            tool_name=record.get("function") if role == "tool" else None,
            is_error=bool(error) if role == "tool" else None,
            model=_model_of(record, event, model) if role == "assistant" else None,
            message_id=checked_id(record.get("id")),
            usage=usage,
            created_at=next((time for time in map(to_time, stated) if time is not None), None),
            extra=extra,
        )
    except RECORD_ERRORS as problem:
        raise MalformedRecord(f"a message: {error_text(problem)}") from problem
    record = {key: value for key, value in record.items() if key != "id"}
    return SourceMessage(message, [record, extra.get("usage"), stated], None, False if is_compaction else None)


def parse_usage(usage: dict[str, Any]) -> Usage:
    """The usage of a model call.

    Providers count cached tokens beside the input or in it, and reasoning beside the output or in it: the total tells.
    """
    counts = {key: to_count(usage.get(key)) for key in usage}
    read, write = counts.get("input_tokens_cache_read"), counts.get("input_tokens_cache_write")
    input_tokens, output, total = (counts.get(key) for key in ("input_tokens", "output_tokens", "total_tokens"))
    cached, reasoning = (read or 0) + (write or 0), counts.get("reasoning_tokens") or 0
    rest = None if total is None or input_tokens is None else total - input_tokens - (output or 0)
    if input_tokens is not None and rest not in (0, reasoning):
        input_tokens += cached
    if output is not None and reasoning and rest in (reasoning, reasoning + cached) and rest != cached:
        output += reasoning
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=counts.get("reasoning_tokens"),
        total_tokens=total,
        cost=to_number(usage.get("total_cost")),
    )


def _model_of(record: dict[str, Any], event: dict[str, Any], model: Any) -> str | None:
    if record.get("source") == "input":  # written by the author of the sample
        return None
    names = (record.get("model"), to_object(event.get("output")).get("model"), event.get("model"), model)
    return first_text(names)


def _take_tool(transcript: SampleEvents, call_id: Any) -> dict[str, Any]:
    events = transcript.tools.get(to_id(call_id) or "")
    return events[0] if events else {}


def _parse_call(record: dict[str, Any], transcript: SampleEvents) -> ToolCall:
    extra = without(record, _MAPPED_CALL_FIELDS)
    args, notes = to_args(record.get("arguments"))
    if record.get("parse_error"):
        notes = {"args_invalid": True, "parse_error": record["parse_error"]}
    if record.get("type") not in (None, "function"):
        extra["type"] = record["type"]
    event = _take_tool(transcript, record.get("id"))
    start, end = to_time(event.get("timestamp")), to_time(event.get("completed"))
    duration = (end - start).total_seconds() if start and end and end >= start else None
    return ToolCall(
        tool_call_id=checked_id(record.get("id")),
        tool_name=record.get("function"),
        args=args,
        duration_s=duration if duration is not None else to_number(event.get("working_time")),
        created_at=start,
        extra=extra | notes,
    )


def _parse_content(content: Any, extra: dict[str, Any]) -> Any:
    """The content of a message; parts of an unknown type become text, and are kept in ``extra``."""
    if not isinstance(content, list) or not any(isinstance(part, dict) and "type" in part for part in content):
        return content
    unknown = [part for part in content if not _is_part(part)]
    if unknown:
        extra["parts"] = unknown
    return [part if _is_part(part) else {"type": "text", "text": json.dumps(part)} for part in content]


def _is_part(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in PART_TYPES)
