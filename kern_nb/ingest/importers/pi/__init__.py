"""Sessions of the pi coding agent: JSON lines in ``~/.pi/agent/sessions/--<folder>--/<time>_<id>.jsonl``.

The first line is the header (``type: session``), the others are entries. In the first generation they follow each
other; since version 2 each states the entry before it, so that a file is a tree: each leaf is a draft, that of the
last entry first. Oh My Pi and Prime write the same layout.

* A run is a person's prompt and what follows. Shell commands of the person, messages of extensions and summaries of a
  compaction or of an abandoned branch begin no run.
* A fork repeats the entries of its parent: the key of a message is its entry's id and time. The first generation has no
  ids: there it is the time and the content of the message.
* ``input`` excludes cached tokens, so they are added. A cost of 0 beside spent tokens is unknown.
* The last ``session_info`` is the title; labels are in the ``extra`` of the message and in ``agent_data``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Fork, Importer, Location, error_text, hash_record
from kern_nb.ingest.importers.pi.messages import SUMMARIES, Record, is_message, parse_entry, time_of, to_time
from kern_nb.ingest.parsing import tree
from kern_nb.ingest.parsing.tree import Entry
from kern_nb.ingest.parsing.values import to_id
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "pi"

_STATUSES = {"aborted": "CANCELLED", "error": "ERROR"}
_METADATA = {"cwd": "cwd", "version": "version", "provider": "provider", "modelId": "model"}
_METADATA |= {"thinkingLevel": "thinking_level", "parentSession": "parent_session", "branchedFrom": "parent_session"}


class Pi(Importer):
    """Sessions of pi."""

    name = NAME
    reads = "sessions of the pi coding agent"
    locations = (
        Location("~/.pi/agent", "sessions/**/*.jsonl", "PI_CODING_AGENT_DIR"),
        Location("~/.pi/agent/sessions", "**/*.jsonl", "PI_CODING_AGENT_SESSION_DIR"),
        Location("~/.omp/agent", "sessions/**/*.jsonl"),
        Location("~/.prime/agent", "sessions/**/*.jsonl"),
    )

    def recognizes(self, source: Source) -> bool:
        """A header with a version or a working directory, or entries that only pi has; messages have a content."""
        records = [value for value in source.head if isinstance(value, dict)]
        messages = [record for record in records if record.get("type") == "message"]
        if messages and not any(map(is_message, messages)):
            return False
        headers = [record for record in records if record.get("type") == "session"]
        if any("harness" in header for header in headers):
            return False
        return any(map(_is_header, headers)) or any(map(_is_pi_entry, records))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the lines of the conversation, that of the last entry first."""
        header: Record = {}
        entries: list[Entry] = []
        is_damaged = False
        keys: set[str] = set()
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                is_damaged = True
            elif not isinstance(item.value, dict):
                yield Problem(source.name, item.line, "The record is not imported: it is not an object.")
                is_damaged = True
            elif item.value.get("type") == "session" and _is_other(header, item.value):
                if header:  # several files may be joined to one
                    yield from _drafts(source, header, entries)
                    entries, keys = [], set()
                header = item.value
            elif item.value.get("type") == "message" and not is_message(item.value):
                yield Problem(source.name, item.line, "The message is not imported: it has no role or no content.")
                entries.append(_to_entry(item.line, item.value, entries, after_damage=True))
                is_damaged = True
            else:
                entry = _to_entry(item.line, item.value, entries, after_damage=is_damaged)
                is_damaged = is_damaged and not entry.is_message
                if entry.key in keys:
                    yield Problem(
                        source.name, item.line, f"The entry is not imported: its id {entry.key!r} is repeated."
                    )
                    continue
                keys.add(entry.key)
                entries.append(entry)
        if header or any(entry.is_message for entry in entries):
            yield from _drafts(source, header, entries)

    def start_time(self, source: Source) -> str:
        """The time of the header, or of the first entry."""
        times = (value.get("timestamp") for value in source.head if isinstance(value, dict))
        return next((time for time in times if isinstance(time, str)), "")


def _is_other(header: Record, record: Record) -> bool:
    """Whether a header is the first one, or that of another session."""
    own, other = to_id(header.get("id")), to_id(record.get("id"))
    return not header or (None not in (own, other) and own != other)


def _is_header(record: Record) -> bool:
    return to_id(record.get("id")) is not None and (
        isinstance(record.get("cwd"), str) or isinstance(record.get("version"), int)
    )


