"""Sessions of Google's Agent Development Kit (ADK): a SQLite file of its session services, or a session as JSON.

A session is a list of events; a run starts with a person's event. Since schema 1 an event is JSON in ``event_data``;
before, its parts were columns, and ``actions`` was a pickle, which is never loaded: the session's metadata counts them.
The times of those events are in an unstated time zone. A rewind annuls the events from an invocation on: they are
another line of the session. Events that only change the state are in ``agent_data``. ``app:`` and ``user:`` mark the
state that sessions share. `events` has the events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, hash_record
from kern_nb.ingest.importers.adk.events import Event, get, parse_event
from kern_nb.ingest.parsing.sqlite_rows import rows
from kern_nb.ingest.parsing.times import parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import drop_null, load_json, to_id, to_list, to_object, to_text
from kern_nb.ingest.run_splitter import split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "adk"

_SESSION_COLUMNS = {"app_name", "user_id", "id", "state"}
_EVENT_COLUMNS = {"app_name", "user_id", "session_id", "invocation_id", "id"}
_JSON_COLUMNS = (
    "content", "grounding_metadata", "custom_metadata", "usage_metadata", "citation_metadata", "input_transcription",
    "output_transcription",
)  # fmt: skip


class Adk(Importer):
    """Sessions of Google's ADK."""

    name = NAME
    reads = "sessions of Google's Agent Development Kit, in SQLite or as JSON"

    def recognizes(self, source: Source) -> bool:
        """The tables of the session services, or a session with events."""
        if source.tables:
            tables = source.tables
            has_sessions = tables.get("sessions", frozenset()) >= _SESSION_COLUMNS
            return has_sessions and tables.get("events", frozenset()) >= _EVENT_COLUMNS
        sessions = (session for value in source.head for session in _sessions_in(value))
        return any(_is_session(session) and _has_events(session) for session in sessions)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of a session, its current line first."""
        try:
            if source.tables:
                yield from _read_database(source)
                return
        except sqlite3.Error as error:
            yield Problem(source.name, None, f"The database cannot be read any further: {error}.")
            return
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in _sessions_in(item.value) or [item.value]:
                try:
                    yield from _read_session(source, item.line, _from_json(value))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, item.line, f"The record is not imported: {error_text(error)}.")


class _Record(NamedTuple):
    """A session as stored."""

    session_id: str
    app_name: str
    user_id: str
    events: list[Any]
    state: dict[str, Any]
    created: Any
    updated: Any
    metadata: dict[str, Any]


def _is_session(value: Any) -> bool:
    has_owner = to_id(get(value, "app_name")) and get(value, "user_id") is not None
    return bool(isinstance(get(value, "events"), list) and has_owner and to_id(get(value, "id")))


def _has_events(session: Any) -> bool:
    """Whether a session has no events yet, or some that have an author or an invocation."""
    events = to_list(get(session, "events"))
    return not events or any(to_id(get(e, "author")) or to_id(get(e, "invocation_id")) for e in events)


def _sessions_in(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else to_list(to_object(value).get("sessions")) or [value]
    return values if any(map(_is_session, values)) else []


def _from_json(value: Any) -> _Record:
    if not _is_session(value):
        raise MalformedRecord("a session must have an id, an app, a user and a list of events")
    updated = get(value, "last_update_time")
    session_id, app_name, user_id = (str(get(value, name)) for name in ("id", "app_name", "user_id"))
    state = to_object(get(value, "state"))
    # 0 is the default of a session that was never stored.
    return _Record(session_id, app_name, user_id, get(value, "events"), state, None, updated or None, {})


def _read_database(source: Source) -> Iterator[Draft | Problem]:
    with source.open_sqlite() as connection:
        sessions = list(rows(connection, "sessions", "ORDER BY rowid"))
        query = "SELECT app_name, user_id, session_id FROM events EXCEPT SELECT app_name, user_id, id FROM sessions"
        names = ("app_name", "user_id", "id")
        sessions += [dict(zip(names, row, strict=True)) for row in connection.execute(query)]  # without a row
        taken: set[str] = set()
        shared = _shared_states(source, connection)
        for row in sessions:
            app_name, user_id, own_id = (str(row.get(name) or "") for name in names)
            # The first session with an id keeps it: it has it already if the others come after an import.
            session_id = f"{app_name}/{user_id}/{own_id}" if own_id in taken else own_id
            taken.add(own_id)
            state = {**shared.get((app_name, None), {}), **shared.get((app_name, user_id), {})}
            state |= to_object(load_json(row.get("state")))
            rest = "WHERE app_name IS ? AND user_id IS ? AND session_id IS ? ORDER BY timestamp, rowid"
            events: list[Any] = []
            pickles = 0
            for event in rows(connection, "events", rest, [row.get(name) for name in names]):
                pickles += isinstance(event.get("actions"), bytes)
                events.append(_event_of(event))
            metadata = {"pickled_actions": pickles, "time_zone": "unknown"} if pickles else {}
            times = (row.get("create_time"), row.get("update_time"))
            try:
                yield from _read_session(
                    source, None, _Record(session_id, app_name, user_id, events, state, *times, metadata)
                )
            except RECORD_ERRORS as error:
                yield Problem(source.name, None, f"Session {session_id!r} is not imported: {error_text(error)}.")


def _shared_states(source: Source, connection: sqlite3.Connection) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The states of apps and of their users, with the prefixes that they have in a session."""
    states: dict[tuple[str, str | None], dict[str, Any]] = {}
    for table, prefix in (("app_states", "app:"), ("user_states", "user:")):
        for row in rows(connection, table) if table in source.tables else ():
            state = to_object(load_json(row.get("state")))
            key = (str(row.get("app_name")), str(row["user_id"]) if "user_id" in row else None)
            states[key] = {f"{prefix}{name}": value for name, value in state.items()}
    return states


