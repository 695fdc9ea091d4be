"""Conversations of OpenHands: ``~/.openhands/conversations/<id>/`` with ``base_state.json`` and ``events/*.json``.

An export is one file: a list of the events, an event a line, or an object with ``history``. OpenHands 0.x has
``sessions/<id>/events/<n>.json`` with actions and observations instead.

* A message of the user begins a run. Several actions of one response of the model are one message.
* Usage is that of each response, if the statistics list it, else the difference between successive statistics: these
  are totals. A cost of 0 is unknown.
* Events that state the event before them are a tree: each leaf is a draft.
* A condensation is a message marked in ``extra``. Times have no zone: they are read as UTC, and the metadata says so.
* Settings of the agent, other than its model and tools, are not stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from kern_nb.ingest.importer import (
    READ_ERRORS,
    Draft,
    Fork,
    Importer,
    Location,
    MalformedRecord,
    error_text,
    hash_record,
    json_type,
)
from kern_nb.ingest.importers.openhands import v0, v1
from kern_nb.ingest.importers.openhands.thread import Record, Thread
from kern_nb.ingest.importers.openhands.usage import Spent, assign_usage, model_of
from kern_nb.ingest.parsing import tree
from kern_nb.ingest.parsing.times import is_local_time, to_time, to_unix_seconds
from kern_nb.ingest.parsing.tree import Entry, build_steps, record_key
from kern_nb.ingest.parsing.values import drop_null, keep_scalars, to_id, to_list, to_object, to_text
from kern_nb.ingest.source import Source, Value
from kern_nb.ingest_report import Problem
from kern_nb.records import Session

NAME = "openhands"
STATE = "base_state.json"

_EVENT_FILE = re.compile(r"event-\d+-.*\.json|\d+\.json|\d+-\d+\.json")
_DETAILS = ("meta.json", "metadata.json")
_OTHERS = ("TASKS.json", *_DETAILS)
_MAPPED_DETAILS = ("id", "conversation_id", "title", "created_at", "updated_at", "last_updated_at")


class OpenHands(Importer):
    """Conversations of OpenHands."""

    name = NAME
    reads = "conversations of OpenHands"
    locations = (
        Location("~/.openhands/conversations", f"*/{STATE}", "OPENHANDS_CONVERSATIONS_DIR"),
        Location("~/.openhands", f"conversations/*/{STATE}", "OPENHANDS_PERSISTENCE_DIR"),
        Location("~/.openhands", "sessions/*/events/0.json", "FILE_STORE_PATH"),
        Location("~/.openhands-state", "sessions/*/events/0.json"),
    )

    def recognizes(self, source: Source) -> bool:
        """The state of a conversation, an event, or a list of events."""
        return any(_is_state(value) or any(map(_is_event, _events_of(value))) for value in source.head)

    def companions(self, source: Source) -> Iterable[Path]:
        """The events beside the state, and what describes the conversation."""
        folder = _conversation_folder(source.path)
        if folder is None:
            return ()
        files = [*_event_files(folder), *(folder / "event_cache").glob("*.json"), folder / STATE]
        files += [folder / name for name in _OTHERS]
        return [file for file in files if file != source.path and file.is_file()]

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session, then a draft for each other leaf."""
        folder = _conversation_folder(source.path)
        if folder is not None:
            yield from _read_folder(source, folder)
            return
        events: list[Value] = []
        position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif isinstance(item.value, dict) and isinstance(item.value.get("history"), list):
                position += 1  # the results of a benchmark have a conversation a line
                lines = [Value(item.line, event) for event in _events_of(item.value)]
                yield from _read_events(
                    source, lines, {}, to_object(item.value), _result_id(source, item.value, position)
                )
            elif isinstance(item.value, list):
                lines = [Value(source.line_of(None, i, item.line), event) for i, event in enumerate(item.value)]
                events += lines
            else:
                events += [Value(item.line, event) for event in _events_of(item.value)]
        if events:
            yield from _read_events(source, events, {}, {}, None)

    def start_time(self, source: Source) -> str:
        """The time of the first event."""
        folder = _conversation_folder(source.path)
        file = next(iter(_event_files(folder)), None) if folder is not None else None
        head = source.head if file is None else Source(file, file.name).head
        events = (event for value in head for event in _events_of(value) if isinstance(event, dict))
        return next((time for event in events if (time := to_text(event.get("timestamp")))), "")