def _is_pi_entry(record: Record) -> bool:
    """Whether a record is pi's if the header is missing."""
    if not isinstance(record.get("timestamp"), str):
        return False
    if record.get("type") == "model_change":
        return "modelId" in record
    if record.get("type") == "thinking_level_change":
        return "thinkingLevel" in record
    message = record.get("message")
    if record.get("type") != "message" or not isinstance(message, dict) or not is_message(record):
        return False
    return message["role"] == "toolResult" or {"api", "provider", "stopReason"} <= message.keys()


def _to_entry(line: int, record: Record, before: list[Entry], *, after_damage: bool) -> Entry:
    previous = before[-1].key if before else None
    key, parent = to_id(record.get("id")), record.get("parentId")
    if key is None:  # the first generation, or a damaged entry
        key, parent = f"line {line}", previous
    if parent not in (None, ""):
        parent = to_id(parent) or previous
    return Entry(line, record, key, parent or None, is_message(record), after_damage)


def _drafts(source: Source, header: Record, entries: list[Entry]) -> Iterator[Draft | Problem]:
    links = tree.link(entries)
    for entry in links.orphans:
        text = f"The entry's parent {entry.parent!r} is not in the file: it begins a line of the conversation."
        yield Problem(source.name, entry.line, text)
    steps = tree.build_steps(entries, links, lambda entry: entry.record.get("type") == "message")
    root = steps[-1]
    current = steps.get(len(entries) - 1, root)
    if current is not root and entries[current.position].record["type"] in SUMMARIES:
        current.is_significant = True  # the person has returned to an earlier entry, and is there
    session = _session(source, header, entries)
    labels = (session.agent_data or {}).get("labels") or {}
    facts = hash_record(header, session.session_data, session.agent_data)
    reported: set[int] = set()
    for line, first in tree.by_root(tree.lines(root, current)):
        messages: list[SourceMessage] = []
        for step in line:
            entry = entries[step.position]
            try:
                messages.append(parse_entry(entry.record, labels.get(entry.key), copied="branchedFrom" in header))
            except RECORD_ERRORS as error:
                if entry.line not in reported:
                    reported.add(entry.line)
                    yield Problem(source.name, entry.line, f"The message is not imported: {error_text(error)}.")
        model = header.get("modelId")
        session_id = session.session_id if first is None else f"{session.session_id}~{entries[first.position].key[:8]}"
        runs, hashes, keys = split_runs(session_id, messages, model if isinstance(model, str) else None)
        for run in runs:
            _set_outcome(run)
        yield Draft(
            file=source.name,
            line=lambda: 1,
            session=session.model_copy(update={"session_id": session_id}),
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=facts,
            source=NAME,
            has_record_ids=True,
            fork=None if first is None else Fork(session.session_id, ""),
        )


def _session(source: Source, header: Record, entries: list[Entry]) -> Session:
    session_id = to_id(header.get("id"))
    metadata: Record = {"file": source.name}
    metadata |= {name: value for key, name in _METADATA.items() if isinstance(value := header.get(key), (str, int))}
    title = header.get("title")
    labels: dict[str, Any] = {}
    events: list[Record] = []
    for entry in entries:
        record, kind = entry.record, entry.record.get("type")
        if kind == "session_info":
            title = record.get("name")
        elif kind == "label" and isinstance(record.get("targetId"), str):
            labels[record["targetId"]] = record.get("label")
        elif not entry.is_message:
            events.append(record)
    labels = {key: label for key, label in labels.items() if label}
    data = {key: value for key, value in (("labels", labels), ("events", events)) if value}
    times = [time for entry in entries if entry.is_message and (time := time_of(entry.record, copied=False))]
    start = to_time(header.get("timestamp"))
    start = min([*times, *([start] if start else [])], default=None)
    return Session(
        session_id=session_id or source.session_name,
        agent_id=NAME,
        session_data={"session_name": title} if isinstance(title, str) and title else None,
        agent_data=data or None,
        metadata=metadata,
        created_at=int(start.timestamp()) if start else None,
        updated_at=int(max(times).timestamp()) if times else None,
    )


def _set_outcome(run: Run) -> None:
    """Set the status that the last answer states, and the provider of its model."""
    answers = [message for message in run.messages if message.role == "assistant"]
    if not answers:
        return
    extra = answers[-1].extra
    status = _STATUSES.get(str(extra.get("stopReason")))
    if status is not None:
        run.status = status  # type: ignore[assignment]
        text = extra.get("errorMessage")
        run.error = text if isinstance(text, str) else None
    providers = [message.extra["provider"] for message in answers if isinstance(message.extra.get("provider"), str)]
    run.model_provider = providers[-1] if providers else None