def _event_of(row: dict[str, Any]) -> Any:
    """The event in a row, of either schema."""
    if "event_data" in row:
        data = load_json(row["event_data"])
        if not isinstance(data, dict):
            return None
        ids = {"id": row.get("id"), "invocation_id": row.get("invocation_id")}
        return {**data, **ids, "timestamp": get(data, "timestamp") or row.get("timestamp")}
    event = {key: value for key, value in row.items() if key not in ("actions", "app_name", "user_id", "session_id")}
    event |= {key: load_json(row.get(key)) for key in _JSON_COLUMNS}
    event["long_running_tool_ids"] = load_json(event.pop("long_running_tool_ids_json", None))
    event["interrupted"] = bool(row.get("interrupted"))
    return drop_null(event)


def _read_session(source: Source, line: int | None, record: _Record) -> Iterator[Draft | Problem]:
    events: list[Event] = []
    seen: set[str] = set()
    for index, value in enumerate(record.events):
        try:
            event = parse_event(value)
            mark = hash_record(event.record)
            if mark not in seen or to_id(event.record.get("id")) is None:
                events.append(event)
            seen.add(mark)
        except RECORD_ERRORS as error:
            reason = f"Event {index} of session {record.session_id!r} is not imported: {error_text(error)}."
            yield Problem(source.name, line, reason)
    for line_events in _lines(events):
        yield _draft(source, line or 1, record, line_events)


def _lines(events: list[Event]) -> list[list[Event]]:
    """The events that are in effect, then those of each line that a rewind left."""
    current: list[Event] = []
    left: list[list[Event]] = []
    for event in events:
        before = event.rewinds_before
        start = next((i for i, e in enumerate(current) if before and e.invocation_id == before), None)
        if start is not None:
            left.append(current)
            current = current[:start]
        current = [*current, event]
    return [current, *left]


def _draft(source: Source, line: int, record: _Record, events: list[Event]) -> Draft:
    # Lines share messages, and splitting them into runs changes these.
    messages = [m._replace(message=m.message.model_copy(deep=True)) for event in events for m in event.messages]
    silent = [event.record for event in events if not event.messages]
    runs, hashes, keys = split_runs(record.session_id, messages)
    for index, run in enumerate(runs):
        hashes[index] = hash_record(hashes[index], *_finish_run(run))
    times = [run.created_at for run in runs if run.created_at]
    ends = [run.finished_at for run in runs if run.finished_at]
    session = Session(
        session_id=record.session_id,
        agent_id=record.app_name or NAME,
        user_id=record.user_id or None,
        session_data={"session_state": record.state} if record.state else None,
        agent_data={"events_without_messages": silent} if silent else None,
        metadata={"app_name": record.app_name, **record.metadata},
        created_at=to_unix_seconds(parse_time(record.created) or min(times, default=None)),
        updated_at=to_unix_seconds(parse_time(record.updated) or max(ends, default=None)),
    )
    return Draft(
        file=source.name,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(record.state, record.metadata, silent),
        source=NAME,
        has_record_ids=all(message.key for message in messages),
    )


def _finish_run(run: Run) -> list[Any]:
    """Set the status and agent of a run from its last message; return what was used."""
    answers = [message for message in run.messages if message.role == "assistant"]
    run.agent_id = next((to_text(message.extra.get("author")) for message in answers), None)
    if answers:
        last = answers[-1].extra
        if last.get("error_code") or last.get("error_message"):
            texts = (to_text(last.get(name)) for name in ("error_message", "error_code"))
            run.status, run.error = "ERROR", next((text for text in texts if text), None)
        elif answers[-1].partial:
            run.status = "CANCELLED"
    return [run.status, run.error, run.agent_id]