def _is_event(value: Any) -> bool:
    return v1.is_event(value) or v0.is_event(value)


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("agent"), dict) or "id" not in value:
        return False
    return "execution_status" in value or ("workspace" in value and "stats" in value)


def _events_of(value: Any) -> list[Any]:
    """The events of a list, of a page of the API, or of the result of a benchmark; pairs are joined."""
    if isinstance(value, dict):
        pages = [value[key] for key in ("history", "items", "events") if isinstance(value.get(key), list)]
        if not pages or "kind" in value:
            return [value]
        value = pages[0]
    items = value if isinstance(value, list) else [value]
    is_paired = bool(items) and all(isinstance(item, list) for item in items)
    return [event for pair in items for event in pair] if is_paired else items


def _conversation_folder(path: Path) -> Path | None:
    """The folder of a conversation, if a file is its state or one of its events."""
    if path.name == STATE:
        return path.parent
    is_event = path.parent.name in ("events", "event_cache") and _EVENT_FILE.fullmatch(path.name) is not None
    return path.parent.parent if is_event and any(_event_files(path.parent.parent)) else None


def _event_files(folder: Path) -> list[Path]:
    files = [file for file in (folder / "events").glob("*.json") if _EVENT_FILE.fullmatch(file.name)]
    return sorted(files, key=lambda file: (int(re.findall(r"\d+", file.name)[0]), file.name))


def _result_id(source: Source, record: Record, position: int) -> str:
    name = to_id(record.get("instance_id")) or str(position)
    return f"{source.session_name}/{name}"


def _read_folder(source: Source, folder: Path) -> Iterator[Draft | Problem]:
    state: Record = {}
    details: Record = {}
    events: list[Value] = []
    prefix = PurePath(source.name).parent
    for name in (STATE, *_DETAILS):
        file = folder / name
        items = _read_values(file, name) if file.is_file() else []
        yield from (item for item in items if isinstance(item, Problem))
        value = next((to_object(item.value) for item in items if isinstance(item, Value)), {})
        state, details = (value, details) if name == STATE else (state, details | value)
    for file in _event_files(folder):
        name = (prefix / file.name if file.parent == source.path.parent else prefix / "events" / file.name).as_posix()
        for item in _read_values(file, name):
            if isinstance(item, Problem):
                yield item
            else:
                events += [Value(item.line, event) for event in _events_of(item.value)]
    yield from _read_events(source, events, state, details, to_id(state.get("id")) or folder.absolute().name)


def _read_values(file: Path, name: str) -> list[Value | Problem]:
    try:
        return list(Source(file, name).values())
    except OSError as error:
        return [Problem(name, None, f"The file cannot be read: {error.strerror or error}.")]


class _Conversation(NamedTuple):
    """What the drafts of a conversation have in common."""

    source: Source
    state: Record
    details: Record
    session_id: str
    events: list[Record]
    spent: dict[int, Spent]


def _without_repetitions(items: list[Value]) -> Iterator[Value]:
    """The events without those that are equal to an earlier one of that id: the pages of an export may overlap."""
    seen: dict[str, Record] = {}
    for item in items:
        event_id = to_id(to_object(item.value).get("id"))
        if event_id is None or seen.get(event_id) != item.value:
            yield item
        if event_id is not None:
            seen[event_id] = item.value


