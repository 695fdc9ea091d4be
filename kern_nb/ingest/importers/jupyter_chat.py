"""Chats of Jupyter AI and jupyterlab-chat: ``*.chat`` files beside the notebooks, one conversation each.

The document has ``messages`` in order, ``users`` by name and ``attachments`` by id. Bots, such as the personas of
Jupyter AI, are the agents: their messages are answers. Each message of a person begins a run, a deleted one too: it
stays, without its text.

The format has no calls. The model, tokens and cost of an answer are those that the ``metadata`` of its message states,
if any; the rest of it is in ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import READ_ERRORS, Draft, Importer, Location, MalformedRecord, error_text, hash_record
from kern_nb.ingest.parsing.times import to_time, to_time_from_ms, to_unix_seconds
from kern_nb.ingest.parsing.tree import record_key
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_list, to_number, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session

NAME = "jupyter_chat"

_PERSONA_PREFIX = "jupyter-ai-personas::"
_MAPPED_FIELDS = ("type", "id", "body", "sender", "time", "attachments", "deleted")
_TEXT_TYPES = ("text/markdown", "text/plain")
_PROFILE = ("name", "display_name")


class JupyterChat(Importer):
    """Chats of jupyterlab-chat."""

    name = NAME
    reads = "chats of Jupyter AI"
    locations = (Location(".", "**/*.chat", "JUPYTER_SERVER_ROOT"),)

    def recognizes(self, source: Source) -> bool:
        """A document with users and messages that have a sender and a body."""
        return any(map(_is_chat, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the conversation."""
        position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif not _is_chat(item.value):
                yield Problem(source.name, item.line, "The record is not imported: it has no messages of a chat.")
            else:
                position += 1
                yield from _read_chat(source, item.line, item.value, position)


def _is_chat(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    has_users = isinstance(value.get("users"), dict) or isinstance(value.get("attachments"), dict)
    return has_users and any(map(_is_message, value["messages"]))


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("sender"), (str, dict)):
        return False
    return (
        isinstance(value.get("body"), str) or value.get("deleted") is True or isinstance(value.get("mime_model"), dict)
    )


def _read_chat(source: Source, line: int, record: dict[str, Any], position: int) -> Iterator[Draft | Problem]:
    details = to_object(record.get("metadata"))
    session_id = to_id(details.get("id")) or source.session_name + ("" if position == 1 else f"-{position}")
    messages: list[SourceMessage] = []
    senders: list[str | None] = []
    for index, message in enumerate(record["messages"]):
        try:
            parsed, sender = _parse(message, record)
        except READ_ERRORS as error:
            at = source.line_of("messages", index, line)
            yield Problem(source.name, at, f"Message {index} is not imported: {error_text(error)}.")
            continue
        key = record_key(session_id, parsed.message_id or f"message {index}")
        messages.append(SourceMessage(parsed, message, key, parsed.role == "user"))
        senders.append(sender)
    runs, hashes, keys = split_runs(session_id, messages)
    first = 0
    for index, run in enumerate(runs):
        _set_names(run, senders[first : first + len(run.messages)])
        first += len(run.messages)
        hashes[index] = hash_record(hashes[index], run.agent_id, run.user_id)
    by_role = [(m.message.role, sender) for m, sender in zip(messages, senders, strict=True) if sender]
    agents, people = (dict.fromkeys(s for role, s in by_role if role == name) for name in ("assistant", "user"))
    times = [item.message.created_at for item in messages if item.message.created_at is not None]
    users = {name: keep_scalars({k: to_object(user).get(k) for k in _PROFILE}) for name, user in _users(record).items()}
    metadata = {"file": source.name} | keep_scalars(without(details, ("id",)))
    yield Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id=next(iter(agents)) if len(agents) == 1 else None,
            user_id=next(iter(people)) if len(people) == 1 else None,
            agent_data={NAME: {"users": users}} if users else None,
            metadata=metadata,
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(users, without(metadata, ("file",))),
        source=NAME,
        has_record_ids=True,
    )


def _users(record: dict[str, Any]) -> dict[str, Any]:
    return to_object(record.get("users"))


def _parse(record: Any, chat: dict[str, Any]) -> tuple[Message, str | None]:
    """A message, and who wrote it. Older versions have the user itself as the sender."""
    if not _is_message(record):
        raise MalformedRecord("it has no sender or no body")
    stated = record["sender"]
    sender = to_text(stated.get("username")) if isinstance(stated, dict) else to_text(stated)
    user = to_object(stated) or to_object(_users(chat).get(sender or ""))
    is_bot = user.get("bot") is True or (sender or "").startswith(_PERSONA_PREFIX)
    extra = {key: value for key, value in without(record, _MAPPED_FIELDS).items() if value not in ([], {}, False)}
    files = to_object(chat.get("attachments"))
    attachments = [files.get(a, a) if isinstance(a, str) else a for a in to_list(record.get("attachments"))]
    extra |= {"attachments": attachments} if attachments else {}
    extra |= {"sender": sender} if sender else {}
    extra |= {"deleted": True} if record.get("deleted") is True else {}
    content = to_text(record.get("body")) or _rich_text(record)
    details = to_object(record.get("metadata")) if is_bot else {}
    message = Message(
        role="assistant" if is_bot else "user",
        content=content,
        model=to_text(details.get("model")),
        usage=parse_usage(details.get("usage"), details),
        message_id=to_id(record.get("id")),
        created_at=_time_of(record),
        extra=extra,
    )
    return message, sender


def _rich_text(record: dict[str, Any]) -> str | None:
    """The text of a message that is output of a kernel."""
    data = to_object(to_object(record.get("mime_model")).get("data"))
    return next((text for name in _TEXT_TYPES if (text := to_text(data.get(name)))), None)


def _time_of(record: dict[str, Any]) -> datetime | None:
    seconds = to_number(record.get("time"))
    return to_time(record.get("time")) if seconds is None else to_time_from_ms(seconds * 1000)


def _set_names(run: Run, senders: list[str | None]) -> None:
    """The person and the agent of a run; several agents are those of its messages only."""
    pairs = list(zip(run.messages, senders, strict=True))
    agents = {sender for message, sender in pairs if message.role == "assistant" and sender}
    people = {sender for message, sender in pairs if message.role == "user" and sender}
    run.agent_id = agents.pop() if len(agents) == 1 else None
    run.user_id = people.pop() if len(people) == 1 else None
