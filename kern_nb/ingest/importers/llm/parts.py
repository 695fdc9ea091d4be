"""What both generations of llm's log have in common: fragments, attachments, usage, and the times of a response."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.sqlite_rows import rows
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import drop_null, first_count, load_json, to_duration, to_list, to_object, to_text
from kern_nb.records import Message, Run, Usage, text_of

_MAX_INLINE_BYTES = 2_000_000
_MEDIA = ("image", "audio", "video")


@dataclass
class Answer:
    """A response of a model as logged: a row of ``turns`` or ``responses``."""

    row: Mapping[str, Any]

    @cached_property
    def start(self) -> datetime | None:
        """When the prompt was sent."""
        return parse_time(self.row.get("datetime_utc"))

    @property
    def duration_s(self) -> float | None:
        """How long the response took."""
        return to_duration(self.row.get("duration_ms"), 1000)

    @property
    def record(self) -> list[Any]:
        """What a change of the row changes in the message."""
        names = ("model", "datetime_utc", "duration_ms", "input_tokens", "output_tokens", "token_details")
        return [self.row.get(name) for name in names]

    def describe(self, message: Message, *, has_usage: bool = True) -> None:
        """Set what the row states about the model's message; a response of several has its usage at the last."""
        message.model = to_text(self.row.get("model"))
        message.usage = _parse_usage(self.row) if has_usage else None
        for name in ("resolved_model", "schema_id"):
            if value := to_text(self.row.get(name)):
                message.extra[name] = value
        if options := to_object(load_json(self.row.get("options_json"))):
            message.extra["options"] = options
        if has_usage and (details := load_json(self.row.get("token_details"))):
            counts = {name: self.row.get(name) for name in ("input_tokens", "output_tokens")}
            message.extra["usage"] = {**counts, "token_details": details}


def finish_run(run: Run, answers: list[Answer]) -> list[Any]:
    """Set the duration and end of a run from its responses; return what was used."""
    times = [(answer.start, answer.duration_s) for answer in answers]
    if run.created_at and times and times[-1][0] is not None and times[-1][1] is not None:
        run.finished_at = times[-1][0] + timedelta(seconds=times[-1][1])
        run.duration_s = max(0.0, (run.finished_at - run.created_at).total_seconds())
    return [duration for _, duration in times]


def starts_run(message: Message, before: Message | None) -> bool | None:
    """False for the attachments of tool results, which llm sends to the model in a user message after these."""
    is_passed_on = message.role == "user" and before is not None and before.role == "tool"
    return False if is_passed_on and text_of(message.content) is None else None


def _parse_usage(row: Mapping[str, Any]) -> Usage | None:
    """Plugins log the provider's own details; Anthropic's counts of cached tokens are not part of the input."""
    details = to_object(load_json(row.get("token_details")))
    prompt = to_object(details.get("prompt_tokens_details") or details.get("input_tokens_details"))
    completion = to_object(details.get("completion_tokens_details") or details.get("output_tokens_details"))
    input_tokens = first_count(row, "input_tokens")
    beside = [first_count(details, "cache_read_input_tokens"), first_count(details, "cache_creation_input_tokens")]
    if input_tokens is not None:
        input_tokens += sum(count or 0 for count in beside)
    read = first_count(prompt, "cached_tokens")
    read = first_count(details, "cachedContentTokenCount", "cached_content_token_count") if read is None else read
    reasoning = first_count(completion, "reasoning_tokens")
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=first_count(row, "output_tokens"),
        cache_read_tokens=beside[0] if read is None else read,
        cache_write_tokens=beside[1],
        reasoning_tokens=first_count(details, "thoughtsTokenCount") if reasoning is None else reasoning,
    )
    return None if usage == Usage() else usage


@dataclass
class Contents:
    """The fragments (shared texts) and attachments of a file by id."""

    fragments: dict[Any, str] = field(default_factory=dict)
    attachments: dict[Any, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, connection: sqlite3.Connection, tables: Mapping[str, frozenset[str]]) -> Contents:
        """Load those of a file."""
        contents = cls()
        if "fragments" in tables:
            contents.fragments = {row.get("id"): str(row.get("content") or "") for row in rows(connection, "fragments")}
        if "attachments" in tables:
            contents.attachments = {row.get("id"): row for row in rows(connection, "attachments")}
        return contents

    def text_of(self, part: Mapping[str, Any], payload: dict[str, Any]) -> str:
        """The text of a part, parts of which may be fragments."""
        if isinstance(part.get("text"), str):
            return str(part["text"])
        pieces = [to_object(piece) for piece in to_list(payload.get("text_ref"))]
        texts = [piece.get("literal", self.fragments.get(_key(piece.get("fragment")), "")) for piece in pieces]
        return "".join(str(text) for text in texts) if texts else str(payload.get("text") or "")

    def attachment_part(self, attachment_id: Any) -> dict[str, Any]:
        """An attachment as a message part; a path or URL is named, not opened."""
        row = self.attachments.get(_key(attachment_id), {})
        media_type = str(row.get("type") or "")
        kind = media_type.split("/", maxsplit=1)[0]
        part = {"type": kind if kind in _MEDIA else "file", "id": attachment_id, "mime_type": media_type or None}
        part |= {"path": to_text(row.get("path")), "url": to_text(row.get("url"))}
        content = row.get("content")
        if isinstance(content, bytes):
            is_short = len(content) <= _MAX_INLINE_BYTES
            part |= {"data": base64.b64encode(content).decode()} if is_short else {"bytes": len(content)}
        return drop_null(part)


def _key(value: Any) -> Any:
    return value if isinstance(value, (str, int)) else None


def require_text(value: Any, name: str) -> str:
    """A text of a row; raise MalformedRecord if it has another type."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedRecord(f"{name} must be text, got {type(value).__name__}")
    return value
