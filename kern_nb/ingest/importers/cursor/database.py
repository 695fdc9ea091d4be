"""The database of Cursor's editor: ``state.vscdb`` with the table ``cursorDiskKV``.

``composerData:<id>`` is a conversation: its name, its times and the order of its bubbles; early versions have the
bubbles in it. ``bubbleId:<conversation>:<bubble>`` is a message of a person (type 1) or the model (2), with at most one
call. Both are JSON.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import READ_ERRORS, Draft, MalformedRecord, error_text, hash_record
from kern_nb.ingest.parsing.times import to_time, to_time_from_ms, to_unix_seconds
from kern_nb.ingest.parsing.tree import record_key
from kern_nb.ingest.parsing.values import keep_scalars, to_args, to_count, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session, ToolCall, Usage

Record = dict[str, Any]

KEY_VALUE_TABLE = "cursorDiskKV"

_COMPOSER, _BUBBLE = "composerData:", "bubbleId:"
_ROLES = {1: "user", 2: "assistant"}
_SHOWN = ("status", "unifiedMode", "isAgentic", "createdOnBranch", "contextUsagePercent")
_SAID = frozenset({"text", "thinking", "toolFormerData"})
_FAILED = {"error": True, "completed": False}
_KEYS = "SELECT key FROM cursorDiskKV WHERE key >= ? AND key < ? ORDER BY key"
_VALUE = "SELECT value FROM cursorDiskKV WHERE key = ?"


def read_composers(source: Source, name: str) -> Iterator[Draft | Problem]:
    """Yield a draft for each conversation with messages."""
    try:
        with source.open_sqlite() as connection:
            for key in _keys(connection, _COMPOSER):
                try:
                    yield from _read_composer(source, name, connection, key)
                except READ_ERRORS as error:
                    reason = f"The conversation {key[:80]!r} is not imported: {error_text(error)}."
                    yield Problem(source.name, None, reason)
    except sqlite3.Error as error:
        yield Problem(source.name, None, f"The database cannot be read: {error}.")


def _keys(connection: sqlite3.Connection, prefix: str) -> list[str]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    rows = connection.execute(_KEYS, [prefix, end]).fetchall()
    return [key for (key,) in rows if isinstance(key, str)]


def _value(connection: sqlite3.Connection, key: str) -> Any:
    row = connection.execute(_VALUE, [key]).fetchone()
    return None if row is None else row[0]


def _decode(value: Any) -> Record:
    """An object from its JSON, as text or bytes."""
    if value is None:
        raise MalformedRecord("it has no value")
    decoded = json.loads(value)
    if not isinstance(decoded, dict):
        raise MalformedRecord("it is no object")
    return decoded


def _read_composer(source: Source, name: str, connection: sqlite3.Connection, key: str) -> Iterator[Draft | Problem]:
    composer = _decode(_value(connection, key))
    composer_id = to_id(composer.get("composerId")) or key.removeprefix(_COMPOSER)
    headers = to_list(composer.get("fullConversationHeadersOnly")) or to_list(composer.get("conversation"))
    model = to_text(to_object(composer.get("modelConfig")).get("modelName"))
    messages: list[SourceMessage] = []
    for index, header in enumerate(headers):
        bubble_id = to_id(to_object(header).get("bubbleId")) or f"bubble {index}"
        try:
            stated = _value(connection, f"{_BUBBLE}{composer_id}:{bubble_id}")
            if stated is None and not to_object(header).keys() & _SAID:
                raise MalformedRecord("the database does not have it")
            bubble = to_object(header) if stated is None else _decode(stated)
            messages += _parse(bubble, record_key(composer_id, bubble_id))
        except READ_ERRORS as error:
            reason = f"Message {index} of {composer_id[:80]!r} is not imported: {error_text(error)}."
            yield Problem(source.name, None, reason)
    if not messages:
        return
    runs, hashes, keys = split_runs(composer_id, messages, model)
    title = to_text(composer.get("name"))
    shown = keep_scalars({key: composer.get(key) for key in _SHOWN}) | ({"model": model} if model else {})
    times = [item.message.created_at for item in messages if item.message.created_at is not None]
    created = _time(composer.get("createdAt")) or min(times, default=None)
    updated = _time(composer.get("lastUpdatedAt")) or max(times, default=created)
    usage = composer.get("usageData")
    yield Draft(
        file=source.name,
        line=lambda: 1,
        session=Session(
            session_id=composer_id,
            agent_id=name,
            session_data={"session_name": title} if title else None,
            agent_data={name: {"usageData": usage}} if usage else None,
            metadata={"file": source.name} | shown,
            created_at=to_unix_seconds(created),
            updated_at=to_unix_seconds(updated),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, shown),
        source=name,
        has_record_ids=True,
    )


def _time(value: Any) -> datetime | None:
    return to_time(value) or to_time_from_ms(value)


def _parse(bubble: Record, key: str) -> list[SourceMessage]:
    """A message, and the result of its call."""
    role = _ROLES.get(bubble["type"]) if type(bubble.get("type")) is int else None
    if role is None:
        raise MalformedRecord("it has no type of a message")
    call = to_object(bubble.get("toolFormerData"))
    text, thinking = to_text(bubble.get("text")), bubble.get("thinking")
    thought = to_text(thinking.get("text")) if isinstance(thinking, dict) else to_text(thinking)
    if text is None and thought is None and not call:
        return []
    content: Any = text
    if thought is not None:
        said = [{"type": "text", "text": text}] if text else []
        content = [{"type": "thinking", "thinking": thought}, *said]
    timing = to_object(bubble.get("timingInfo"))
    time = _time(bubble.get("createdAt")) or _time(timing.get("clientStartTime"))
    counts = to_object(bubble.get("tokenCount"))
    used = {name: to_count(counts.get(key)) or None for key, name in _COUNTS.items()}
    message = Message(
        role=role,
        content=content,
        tool_calls=[_to_call(call, time)] if call else [],
        message_id=to_id(bubble.get("bubbleId")),
        model=to_text(to_object(bubble.get("modelInfo")).get("modelName")) if role == "assistant" else None,
        usage=Usage(**used) if any(used.values()) else None,
        created_at=time,
        extra={"images": bubble["images"]} if bubble.get("images") else {},
    )
    record = [text, thought, call, counts]
    answer = SourceMessage(message, record, key, starts_run=role == "user")
    result = _to_result(call, message)
    return [answer] if result is None else [answer, SourceMessage(result, None, f"{key}:result", starts_run=False)]


_COUNTS = {"inputTokens": "input_tokens", "outputTokens": "output_tokens"}


def _to_call(call: Record, time: datetime | None) -> ToolCall:
    stated = call.get("rawArgs") if call.get("rawArgs") not in (None, "") else call.get("params")
    args, notes = to_args(stated)
    extra = without(keep_scalars(call), ("toolCallId", "name", "rawArgs", "params", "result", "error")) | notes
    call_id = to_id(call.get("toolCallId"))
    return ToolCall(tool_call_id=call_id, tool_name=to_text(call.get("name")), args=args, created_at=time, extra=extra)


def _to_result(call: Record, message: Message) -> Message | None:
    result = call.get("result") if call.get("result") not in (None, "") else call.get("error")
    if result in (None, ""):
        return None
    status = call.get("status")
    return Message(
        role="tool",
        content=result,
        tool_call_id=message.tool_calls[0].tool_call_id,
        tool_name=message.tool_calls[0].tool_name,
        is_error=_FAILED.get(status) if isinstance(status, str) else None,
    )
