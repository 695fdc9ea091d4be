"""Chats of Gemini CLI: ``~/.gemini/tmp/<project>/chats/session-<time>-<id>.jsonl``; before 2026 one ``.json`` document.

The lines are an event log: a header (repeated by a resume), a message that is added or replaced by its id, ``$set`` for
fields of the document, its list of messages among them, and ``$rewindTo``, which removes a message and those after it.

* A prompt begins a run; the session's context, and messages with results of calls, which the calls state as well, do
  not. What was removed is a line of its own. Nested agents have files in a folder named after their parent's session.
* A resume writes the messages again as the API takes them, with new times and without tokens, thoughts and calls: of
  each message the earliest time and the version with the most fields are kept.
* ``tokens.input`` includes cached tokens; ``tokens.output`` excludes thoughts, which are added.
* Early versions of Qwen Code write the same documents, with answers of the type ``qwen``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    Location,
    MalformedRecord,
    Membership,
    error_text,
    hash_record,
    json_type,
)
from kern_nb.ingest.importers.gemini_cli.parts import (
    COMPACTION_PREFIX,
    find_calls,
    find_recorded_result,
    find_responses,
    is_response,
    text_of_parts,
    to_content,
    to_parts,
    to_result,
    to_thoughts,
    to_usage,
)
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.tree import record_key
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session, ToolCall

NAME = "gemini_cli"

_ANSWERS = ("gemini", "qwen")
_TYPES = ("user", "info", "warning", "error", *_ANSWERS)
_COUNTS = ("input", "output", "thoughts", "cached", "tool", "total")
_CONTEXT_PREFIXES = ("<session_context>", "This is the Gemini CLI. We are setting up the context")
_MAX_PATH = 4000
_MAPPED_FIELDS = frozenset({"id", "timestamp", "type", "content", "toolCalls", "thoughts", "tokens", "model"})
_MAPPED_CALL_FIELDS = frozenset({"id", "name", "args", "result", "timestamp"})


class GeminiCli(Importer):
    """Chats of Gemini CLI."""

    name = NAME
    reads = "chats of Gemini CLI"
    locations = (
        Location("~", ".gemini/tmp/*/chats/**/*.json*", "GEMINI_CLI_HOME"),
        Location("~/.qwen", "tmp/*/chats/*.json*", "QWEN_RUNTIME_DIR"),
    )

    def recognizes(self, source: Source) -> bool:
        """A header, a document with messages, or the events of a log."""
        return any(map(_is_event, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session, then a draft for each line that was removed."""
        return _read(source)

    def start_time(self, source: Source) -> str:
        """The time of the header."""
        times = (to_text(value.get("startTime")) for value in source.head if isinstance(value, dict))
        return next((time for time in times if time), "")


def _is_event(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("sessionId"), str) and isinstance(value.get("projectHash"), str):
        return "messages" not in value or any(map(_is_message, to_list(value["messages"])))
    changes = value.get("$set")
    if isinstance(changes, dict):
        return any(map(_is_message, to_list(changes.get("messages"))))
    return value.get("type") in _ANSWERS and _is_message(value) and "timestamp" in value


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str) or value.get("type") not in _TYPES:
        return False
    return "content" in value or "toolCalls" in value


