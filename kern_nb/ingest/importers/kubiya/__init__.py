"""The history of an execution as Kubiya's control plane stores it: the body of a write, or the reply of a read.

``{"session_id": ..., "user_id": ..., "messages": [...], "metadata": {"agent_id": ..., "turn_count": ...}}``. A reply
names its ``execution_id``, too: history belongs to the execution, so that it is the session's id where it is stated.

Messages are in order of time and position; what was sent twice under one ``message_id`` is one message. The result of a
tool is a message of the role "user", or "system" of older clients: it states the call (``tool_name``, ``tool_input``,
``tool_execution_id``), which belongs to the answer before it, and the result. It is a tool message here. The body has
no model, usage or cost. ``turn_count`` is really the number of messages: it is metadata only.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from kern_nb.ingest.chats.batches import iterate_records
from kern_nb.ingest.chats.blocks import RESULT_TYPES, block_types, to_content
from kern_nb.ingest.chats.drafts import line_id
from kern_nb.ingest.chats.fields import find_error, find_id, find_time
from kern_nb.ingest.chats.messages import has_local_times, says_something
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, hash_record
from kern_nb.ingest.importers.kubiya.body import has_execution, is_control_plane_body, is_tool_message
from kern_nb.ingest.parsing.times import to_unix_seconds
from kern_nb.ingest.parsing.tree import record_key
from kern_nb.ingest.parsing.values import checked_id, drop_null, to_object
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session, ToolCall

NAME = "kubiya"

_MAPPED_FIELDS = frozenset(
    {
        "role", "content", "message_id", "message_type", "tool_name", "tool_execution_id", "tool_input", "tool_output",
        "timestamp",
    }
)  # fmt: skip
_START = datetime.min.replace(tzinfo=UTC)


class Kubiya(Importer):
    """Histories of Kubiya's control plane."""

    name = NAME
    reads = "session histories of Kubiya's control plane"

    def recognizes(self, source: Source) -> bool:
        """A session with messages, whose metadata or tool messages are those of the control plane."""
        records = [record for head in source.head for record in iterate_records(head)]
        return any(is_control_plane_body(r) and any(map(_says_something, r["messages"])) for r in records)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per body."""
        line = position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in iterate_records(item.value):
                position, line = (position + 1 if item.line == line else 1), item.line
                try:
                    yield _draft(source, value, line, line_id(source, line, position))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")


def _says_something(message: Any) -> bool:
    return is_tool_message(message) or says_something(message)


def _draft(source: Source, body: Any, line: int, name: str) -> Draft:
    records = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(records, list):
        raise MalformedRecord("the body has no list 'messages'")
    if not any(map(_says_something, records)):
        raise MalformedRecord("its messages have neither text nor calls")
    fields = {key: value for key, value in drop_null(body).items() if key not in ("messages", "metadata")}
    metadata = {"file": source.name, "line": line, **fields, **drop_null(to_object(body.get("metadata")))}
    if has_local_times(records):
        metadata["time_zone"] = "unknown"
    session_id = find_id(body, ("execution_id", "session_id")) or name
    messages = [_with_global_key(item, session_id) for item in _parse_messages(records)]
    runs, hashes, keys = split_runs(session_id, messages)
    times = [item.message.created_at for item in messages if item.message.created_at]
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id=find_id(metadata, ["agent_id"]),
            user_id=find_id(body, ["user_id"]),
            metadata=metadata,
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields, body.get("metadata")),
        source=NAME,
        has_record_ids=all(item.key is not None for item in messages),
    )


def _parse_messages(records: list[Any]) -> list[SourceMessage]:
    messages: list[SourceMessage] = []
    for index, record in _in_order(records):
        try:
            item = _parse_tool_message(record, messages) if is_tool_message(record) else _parse_message(record)
        except RECORD_ERRORS as error:
            raise MalformedRecord(f"message {index}: {error_text(error)}") from error
        messages.append(item)
    return messages


def _with_global_key(item: SourceMessage, session_id: str) -> SourceMessage:
    """A message whose key is equal in its copies only: ids begin with that of an execution, but a client may count."""
    if item.key is None or has_execution({"message_id": item.key}):
        return item
    return item._replace(key=record_key(session_id, item.key))


def _in_order(records: list[Any]) -> list[tuple[int, dict[str, Any]]]:
    """Messages by time and position, without repetitions; one without a time stays behind the one before it."""
    timed: list[tuple[datetime, int, dict[str, Any]]] = []
    sent: set[str] = set()
    time = _START
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("role"), str):
            raise MalformedRecord(f"message {index} must be an object with a role")
        fields = drop_null(record)
        if (message_id := find_id(fields, ["message_id"])) is not None:
            identity = hash_record(message_id, fields.get("content"))
            if identity in sent:
                continue
            sent.add(identity)
        stated = find_time(fields)
        time = stated[1] if stated else time
        timed.append((time, index, fields))
    return [(index, record) for _, index, record in sorted(timed, key=lambda item: item[:2])]


def _parse_message(record: dict[str, Any]) -> SourceMessage:
    time = find_time(record)
    mapped = ("role", "content", "message_id", *(time[:1] if time else ()))
    message = Message(
        role=record["role"],
        content=to_content(record.get("content")),
        message_id=checked_id(record.get("message_id")),
        created_at=time[1] if time else None,
        extra={key: value for key, value in record.items() if key not in mapped},
    )
    return SourceMessage(message, record, message.message_id)


def _parse_tool_message(record: dict[str, Any], messages: list[SourceMessage]) -> SourceMessage:
    """The tool message of a result; its call is added to the answer before it, or to one without text."""
    blocks = record.get("content")
    is_block = isinstance(blocks, list) and bool(block_types(blocks) & RESULT_TYPES)
    block: dict[str, Any] = next((b for b in blocks or () if block_types([b]) & RESULT_TYPES), {}) if is_block else {}
    result = to_content(block.get("content")) if is_block else blocks
    if result in (None, ""):
        result = next((record[key] for key in ("tool_output", "tool_error") if key in record), result)
    stated = {"is_error": block.get("is_error"), "status": record.get("tool_status"), "error": record.get("tool_error")}
    time = find_time(record)
    created_at = time[1] if time else None
    extra = {key: value for key, value in record.items() if key not in _MAPPED_FIELDS}
    if record.get("tool_output") not in (None, "", result):  # what the model got may be shorter
        extra["tool_output"] = record["tool_output"]
    message = Message(
        role="tool",
        content=result,
        tool_call_id=checked_id(record.get("tool_execution_id")) or checked_id(block.get("tool_use_id")),
        tool_name=record.get("tool_name"),
        is_error=find_error(stated),
        message_id=checked_id(record.get("message_id")),
        created_at=created_at,
        extra=extra,
    )
    # Until the next answer, all results are of calls of the one before them.
    answer = next((item.message for item in reversed(messages) if item.message.role != "tool"), None)
    if answer is None or answer.role != "assistant":
        answer = Message(role="assistant", created_at=created_at)
        key = None if message.message_id is None else f"{message.message_id}:call"
        messages.append(SourceMessage(answer, [], key))
    answer.tool_calls.append(
        ToolCall(tool_call_id=message.tool_call_id, tool_name=message.tool_name, args=record.get("tool_input"))
    )
    return SourceMessage(message, record, message.message_id, starts_run=False)
