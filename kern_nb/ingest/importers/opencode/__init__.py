"""Sessions of OpenCode: its database ``opencode.db``, ``opencode export``, and the folder ``storage`` before 1.2.

* A session is a session, an assistant's message a message; its tool parts are calls and results in one record. A run
  is a person's message with the answers whose parent it is. A compaction belongs to the run before.
* ``tokens.input`` excludes cached tokens and ``tokens.output`` reasoning: both are added. The tokens of ``step-finish``
  parts repeat those of the message.
* ``parent_id`` is the session whose task tool started this one. A fork copies the messages of its parent under new ids:
  the keys of messages are their times, which a copy keeps.
* What ``revert`` takes back is a line of its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    Location,
    Membership,
    error_text,
    hash_record,
)
from kern_nb.ingest.importers.opencode.messages import StoredMessage, group_by_run, set_outcome, to_source_messages
from kern_nb.ingest.parsing.times import to_time_from_ms, to_unix_seconds
from kern_nb.ingest.parsing.values import keep_scalars, load_json, to_id, to_object, to_text, without
from kern_nb.ingest.run_splitter import build_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Session

NAME = "opencode"

_TABLES = {
    "session": {"id", "project_id", "parent_id", "directory", "title"},
    "message": {"id", "session_id", "data"},
    "part": {"id", "message_id", "data"},
}
_JSON_COLUMNS = ("revert", "permission", "model", "metadata", "summary_diffs")
_COLUMN_NAMES = {"project_id": "projectID", "parent_id": "parentID", "share_url": "share"}
_INFO_IDS = frozenset({"id", "parentID", "title", "time", "cost", "tokens", "metadata", "permission"})


class OpenCode(Importer):
    """Sessions of OpenCode."""

    name = NAME
    reads = "sessions of OpenCode"
    locations = (
        Location("~/.local/share/opencode", "opencode.db", "OPENCODE_DB"),
        Location("~/.local/share", "opencode/opencode*.db", "XDG_DATA_HOME"),
        Location("~/.local/share", "opencode/storage/session/*/ses_*.json", "XDG_DATA_HOME"),
        Location("~/.local/share", "opencode/project/*/storage/session/info/ses_*.json", "XDG_DATA_HOME"),
    )

    def recognizes(self, source: Source) -> bool:
        """Its tables, an exported session, or the record of a session in ``storage``."""
        if source.tables:
            return all(columns <= source.tables.get(name, frozenset()) for name, columns in _TABLES.items())
        return any(_is_export(value) or _is_info(value) for value in source.head)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the sessions in the order of their creation, each with the line that was taken back."""
        if source.tables:
            yield from _read_database(source)
            return
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif _is_export(item.value):
                yield from _drafts(source, _parse_export(item.value, source, item.line), item.line)
            elif _is_info(item.value):
                yield from _drafts(source, _load_stored(item.value, source.path), item.line)
            else:
                yield Problem(source.name, item.line, "The record is not a session.")

    def companions(self, source: Source) -> Iterable[Path]:
        """The files of the messages and parts of a session in ``storage``."""
        for value in source.head:
            if _is_info(value):
                for folder, pattern in _message_folders(source.path, str(value["id"])):
                    for file in _files(folder, pattern):
                        yield file
                        yield from _part_files(source.path, str(value["id"]), file.stem)

    def start_time(self, source: Source) -> str:
        """When the session was created."""
        for value in source.head:
            info = to_object(value)
            info = to_object(info.get("info")) or info
            time = to_time_from_ms(to_object(info.get("time")).get("created"))
            if time is not None:
                return time.isoformat()
        return ""


