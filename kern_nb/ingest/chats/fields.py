"""Fields as chat logs of many programs name them: ids, times, tokens and cost, scores, and whether a tool failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kern_nb.db.schema import MAX_TOKENS
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import is_number, to_id, to_object

TIME_FIELDS = (
    "timestamp", "created_at", "createdAt", "created", "create_time", "createTime", "timestamp_ms", "sent_at",
    "datetime", "ts", "tstamp", "time", "date",
)  # fmt: skip
_TIME_FIELDS = frozenset(TIME_FIELDS)


_FAILED = frozenset({"error", "errored", "failed", "failure"})
_COMPLETED = frozenset({"success", "succeeded", "ok", "completed", "complete"})


def find_id(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these fields that has an id."""
    for name in names:
        if name in record:
            value = to_id(record[name])
            if isinstance(value, str):
                return value
    return None


def find_time(record: Mapping[str, Any]) -> tuple[str, datetime] | None:
    """The first of the fields of times that has one, and the time."""
    if _TIME_FIELDS.isdisjoint(record):
        return None
    for name in TIME_FIELDS:
        if name in record and (time := parse_time(record[name])) is not None:
            return name, time
    return None


def find_error(record: Mapping[str, Any]) -> bool | None:
    """Whether the message of a tool states that it failed; None if it states nothing."""
    flags = [record[name] for name in ("is_error", "isError", "error") if isinstance(record.get(name), bool)]
    flags += [not record[name] for name in ("success", "ok") if isinstance(record.get(name), bool)]
    error, status = record.get("error"), record.get("status")
    if error and not isinstance(error, bool):
        flags.append(True)
    if isinstance(status, str) and status.lower() in _FAILED | _COMPLETED:
        flags.append(status.lower() in _FAILED)
    return any(flags) if flags else None


def parse_scores(fields: Mapping[str, Any]) -> dict[str, float]:
    """The reward or score of a conversation, and whether its task was solved."""
    values = {name: fields.get(name) for name in ("reward", "score", "resolved", "target")}
    values |= {str(name): value for name, value in to_object(fields.get("scores")).items()}
    if not isinstance(values["target"], bool):
        del values["target"]  # the expected answer
    return {
        name: float(value)
        for name, value in values.items()
        if (isinstance(value, bool) or is_number(value)) and abs(value) <= MAX_TOKENS
    }
