"""Reading the file of a Claude Code transcript: its records, its id, and the sub-agents that it calls."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from kern_nb.ingest.archives import plain_name
from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, Membership, error_text, hash_record
from kern_nb.ingest.importers.claude_code.messages import Record, is_message, require_message, result_ids
from kern_nb.ingest.importers.claude_code.tree import to_entry
from kern_nb.ingest.parsing.tree import Entry, link
from kern_nb.ingest.source import Source, Value
from kern_nb.ingest_report import Problem
from kern_nb.records import text_of

_IGNORED = frozenset({"progress", "file-history-snapshot", "file-history-delta"})
SUBAGENTS = "subagents"
"""The folder of the files of sub-agents."""


@dataclass(slots=True)
class TranscriptFile:
    """A file of records.

    ``entries`` have a ``uuid``; ``sidechains`` are those of sub-agents in the transcript of their caller; ``events``
    are no messages. ``agent_calls`` is the call that started each sub-agent, by the sub-agent's id. ``membership`` is
    set if the whole file is that of the sub-agent ``agent``, which ``description`` describes.
    """

    source: Source
    entries: list[Entry] = field(default_factory=list)
    sidechains: list[Entry] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    session_id: str = ""
    agent: str = ""
    agent_calls: dict[str, str] = field(default_factory=dict)
    membership: Membership | None = None
    description: Record = field(default_factory=dict)


def read_files(source: Source) -> list[TranscriptFile]:
    """Read the records of a file, to which several transcripts may be joined."""
    reader = _Reader(source)
    for item in source.values():
        if isinstance(item, Problem):
            reader.file.problems.append(item)
            reader.is_damaged = True
        else:
            reader.add(item)
    files = _split_sessions(reader.file)
    for file in files:
        _identify(file)
    return files


def _split_sessions(file: TranscriptFile) -> list[TranscriptFile]:
    """The transcripts of a file that is not named after one of its sessions, if their records are not linked."""
    ids = {_text(entry.record.get("sessionId")) for entry in file.entries} - {""}
    if len(ids) <= 1 or _path(file).stem in ids:
        return [file]
    links = link(file.entries)
    roots: dict[int, int] = {}
    sessions: dict[int, str] = {}
    for position in links.order:
        parent = links.parents[position]
        root = roots[position] = position if parent is None else roots[parent]
        sessions[root] = _text(file.entries[position].record.get("sessionId")) or sessions.get(root, "")
    parts: dict[str, TranscriptFile] = {}
    for position, entry in enumerate(file.entries):
        session_id = sessions[roots[position]]
        if session_id not in parts:
            parts[session_id] = TranscriptFile(file.source, agent_calls=file.agent_calls)
        parts[session_id].entries.append(entry)
    first = next(iter(parts.values()))
    first.problems = file.problems
    for entry in file.sidechains:
        parts.get(_text(entry.record.get("sessionId")), first).sidechains.append(entry)
    leaves = {entry.key: session_id for session_id, part in parts.items() for entry in part.entries}
    for event in file.events:
        stated = parts.get(_text(event.get("sessionId")) or leaves.get(_text(event.get("leafUuid")), ""))
        for part in [stated] if stated else parts.values():
            part.events.append(event)
    return list(parts.values())


def _path(file: TranscriptFile) -> PurePath:
    return PurePath(plain_name(file.source.location))


class _Reader:
    def __init__(self, source: Source) -> None:
        self.file = TranscriptFile(source)
        self.lines: dict[str, Entry] = {}
        self.is_damaged = False

    def add(self, item: Value) -> None:
        record = item.value
        try:
            if not isinstance(record, dict):
                raise MalformedRecord("it is not an object")
            require_message(record)
        except RECORD_ERRORS as error:
            self._report(item.line, f"The record is not imported: {error_text(error)}.")
            self.is_damaged = True
        if isinstance(record, dict):
            self._note_agent(record)
            if isinstance(record.get("uuid"), str):
                self._add_entry(item.line, record)
            elif is_message(record):
                self._report(item.line, "The message has no uuid; it follows the one before it.")
                self.is_damaged = True
                uuid = hash_record(record)
                self._add_entry(item.line, record | {"uuid": uuid, "parentUuid": f"before {uuid}"})
            else:
                self._add_event(record)

    def _add_entry(self, line: int, record: Record) -> None:
        uuid = record["uuid"]
        if uuid in self.lines:
            if self.lines[uuid].record != record:
                self._report(line, f"The record is not imported: line {self.lines[uuid].line} has its uuid, {uuid!r}.")
            return
        self.lines[uuid] = entry = to_entry(line, record, after_damage=self.is_damaged)
        (self.file.sidechains if record.get("isSidechain") is True else self.file.entries).append(entry)
        if is_message(record):
            self.is_damaged = False
        else:
            self._add_event(record)

    def _add_event(self, record: Record) -> None:
        kind = record.get("type")
        if not (isinstance(kind, str) and kind in _IGNORED):
            self.file.events.append(record)

    def _note_agent(self, record: Record) -> None:
        """Note which call started a sub-agent: the call's result states it, as do reports of its progress."""
        details, progress = record.get("toolUseResult"), record.get("data")
        if isinstance(details, dict) and isinstance(details.get("agentId"), str) and is_message(record):
            ids = result_ids(record)
            if len(ids) == 1:
                self.file.agent_calls.setdefault(details["agentId"], ids.pop())  # later calls resume it
        elif record.get("type") == "progress" and isinstance(progress, dict):
            agent, call = progress.get("agentId"), record.get("parentToolUseID")
            if isinstance(agent, str) and isinstance(call, str):
                self.file.agent_calls.setdefault(agent, call)

    def _report(self, line: int, reason: str) -> None:
        self.file.problems.append(Problem(self.file.source.name, line, reason))


