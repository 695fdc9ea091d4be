"""Conversations in the layout of OpenAI's chat API, in three variants, which a file may mix.

* one conversation per line, ``{"messages": [...]}``; the other fields of the line are metadata,
* one list of messages per line,
* one message per line: all of them are one session, named after the file.

A document that is a list of conversations is read, too.

The layout has no times, usage or cost: they stay unknown. A session's id is the record's own (``id``, ``session_id`` or
``conversation_id``), else the name of the file and the number of the line.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.json_source import Source, Value
from kern_nb.ingest.report import Problem
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.records import RESULT_ROLES, Message, Session, ToolCall

NAME = "chat"

_IDS = ("id", "session_id", "conversation_id")
# The fields of a message that map to fields of `Message`; the others go to `extra`.
_MAPPED_FIELDS = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "model"})


class Chat(Importer):
    """Conversations in the layout of OpenAI's chat API."""

    name = NAME
    reads = "conversations in the layout of OpenAI's chat API"
    is_generic = True

    def recognizes(self, source: Source) -> bool:
        """A message, a list of messages, an object with one, or a list of such objects."""
        return any(map(_is_chat, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per conversation; that of the single messages comes last."""
        return _read(source)


def _is_chat(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_chat(value["messages"]) if "messages" in value else _is_message(value)
    return isinstance(value, list) and bool(value) and (_is_message(value[0]) or _is_conversation(value[0]))


def _is_message(value: Any) -> bool:
    """Items of the Responses API and records of coding agents have a ``type``; messages have none."""
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "type" not in value


def _is_conversation(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value


def _read(source: Source) -> Iterator[Draft | Problem]:
    stem = PurePath(source.name).stem
    single: list[Value] = []
    line = position = 0
    for item in _records(source):
        if isinstance(item, Problem):
            yield item
            continue
        position, line = (position + 1 if item.line == line else 1), item.line
        name = f"{stem}-{line}" if position == 1 else f"{stem}-{line}.{position}"
        try:
            if isinstance(item.value, dict) and not _is_conversation(item.value):
                _parse_message(item.value, 0)  # so that a malformed one does not reject the others
                single.append(item)
            else:
                yield _draft(source, name, item)
        except RECORD_ERRORS as error:
            yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")
    if single:
        yield _draft(source, stem, Value(single[0].line, [item.value for item in single]))


def _records(source: Source) -> Iterator[Value | Problem]:
    """Yield the values of a file, and each conversation of a list."""
    for item in source.values():
        if isinstance(item, Value) and isinstance(item.value, list) and any(map(_is_conversation, item.value)):
            yield from (Value(item.line, value) for value in item.value)
        else:
            yield item


def _draft(source: Source, name: str, item: Value) -> Draft:
    record = {"messages": item.value} if isinstance(item.value, list) else item.value
    messages = require_field(record, "messages", list, "the record")
    ids = [record[key] for key in _IDS if type(record.get(key)) in (str, int) and record[key] != ""]
    session_id = str(ids[0]) if ids else name
    model: Any = record.get("model")
    model = model if isinstance(model, str) else None
    parsed = [_parse_message(message, index, model) for index, message in enumerate(messages)]
    _assign_function_ids([item.message for item in parsed])
    runs, hashes, keys = split_runs(session_id, parsed, model)
    fields = {key: value for key, value in record.items() if key != "messages"}
    line = item.line  # the closure below must not keep the whole record alive
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(session_id=session_id, metadata={"file": source.name, "line": line, **_flatten(fields)}),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields),
        source=NAME,
    )


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of a conversation's own ``metadata`` to the top level, so that users can filter by them."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict) or any(key in fields for key in metadata):
        return fields
    return metadata | {key: value for key, value in fields.items() if key != "metadata"}


def _parse_message(record: Any, index: int, model: str | None = None) -> SourceMessage:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord(f"message {index} must be an object with a role")
    role: str = record["role"]
    extra = {key: value for key, value in record.items() if key not in _MAPPED_FIELDS}
    calls = [_parse_call(call) for call in record.get("tool_calls") or ()]
    if record.get("function_call"):
        calls.append(_parse_call({"type": "function_call", "function": record["function_call"]}))
    try:
        message = Message(
            role=role,
            content=record.get("content"),
            tool_calls=calls,
            tool_call_id=record.get("tool_call_id"),
            tool_name=extra.pop("name", None) if role in RESULT_ROLES else None,
            model=record.get("model") or (model if role == "assistant" else None),
            message_id=extra.pop("id") if isinstance(extra.get("id"), str) else None,
            extra=extra,
        )
    except RECORD_ERRORS as error:
        raise MalformedRecord(f"message {index}: {error_text(error)}") from error
    return SourceMessage(message, record)


def _parse_call(record: dict[str, Any]) -> ToolCall:
    extra = {key: value for key, value in record.items() if (key, value) != ("type", "function")}
    call_id = extra.pop("id", None)
    body = extra.pop("function", None) or extra.pop("custom", None) or extra
    if body is extra:  # a call without the nested `function` object
        arguments, name = extra.pop("arguments", None), extra.pop("name", None)
    else:
        arguments, name = body.get("arguments", body.get("input")), body.get("name")
        extra |= {key: value for key, value in body.items() if key not in ("name", "arguments", "input")}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):  # models do write invalid JSON
            extra["args_invalid"] = True
    return ToolCall(tool_call_id=call_id, tool_name=name, args=arguments, extra=extra)


def _assign_function_ids(messages: list[Message]) -> None:
    """Assign ids to calls of the older variant, which has none: results come in order, by the name of the function."""
    pending: dict[str | None, deque[str]] = defaultdict(deque)
    for index, message in enumerate(messages):
        for call in message.tool_calls:
            if call.tool_call_id is None:
                call.tool_call_id = f"function_call_{index}"
                pending[call.tool_name].append(call.tool_call_id)
        if message.role == "function" and message.tool_call_id is None and pending[message.tool_name]:
            message.tool_call_id = pending[message.tool_name].popleft()