@dataclass(slots=True)
class _Log:
    """The document that the events describe, with every version of each message merged."""

    fields: dict[str, Any] = field(default_factory=dict)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    removed: list[list[str]] = field(default_factory=list)
    final: set[str] | None = None
    problems: list[str] = field(default_factory=list)
    _present: set[str] = field(default_factory=set)

    def add(self, record: dict[str, Any]) -> None:
        """Apply an event."""
        if "$rewindTo" in record:
            self._rewind(record["$rewindTo"])
        elif "$set" in record:
            self._set(record["$set"])
        elif "sessionId" in record:
            self._set(without(record, ("startTime",)) if self.fields.get("startTime") else record)
        elif "id" in record and "type" in record:
            message_id = self._merge(record, is_rebuilt=False)
            self._insert(message_id, len(self.order))
            if self.final is not None:
                self.final.add(message_id)
        else:
            raise MalformedRecord("it is no header, message or change")

    def is_other_session(self, record: dict[str, Any]) -> bool:
        """Whether a record is the header of another session: several files may be joined to one."""
        own, other = to_id(self.fields.get("sessionId")), to_id(record.get("sessionId"))
        return "$set" not in record and None not in (own, other) and own != other

    def _set(self, changes: Any) -> None:
        if not isinstance(changes, dict):
            raise MalformedRecord(f"'$set' must be an object, got {json_type(changes)}")
        self.fields |= without(changes, ("messages",))
        if not isinstance(changes.get("messages"), list):
            return
        last: str | None = None
        listed: set[str] = set()
        for index, record in enumerate(changes["messages"]):
            if not isinstance(record, dict) or to_id(record.get("id")) is None:
                self.problems.append(f"Message {index} is not imported: it has no id.")
                continue
            message_id = self._merge(record, is_rebuilt=True)
            if message_id not in self._present:
                self._insert(message_id, len(self.order) if last is None else self.order.index(last) + 1)
            last = message_id
            listed.add(message_id)
        if any(map(self._is_said, listed)):
            self.final = listed

    def _insert(self, message_id: str, at: int) -> None:
        if message_id not in self._present:
            self.order.insert(at, message_id)
            self._present.add(message_id)

    def _merge(self, record: dict[str, Any], *, is_rebuilt: bool) -> str:
        """Add a version of a message. One that was rebuilt from the history of the API has fewer fields."""
        message_id = to_id(record.get("id"))
        if message_id is None:
            raise MalformedRecord("the message has no id")
        old = self.messages.get(message_id)
        if old is None:
            self.messages[message_id] = record
            return message_id
        new = without(record, ())
        merged = new | old if is_rebuilt else old | new
        times = [time for time in (old.get("timestamp"), record.get("timestamp")) if isinstance(time, str)]
        merged["timestamp"] = min(times, default=None)
        for name in ("toolCalls", "thoughts", "tokens", "model"):
            if stated := merged.get(name) or old.get(name) or record.get(name):
                merged[name] = stated
        self.messages[message_id] = merged
        return message_id

    def _rewind(self, target: Any) -> None:
        if target not in self._present:
            raise MalformedRecord(f"the message {str(target)[:80]!r} that it goes back to is not in the file")
        self.removed.append(list(self.order))
        at = self.order.index(target)
        self._present -= set(self.order[at:])
        del self.order[at:]

    def lines(self) -> list[list[str]]:
        """The ids of the messages of each line, the current one first.

        A list of messages that leaves some out removes them, except after a compaction, which replaces them.
        """
        lines = [self.order, *self.removed]
        removed = {i for i in self.order if self.final is not None and i not in self.final and self._is_said(i)}
        if removed and not any(self._is_compaction(i) for i in self.order):
            lines.insert(0, [i for i in self.order if i not in removed])
        return lines

    def _is_said(self, message_id: str) -> bool:
        message = self.messages[message_id]
        parts = to_parts(message.get("content"))
        is_context = is_response(parts) or text_of_parts(parts).lstrip().startswith(_CONTEXT_PREFIXES)
        return message.get("type") in _ANSWERS or (message.get("type") == "user" and not is_context)

    def _is_compaction(self, message_id: str) -> bool:
        return text_of_parts(to_parts(self.messages[message_id].get("content"))).lstrip().startswith(COMPACTION_PREFIX)


def _read(source: Source) -> Iterator[Draft | Problem]:
    log = _Log()
    first_line = 1
    for item in source.values():
        if isinstance(item, Problem):
            yield item
            continue
        try:
            if not isinstance(item.value, dict):
                raise MalformedRecord(f"it must be an object, got {json_type(item.value)}")
            if log.is_other_session(item.value):
                yield from _drafts(source, log, first_line)
                log, first_line = _Log(), item.line
            log.add(item.value)
        except RECORD_ERRORS as error:
            yield Problem(source.name, item.line, f"The record is not imported: {error_text(error)}.")
        yield from (Problem(source.name, item.line, reason) for reason in log.problems)
        log.problems.clear()
    yield from _drafts(source, log, first_line)


def _drafts(source: Source, log: _Log, first_line: int) -> Iterator[Draft | Problem]:
    unreadable: set[str] = set()
    for message_id, record in log.messages.items():
        try:
            _to_source_messages(record, "", set())
        except RECORD_ERRORS as error:
            unreadable.add(message_id)
            reason = f"Message {message_id[:80]!r} is not imported: {error_text(error)}."
            yield Problem(source.name, first_line, reason)
    for line in log.lines():
        records = [log.messages[message_id] for message_id in line if message_id not in unreadable]
        try:
            draft = _draft(source, log, records, first_line)
            draft.lacks_records = len(records) < len(line)
            yield draft
        except RECORD_ERRORS as error:
            yield Problem(source.name, first_line, f"The session is not imported: {error_text(error)}.")


def _draft(source: Source, log: _Log, records: list[dict[str, Any]], first_line: int) -> Draft:
    fields = log.fields
    recorded_id = to_id(fields.get("sessionId"))
    session_id = recorded_id or source.session_name
    answered = {
        to_id(call.get("id"))
        for record in records
        for call in map(to_object, to_list(record.get("toolCalls")))
        if find_recorded_result(call, None) is not None
    }
    messages = [m for record in records for m in _to_source_messages(record, session_id, answered)]
    runs, hashes, keys = split_runs(session_id, messages)
    for index, run in enumerate(runs):
        _set_status(run)
        hashes[index] = hash_record(hashes[index], run.status, run.error)
    title = to_text(fields.get("summary"))
    is_qwen = any(record.get("type") == "qwen" for record in records)
    times = [to_time(fields.get(name)) for name in ("startTime", "lastUpdated")]
    return Draft(
        file=source.name,
        line=lambda: first_line,
        session=Session(
            session_id=session_id,
            agent_id="qwen-code" if is_qwen else "gemini-cli",
            session_data={"session_name": title} if title else None,
            agent_data={NAME: {k: v for k, v in fields.items() if isinstance(v, (dict, list)) and v}},
            metadata={"file": source.name}
            | _project_root(source)
            | keep_scalars(without(fields, ("sessionId", "summary", "startTime", "lastUpdated"))),
            created_at=to_unix_seconds(times[0]),
            updated_at=to_unix_seconds(times[1] or times[0]),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, fields.get("projectHash"), fields.get("kind"), fields.get("directories")),
        source=NAME,
        has_record_ids=True,
        membership=_find_membership(source, fields, session_id),
    )


