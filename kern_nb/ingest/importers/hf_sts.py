"""Sessions in the Session Trace Simple Format (STS-Format) of the Hugging Face Hub: JSON lines.

A header, ``{"type": "session", "harness": ..., "id": ...}``, then a line per message. ``harness`` tells the header from
that of pi. A later header begins another session of the file. The format has no usage
and no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.chats.fields import find_error
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.parsing.times import is_local_time, parse_time
from kern_nb.ingest.parsing.values import to_args, to_id, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session, ToolCall

NAME = "hf_sts"

Record = dict[str, Any]

_ROLES = frozenset({"user", "assistant", "system", "developer", "tool"})
_MAPPED = frozenset({"role", "content", "reasoningContent", "toolCalls", "toolCallId", "timestamp", "model", "id"})


class HfSts(Importer):
    """Sessions in the STS-Format."""

    name = NAME
    reads = "session traces in the STS-Format of the Hugging Face Hub"

    def recognizes(self, source: Source) -> bool:
        """A header with a harness, and a message with content or calls, if there is any."""
        records = [value for value in source.head if isinstance(value, dict)]
        messages = [record for record in records if record.get("type") == "message"]
        return any(map(_is_header, records)) and (not messages or any(map(_has_content, messages)))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per header."""
        header: Record = {}
        start = 1
        messages: list[SourceMessage] = []
        events: list[Record] = []
        ids: set[str] = set()
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            try:
                if not isinstance(item.value, dict):
                    raise MalformedRecord("it is not an object")
                if item.value.get("type") == "session":
                    if header or messages:
                        yield _draft(source, start, header, messages, events, ids)
                    header, start, messages, events = item.value, item.line, [], []
                elif item.value.get("type") == "message":
                    messages.append(_parse_message(require_field(item.value, "message", dict, "the record")))
                else:
                    events.append(item.value)
            except RECORD_ERRORS as error:
                yield Problem(source.name, item.line, f"The record is not imported: {error_text(error)}.")
        if header or messages:
            yield _draft(source, start, header, messages, events, ids)


def _is_header(record: Record) -> bool:
    return record.get("type") == "session" and isinstance(record.get("harness"), str)


def _has_content(record: Record) -> bool:
    message = record.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    return isinstance(message.get("content"), (str, list)) or bool(message.get("toolCalls"))


def _draft(
    source: Source, line: int, header: Record, messages: list[SourceMessage], events: list[Record], ids: set[str]
) -> Draft:
    session_id = to_id(header.get("id")) or source.session_name
    if session_id in ids:
        session_id = f"{session_id}-{line}"
    ids.add(session_id)
    harness, title = header.get("harness"), header.get("name")
    runs, hashes, keys = split_runs(session_id, messages)
    times = [item.message.created_at for item in messages if item.message.created_at is not None]
    scalars = {key: value for key, value in header.items() if isinstance(value, (str, int, float))}
    others = {key: value for key, value in header.items() if isinstance(value, (dict, list))}
    others |= {"events": events} if events else {}
    metadata = {"file": source.name} | {k: v for k, v in scalars.items() if k not in ("type", "id", "name")}
    metadata |= {"time_zone": "unknown"} if any(is_local_time(m.record.get("timestamp")) for m in messages) else {}
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id=harness if isinstance(harness, str) and harness else None,
            session_data={"session_name": title} if isinstance(title, str) and title else None,
            metadata=metadata,
            agent_data=others or None,
            created_at=int(min(times).timestamp()) if times else None,
            updated_at=int(max(times).timestamp()) if times else None,
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(header, events),
        source=NAME,
    )


def _parse_message(record: Record) -> SourceMessage:
    role = require_field(record, "role", str, "the message")
    content = record.get("content")
    thinking = record.get("reasoningContent")
    extra = without(record, _MAPPED)
    if isinstance(thinking, str) and thinking:
        text = [{"type": "text", "text": content}] if isinstance(content, str) and content else []
        content = [{"type": "thinking", "thinking": thinking}, *(content if isinstance(content, list) else text)]
    calls, time = record.get("toolCalls"), parse_time(record.get("timestamp"))
    if time is None and record.get("timestamp") is not None:
        extra["timestamp"] = record["timestamp"]
    message = Message(
        role=role,
        content=content if content or role == "tool" else None,
        tool_calls=[_parse_call(call) for call in (calls if isinstance(calls, list) else ())],
        tool_call_id=to_id(record.get("toolCallId")),
        is_error=find_error(record) if role == "tool" else None,
        model=to_id(record.get("model")),
        message_id=to_id(record.get("id")),
        created_at=time,
        extra=extra if role in _ROLES else extra | {"role": role},
    )
    return SourceMessage(message, record)


def _parse_call(record: Any) -> ToolCall:
    if not isinstance(record, dict):
        raise MalformedRecord("a tool call must be an object")
    function = record.get("function")
    body = function if isinstance(function, dict) else record
    extra = {key: value for key, value in record.items() if key not in ("id", "function", "type", "name", "arguments")}
    args, notes = to_args(body.get("arguments"))
    return ToolCall(
        tool_call_id=to_id(record.get("id")), tool_name=to_id(body.get("name")), args=args, extra=extra | notes
    )
