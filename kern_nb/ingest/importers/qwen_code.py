"""Chats of Qwen Code: ``~/.qwen/projects/<folder>/chats/<session id>.jsonl``.

Each line is a record ``{uuid, parentUuid, sessionId, timestamp, type, message: {role, parts}}`` with contents of the
Gemini API. The records are a tree: the path to the last one is the session, that to each other leaf a line of its own.
Records of the client (``system``) are links of the path; a compression among them is a message, a title is that of the
session. The records of a nested agent (``isSidechain``) are a session of their own, a member of the one that they name.
``/branch`` copies records with their ids. Early versions write the documents of Gemini CLI; see `gemini_cli`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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
    find_calls,
    find_responses,
    text_of_parts,
    to_content,
    to_parts,
    to_result,
    to_usage,
)
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.tree import copy_key
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session

NAME = "qwen_code"

_TYPES = ("user", "assistant", "tool_result")
_COUNTS = (
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount",
    "toolUsePromptTokenCount", "totalTokenCount",
)  # fmt: skip
_PROMPT_SUBTYPES = (None, "mid_turn_user_message", "realtime_message", "agent_launch_prompt")
_PATH_FIELDS = frozenset({"uuid", "parentUuid", "sessionId", "forkedFrom", "cwd", "version", "gitBranch"})
_MAPPED_FIELDS = _PATH_FIELDS | {"timestamp", "type", "message", "usageMetadata", "model", "isSidechain", "agentId"}


class QwenCode(Importer):
    """Chats of Qwen Code."""

    name = NAME
    reads = "chats of Qwen Code"
    locations = (
        Location("~/.qwen", "projects/*/chats/*.jsonl", "QWEN_RUNTIME_DIR"),
        Location("~/.qwen", "projects/*/subagents/**/*.jsonl", "QWEN_RUNTIME_DIR"),
    )

    def recognizes(self, source: Source) -> bool:
        """A record with ids and a message of the Gemini API: ``parts``, not ``content``."""
        return any(map(_is_message, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield each session of the file, with the lines that were left."""
        return _read(source)

    def start_time(self, source: Source) -> str:
        """The time of the first record."""
        times = (to_text(value.get("timestamp")) for value in source.head if isinstance(value, dict))
        return next((time for time in times if time), "")


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("uuid", "sessionId")):
        return False
    return value.get("type") in _TYPES and isinstance(to_object(value.get("message")).get("parts"), list)


@dataclass(slots=True)
class _Thread:
    """The records of a session, or of a nested agent in it."""

    session_id: str
    agent_id: str | None = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    line: int = 1

    def add(self, record: dict[str, Any]) -> str | None:
        """Add a record; returns what is wrong with its place."""
        record_id, parent = str(record["uuid"]), to_id(record.get("parentUuid"))
        if record_id in self.records:
            return None
        last = next(reversed(self.records), None)
        self.records[record_id] = record
        if parent is None or parent in self.parents:
            self.parents[record_id] = parent
            return None
        self.parents[record_id] = last
        return (
            None if self.agent_id else f"Its parent {parent[:80]!r} is not in the file: it follows the record before."
        )

    def paths(self) -> list[list[dict[str, Any]]]:
        """The records with a message from the root to each leaf, those to the last record first."""
        inner = set(self.parents.values())
        leaves = [record_id for record_id in reversed(self.parents) if record_id not in inner]
        paths: list[list[dict[str, Any]]] = []
        covered: set[str] = set()
        for leaf in leaves:
            path: list[str] = []
            at: str | None = leaf
            while at is not None:
                path.append(at)
                at = self.parents[at]
            messages = [record_id for record_id in reversed(path) if _is_message_record(self.records[record_id])]
            if not paths or not covered.issuperset(messages):
                paths.append([self.records[record_id] for record_id in messages])
                covered.update(messages)
        return paths


def _is_message_record(record: dict[str, Any]) -> bool:
    return record.get("type") in _TYPES or record.get("subtype") == "chat_compression"


