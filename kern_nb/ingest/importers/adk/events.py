"""The events of a session of Google's ADK as messages.

Keys are in snake case in databases and in camel case in exports: events are read, and compared, in snake case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import (
    drop_null,
    first_count,
    first_text,
    sum_present,
    to_id,
    to_list,
    to_object,
    to_text,
)
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall, Usage

_CAPITAL = re.compile("[A-Z]")
_MEDIA = ("image", "audio", "video")
_EXTRA = (
    "branch", "error_code", "error_message", "finish_reason", "long_running_tool_ids", "custom_metadata",
    "grounding_metadata", "citation_metadata", "output", "isolation_scope",
)  # fmt: skip
_ERRORS = frozenset({"error_code", "error_message"})
# What is in these is the program's or the user's: its keys are names, not fields.
_FOREIGN = frozenset({"args", "response", "state_delta", "artifact_delta", "custom_metadata", "output"})
_FOREIGN |= {"requested_auth_configs", "requested_tool_confirmations"}
_EMPTY: tuple[Any, ...] = (None, {}, [], "")


def get(record: Any, name: str) -> Any:
    """The value of a key in either case."""
    fields = to_object(record)
    if name in fields:
        return fields[name]
    first, *others = name.split("_")
    return fields.get(first + "".join(word.title() for word in others))


def _snake_case(value: Any) -> Any:
    if isinstance(value, list):
        return [_snake_case(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {key: _CAPITAL.sub(lambda match: f"_{match[0].lower()}", key) for key in value}
    return {name: value[key] if name in _FOREIGN else _snake_case(value[key]) for key, name in names.items()}


class Event(NamedTuple):
    """An event: its record, its invocation, and the messages in it."""

    record: dict[str, Any]
    invocation_id: str | None
    messages: list[SourceMessage]

    @property
    def rewinds_before(self) -> str | None:
        """The invocation before which the session goes on: from there on, events are annulled."""
        return to_id(get(get(self.record, "actions"), "rewind_before_invocation_id"))


def parse_event(record: Any) -> Event:
    """Parse an event; raise MalformedRecord if it is none."""
    if not isinstance(record, dict):
        raise MalformedRecord("an event must be an object")
    record = _snake_case(record)
    messages = _messages(record)
    event_id = to_id(get(record, "id"))
    facts = {key: value for key, value in record.items() if key not in ("id", "timestamp")}
    sources = [
        SourceMessage(message, [facts, index], event_id and f"{event_id}:{index}", _starts_run(record, message))
        for index, message in enumerate(messages)
    ]
    return Event(record, to_id(get(record, "invocation_id")), sources)


def _starts_run(record: dict[str, Any], message: Message) -> bool:
    return message.role == "user" and get(record, "author") == "user" and "compaction" not in message.extra


def _messages(record: dict[str, Any]) -> list[Message]:
    """The messages of an event: what a person or an agent said, and one for each tool result."""
    content = record.get("content")
    if content is not None and not isinstance(content, dict):
        raise MalformedRecord("the content of an event must be an object")
    extra = {name: record[name] for name in _EXTRA if record.get(name) not in _EMPTY}
    actions = to_object(record.get("actions"))
    if stated := {key: value for key, value in actions.items() if value not in _EMPTY}:
        extra["actions"] = stated
    if isinstance(actions.get("compaction"), dict):
        text = "\n".join(_texts(actions["compaction"].get("compacted_content")))
        messages = [Message(role="user", content=text, extra={"compaction": True})]
    else:
        parts = to_list(get(content, "parts"))
        messages = [*_said(record, parts, extra), *(_result(r) for p in parts if (r := get(p, "function_response")))]
    if messages:
        messages[0].extra |= extra
        messages[0].message_id = to_id(record.get("id"))
    for message in messages:
        message.created_at = parse_time(record.get("timestamp"))
        if message.role == "assistant":
            message.model = to_text(record.get("model_version"))
            message.usage = _usage(to_object(record.get("usage_metadata")), message)
    return messages


def _said(record: dict[str, Any], parts: list[Any], extra: dict[str, Any]) -> list[Message]:
    """What a person or an agent said, if anything; parts that no message can hold go to ``extra``."""
    author = to_text(record.get("author"))
    calls = [_call(call) for part in parts if (call := get(part, "function_call"))]
    body, others = _content(parts)
    if others:
        extra["other_parts"] = others
    if body is None and not calls:
        body = _transcription(record)
    is_result = any(get(part, "function_response") for part in parts)
    if body is None and not calls and (is_result or not extra.keys() & _ERRORS):
        return []
    is_person = author == "user" or (author is None and get(record.get("content"), "role") == "user")
    if author and not is_person:
        extra["author"] = author
    is_partial = record.get("interrupted") is True and not is_person
    role = "user" if is_person else "assistant"
    return [Message(role=role, content=body, tool_calls=calls, partial=True if is_partial else None)]


def _content(parts: list[Any]) -> tuple[Any, list[Any]]:
    """The content of a message, and the parts that it cannot hold."""
    content: list[dict[str, Any]] = []
    others = []
    for part in parts:
        text = get(part, "text")
        data, file = get(part, "inline_data"), get(part, "file_data")
        code, outcome = get(part, "executable_code"), get(part, "code_execution_result")
        if isinstance(text, str) and text:
            is_thought = get(part, "thought") is True
            content.append({"type": "thinking", "thinking": text} if is_thought else {"type": "text", "text": text})
        elif isinstance(data, dict) or isinstance(file, dict):
            content.append(_media(data or file))
        elif isinstance(code, dict):
            language = str(get(code, "language") or "").lower()
            content.append({"type": "text", "text": f"```{language}\n{get(code, 'code') or ''}\n```"})
        elif isinstance(outcome, dict):
            content.append({"type": "text", "text": f"```\n{get(outcome, 'output') or ''}\n```"})
        elif not (get(part, "function_call") or get(part, "function_response")) and part not in _EMPTY:
            others.append(part)
    return simplify(content) or None, others


def _media(data: dict[str, Any]) -> dict[str, Any]:
    media_type = str(get(data, "mime_type") or "")
    kind = media_type.split("/", maxsplit=1)[0]
    part = {"type": kind if kind in _MEDIA else "file", "mime_type": media_type or None}
    part |= {"data": get(data, "data"), "url": get(data, "file_uri"), "name": get(data, "display_name")}
    return drop_null(part)


def _texts(content: Any) -> Iterable[str]:
    texts = (get(part, "text") for part in to_list(get(content, "parts")))
    return [text for text in texts if isinstance(text, str)]


def _transcription(record: dict[str, Any]) -> str | None:
    """What was said in a live session with audio."""
    texts = (get(get(record, name), "text") for name in ("input_transcription", "output_transcription"))
    return first_text(texts)


def _call(call: Any) -> ToolCall:
    if not isinstance(call, dict):
        raise MalformedRecord("a function call must be an object")
    extra = {key: value for key, value in call.items() if key not in ("id", "name", "args") and value not in _EMPTY}
    name = to_text(get(call, "name"))
    return ToolCall(tool_call_id=to_id(get(call, "id")), tool_name=name, args=get(call, "args"), extra=extra)


def _result(result: Any) -> Message:
    """A tool's result; ``error`` is where Gemini's API expects the description of a failure."""
    if not isinstance(result, dict):
        raise MalformedRecord("a function response must be an object")
    response = get(result, "response")
    return Message(
        role="tool",
        content=response,
        tool_call_id=to_id(get(result, "id")),
        tool_name=to_text(get(result, "name")),
        is_error=True if to_object(response).get("error") else None,
    )


def _usage(counts: dict[str, Any], message: Message) -> Usage | None:
    """Gemini counts thoughts beside the answer, and cached tokens within the prompt."""
    if not counts:
        return None
    message.extra["usage"] = counts
    by_name = {name: get(counts, f"{name}_token_count") for name in ("prompt", "candidates", "thoughts", "total")}
    by_name |= {name: get(counts, f"{name}_token_count") for name in ("cached_content", "tool_use_prompt")}
    return Usage(
        input_tokens=sum_present([first_count(by_name, "prompt"), first_count(by_name, "tool_use_prompt")]),
        output_tokens=sum_present([first_count(by_name, "candidates"), first_count(by_name, "thoughts")]),
        cache_read_tokens=first_count(by_name, "cached_content"),
        reasoning_tokens=first_count(by_name, "thoughts"),
        total_tokens=first_count(by_name, "total"),
    )
