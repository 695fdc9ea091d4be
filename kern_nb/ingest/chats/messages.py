"""Messages in the layout of OpenAI's chat API, with the fields that other programs add to it.

* ``refusal`` and ``audio.transcript`` are what the model answers where the content is null; ``text`` is the content in
  some datasets. ``reasoning_content``, ``reasoning`` and ``thinking`` become a part of the content.
* Times, usage, cost and model have their columns; ``is_error``, ``error`` and ``status`` of a tool's message say
  whether the call failed.
* Content blocks of Anthropic's API are converted (`blocks`), so that a file may mix the layouts, and those of other
  APIs (`foreign_blocks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kern_nb.ingest.chats.blocks import has_tool_blocks, split_blocks
from kern_nb.ingest.chats.fields import find_error, find_id, find_time
from kern_nb.ingest.chats.foreign_blocks import blocks_of_parts, to_known_blocks
from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.times import is_local_time
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import checked_id, decode_json, drop_null, to_args, to_object
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import RESULT_ROLES, Message, ToolCall, Usage

ROLES = {
    "human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "chatbot": "assistant", "bard": "assistant", "bing": "assistant", "prompter": "user",
    "ipython": "tool", "observation": "tool", "environment": "tool", "tool_response": "tool", "tool_result": "tool",
    "toolresult": "tool",
} | {role: role for role in ("user", "assistant", "system", "developer", "tool", "function")}  # fmt: skip
"""The roles of other programs, in lower case, in OpenAI's words."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
_USAGE = ("usage", "token_usage", "usage_metadata", "tokens")
_COUNTS = ("_tokens", "Tokens")
_RESULT_IDS = ("tool_call_id", "toolCallId", "tool_use_id", "call_id")
_CALLS = ("tool_calls", "toolCalls", "function_call")
# The fields of a message that map to fields of `Message`; the others go to `extra`.
_MAPPED_FIELDS = frozenset({"role", "content", *_CALLS, *_RESULT_IDS, "is_error", "isError", "model"})


def is_message(value: Any) -> bool:
    """Whether a value is a message. Items of the Responses API and records of coding agents have a ``type``."""
    return isinstance(value, dict) and isinstance(value.get("role"), str) and value.get("type") is None


def says_something(value: Any) -> bool:
    """Whether a message has text, parts or calls."""
    if not is_message(value):
        return False
    keys = ("content", *_CALLS, "refusal", "audio", "text")
    return any(value.get(key) for key in keys) or blocks_of_parts(value.get("parts")) is not None


def parse_messages(records: Sequence[Any], model: str | None = None) -> list[SourceMessage]:
    """The messages of a conversation; raises MalformedRecord for what is none. ``model`` is that of the answers."""
    drops_null_args = _has_unified_args(records)
    messages = [
        message
        for index, record in enumerate(records)
        for message in parse_message(record, index, model, drops_null_args=drops_null_args)
    ]
    _use_ids_of_results([item.message for item in messages])
    return messages


def parse_message(
    record: Any, index: int, model: str | None = None, *, drops_null_args: bool = False
) -> list[SourceMessage]:
    """The messages of a record: several if it has the results of several tools."""
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord(f"message {index} must be an object with a role")
    record = drop_null(record)
    try:
        message = _to_message(record, model, drops_null_args=drops_null_args)
        if not has_tool_blocks(message.content):
            return [SourceMessage(message, record)]
        parts = list(split_blocks(message))
    except RECORD_ERRORS as error:
        raise MalformedRecord(f"message {index}: {error_text(error)}") from error
    return [SourceMessage(part, [record, position], None, starts) for position, (part, starts) in enumerate(parts)]


def has_local_times(records: Sequence[Any]) -> bool:
    """Whether a message has a time without a zone."""
    return any(
        is_local_time(record[time[0]]) for record in records if isinstance(record, dict) and (time := find_time(record))
    )


def _to_message(record: dict[str, Any], model: str | None, *, drops_null_args: bool) -> Message:
    role: str = ROLES.get(record["role"].lower(), record["role"])
    extra = {key: value for key, value in record.items() if key not in _MAPPED_FIELDS}
    if role != record["role"]:
        extra["role"] = record["role"]
    is_result = role in RESULT_ROLES
    time = find_time(record)
    if time is not None:
        del extra[time[0]]
    name = extra.pop("tool_name", None) or extra.pop("name", None) if is_result else None
    if is_result and name is None and isinstance(extra.get("function"), str):
        name = extra.pop("function")
    message_id = None
    for key in ("id", "message_id"):
        if message_id is None and key in extra and (message_id := find_id(extra, (key,))) is not None:
            del extra[key]
    own_model = record.get("model") or to_object(extra.get("metadata")).get("model")
    return Message(
        role=role,
        content=_find_content(record, extra, is_result=is_result),
        tool_calls=list(_parse_calls(record, drops_null_args=drops_null_args)),
        tool_call_id=next((checked_id(record[key]) for key in _RESULT_IDS if key in record), None),
        tool_name=name,
        is_error=find_error(record) if is_result else None,
        model=own_model if isinstance(own_model, str) else model if role == "assistant" else None,
        usage=_find_usage(extra, has_answer=role == "assistant") if extra else None,
        message_id=message_id,
        created_at=time[1] if time else None,
        extra=extra,
    )


