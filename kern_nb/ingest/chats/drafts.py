"""The draft of a conversation that a chat log records, from its messages and the fields beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kern_nb.ingest.chats.fields import find_id, find_time, parse_scores
from kern_nb.ingest.importer import Draft, hash_record
from kern_nb.ingest.parsing.times import is_local_time, parse_time, to_unix_seconds
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import drop_null, first_text, to_object
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.records import Run, RunStatus, Session

SESSION_IDS = (
    "session_id", "sessionId", "conversation_id", "conversationId", "thread_id", "threadId", "chat_id", "chatId",
    "conversation_hash", "conv_id", "dialogue_id", "dialog_id",
)  # fmt: skip
"""The fields by which a record names its conversation."""

TRAJECTORY_IDS = ("trajectory_id", "traj_id", "id")
"""The fields that name a record, if it does not name its conversation."""

_TITLES = ("session_name", "title")
_USERS = ("user_id", "userId", "user")


class Conversation(NamedTuple):
    """What a record states.

    Attributes:
        session_id: The id.
        line: The line where its record starts.
        messages: Its messages, parsed.
        fields: The other fields of its record, which become the session's metadata.
        model: The model of answers that name none.
        has_local_times: Whether its times lack a zone.
    """

    session_id: str
    line: int
    messages: Sequence[SourceMessage]
    fields: Mapping[str, Any]
    model: str | None = None
    has_local_times: bool = False


def file_id(source: Source) -> str:
    """The id of what a file records: its path relative to the import, without suffix."""
    return source.session_name


def line_id(source: Source, line: int, position: int = 1) -> str:
    """The id of a record without one: the file's, and the record's line and position in it."""
    return f"{file_id(source)}-{line}" if position == 1 else f"{file_id(source)}-{line}.{position}"


def make_draft(source: Source, importer: str, conversation: Conversation) -> Draft:
    """A draft; the fields become metadata, and the title, user, times, usage and scores among them their columns."""
    session_id, line, fields = conversation.session_id, conversation.line, drop_null(conversation.fields)
    runs, hashes, keys = split_runs(session_id, conversation.messages, conversation.model)
    _set_usage(runs, hashes, fields)
    time = find_time(fields)
    times = [item.message.created_at for item in conversation.messages if item.message.created_at is not None]
    flat = _flatten(fields)
    metadata = {"file": source.name, "line": line, **flat}
    if conversation.has_local_times or (time and is_local_time(fields[time[0]])):
        metadata["time_zone"] = "unknown"
    title = first_text(fields.get(name) for name in _TITLES)
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            user_id=find_id(fields, _USERS) or find_id(flat, _USERS),
            session_data={"session_name": title} if title else None,
            metadata=metadata,
            created_at=to_unix_seconds(time[1] if time else min(times, default=None)),
            updated_at=to_unix_seconds(parse_time(fields.get("updated_at")) or max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields),
        source=importer,
        scores=parse_scores(flat),
    )


def set_error(draft: Draft, error: Any, status: RunStatus = "ERROR") -> None:
    """Mark the last run of a draft as failed, cancelled or not finished."""
    if draft.runs:
        draft.runs[-1].status = status
        draft.runs[-1].error = None if error is None else describe_error(error)
        draft.hashes[-1] = hash_record(draft.hashes[-1], status, draft.runs[-1].error)


def describe_error(error: Any) -> str:
    """An API's error in one line."""
    error = to_object(error).get("error") or error
    if isinstance(error, dict):
        parts = [error.get(key) for key in ("type", "code", "message")]
        words = [str(part) for part in parts if isinstance(part, (str, int))]
        return ": ".join(dict.fromkeys(words)) or str(error)[:500]
    return str(error)


def _set_usage(runs: list[Run], hashes: list[str], fields: Mapping[str, Any]) -> None:
    """The usage of a record with one run is that of the run, if its messages state none."""
    usage = parse_usage(fields.get("usage"), fields) if len(runs) == 1 else None
    if usage is not None and all(message.usage is None for message in runs[0].messages):
        runs[0].usage = usage
        hashes[0] = hash_record(hashes[0], fields.get("usage"), usage.cost)


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of a conversation's own ``metadata`` to the top level, so that users can filter by them."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict) or any(key in fields for key in metadata):
        return fields
    return metadata | {key: value for key, value in fields.items() if key != "metadata"}
