"""The data export of Claude.ai: ``conversations.json``.

A conversation has ``chats.messages`` with a sender and content blocks, which ``text`` repeats. Newer exports state the
message before each one, so that a conversation is a tree: each leaf is a draft.

* A human's message begins a run. Attachments and files are parts of its content.
* An answer is one message with all its calls; their results follow it, each as a message.
* The export has no model, no tokens and no cost. A conversation without messages is a session without runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kern_nb.ingest.importer import (
    READ_ERRORS,
    Draft,
    Fork,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.parsing import tree
from kern_nb.ingest.parsing.anthropic_blocks import Record, is_content, split_blocks
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.tree import Entry, build_steps, record_key
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Item, Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session

NAME = "claude_ai_export"

_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}
_NO_PARENT = "00000000-0000-4000-8000-000000000000"
_MAPPED_FIELDS = ("chat_messages", "uuid", "name", "created_at", "updated_at")
_MAPPED_MESSAGE = frozenset(
    {"uuid", "text", "content", "sender", "created_at", "attachments", "files", "parent_message_uuid", "model"}
)


class ClaudeAiExport(Importer):
    """The conversations of an export of Claude.ai."""

    name = NAME
    reads = "the data export of Claude.ai"

    def recognizes(self, source: Source) -> bool:
        """A conversation with messages of a human or an assistant; one without messages has an account or a name."""
        return any(_is_conversation(record) for value in source.head for record in _records(value))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of each conversation: the line that continued last, then one for each other leaf."""
        for item in source.items():
            if isinstance(item, Problem):
                yield item
                continue
            try:
                yield from _read_conversation(source, item)
            except READ_ERRORS as error:
                yield Problem(source.name, item.line(), f"The conversation is not imported: {error_text(error)}.")


def _records(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_conversation(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("chat_messages"), list):
        return False
    if not value["chat_messages"]:
        return isinstance(value.get("uuid"), str) and "name" in value
    return any(map(_is_message, value["chat_messages"]))


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("sender") not in ("human", "user", "assistant"):
        return False
    return is_content(value.get("content")) or isinstance(value.get("text"), str)


def _read_conversation(source: Source, item: Item) -> Iterator[Draft | Problem]:
    record = item.value
    messages = require_field(record, "chat_messages", list, "the conversation")
    session_id = to_id(record.get("uuid"))
    if session_id is None:
        session_id = f"{source.session_name}-{hash_record(record.get('created_at'), messages[:1])[:8]}"
    entries: list[Entry] = []
    parsed: dict[int, list[SourceMessage]] = {}
    for index, message in enumerate(messages):
        try:
            if not _is_message(message):
                raise MalformedRecord("it has no sender, or neither a content nor a text")
            previous = entries[-1].key if entries else None
            entry = _to_entry(message, index, previous)
            parsed[len(entries)] = _parse(message, record_key(session_id, entry.key))
            entries.append(entry)
        except READ_ERRORS as error:
            reason = f"Message {index} of conversation {session_id[:80]!r} is not imported: {error_text(error)}."
            yield Problem(source.name, item.line(), reason)
    links = tree.link(entries)
    steps = build_steps(entries, links)
    leaf = to_id(record.get("current_leaf_message_uuid"))
    current = next((steps[i] for i, entry in enumerate(entries) if entry.key == leaf), None)
    for line, first in tree.by_root(tree.lines(steps[-1], current)):
        line_id = session_id if first is None else f"{session_id}~{entries[first.position].key[:8]}"
        draft = _draft(source, item.line, record, line_id, [m for step in line for m in parsed[step.position]])
        draft.fork = None if first is None else Fork(session_id, "")
        yield draft


def _to_entry(message: Record, index: int, previous: str | None) -> Entry:
    key = to_id(message.get("uuid")) or f"message {index}"
    parent = to_id(message.get("parent_message_uuid"))
    # The parent of a message may be one that this file cannot show; what is before it in the file then is.
    continues = parent is not None and parent != _NO_PARENT
    parent = None if parent == _NO_PARENT else parent or previous
    return Entry(1, message, key, parent, is_message=True, continues=continues)


def _parse(record: Record, key: str) -> list[SourceMessage]:
    """A message, then the results of its calls."""
    time = to_time(record.get("created_at"))
    stated = record.get("content")
    blocks = split_blocks(stated, time) if is_content(stated) and stated else split_blocks(record.get("text"), time)
    text = to_text(record.get("text"))
    if text and not blocks.parts and not blocks.calls:
        blocks.parts.append({"type": "text", "text": text})
    parts = [_drop_times(part) for part in blocks.parts]
    parts += [{**attachment, "type": "document"} for attachment in _objects(record, "attachments")]
    parts += [{**file, "type": "file"} for file in _objects(record, "files")]
    role = _ROLES[record["sender"]]
    extra = without(record, _MAPPED_MESSAGE)
    message = Message(
        role=role,
        content=simplify(parts) or None,
        tool_calls=blocks.calls,
        message_id=to_id(record.get("uuid")),
        model=to_text(record.get("model")) if role == "assistant" else None,
        created_at=time,
        extra=extra | ({"parts": blocks.others} if blocks.others else {}),
    )
    results = [
        SourceMessage(result, result.content, f"{key}:{index}", starts_run=False)
        for index, result in enumerate(blocks.results)
    ]
    return [SourceMessage(message, record, key), *results]


def _objects(record: Record, name: str) -> list[Record]:
    return [value for value in to_list(record.get(name)) if to_object(value)]


def _drop_times(part: Any) -> Any:
    """A part without the times between which it was written."""
    if not isinstance(part, dict):
        return part
    return {key: value for key, value in part.items() if key not in ("start_timestamp", "stop_timestamp")}


def _draft(
    source: Source, line_of: Callable[[], int], record: Record, session_id: str, messages: list[SourceMessage]
) -> Draft:
    runs, hashes, keys = split_runs(session_id, messages, to_text(record.get("model")))
    title = to_text(record.get("name"))
    fields = without(record, _MAPPED_FIELDS)
    times = [to_time(record.get(name)) for name in ("created_at", "updated_at")]
    nested = {key: value for key, value in fields.items() if isinstance(value, (dict, list)) and value}
    return Draft(
        file=source.name,
        line=line_of,
        session=Session(
            session_id=session_id,
            agent_id="claude.ai",
            session_data={"session_name": title} if title else None,
            agent_data={NAME: nested} if nested else None,
            metadata={"file": source.name} | keep_scalars(fields),
            created_at=to_unix_seconds(times[0]),
            updated_at=to_unix_seconds(times[1] or times[0]),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, fields),
        source=NAME,
        has_record_ids=True,
    )