def _read_events(
    source: Source, items: list[Value], state: Record, details: Record, session_id: str | None
) -> Iterator[Draft | Problem]:
    lines: list[int] = []
    events: list[Record] = []
    acp_calls: dict[str, int] = {}
    for line, value in _without_repetitions(items):
        if not isinstance(value, dict):
            yield Problem(
                source.name, line, f"The event is not imported: it must be an object, got {json_type(value)}."
            )
            continue
        call_id = to_id(value.get("tool_call_id")) if value.get("kind") == "ACPToolCallEvent" else None
        if call_id is not None and call_id in acp_calls:  # a later version of the same call
            events[acp_calls[call_id]] = value | {"id": events[acp_calls[call_id]].get("id")}
            continue
        if call_id is not None:
            acp_calls[call_id] = len(events)
        lines.append(line)
        events.append(value)
        if value.get("kind") == v1.STATE and value.get("key") == "full_state":
            state = to_object(value.get("value")) | state
    session_id = session_id or to_id(state.get("id")) or source.session_name
    is_old = any(v0.is_event(event) for event in events)
    spent = v0.assign_usage(events) if is_old else assign_usage(events, state)
    conversation = _Conversation(source, state, details, session_id, events, spent)
    entries = [
        _to_entry(event, line, position) for position, (line, event) in enumerate(zip(lines, events, strict=True))
    ]
    if any(event.get("parent_id") for event in events):
        links = tree.link(entries)
        steps = build_steps(entries, links, lambda entry: v1.is_significant(entry.record))
        paths = [
            ([step.position for step in path], None if first is None else entries[first.position].key[:8])
            for path, first in tree.by_root(tree.lines(steps[-1]))
        ]
    else:
        paths = [(list(range(len(events))), None)]
    reported: set[int] = set()
    for path, suffix in paths:
        draft_id = session_id if suffix is None else f"{session_id}~{suffix}"
        draft, errors = _draft(conversation, path, draft_id)
        draft.fork = None if suffix is None else Fork(session_id, "")
        for position, error in errors:
            if position not in reported:
                reported.add(position)
                yield Problem(source.name, lines[position], f"The event is not imported: {error}.")
        yield draft


def _to_entry(event: Record, line: int, position: int) -> Entry:
    is_message = v1.is_message(event)
    key = to_id(event.get("id")) or f"event {position}"
    return Entry(line, event, key, to_id(event.get("parent_id")), is_message, continues=True)


def _draft(conversation: _Conversation, path: list[int], session_id: str) -> tuple[Draft, list[tuple[int, str]]]:
    source, state, details = conversation.source, conversation.state, conversation.details
    thread = Thread()
    errors: list[tuple[int, str]] = []
    others: list[Record] = []
    for position in path:
        event = conversation.events[position]
        key = record_key(conversation.session_id, to_id(event.get("id")) or f"event {position}")
        spent = conversation.spent.get(position)
        try:
            if v0.is_event(event):
                v0.add_event(thread, event, key, spent)
            elif not isinstance(event.get("kind"), str):
                raise MalformedRecord("it has no kind")
            elif not v1.add_event(thread, event, key, spent):
                others.append(event)
        except READ_ERRORS as error:
            errors.append((position, error_text(error)))
    model = model_of(state, conversation.events)
    runs, hashes, keys = thread.build_runs(session_id, model)
    status = to_text(state.get("execution_status"))
    failure = to_text(details.get("error"))  # of the results of a benchmark
    if failure is None and status in ("error", "stuck"):
        failure = f"The agent is in the state {status!r}."
    if runs and failure is not None and runs[-1].status == "COMPLETED":
        runs[-1].status, runs[-1].error = "ERROR", failure
        hashes[-1] = hash_record(hashes[-1], failure)
    stated = [event.get("timestamp") for event in conversation.events]
    times = [time for value in stated if (time := to_time(value))]
    created, updated = (to_time(details.get(name)) for name in ("created_at", "updated_at"))
    created = created or min(times, default=None)
    updated = updated or to_time(details.get("last_updated_at")) or max(times, default=None)
    title = to_text(details.get("title"))
    metadata = {
        "file": source.name,
        "model": model,
        "cwd": to_text(to_object(state.get("workspace")).get("working_dir")),
        "execution_status": status,
        "time_zone": "unknown" if any(map(is_local_time, stated)) else None,
    }
    tools = [to_text(to_object(tool).get("name")) for tool in to_list(to_object(state.get("agent")).get("tools"))]
    data = {"tools": tools, "stats": state.get("stats"), "events": others}
    data |= {
        key: value for key, value in details.items() if isinstance(value, dict) and key in ("metrics", "test_result")
    }
    draft = Draft(
        file=source.name,
        line=lambda: 1,
        session=Session(
            session_id=session_id,
            agent_id="openhands",
            session_data={"session_name": title} if title else None,
            agent_data={NAME: {key: value for key, value in data.items() if value}},
            metadata=drop_null(metadata)
            | keep_scalars({key: value for key, value in details.items() if key not in _MAPPED_DETAILS}),
            created_at=to_unix_seconds(created),
            updated_at=to_unix_seconds(updated),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, model, metadata["cwd"], status),
        source=NAME,
        has_record_ids=True,
    )
    return draft, errors
