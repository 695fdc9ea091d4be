"""Conversations in the layout of OpenAI's chat API, in three spellings, which a file may mix.

* one conversation a line, ``{"messages": [...]}``; what else the line says is metadata,
* one list of messages a line,
* one message a line: together they are one session, named after the file.

A document that is a list of conversations is read, too.

The layout has no times, usage or cost: they stay unknown. A session's id is the line's own (``id``, ``session_id`` or
``conversation_id``), else the file's name and the line's number.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from kern_nb.ingest.importer import AMISS, Draft, Malformed, hash_of, need, why
from kern_nb.ingest.json_source import Source, Value
from kern_nb.ingest.report import Problem
from kern_nb.ingest.run_splitter import Said, runs_of
from kern_nb.records import Message, Session, ToolCall

NAME = "chat"
READS = "conversations in the layout of OpenAI's chat API"

_IDS = ("id", "session_id", "conversation_id")
# The fields of a message that have a place of their own; the rest is kept in `extra`.
_PLACED = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "model"})
_RESULTS = ("tool", "function")


def recognises(value: Any) -> bool:
    """A message, a list of messages, an object with one, or a list of such objects."""
    if isinstance(value, dict):
        return recognises(value["messages"]) if "messages" in value else _is_message(value)
    return isinstance(value, list) and bool(value) and (_is_message(value[0]) or _is_conversation(value[0]))


def _is_message(value: Any) -> bool:
    """Items of the Responses API and the records of coding agents are told by their ``type``."""
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "type" not in value


def _is_conversation(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value


def read(source: Source) -> Iterator[Draft | Problem]:
    """One draft a conversation; that of the single messages comes last."""
    stem = PurePath(source.name).stem
    place = hash_of(str(source.path.absolute()))
    single: list[Value] = []
    line = nth = 0
    for found in _records(source):
        if isinstance(found, Problem):
            yield found
            continue
        nth, line = (nth + 1 if found.line == line else 1), found.line
        name = f"{stem}-{line}" if nth == 1 else f"{stem}-{line}.{nth}"
        try:
            if isinstance(found.value, dict) and not _is_conversation(found.value):
                _said(found.value, 0)  # a bad one is left out by itself
                single.append(found)
            else:
                yield _draft(source, name, place, found)
        except AMISS as error:
            yield Problem(source.name, line, f"The record is left out: {why(error)}.")
    if single:
        record = {"messages": [found.value for found in single]}
        yield _draft(source, stem, place, Value(single[0].line, record))


def _records(source: Source) -> Iterator[Value | Problem]:
    """The values of a file; of a list of conversations, each one."""
    for found in source.values():
        if isinstance(found, Value) and isinstance(found.value, list) and any(map(_is_conversation, found.value)):
            yield from (Value(found.line, value) for value in found.value)
        else:
            yield found


def _draft(source: Source, name: str, place: str, found: Value) -> Draft:
    record = {"messages": found.value} if isinstance(found.value, list) else found.value
    messages = need(record, "messages", list, "it")
    given = [record[key] for key in _IDS if type(record.get(key)) in (str, int) and record[key] != ""]
    session_id = str(given[0]) if given else name
    model: Any = record.get("model")
    model = model if isinstance(model, str) else None
    said = [_said(message, index, model) for index, message in enumerate(messages)]
    _join_functions([one.message for one in said])
    runs, hashes = runs_of(session_id, said, model)
    rest = {key: value for key, value in record.items() if key != "messages"}
    line = found.line  # not `found`: the draft's line may be asked for long after its record is gone
    session = Session(session_id=session_id, metadata={"file": source.name, "line": line, **_flat(rest)})
    return Draft(
        file=source.name,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        session_hash=hash_of(rest),
        source=NAME,
        place=place,
    )


def _flat(rest: dict[str, Any]) -> dict[str, Any]:
    """What a conversation says beside its messages, its own ``metadata`` spread out so that people can filter by it."""
    inner = rest.get("metadata")
    if not isinstance(inner, dict) or any(key in rest for key in inner):
        return rest
    return inner | {key: value for key, value in rest.items() if key != "metadata"}


def _said(record: Any, index: int, model: str | None = None) -> Said:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise Malformed(f"message {index} is no object with a role")
    role: str = record["role"]
    extra = {key: value for key, value in record.items() if key not in _PLACED}
    calls = [_call(call) for call in record.get("tool_calls") or ()]
    if record.get("function_call"):
        calls.append(_call({"type": "function_call", "function": record["function_call"]}))
    try:
        message = Message(
            role=role,
            content=record.get("content"),
            tool_calls=calls,
            tool_call_id=record.get("tool_call_id"),
            tool_name=extra.pop("name", None) if role in _RESULTS else None,
            model=record.get("model") or (model if role == "assistant" else None),
            message_id=extra.pop("id") if isinstance(extra.get("id"), str) else None,
            extra=extra,
        )
    except AMISS as error:
        raise Malformed(f"message {index}: {why(error)}") from error
    return Said(message, record)


def _call(record: dict[str, Any]) -> ToolCall:
    extra = {key: value for key, value in record.items() if (key, value) != ("type", "function")}
    call_id = extra.pop("id", None)
    body = extra.pop("function", None) or extra.pop("custom", None) or extra
    args, invalid = _arguments(
        body.pop("arguments", None) if body is extra else body.get("arguments", body.get("input"))
    )
    if body is extra:  # a call without the layer of `function`
        name = extra.pop("name", None)
    else:
        name = body.get("name")
        extra |= {key: value for key, value in body.items() if key not in ("name", "arguments", "input")}
    return ToolCall(
        tool_call_id=call_id, tool_name=name, args=args, extra=extra | ({"args_invalid": True} if invalid else {})
    )


def _arguments(text: Any) -> tuple[Any, bool]:
    """The arguments, and whether they are text that is no JSON, as models do write."""
    if not isinstance(text, str):
        return text, False
    try:
        return json.loads(text), False
    except (ValueError, RecursionError):
        return text, True


def _join_functions(messages: list[Message]) -> None:
    """Give the calls of the older spelling an id: they have none, and are answered in order, by the function's name."""
    waiting: dict[str | None, deque[str]] = defaultdict(deque)
    for index, message in enumerate(messages):
        for call in message.tool_calls:
            if call.tool_call_id is None:
                call.tool_call_id = f"function_call_{index}"
                waiting[call.tool_name].append(call.tool_call_id)
        if message.role == "function" and message.tool_call_id is None and waiting[message.tool_name]:
            message.tool_call_id = waiting[message.tool_name].popleft()
