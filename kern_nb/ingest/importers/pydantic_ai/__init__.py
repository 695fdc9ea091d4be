"""Message histories of pydantic-ai: a list of requests and responses, as `all_messages_json` and the type adapter dump.

``[{"kind": "request" | "response", "parts": [{"part_kind": "user-prompt" | "text" | "tool-call" | ...}], ...}]``, in a
file each or one list or message per line: a list that begins with the one before is a longer version of it, any other
one of the same conversation goes on with it. Also a ``Conversation``: an object with such a list as its ``messages``,
an id, and the calls that wait for an approval or a result.

A session is a conversation (``conversation_id``, in newer versions), else a file. A run is a run of the agent
(``run_id``), else a prompt with what answers it. Instructions, which each request repeats, are in the session's
``agent_data``. A retry is the failed result of its call, or a user message that begins no run. Counts of tokens are 0
where a provider states none: a response without any token has no usage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.importers.pydantic_ai.parts import parse_request, parse_response
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import to_id, to_object
from kern_nb.ingest.run_splitter import SourceMessage, build_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "pydantic_ai"

_KINDS = ("request", "response")
_CONVERSATION_FACTS = ("deferred_tool_requests", "usage", "metadata")


class PydanticAI(Importer):
    """Message histories of pydantic-ai."""

    name = NAME
    reads = "message histories of pydantic-ai"

    def recognizes(self, source: Source) -> bool:
        """A list of requests and responses, or one of them, with a part of a stated kind."""
        histories = (history for value in source.head for history in _histories(value))
        return any(_is_message(message) for history in histories for message in history.messages[:20])

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per conversation."""
        conversations: dict[str, list[_Record]] = {}
        facts: dict[str, dict[str, Any]] = {}
        count = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            histories = _histories(item.value)
            for history in histories:
                records: list[_Record] = []
                for message in history.messages:
                    try:
                        records.append(_parse(message, item.line))
                    except RECORD_ERRORS as error:
                        yield Problem(source.name, item.line, f"A message is not imported: {error_text(error)}.")
                count += item.value is not history.messages[0]
                default_id = _default_id(source, count, item.line if len(histories) == 1 else count)
                if records:
                    session_id = _add(conversations, records, history.session_id, default_id)
                    facts[session_id] = history.facts
        for session_id, records in conversations.items():
            try:
                yield _draft(source, session_id, records, facts[session_id])
            except RECORD_ERRORS as error:
                text = f"Session {session_id!r} is not imported: {error_text(error)}."
                yield Problem(source.name, records[0].line, text)


class _History(NamedTuple):
    """A list of messages that is not empty, and what the object that has it states besides."""

    messages: list[Any]
    facts: dict[str, Any]

    @property
    def session_id(self) -> str | None:
        return to_id(self.facts.get("conversation_id"))