def _identify(file: TranscriptFile) -> None:
    """Set the session id of a file; that of a sub-agent's begins with its caller's."""
    path = _path(file)
    name = PurePath(file.source.name)
    entries = file.entries or file.sidechains
    ids = [_text(entry.record.get("sessionId")) for entry in entries]
    stated = [session_id for session_id in ids if session_id]
    file.session_id = path.stem if path.stem in stated else stated[-1] if stated else name.with_suffix("").as_posix()
    folders = path.parts[:-1]
    is_below = SUBAGENTS in folders
    if not file.sidechains and not is_below:
        return
    if any(is_message(entry.record) for entry in file.entries) and not is_below:
        return
    file.entries, file.sidechains = sorted(file.entries + file.sidechains, key=lambda entry: entry.line), []
    caller = file.session_id
    if is_below:
        position = len(folders) - 1 - folders[::-1].index(SUBAGENTS)
        caller = folders[position - 1] if position > 1 else caller
    agents = [agent for entry in file.entries if (agent := _text(entry.record.get("agentId")))]
    file.agent = path.stem.removeprefix("agent-") if is_below or not agents else agents[-1]
    file.session_id = agent_session_id(caller, file.agent)
    with contextlib.suppress(OSError, ValueError, RecursionError):
        description = json.loads(file.source.path.with_suffix(".meta.json").read_text(encoding="utf-8"))
        file.description = description if isinstance(description, dict) else {}
    file.membership = Membership(caller, _text(file.description.get("toolUseId")) or None)


def agent_session_id(caller: str, agent: str) -> str:
    """The id of the session of a sub-agent."""
    return f"{caller}.agent-{agent}"


def split_sidechains(entries: list[Entry]) -> dict[str, list[Entry]]:
    """The records of the sub-agents in a transcript by the id of each, or by the uuid of its first record."""
    names: dict[str, str] = {}
    chains: dict[str, list[Entry]] = {}
    for entry in entries:
        record = entry.record
        parent = _text(record.get("parentUuid"))
        uuid = _text(record["uuid"])
        name = _text(record.get("agentId")) or names.get(parent, uuid)
        names[uuid] = name
        chains.setdefault(name, []).append(entry)
    return {name: chain for name, chain in chains.items() if any(is_message(entry.record) for entry in chain)}


def call_with_prompt(entries: list[Entry], chain: list[Entry]) -> str | None:
    """The call whose prompt is the first message of a sub-agent: older versions do not state the call."""
    prompts = (text_of(_content(entry, "user")) for entry in chain)
    prompt = next(filter(None, prompts), None)
    for entry in entries if prompt else ():
        content = _content(entry, "assistant")
        for part in content if isinstance(content, list) else ():
            is_call = isinstance(part, dict) and isinstance(part.get("input"), dict)
            if is_call and part["input"].get("prompt") == prompt:
                return _text(part.get("id")) or None
    return None


def _content(entry: Entry, kind: str) -> Any:
    record = entry.record
    return record["message"]["content"] if record.get("type") == kind and is_message(record) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
