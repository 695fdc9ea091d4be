"""Sessions of the GitHub Copilot CLI: ``~/.copilot/session-state/<id>/events.jsonl``, before that ``<id>.jsonl``.

Each line is an event ``{"type", "timestamp", "id", "parentId", "data"}``; ``parentId`` is the event before it.

* A person's message begins a run; messages whose ``source`` is the program or a command do not.
* The events state the output tokens of each answer. The others are totals of the session, written when it ends: what
  was added since the last ones is the usage of the run before them, less what the messages of the time state.
* A nested agent's events name the call that started it: they are a draft of their own.
* What a rewind removed is a line of its own. A compaction is a message marked in ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.importer import (
    READ_ERRORS,
    Draft,
    Importer,
    Location,
    MalformedRecord,
    Membership,
    error_text,
    hash_record,
    json_type,
)
from kern_nb.ingest.importers.copilot_cli.events import Log, Record, Thread
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_object, to_text, without
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Session

NAME = "copilot_cli"

_TYPES = {
    "session.start": "sessionId",
    "session.resume": "resumeTime",
    "user.message": "content",
    "assistant.message": "content",
    "tool.execution_start": "toolCallId",
    "tool.execution_complete": "toolCallId",
}
_EVENTS_FILE = "events"
_YAML_KEYS = frozenset({"name", "summary", "cwd", "branch", "repository"})
_YAML_BYTES = 100_000


class CopilotCli(Importer):
    """Sessions of the GitHub Copilot CLI."""

    name = NAME
    reads = "sessions of the GitHub Copilot CLI"
    locations = (
        Location("~/.copilot", "session-state/*/events.jsonl", "COPILOT_HOME"),
        Location("~/.copilot", "session-state/*.jsonl", "COPILOT_HOME"),
    )

    def recognizes(self, source: Source) -> bool:
        """An event with data of its type."""
        return any(map(_is_event, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session, then the lines that were rewound and the nested agents."""
        log = Log()
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            try:
                if not isinstance(item.value, dict):
                    raise MalformedRecord(f"it must be an object, got {json_type(item.value)}")
                if _is_other_start(log, item.value):  # several files may be joined to one
                    yield from _drafts(source, log)
                    log = Log()
                log.add(item.value)
            except READ_ERRORS as error:
                yield Problem(source.name, item.line, f"The event is not imported: {error_text(error)}.")
        yield from _drafts(source, log)

    def start_time(self, source: Source) -> str:
        """The time of the first event."""
        times = (to_text(value.get("timestamp")) for value in source.head if isinstance(value, dict))
        return next((time for time in times if time), "")


def _is_event(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict) or not isinstance(value.get("type"), str):
        return False
    field = _TYPES.get(value["type"])
    return field is not None and isinstance(value["data"].get(field), str) and "timestamp" in value


def _is_other_start(log: Log, event: Record) -> bool:
    """Whether an event is the start of another session."""
    own = to_id(log.start.get("sessionId"))
    other = to_id(to_object(event.get("data")).get("sessionId")) if event.get("type") == "session.start" else None
    return None not in (own, other) and own != other


def _drafts(source: Source, log: Log) -> Iterator[Draft]:
    if not log.start and not any(thread.messages for thread in log.threads()):
        return
    session_id = to_id(log.start.get("sessionId")) or _name_of(source)
    yield _draft(source, log, log.main, session_id)
    for removed in log.removed:
        yield _draft(source, log, removed, session_id)
    for call_id, caller in log.nested_calls():
        thread = log.nested[call_id]
        if thread.messages:
            parent = session_id if caller is None else f"{session_id}/{caller}"
            yield _draft(source, log, thread, f"{session_id}/{call_id}", Membership(parent, call_id))


def _name_of(source: Source) -> str:
    """The id of a session is the name of its folder, or of its file."""
    folder = PurePath(source.location).parent.name
    return folder if source.session_name.rpartition("/")[2] == _EVENTS_FILE and folder else source.session_name


def _draft(source: Source, log: Log, thread: Thread, session_id: str, membership: Membership | None = None) -> Draft:
    runs, hashes, keys = thread.build_runs(session_id)
    details = _read_workspace(source)
    title = log.title or details.pop("name", None) or details.pop("summary", None)
    context = to_object(log.start.get("context"))
    metadata = {"file": source.name} | details | keep_scalars(context)
    metadata |= keep_scalars(without(log.start, ("sessionId", "startTime"))) | log.totals
    times = [time for time in (to_time(log.first_time), to_time(log.last_time)) if time]
    data = {"model_metrics": log.model_metrics, "events": log.others}
    agent: Record = log.agents.get(membership.tool_call_id or "", {}) if membership else {}
    name = to_text(agent.get("agentDisplayName")) or to_text(agent.get("agentName")) if membership else title
    return Draft(
        file=source.name,
        line=lambda: 1,
        session=Session(
            session_id=session_id,
            agent_id=(to_text(agent.get("agentName")) if membership else None) or "copilot-cli",
            session_data={"session_name": name} if name else None,
            agent_data=None if membership else {NAME: {key: value for key, value in data.items() if value}},
            metadata=metadata,
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(name, without(metadata, ("file",))),
        source=NAME,
        has_record_ids=True,
        membership=membership,
    )


def _read_workspace(source: Source) -> dict[str, str]:
    """The plain fields of ``workspace.yaml`` beside the events."""
    file = source.path.parent / "workspace.yaml"
    if not file.is_file() or source.session_name.rpartition("/")[2] != _EVENTS_FILE:
        return {}
    try:
        with open_binary(file) as stream:
            text = stream.read(_YAML_BYTES).decode(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n"))
    values = {key: value.strip().strip("\"'") for key, _, value in pairs if key in _YAML_KEYS}
    return {key: value for key, value in values.items() if value}
