"""Conversations in the layout of OpenAI's chat API, in three variants, which a file may mix.

* one conversation per line, ``{"messages": [...]}``; the other fields of the line are metadata. Datasets of
  trajectories have the messages in ``trajectory``, or as JSON text,
* one list of messages per line,
* one message per line: those with one ``session_id`` are a session, the others are one named after the file.

A document that is a list of conversations is read, too, as is an object with one, such as a run of Docent with its
``transcripts``. `chats.messages` says what maps to what; what a file does not state (times, usage, cost) stays unknown.

A session's id is the record's own (``session_id``, ``conversation_id``, ``id`` and others of that kind), else the path
of the file and the number of the line. Several records of one session are the lines of its tree: a proxy that logs each
request with the whole history repeats what was said before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

from kern_nb.ingest.chats.blocks import has_anthropic_blocks
from kern_nb.ingest.chats.drafts import (
    SESSION_IDS,
    TRAJECTORY_IDS,
    Conversation,
    file_id,
    line_id,
    make_draft,
)
from kern_nb.ingest.chats.fields import find_id, parse_scores
from kern_nb.ingest.chats.messages import (
    has_local_times,
    is_message,
    parse_message,
    parse_messages,
    says_something,
)
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.importers.kubiya.body import is_control_plane_body
from kern_nb.ingest.importers.openai_responses.items import are_items, is_item
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import decode_json, drop_null, to_object
from kern_nb.ingest.run_splitter import hash_content
from kern_nb.ingest.source import Source, Value
from kern_nb.ingest_report import Problem
from kern_nb.records import Usage

NAME = "chat"

_MESSAGES = ("messages", "trajectory", "traj", "conversation", "conversations", "messages_json")
# Fields with several conversations.
_CONVERSATIONS = ("conversations", "transcripts", "sessions", "chats", "data")
# Fields that name a task, which several records may try.
_TASK_IDS = ("instance_id", "task_id")
# Fields that only other layouts have beside the messages: objects with what was said, and lists.
_FOREIGN_OBJECTS = ("response", "result", "output", "request", "body", "params", "completion", "chosen")
_TALK_FIELDS = frozenset(
    {"messages", "message", "choices", "role", "content", "text", "value", "output", "input", "prompt", "body", "parts"}
)
_FOREIGN_LISTS = ("choices", "simulations", "samples", "completion", "chosen", "rejected")
# Fields with the answer to the messages, if it is a text.
_ANSWERS = ("response", "completion")

_Usages: TypeAlias = dict[str, dict[str, tuple[Usage, Any]]]
"""The usage that a record states of its last answer, by session and the hash of the conversation up to it."""


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
        if (parts := _split(value)) is not None:
            return not _is_foreign(value) and any(map(_is_chat, parts[:20]))
        key = _messages_key(value)
        if key is None:
            return says_something(value)
        return not _is_foreign(value) and _are_messages(_decode(value[key]))
    if isinstance(value, list) and value:
        return _are_messages(value) or any(map(_is_chat, filter(_is_conversation, value[:20])))
    return False


def _are_messages(value: Any) -> bool:
    """Whether it is a list of messages, some of which say something."""
    return isinstance(value, list) and bool(value) and is_message(value[0]) and any(map(says_something, value))


def _is_foreign(value: dict[str, Any]) -> bool:
    """Whether a record with messages is one of another layout."""
    is_other = any(isinstance(value.get(key), list) for key in _FOREIGN_LISTS)
    is_other |= any(not _TALK_FIELDS.isdisjoint(to_object(value.get(key))) for key in _FOREIGN_OBJECTS)
    is_swe_agent = "trajectory" in value and isinstance(value.get("history"), list)
    # Of tau2 or tau-bench.
    is_simulation = "task_id" in value and any(key in value for key in ("termination_reason", "reward_info", "traj"))
    return is_other or is_swe_agent or is_simulation or bool(value.get("system")) or is_control_plane_body(value)


def _is_of_other_api(value: Any) -> bool:
    """Whether a conversation has blocks of Anthropic's API or items of the Responses API: others read them."""
    if isinstance(value, dict) and (key := _messages_key(value)) is not None:
        value = value[key]
    if isinstance(value, dict) and (parts := _split(value)) is not None:
        value = parts
    if not isinstance(value, list):
        return is_item(value) or (is_message(value) and has_anthropic_blocks(value.get("content")))
    if any(map(_is_conversation, value)):
        return any(map(_is_of_other_api, value))
    return are_items(value) or any(is_message(item) and has_anthropic_blocks(item.get("content")) for item in value)


def _messages_key(value: dict[str, Any]) -> str | None:
    """The field with the messages; ``data`` in a page of an API."""
    page = value.get("data") if value.get("object") == "list" else None
    if isinstance(page, list) and page and is_message(page[0]):
        return "data"
    return next((key for key in _MESSAGES if value.get(key) is not None), "messages" if "messages" in value else None)


def _decode(messages: Any) -> Any:
    """Some datasets have the messages as JSON text."""
    return decode_json(messages) if isinstance(messages, str) and messages.lstrip().startswith("[") else messages


def _is_conversation(value: Any) -> bool:
    """Whether a value is a conversation or several: an object with messages, or a list of messages."""
    if isinstance(value, list):
        return bool(value) and is_message(value[0])
    return isinstance(value, dict) and (_messages_key(value) is not None or _split(value) is not None)


