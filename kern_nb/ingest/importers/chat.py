"""Conversations in the layout of OpenAI's chat API, in three variants, which a file may mix.

* one conversation per line, ``{"messages": [...]}``; the other fields of the line are metadata. Datasets of
  trajectories have the messages in ``trajectory``, or as JSON text,
* one list of messages per line,
* one message per line: those with one ``session_id`` are a session, the others are one named after the file.

A document that is a list of conversations is read, too. `chat_messages` says what maps to what; what a file does not
state (times, usage, cost) stays unknown.

A session's id is the record's own (``session_id``, ``conversation_id``, ``id`` and others of that kind), else the path
of the file and the number of the line. Several records of one session are the lines of its tree: a proxy that logs each
request with the whole history repeats what was said before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, require_field
from kern_nb.ingest.importers.chat_blocks import has_anthropic_blocks
from kern_nb.ingest.importers.chat_drafts import (
    SESSION_IDS,
    TRAJECTORY_IDS,
    Conversation,
    file_id,
    line_id,
    make_draft,
)
from kern_nb.ingest.importers.chat_messages import (
    has_local_times,
    is_message,
    parse_message,
    parse_messages,
    says_something,
)
from kern_nb.ingest.importers.chat_values import drop_null, find_id, parse_json
from kern_nb.ingest.importers.kubiya_body import is_control_plane_body
from kern_nb.ingest.importers.openai_responses_items import are_items, is_item
from kern_nb.ingest.json_source import Source, Value
from kern_nb.ingest.report import Problem

NAME = "chat"

_MESSAGES = ("messages", "trajectory", "conversation", "conversations", "messages_json")
# Fields that name a task, which several records may try.
_TASK_IDS = ("instance_id", "task_id")
# Fields that only other layouts have beside the messages.
_FOREIGN_FIELDS = frozenset(
    {"history", "simulations", "samples", "completion", "chosen", "rejected", "body", "request"}
)


class Chat(Importer):
    """Conversations in the layout of OpenAI's chat API."""

    name = NAME
    reads = "conversations in the layout of OpenAI's chat API"
    is_generic = True

    def recognizes(self, source: Source) -> bool:
        """A message, a list of messages, an object with one, or a list of such objects; some message says something."""
        return any(map(_is_chat, source.head)) and not any(map(_is_of_other_api, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per conversation; those of the single messages come last."""
        return _read(source)


def _is_chat(value: Any) -> bool:
    if isinstance(value, dict):
        key = _messages_key(value)
        if key is None:
            return says_something(value)
        return not _is_foreign(value) and _are_messages(_decode(value[key]))
    if isinstance(value, list) and value:
        return _are_messages(value) or any(_is_conversation(item) and _is_chat(item) for item in value[:20])
    return False


def _are_messages(value: Any) -> bool:
    """Whether it is a list of messages, some of which say something."""
    return isinstance(value, list) and bool(value) and is_message(value[0]) and any(map(says_something, value))


def _is_foreign(value: dict[str, Any]) -> bool:
    """Whether a record with messages is one of another layout."""
    is_answered = any(isinstance(value.get(key), dict) for key in ("response", "result", "output"))
    is_answered = is_answered or isinstance(value.get("choices"), list)
    is_other = bool(_FOREIGN_FIELDS & drop_null(value).keys()) or bool(value.get("system"))
    return is_other or is_answered or is_control_plane_body(value)


def _is_of_other_api(value: Any) -> bool:
    """Whether a conversation has blocks of Anthropic's API or items of the Responses API: others read them."""
    if isinstance(value, dict) and (key := _messages_key(value)) is not None:
        value = value[key]
    if not isinstance(value, list):
        return is_item(value) or (is_message(value) and has_anthropic_blocks(value.get("content")))
    if any(map(_is_conversation, value)):
        return any(map(_is_of_other_api, value))
    return are_items(value) or any(is_message(item) and has_anthropic_blocks(item.get("content")) for item in value)


def _messages_key(value: dict[str, Any]) -> str | None:
    """The field with the messages."""
    return next((key for key in _MESSAGES if value.get(key) is not None), "messages" if "messages" in value else None)


def _decode(messages: Any) -> Any:
    """Some datasets have the messages as JSON text."""
    return parse_json(messages) if isinstance(messages, str) and messages.lstrip().startswith("[") else messages


def _is_conversation(value: Any) -> bool:
    return isinstance(value, dict) and _messages_key(value) is not None


def _read(source: Source) -> Iterator[Draft | Problem]:
    single: dict[str, list[Value]] = {}
    attempts: Counter[str] = Counter()
    line = position = 0
    for item in _records(source):
        if isinstance(item, Problem):
            yield item
            continue
        position, line = (position + 1 if item.line == line else 1), item.line
        try:
            if isinstance(item.value, dict) and not _is_conversation(item.value):
                parse_message(item.value, 0)  # so that a malformed one does not reject the others
                single.setdefault(find_id(item.value, SESSION_IDS) or file_id(source), []).append(item)
            else:
                yield make_draft(source, NAME, _parse(source, item, position, attempts))
        except RECORD_ERRORS as error:
            yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")
    for session_id, items in single.items():
        records = [_without_session_id(item.value) for item in items]
        messages = parse_messages(records)
        yield make_draft(
            source,
            NAME,
            Conversation(session_id, items[0].line, messages, {}, has_local_times=has_local_times(records)),
        )


def _without_session_id(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in SESSION_IDS}


def _records(source: Source) -> Iterator[Value | Problem]:
    """Yield the values of a file, and each conversation of a list."""
    for item in source.values():
        if isinstance(item, Value) and isinstance(item.value, list) and any(map(_is_conversation, item.value)):
            yield from (Value(item.line, value) for value in item.value)
        else:
            yield item


def _parse(source: Source, item: Value, position: int, attempts: Counter[str]) -> Conversation:
    record = {"messages": item.value} if isinstance(item.value, list) else item.value
    key = _messages_key(record) if isinstance(record, dict) else None
    key = key or "messages"
    if isinstance(record, dict):
        record = record | {key: _decode(record.get(key))} if key in record else record
    messages = require_field(record, key, list, "the record")
    if not any(map(says_something, messages)):
        raise MalformedRecord("its messages have neither text nor calls")
    model = next((record[name] for name in ("model", "model_name") if isinstance(record.get(name), str)), None)
    fields = {name: value for name, value in record.items() if name != key}
    session_id = find_id(record, SESSION_IDS) or find_id(record, TRAJECTORY_IDS)
    if session_id is None and (task := find_id(record, _TASK_IDS)) is not None:
        session_id = f"{file_id(source)}-{task}"
        attempts[task] += 1
        session_id += f"-{attempts[task]}" if attempts[task] > 1 else ""
    return Conversation(
        session_id or line_id(source, item.line, position),
        item.line,
        parse_messages(messages, model),
        fields,
        model,
        has_local_times(messages),
    )