def _read(source: Source) -> Iterator[Draft | Problem]:
    threads: dict[tuple[str, str | None], _Thread] = {}
    titles: dict[str, str] = {}
    fallback = source.session_name
    for item in source.values():
        if isinstance(item, Problem):
            yield item
            continue
        try:
            record = item.value
            if not isinstance(record, dict) or to_id(record.get("uuid")) is None:
                raise MalformedRecord("it must be an object with a 'uuid'")
            _to_source_messages(record)
        except RECORD_ERRORS as error:
            yield Problem(source.name, item.line, f"The record is not imported: {error_text(error)}.")
            continue
        session_id = to_id(record.get("sessionId")) or fallback
        agent_id = to_id(record.get("agentId")) if record.get("isSidechain") is True else None
        thread = threads.setdefault((session_id, agent_id), _Thread(session_id, agent_id, line=item.line))
        if reason := thread.add(record):
            yield Problem(source.name, item.line, reason)
        title = to_text(to_object(record.get("systemPayload")).get("customTitle"))
        if title is not None:
            titles[session_id] = title
    for thread in threads.values():
        for path in thread.paths():
            try:
                yield _draft(source, thread, path, titles.get(thread.session_id))
            except RECORD_ERRORS as error:
                reason = f"Session {thread.session_id[:80]!r} is not imported: {error_text(error)}."
                yield Problem(source.name, thread.line, reason)


def _draft(source: Source, thread: _Thread, path: list[dict[str, Any]], title: str | None) -> Draft:
    is_nested = thread.agent_id is not None
    session_id = f"{thread.session_id}/{thread.agent_id}" if is_nested else thread.session_id
    runs, hashes, keys = split_runs(session_id, [m for record in path for m in _to_source_messages(record)])
    records = list(thread.records.values())
    first = keep_scalars({name: records[0].get(name) for name in ("cwd", "version", "gitBranch", "agentName")})
    payloads = [to_object(record.get("systemPayload")) for record in records]
    origins = [to_id(payload.get("parentSessionId")) for payload in payloads]
    origins += [to_id(to_object(record.get("forkedFrom")).get("sessionId")) for record in records[:1]]
    origin = next((value for value in origins if value), None)
    times = [time for record in records if (time := to_time(record.get("timestamp"))) is not None]
    line = thread.line
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id="qwen-code",
            session_data={"session_name": title} if title and not is_nested else None,
            metadata={"file": source.name, **first, **({"parent_session": origin} if origin else {})},
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, first, origin),
        source=NAME,
        has_record_ids=True,
        membership=Membership(thread.session_id) if is_nested else None,
    )


def _to_source_messages(record: dict[str, Any]) -> list[SourceMessage]:
    """The message of a record, or the results of calls in it."""
    if not _is_message_record(record):
        return []
    kind, record_id, time = record.get("type"), str(record["uuid"]), to_time(record.get("timestamp"))
    if not isinstance(record.get("message", {}), dict):
        raise MalformedRecord(f"'message' must be an object, got {json_type(record['message'])}")
    parts = to_parts(to_list(to_object(record.get("message")).get("parts")))
    value = without(record, _PATH_FIELDS)
    key = copy_key(record_id, value)
    if kind == "tool_result":
        call = to_object(record.get("toolCallResult"))
        results = [to_result(response, time, call.get("status")) for response in find_responses(parts)]
        return [
            SourceMessage(result, value, f"{key}:{number}", starts_run=False) for number, result in enumerate(results)
        ]
    message = Message(role="user", content=to_content(parts), message_id=record_id, created_at=time)
    message.extra = without(record, _MAPPED_FIELDS)
    if kind == "assistant":
        message.role, message.model = "assistant", to_text(record.get("model"))
        message.tool_calls = list(find_calls(parts))
        usage = to_object(record.get("usageMetadata"))
        message.usage = to_usage(usage, _COUNTS)
        if message.usage is not None:
            message.extra["usage"] = usage
    elif kind == "system":
        message.role, message.extra["compaction"] = "system", True
        history = to_list(to_object(record.get("systemPayload")).get("compressedHistory"))
        message.content = text_of_parts(to_parts(to_object(history[0]).get("parts"))) if history else None
    is_prompt = kind == "user" and record.get("subtype") in _PROMPT_SUBTYPES
    return [SourceMessage(message, value, key, is_prompt)]