def _split(value: dict[str, Any]) -> list[Any] | None:
    """The conversations of an object with several; those of Docent have the metadata and the id of their run."""
    for key in _CONVERSATIONS:
        items = value.get(key)
        if key == "transcripts" and isinstance(items, dict):
            items = [{"id": name, **item} if isinstance(item, dict) else item for name, item in items.items()]
        if isinstance(items, list) and items and not is_message(items[0]) and any(map(_has_messages, items[:20])):
            return [_with_run(value, item, n) for n, item in enumerate(items, 1)] if key == "transcripts" else items
    return None


def _with_run(run: dict[str, Any], transcript: Any, number: int) -> Any:
    if not isinstance(transcript, dict):
        return transcript
    run_id = find_id(run, ("id",))
    record = {key: value for key, value in run.items() if key not in ("id", "transcripts", "transcript_groups")}
    record |= {"metadata": to_object(run.get("metadata")) | to_object(transcript.get("metadata"))}
    record |= {"agent_run_id": run_id, "id": run_id and (run_id if number == 1 else f"{run_id}-{number}")}
    return record | {key: value for key, value in drop_null(transcript).items() if key != "metadata"}


def _has_messages(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(_decode(value.get(_messages_key(value) or "messages")), list)


def _read(source: Source) -> Iterator[Draft | Problem]:
    single: dict[str, list[Value]] = {}
    attempts: Counter[str] = Counter()
    trials: dict[str, list[str]] = {}
    usages: _Usages = {}
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
                conversation = _parse(source, item, position, attempts, trials)
                yield make_draft(source, NAME, _with_usage(conversation, usages))
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


def _with_usage(conversation: Conversation, usages: _Usages) -> Conversation:
    """Set the usage that a record states on its last answer, and on the answers that it repeats from earlier records.

    A proxy logs each request with the whole history, and the usage of its answer beside it. That of a record with
    several prompts, the first of its session, may be of all answers: it stays metadata.
    """
    fields, messages = conversation.fields, list(conversation.messages)
    usage = parse_usage(fields.get("usage"), fields)
    is_repeated = conversation.session_id in usages
    if not is_repeated and usage is None:
        return conversation
    answers = usages.setdefault(conversation.session_id, {})
    states_usage = any(item.message.usage is not None for item in messages)
    is_one_run = sum(item.is_prompt for item in messages) <= 1
    history = ""
    for index, item in enumerate(messages):
        message = item.message
        history = hash_record(history, hash_content(message))
        if message.role != "assistant" or states_usage:
            continue
        if usage is not None and index == len(messages) - 1 and (is_repeated or is_one_run):
            answers[history] = usage, fields.get("usage")
        if history in answers:
            message.usage, stated = answers[history]
            message.extra = message.extra | drop_null({"usage": stated})
            messages[index] = item._replace(record=[item.record, stated, message.usage.cost])
    return conversation._replace(messages=messages)


def _without_session_id(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in SESSION_IDS}


def _records(source: Source) -> Iterator[Value | Problem]:
    """Yield the values of a file, and each conversation of a list."""
    values: Iterator[Value | Problem]
    if any(isinstance(value, list) and any(map(_is_conversation, value)) for value in source.head):
        values = (i if isinstance(i, Problem) else Value(i.document, i.value) for i in source.items())
    else:
        values = source.values()
    for item in values:
        if isinstance(item, Value) and isinstance(item.value, dict) and (parts := _split(item.value)) is not None:
            yield from (Value(item.line, part) for part in parts)
        else:
            yield item


def _parse(
    source: Source, item: Value, position: int, attempts: Counter[str], trials: dict[str, list[str]]
) -> Conversation:
    record = {"messages": item.value} if isinstance(item.value, list) else item.value
    key = _messages_key(record) if isinstance(record, dict) else None
    key = key or "messages"
    if isinstance(record, dict):
        record = record | {key: _decode(record.get(key))} if key in record else record
    messages = require_field(record, key, list, "the record")
    if not any(map(says_something, messages)):
        raise MalformedRecord("its messages have neither text nor calls")
    key_of_answer = next((name for name in _ANSWERS if isinstance(record.get(name), str) and record[name]), None)
    if key_of_answer and to_object(messages[-1]).get("role") != "assistant":
        messages = [*messages, {"role": "assistant", "content": record[key_of_answer]}]
    model = next((record[name] for name in ("model", "model_name") if isinstance(record.get(name), str)), None)
    fields = {name: value for name, value in record.items() if name != key}
    session_id = find_id(record, SESSION_IDS)
    if session_id is None and (session_id := find_id(record, TRAJECTORY_IDS)) is not None and parse_scores(fields):
        session_id += _trial_suffix(trials, session_id, messages, fields)
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


def _trial_suffix(trials: dict[str, list[str]], record_id: str, messages: list[Any], fields: dict[str, Any]) -> str:
    """Tell trials of one id apart that say the same and are scored each; an equal record is a copy."""
    versions = trials.setdefault(hash_record(record_id, messages), [])
    version = hash_record(fields)
    if version not in versions:
        versions.append(version)
    number = versions.index(version) + 1
    return f"-{number}" if number > 1 else ""
