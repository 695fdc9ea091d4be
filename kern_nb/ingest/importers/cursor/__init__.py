"""Sessions of Cursor: transcripts of its agent, and the database of the editor. The program documents neither.

* ``~/.cursor/projects/<folder>/agent-transcripts/<id>.jsonl``: a message a line, with blocks as Anthropic's API has
  them. Prompts are inside ``<user_query>``; what is around it is in ``extra``. For ``<id>.txt`` see `text`.
* ``User/globalStorage/state.vscdb``: see `database`.

The files in ``agent-transcripts/<id>/subagents/`` are of nested agents. Transcripts have no usage or model, and times
in some versions at most. Other records than messages are kept in ``agent_data``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
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
)
from kern_nb.ingest.importers.cursor.database import KEY_VALUE_TABLE, read_composers
from kern_nb.ingest.importers.cursor.text import is_transcript, read_records
from kern_nb.ingest.parsing.anthropic_blocks import is_content, split_blocks
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.values import to_object, without
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session

NAME = "cursor"

_ROLES = ("user", "assistant")
_QUERY = re.compile(r"<user_query>\n?(.*?)\n?</user_query>", re.DOTALL)
_RECORD_KEYS = frozenset({"role", "message"})
_PROJECTS = "projects"
_FOLDER = "agent-transcripts"
_NESTED = "subagents"
_NESTED_DEPTH = 3
_PROBED_BYTES = 4_000
_DATABASE = "User/globalStorage/state.vscdb"


class Cursor(Importer):
    """Sessions of Cursor."""

    name = NAME
    reads = "sessions of Cursor"
    locations = (
        Location("~/.cursor", f"{_PROJECTS}/*/{_FOLDER}/**/*.jsonl", "CURSOR_CONFIG_DIR"),
        Location("~/.cursor", f"{_PROJECTS}/*/{_FOLDER}/**/*.txt", "CURSOR_CONFIG_DIR"),
        Location("~/.config/Cursor", _DATABASE),
        Location("~/Library/Application Support/Cursor", _DATABASE),
        Location("%APPDATA%/Cursor", _DATABASE),
    )

    def recognizes(self, source: Source) -> bool:
        """Messages in an envelope without ids, a transcript as text, or the table of the editor's database."""
        if KEY_VALUE_TABLE in source.tables:
            return {"key", "value"} <= source.tables[KEY_VALUE_TABLE]
        if not source.head:
            return is_transcript(_start_of(source))
        is_local = _FOLDER in PurePosixPath(source.location).parts
        return any(_is_record(value) and (is_local or value.keys() <= _RECORD_KEYS) for value in source.head)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session of a transcript, or each one of the database."""
        if source.tables:
            yield from read_composers(source, NAME)
            return
        messages: list[SourceMessage] = []
        events: list[Any] = []
        if not any(map(_is_record, source.head)):
            with open_binary(source.path) as file:
                text = file.read().decode(errors="replace")
            messages = [item for record in read_records(text) for item in _parse(record)]
        else:
            for item in source.values():
                if isinstance(item, Problem):
                    yield item
                    continue
                if (
                    isinstance(item.value, dict)
                    and "role" not in item.value
                    and isinstance(item.value.get("type"), str)
                ):
                    events.append(item.value)
                    continue
                try:
                    messages += _parse(item.value)
                except READ_ERRORS as error:
                    yield Problem(source.name, item.line, f"The message is not imported: {error_text(error)}.")
        if messages:
            yield _draft(source, messages, events)


def _is_record(value: Any) -> bool:
    return to_object(value).get("role") in _ROLES and is_content(to_object(value.get("message")).get("content"))


def _start_of(source: Source) -> str:
    if source.kind is not None:
        return ""
    with open_binary(source.path) as file:
        return file.read(_PROBED_BYTES).decode(errors="replace")


def _parse(record: Any) -> list[SourceMessage]:
    """A message, and before it the results that it has."""
    if not isinstance(record, dict) or record.get("role") not in _ROLES:
        raise MalformedRecord("it has no role of a user or an assistant")
    stated = to_object(record.get("message"))
    if not is_content(stated.get("content")):
        raise MalformedRecord("it has no content")
    time = to_time(record.get("timestamp"))
    blocks = split_blocks(stated["content"], time)
    results = [
        SourceMessage(result, [result.content, result.tool_call_id, result.is_error], starts_run=False)
        for result in blocks.results
    ]
    extra = without(record, (*_RECORD_KEYS, "timestamp")) | without(stated, ("content", "role"))
    extra |= {"parts": blocks.others} if blocks.others else {}
    parts = blocks.parts
    if record["role"] == "user":
        parts, context = _unwrap(parts)
        extra |= {"context": context} if context else {}
    if not parts and not blocks.calls:
        return results
    content = simplify(parts) or None
    message = Message(role=record["role"], content=content, tool_calls=blocks.calls, created_at=time, extra=extra)
    answer = SourceMessage(message, record, starts_run=message.role == "user")
    return [*results, answer] if message.role == "user" else [answer, *results]


def _unwrap(parts: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The prompt itself, and the texts around it that the program adds."""
    unwrapped: list[Any] = []
    context: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        queries = _QUERY.findall(text) if isinstance(text, str) else []
        if isinstance(text, str) and queries:
            unwrapped += [{"type": "text", "text": query} for query in queries]
            context.append(_QUERY.sub("", text).strip())
        else:
            unwrapped.append(part)
    return unwrapped, [text for text in context if text]


def _draft(source: Source, messages: list[SourceMessage], events: list[Any]) -> Draft:
    """In the folder of the program, the name of the file is the id of the session."""
    folders = PurePosixPath(source.location).parts
    is_local = _FOLDER in folders and _PROJECTS in folders[: folders.index(_FOLDER)]
    session_id = PurePosixPath(source.session_name).name if is_local else source.session_name
    project = {"project": folders[folders.index(_FOLDER) - 1]} if is_local else {}
    is_nested = is_local and len(folders) > _NESTED_DEPTH and folders[-2] == _NESTED
    runs, hashes, keys = split_runs(session_id, messages)
    times = [item.message.created_at for item in messages if item.message.created_at is not None]
    return Draft(
        file=source.name,
        line=lambda: 1,
        session=Session(
            session_id=session_id,
            agent_id="cursor",
            agent_data={NAME: {"events": events}} if events else None,
            metadata={"file": source.name} | project,
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(project, events),
        source=NAME,
        membership=Membership(folders[-3]) if is_nested else None,
    )