def _histories(value: Any) -> list[_History]:
    """The histories in a value: a list of messages, a message, a conversation, or a list of these."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list) and "kind" not in value:
        facts = {key: item for key, item in value.items() if key != "messages"}
        return [_History(value["messages"], facts)] if value["messages"] else []
    if not isinstance(value, list):
        return [_History([value], {})]
    if any(isinstance(item, list) or "messages" in to_object(item) for item in value):
        return [
            history
            for item in value
            for history in (_histories(item) if isinstance(item, dict) else [_History(item, {})] if item else [])
        ]
    return [_History(value, {})] if value else []


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("kind") not in _KINDS or not isinstance(value.get("parts"), list):
        return False
    return any(isinstance(part, dict) and isinstance(part.get("part_kind"), str) for part in value["parts"])


class _Record(NamedTuple):
    """A request or a response: its messages, and the JSON that is the same in every copy of it."""

    line: int
    value: dict[str, Any]
    run_id: str | None
    conversation_id: str | None
    messages: list[SourceMessage]
    content: dict[str, Any]


def _parse(value: Any, line: int) -> _Record:
    kind = require_field(value, "kind", str, "the message")
    if kind not in _KINDS:
        raise MalformedRecord(f"its kind is {kind!r}")
    require_field(value, "parts", list, "the message")
    content = {key: item for key, item in value.items() if key != "conversation_id"}
    messages = parse_request(value) if kind == "request" else parse_response(value)
    run_id, conversation_id = (
        v if isinstance(v := value.get(n), str) and v else None for n in ("run_id", "conversation_id")
    )
    hash_record(content)  # so that a message that cannot be hashed does not reject the others
    return _Record(line, value, run_id, conversation_id, messages, content)


def _default_id(source: Source, count: int, line: int) -> str:
    """The id of a conversation that states none: the path, and the line of each further list."""
    stem = source.session_name
    return stem if count <= 1 else f"{stem}-{line}"


def _add(
    conversations: dict[str, list[_Record]], records: list[_Record], stated_id: str | None, default_id: str
) -> str:
    """Add a list to its conversation, and return its id: the list repeats all or none of what is there."""
    ids = [record.conversation_id for record in records if record.conversation_id]
    session_id = stated_id or (ids[-1] if ids else default_id)
    before = conversations.setdefault(session_id, [])
    length = min(len(before), len(records))
    if length and all(a.content == b.content for a, b in zip(before, records[:length], strict=False)):
        conversations[session_id] = before if len(before) > len(records) else records
    else:
        before += records
    return session_id


def _draft(source: Source, session_id: str, records: Sequence[_Record], facts: dict[str, Any]) -> Draft:
    has_ids = all(record.run_id for record in records)
    groups: list[list[SourceMessage]] = []
    owners: list[list[_Record]] = []
    ordinals: dict[str | None, int] = {}
    for record in records:
        ordinal = ordinals[record.run_id] = ordinals.get(record.run_id, 0) + 1
        if not groups or _starts_run(record, owners[-1], groups[-1]):
            groups.append([])
            owners.append([])
        owners[-1].append(record)
        for position, item in enumerate(record.messages):
            key = f"{record.run_id}/{ordinal:05}.{position:03}" if has_ids else None
            groups[-1].append(item._replace(record=[record.content, position], key=key))
    runs, hashes, keys = build_runs(session_id, groups)
    for index, run in enumerate(runs):
        is_paused = bool(facts.get("deferred_tool_requests")) and run is runs[-1]
        hashes[index] = hash_record(hashes[index], _describe(run, owners[index], is_paused=is_paused))
    line = records[0].line
    values = [record.value for record in records]
    instructions = [v["instructions"] for v in values if isinstance(v.get("instructions"), str) and v["instructions"]]
    times = [time.timestamp() for run in runs for time in (run.created_at, run.finished_at) if time]
    data = {"system_instructions": instructions[-1]} if instructions else {}
    data |= {key: facts[key] for key in _CONVERSATION_FACTS if facts.get(key)}
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id="pydantic-ai",
            agent_data=data or None,
            metadata={"file": source.name},
            created_at=int(min(times)) if times else None,
            updated_at=int(max(times)) if times else None,
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        has_record_ids=has_ids,
        session_hash=hash_record(data, max(times, default=None)),
        source=NAME,
    )


def _starts_run(record: _Record, owners: list[_Record], messages: list[SourceMessage]) -> bool:
    """Whether a record begins a run: it has the id of another run or, without ids, the next prompt."""
    before = owners[-1].run_id
    if record.run_id or before:
        return record.run_id != before
    has_prompt = any(item.is_prompt for item in messages)
    return has_prompt and any(item.is_prompt for item in record.messages) and owners[-1].value["kind"] == "response"


def _describe(run: Run, records: Sequence[_Record], *, is_paused: bool) -> list[Any]:
    """Set what the source states about a run; return it, for the hash."""
    responses = [record.value for record in records if record.value["kind"] == "response"]
    last = records[-1].value
    if is_paused or last.get("state") in ("interrupted", "incomplete"):
        run.status = "INTERRUPTED"
    elif responses and last is responses[-1] and last.get("finish_reason") == "error":
        run.status = "ERROR"
    names = [r["provider_name"] for r in responses if isinstance(r.get("provider_name"), str) and r["provider_name"]]
    run.model_provider = names[-1] if names else None
    calls = [call for message in run.messages for call in message.tool_calls]
    if calls and (calls[-1].tool_name or "").startswith("final_result"):
        run.output = calls[-1].args  # the structured output of an agent is the call of a tool
    if records[0].run_id:
        run.extra = {"run_id": records[0].run_id}
    times = [time for value in responses if (time := to_time(value.get("timestamp")))]
    if times and run.finished_at is None:
        run.finished_at = max(times)
    return [run.status, run.model_provider, run.extra]