@dataclass(slots=True)
class _Stored:
    """A session as OpenCode stores it."""

    info: dict[str, Any]
    messages: list[StoredMessage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tool_call_id: str | None = None


def _is_export(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    info = value.get("info")
    return isinstance(info, dict) and "id" in info and any(map(_is_message, value["messages"]))


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("parts"), list):
        return False
    return to_object(value.get("info")).get("role") in ("user", "assistant")


def _is_info(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str) or not value["id"].startswith("ses"):
        return False
    return isinstance(value.get("time"), dict) and "title" in value and "version" in value and "messages" not in value


# The sources of a session


def _parse_export(value: dict[str, Any], source: Source, line: int) -> _Stored:
    stored = _Stored(to_object(value["info"]))
    for index, message in enumerate(value["messages"]):
        if _is_message(message):
            parts = [part for part in message["parts"] if isinstance(part, dict)]
            number = source.line_of("messages", index, line)
            stored.messages.append(StoredMessage(message["info"], parts, number))
        else:
            stored.problems.append(f"message {index} has no role or no parts")
    return stored


def _load_stored(info: dict[str, Any], path: Path) -> _Stored:
    session_id = str(info["id"])
    stored = _Stored(info)
    for message in _load_messages(path, session_id, stored.problems):
        stored.messages.append(message)
    if not stored.messages:
        stored.problems.append("the folder of its messages has none")
    parent = to_id(info.get("parentID"))
    if parent is not None:
        stored.tool_call_id = _find_call(_load_messages(path, parent, []), session_id)
    return stored


def _load_messages(path: Path, session_id: str, problems: list[str]) -> Iterator[StoredMessage]:
    for folder, pattern in _message_folders(path, session_id):
        for file in _files(folder, pattern):
            info = _load(file, problems)
            if info is not None:
                parts = [_load(part, problems) for part in _part_files(path, session_id, file.stem)]
                yield StoredMessage({"id": file.stem, **info}, [part for part in parts if part is not None])


def _message_folders(path: Path, session_id: str) -> list[tuple[Path, str]]:
    """The folders of its messages: ``storage/message/<session>``, before that ``storage/session/message/<session>``."""
    if not _is_name(session_id):
        return []
    folder = path.absolute().parent.parent
    return [(base / "message" / session_id, "msg_*.json") for base in (folder.parent, folder)]


def _part_files(path: Path, session_id: str, message_id: str) -> list[Path]:
    folder = path.absolute().parent.parent
    folders = (folder.parent / "part" / message_id, folder / "part" / session_id / message_id)
    return [file for part_folder in folders for file in _files(part_folder, "prt_*.json")]


def _is_name(text: str) -> bool:
    """Whether an id is a plain file name: a path in a file is not followed."""
    return PurePath(text).name == text and text not in ("", ".", "..")


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(file for file in folder.glob(pattern) if file.is_file()) if folder.is_dir() else []


def _load(file: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        with open_binary(file) as opened:
            value = json.loads(opened.read().decode("utf-8", "surrogatepass"))
        if isinstance(value, dict):
            return value
        problems.append(f"{file.name} is not an object")
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{file.name} is not valid JSON: {error}")
    return None


def _find_call(messages: Iterable[StoredMessage], session_id: str) -> str | None:
    """The call of the task tool that started a session."""
    for message in messages:
        for part in message.parts:
            if _started_session(part) == session_id:
                return to_id(part.get("callID"))
    return None


def _started_session(part: dict[str, Any]) -> str | None:
    return to_id(to_object(to_object(part.get("state")).get("metadata")).get("sessionId"))


def _read_database(source: Source) -> Iterator[Draft | Problem]:
    try:
        with source.open_sqlite() as connection:
            connection.row_factory = sqlite3.Row
            calls: dict[str, str | None] = {}
            for (data,) in connection.execute("SELECT data FROM part WHERE data LIKE '%sessionId%'"):
                part = to_object(load_json(data))
                calls[_started_session(part) or ""] = to_id(part.get("callID"))
            for row in connection.execute("SELECT * FROM session ORDER BY time_created, id").fetchall():
                yield from _drafts(source, _load_rows(connection, dict(row), calls), None)
    except sqlite3.Error as error:
        yield Problem(source.name, None, f"The database cannot be read: {error}.")


def _load_rows(connection: sqlite3.Connection, row: dict[str, Any], calls: dict[str, str | None]) -> _Stored:
    stored = _Stored(_to_info(row))
    session_id = row["id"]
    parts: dict[str, list[dict[str, Any]]] = {}
    query = "SELECT p.id, p.message_id, p.data FROM part p JOIN message m ON m.id = p.message_id WHERE m.session_id = ?"
    for part_id, message_id, data in connection.execute(query + " ORDER BY p.id", [session_id]):
        part = to_object(load_json(data))
        if part:
            parts.setdefault(message_id, []).append({"id": part_id, **part})
        else:
            stored.problems.append(f"part {part_id!r} is not an object")
    for message_id, data in connection.execute("SELECT id, data FROM message WHERE session_id = ?", [session_id]):
        info = to_object(load_json(data))
        if info:
            stored.messages.append(StoredMessage({"id": message_id, **info}, parts.get(message_id, [])))
        else:
            stored.problems.append(f"message {message_id!r} is not an object")
    if not stored.messages:
        with suppress(sqlite3.OperationalError):
            count = "SELECT count(*) FROM session_message WHERE session_id = ?"
            if n := connection.execute(count, [session_id]).fetchone()[0]:
                stored.problems.append(f"{n} messages of the table 'session_message' are of a layout that is not read")
    stored.tool_call_id = calls.get(str(session_id))
    return stored


def _to_info(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the layout of an export."""
    info: dict[str, Any] = {"time": {}}
    for name, value in row.items():
        if name.startswith("time_"):
            info["time"][name.removeprefix("time_")] = value
        elif name in _JSON_COLUMNS:
            info[name] = to_object(load_json(value)) if name != "permission" else value
        elif not name.startswith(("tokens_", "summary_")):
            info[_COLUMN_NAMES.get(name, name)] = value
    return info


# The drafts of a session


def _drafts(source: Source, stored: _Stored, line: int | None) -> Iterator[Draft | Problem]:
    session_id = to_id(stored.info.get("id")) or source.session_name
    for reason in stored.problems:
        yield Problem(source.name, line, f"Session {session_id!r}: {reason}.")
    messages = sorted(stored.messages, key=lambda message: (message.created, message.message_id))
    readable: list[StoredMessage] = []
    ids: set[str] = set()
    for message in messages:
        if message.message_id in ids:
            reason = f"Message {message.message_id!r} is not imported: its id is repeated."
            yield Problem(source.name, message.line or line, reason)
            continue
        try:
            to_source_messages(message)  # so that a malformed one does not reject the others
            readable.append(message)
            ids |= {message.message_id} - {""}
        except RECORD_ERRORS as error:
            reason = f"Message {message.message_id!r} is not imported: {error_text(error)}."
            yield Problem(source.name, message.line or line, reason)
    remaining = _before_revert(readable, to_object(stored.info.get("revert")))
    for path in [readable] if remaining is None else [remaining, readable]:
        try:
            yield _draft(source, session_id, stored, path, line)
        except RECORD_ERRORS as error:
            yield Problem(source.name, line, f"Session {session_id!r} is not imported: {error_text(error)}.")


def _before_revert(messages: list[StoredMessage], revert: dict[str, Any]) -> list[StoredMessage] | None:
    """The messages, and the parts of the last one, that a revert leaves; None without one."""
    message_id, part_id = to_id(revert.get("messageID")), to_id(revert.get("partID"))
    for index, message in enumerate(messages):
        if message_id is not None and message.message_id == message_id:
            part_ids = [to_id(part.get("id")) for part in message.parts]
            if part_id is None or part_id not in part_ids:
                return messages[:index]
            cut = replace(message, parts=message.parts[: part_ids.index(part_id)], is_cut=True)
            return [*messages[:index], cut] if cut.parts else messages[:index]
    return None


def _draft(source: Source, session_id: str, stored: _Stored, path: list[StoredMessage], line: int | None) -> Draft:
    info = stored.info
    groups = group_by_run(path)
    messages = [[message for entry in group for message in to_source_messages(entry)] for group in groups]
    runs, hashes, keys = build_runs(session_id, messages)
    for index, (run, group) in enumerate(zip(runs, groups, strict=True)):
        set_outcome(run, group)
        hashes[index] = hash_record(hashes[index], run.status, run.error)
    title, time = to_text(info.get("title")), to_object(info.get("time"))
    parent = to_id(info.get("parentID"))
    metadata = {"file": source.name} | keep_scalars(without(info, _INFO_IDS)) | _model_fields(info.get("model"))
    return Draft(
        file=source.name,
        line=lambda: line or 0,
        session=Session(
            session_id=session_id,
            agent_id=NAME,
            session_data={"session_name": title} if title else None,
            agent_data={NAME: {k: v for k, v in info.items() if k != "time" and isinstance(v, (dict, list)) and v}},
            metadata=metadata,
            created_at=to_unix_seconds(to_time_from_ms(time.get("created"))),
            updated_at=to_unix_seconds(to_time_from_ms(time.get("updated"))),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, info.get("directory"), info.get("version"), parent, info.get("revert")),
        source=NAME,
        has_record_ids=True,
        membership=None if parent is None or parent == session_id else Membership(parent, stored.tool_call_id),
    )


def _model_fields(model: Any) -> dict[str, Any]:
    """The model of the latest prompt."""
    fields = {"model": to_object(model).get("id"), "model_provider": to_object(model).get("providerID")}
    return keep_scalars(fields)
