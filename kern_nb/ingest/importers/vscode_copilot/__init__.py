"""Chat sessions of Visual Studio Code and its relatives: ``workspaceStorage/<hash>/chatSessions/<id>.json`` or .jsonl.

A ``.json`` file, or an export of a chat, is the document of the session. A ``.jsonl`` file is a log of operations: a
snapshot, then values that are set, appended to a list or deleted. It is replayed, and then is the document.

* A request is a run: the prompt, one answer with the joined texts of the response, and the results that are stated.
* The arguments of calls are those that the rounds of the model or the details of a result state. The others are known
  as the display text only, which is in ``extra``.
* ``promptTokens`` are those of the last round of a request. Durations and errors are those of the request.
* The program states the requests that there are now: a request that is replaced is replaced in the store, too.
* ``workspace.json`` beside the folder names the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kern_nb.ingest.importer import READ_ERRORS, Draft, Importer, Location, MalformedRecord, error_text, hash_record
from kern_nb.ingest.importers.vscode_copilot.log import SNAPSHOT, apply_operation
from kern_nb.ingest.importers.vscode_copilot.messages import Record, is_request, parse_request
from kern_nb.ingest.parsing.times import to_time_from_ms, to_unix_seconds
from kern_nb.ingest.parsing.tree import record_key
from kern_nb.ingest.parsing.values import (
    keep_scalars,
    to_duration,
    to_id,
    to_list,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import build_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "vscode_copilot"

_CANCELLED_STATE, _FAILED_STATE = 2, 3
_DATA_FOLDERS = (
    Location("~/.config", "", "VSCODE_APPDATA"),
    Location("~/Library/Application Support", ""),
    Location("%APPDATA%", ""),
    Location("~/.vscode-server", ""),
)
_PATTERNS = ("*/User/workspaceStorage/*/chatSessions/*.json*", "*/User/globalStorage/*ChatSessions/*.json*")
_MAPPED_FIELDS = ("requests", "sessionId", "customTitle", "creationDate", "lastMessageDate")


class VSCodeCopilot(Importer):
    """Chat sessions of Visual Studio Code."""

    name = NAME
    reads = "chat sessions of GitHub Copilot in Visual Studio Code"
    locations = tuple(folder._replace(pattern=pattern) for folder in _DATA_FOLDERS for pattern in _PATTERNS)

    def recognizes(self, source: Source) -> bool:
        """A document with requests, or the snapshot that a log begins with."""
        return any(_is_session(value) or _is_snapshot(value) for value in source.head)

    def companions(self, source: Source) -> Iterable[Path]:
        """What names the project."""
        file = source.path.parent.parent / "workspace.json"
        return [file] if source.path.parent.name == "chatSessions" and file.is_file() else []

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session of a log, or one per document."""
        state: Any = None
        position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif _is_session(item.value):
                position += 1
                yield from _read_session(source, item.line, item.value, position)
            else:
                try:
                    state = apply_operation(state, item.value)
                except READ_ERRORS as error:
                    yield Problem(source.name, item.line, f"The operation is not applied: {error_text(error)}.")
        if isinstance(state, dict):
            yield from _read_session(source, 1, state, position + 1)


def _is_session(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("requests"), list):
        return False
    if any(map(is_request, value["requests"])):
        return True
    return not value["requests"] and "sessionId" in value and "creationDate" in value


def _is_snapshot(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("kind") != SNAPSHOT or "k" in value:
        return False
    return _is_session(value.get("v"))


def _read_session(source: Source, line: int, state: Record, position: int) -> Iterator[Draft | Problem]:
    session_id = to_id(state.get("sessionId")) or source.session_name + ("" if position == 1 else f"-{position}")
    groups = []
    requests: list[Record] = []
    for index, request in enumerate(to_list(state.get("requests"))):
        try:
            if not is_request(request):
                raise MalformedRecord("it has no message")
            key = record_key(session_id, to_id(request.get("requestId")) or f"request {index}")
            groups.append(parse_request(request, key))
            requests.append(request)
        except READ_ERRORS as error:
            yield Problem(source.name, line, f"Request {index} is not imported: {error_text(error)}.")
    if not groups:
        return
    runs, hashes, keys = build_runs(session_id, groups)
    for index, (run, request) in enumerate(zip(runs, requests, strict=True)):
        _set_outcome(run, request)
        outcome = (run.status, run.error, run.duration_s, run.time_to_first_token_s, run.agent_id)
        hashes[index] = hash_record(hashes[index], *outcome)
    title = to_text(state.get("customTitle"))
    fields = without(state, _MAPPED_FIELDS)
    times = [time for request in requests if (time := to_time_from_ms(request.get("timestamp")))]
    created = to_time_from_ms(state.get("creationDate")) or min(times, default=None)
    updated = to_time_from_ms(state.get("lastMessageDate")) or max(times, default=created)
    folder = _project(source)
    nested = {key: value for key, value in fields.items() if isinstance(value, (dict, list)) and value}
    metadata = {"file": source.name} | ({"cwd": folder} if folder else {}) | keep_scalars(fields)
    yield Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id="vscode-copilot",
            session_data={"session_name": title} if title else None,
            agent_data={NAME: nested} if nested else None,
            metadata=metadata,
            created_at=to_unix_seconds(created),
            updated_at=to_unix_seconds(updated),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, folder, keep_scalars(fields)),
        source=NAME,
    )


def _set_outcome(run: Run, request: Record) -> None:
    result = to_object(request.get("result"))
    timings = to_object(result.get("timings"))
    error = to_object(result.get("errorDetails")) or to_object(request.get("responseErrorDetails"))  # of old versions
    state = to_object(request.get("modelState")).get("value")
    run.duration_s, run.time_to_first_token_s = (
        to_duration(timings.get(name), 1000) for name in ("totalElapsed", "firstProgress")
    )
    if run.duration_s is not None and run.created_at is not None and run.finished_at == run.created_at:
        run.finished_at += timedelta(seconds=run.duration_s)  # the answer states no time
    run.agent_id = to_text(to_object(request.get("agent")).get("id"))
    message = to_text(error.get("message"))
    is_cancelled = request.get("isCanceled") is True or error.get("code") in ("canceled", "cancelled")
    if is_cancelled or state == _CANCELLED_STATE:
        run.status = "CANCELLED"
    elif error or state == _FAILED_STATE:
        run.status, run.error = "ERROR", message or "The request failed."


def _project(source: Source) -> str | None:
    """The folder of the project, from the file that names it."""
    for file in VSCodeCopilot().companions(source):
        try:
            value = next(iter(Source(file, file.name).head), None)
        except OSError:
            return None
        fields = to_object(value)
        address = to_text(fields.get("folder")) or to_text(fields.get("workspace"))
        if address is None:
            return None
        parts = urlsplit(address)
        return unquote(parts.path) if parts.scheme == "file" else address
    return None