def _find_usage(fields: Mapping[str, Any], *, has_answer: bool) -> Usage | None:
    """The usage that a message states, itself or in its metadata: in an object, or as fields of an answer."""
    for owner in (fields, to_object(fields.get("metadata"))):
        counts = next((owner[key] for key in _USAGE if isinstance(owner.get(key), dict)), None)
        if counts is None and has_answer:
            counts = {key: value for key, value in owner.items() if key.endswith(_COUNTS)}
        if (usage := parse_usage(counts, owner)) is not None:
            return usage
    return None


def _find_content(record: Mapping[str, Any], extra: dict[str, Any], *, is_result: bool) -> Any:
    """What was said, wherever a message states it; ``extra`` loses the fields that are the content."""
    content = record.get("content")
    blocks = blocks_of_parts(record.get("parts"))
    if blocks is not None and not is_result and (not content or has_tool_blocks(blocks)):
        content = blocks
        extra.pop("parts")
    if isinstance(content, list):
        content = to_known_blocks(content, is_result=is_result)
    if isinstance(content, list) and not is_result:
        content = [_to_part(part) if isinstance(part, dict) else part for part in content]
    if not content and not is_result:
        spoken = record.get("refusal"), to_object(record.get("audio")).get("transcript")
        content = next((text for text in spoken if isinstance(text, str)), content)
    if content is None and extra:
        key = next((key for key in ("text", "system_prompt") if isinstance(record.get(key), str)), None)
        content = None if key is None else extra.pop(key)
    return _with_reasoning(content, extra) if extra and not is_result and record["role"] != "user" else content


def _with_reasoning(content: Any, extra: dict[str, Any]) -> Any:
    """Move the reasoning that a message states beside its content to the parts of it."""
    key = next((key for key in _REASONING if isinstance(extra.get(key), str) and extra[key]), None)
    if key is None or not (content is None or isinstance(content, (str, list))):
        return content
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
    return [{"type": "thinking", "thinking": extra.pop(key)}, *parts]


def _to_part(part: dict[str, Any]) -> dict[str, Any]:
    """A part without nulls. A refusal and a spoken answer are text, too."""
    part = drop_null(part)
    if "text" not in part:
        text = part.get("refusal") if part.get("type") == "refusal" else None
        if part.get("type") in ("audio", "output_audio", "input_audio"):
            text = part.get("transcript") or to_object(part.get("audio")).get("transcript")
        if isinstance(text, str):
            return {**part, "text": text}
    return part


def _parse_calls(record: Mapping[str, Any], *, drops_null_args: bool) -> Iterator[ToolCall]:
    calls = record.get("tool_calls") or record.get("toolCalls") or ()
    if isinstance(calls, str):
        calls = decode_json(calls)
        if not isinstance(calls, list):
            raise MalformedRecord("'tool_calls' must be a list, got a string")
    for call in calls:
        yield parse_call(call, drops_null_args=drops_null_args)
    if record.get("function_call"):
        body = {"type": "function_call", "function": record["function_call"]}
        yield parse_call(body, drops_null_args=drops_null_args)


def parse_call(record: dict[str, Any], *, drops_null_args: bool = False) -> ToolCall:
    """A call of a tool, with or without the nested ``function`` object."""
    extra = {key: value for key, value in record.items() if value is not None and (key, value) != ("type", "function")}
    call_id = checked_id(extra.pop("id", None))
    if call_id is None:
        call_id = checked_id(extra.pop("call_id", None))
    body = extra.pop("function", None) or extra.pop("custom", None) or extra
    if isinstance(body, str):  # the name alone
        extra["name"], body = body, extra
    if body is extra:
        name = extra.pop("name", None)
        keys = [key for key in ("arguments", "input", "args", "parameters") if key in extra]
        arguments = extra.pop(keys[0]) if keys else None
    else:
        body = drop_null(body)
        arguments, name = body.get("arguments", body.get("input")), body.get("name")
        extra |= {key: value for key, value in body.items() if key not in ("name", "arguments", "input")}
    args, notes = to_args(arguments)
    if drops_null_args and isinstance(arguments, dict):
        args = drop_null(arguments)
    return ToolCall(tool_call_id=call_id, tool_name=name, args=args, extra=extra | notes)


def _has_unified_args(records: Sequence[Any]) -> bool:
    """Whether arguments come from a column of structs: each call has the arguments of all tools, others' as null."""
    names, keys, has_null = set(), set(), False
    for record in records:
        calls = record.get("tool_calls") if isinstance(record, dict) else None
        for call in calls if isinstance(calls, list) else ():
            body = to_object(to_object(call).get("function")) or to_object(call)
            arguments = body.get("arguments")
            if isinstance(arguments, dict):
                names.add(str(body.get("name")))
                keys.add(frozenset(arguments))
                has_null = has_null or None in arguments.values()
    return has_null and len(keys) == 1 and len(names) > 1


def _use_ids_of_results(messages: Sequence[Message]) -> None:
    """Some programs state the id of the call as the ``id`` of the result."""
    calls: set[str] = set()
    for message in messages:
        calls.update(call.tool_call_id for call in message.tool_calls if call.tool_call_id)
        if message.role in RESULT_ROLES and not message.tool_call_id and message.message_id in calls:
            message.tool_call_id, message.message_id = message.message_id, None