def _project_root(source: Source) -> dict[str, str]:
    """The folder of the project, which a file beside the folder of the chats names."""
    folder = next((parent.parent for parent in source.path.absolute().parents if parent.name == "chats"), None)
    if folder is not None:
        with suppress(OSError), open_binary(folder / ".project_root") as file:
            text = file.read(_MAX_PATH).decode(errors="replace").strip()
            return {"project_root": text} if text else {}
    return {}


def _find_membership(source: Source, fields: dict[str, Any], session_id: str) -> Membership | None:
    """The parent of a nested agent, after which the folder of its file is named."""
    folders = PurePath(source.location).parts[:-1]
    is_nested = fields.get("kind") == "subagent" and "chats" in folders[:-1] and folders[-1] != session_id
    return Membership(folders[-1]) if is_nested else None


def _to_source_messages(record: dict[str, Any], session_id: str, answered: set[str | None]) -> list[SourceMessage]:
    """A message, then the results of its calls. ``answered`` are the calls that state their results."""
    message_id, kind, time = to_id(record.get("id")), record.get("type"), to_time(record.get("timestamp"))
    if not isinstance(kind, str):
        raise MalformedRecord(f"its type must be a string, got {json_type(kind)}")
    parts = to_parts(record.get("content"))
    value = [record.get(name) for name in ("type", "content", "model", "tokens", "thoughts")]
    key = record_key(session_id, str(message_id))
    if kind == "user" and is_response(parts):
        responses = [to_result(response, time, None) for response in find_responses(parts)]
        new = [result for result in responses if result.tool_call_id not in answered]
        answered |= {result.tool_call_id for result in new}
        return [SourceMessage(m, m.content, f"{key}:{m.tool_call_id}", starts_run=False) for m in new]
    extra = without(record, _MAPPED_FIELDS)
    text = text_of_parts(parts).lstrip()
    is_context, is_compaction = text.startswith(_CONTEXT_PREFIXES), text.startswith(COMPACTION_PREFIX)
    if is_compaction:
        extra["compaction"] = True
    message = Message(role="system", content=to_content(parts), message_id=message_id, created_at=time, extra=extra)
    results: list[Message] = []
    if kind == "user":
        message.role = "user"
    elif kind in _ANSWERS:
        results = _set_answer(message, record, parts)
        value.append(record.get("toolCalls"))
    else:
        message.extra["type"] = kind
    if is_context:  # its id is a hash of it, which other sessions have as well
        key = f"{session_id}/{message_id}"
    source_message = SourceMessage(message, value, key, kind == "user" and not is_context and not is_compaction)
    return [source_message, *(SourceMessage(m, None, f"{key}:{m.tool_call_id}", starts_run=False) for m in results)]


def _set_answer(message: Message, record: dict[str, Any], parts: list[dict[str, Any]]) -> list[Message]:
    """Set the fields of an answer; returns the results of its calls."""
    thoughts = to_thoughts(record.get("thoughts"))
    content = [part for part in parts if not part.get("thought")] if thoughts else parts
    message.role, message.content = "assistant", to_content([*thoughts, *content])
    message.model = to_text(record.get("model"))
    tokens = to_object(record.get("tokens"))
    message.usage = to_usage(tokens, _COUNTS)
    if message.usage is not None:
        message.extra["usage"] = tokens
    results = []
    for call in map(to_object, to_list(record.get("toolCalls"))):
        time = to_time(call.get("timestamp"))
        message.tool_calls.append(
            ToolCall(
                tool_call_id=to_id(call.get("id")),
                tool_name=to_text(call.get("name")),
                args=call.get("args"),
                extra=without(call, _MAPPED_CALL_FIELDS),
            )
        )
        result = find_recorded_result(call, time)
        if result is not None:
            results.append(result)
    recorded = {call.tool_call_id for call in message.tool_calls}
    message.tool_calls += [call for call in find_calls(parts) if call.tool_call_id not in recorded]
    return results


def _set_status(run: Run) -> None:
    """A run that ends with an error failed; the client states a cancellation as information."""
    last = run.messages[-1]
    kind, text = last.extra.get("type"), last.content if isinstance(last.content, str) else None
    if last.role != "system":
        return
    if kind == "error":
        run.status, run.error = "ERROR", text or "The run failed."
    elif kind == "info" and text == "Request cancelled.":
        run.status = "CANCELLED"
