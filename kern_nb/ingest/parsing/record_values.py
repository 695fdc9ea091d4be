"""Values of records whose types are not certain: ids, times, counts and arguments, or None."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS
from kern_nb.records import YEARS

READ_ERRORS = (*RECORD_ERRORS, RecursionError)
"""The errors that reading a malformed or too deeply nested record raises."""

_MAX_TOKENS = 2**53
_MILLISECONDS_FROM = 10**11
"""From here on a unix time is in milliseconds: as seconds, it is in the year 5138."""


def to_dict(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def to_list(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def to_id(value: Any) -> str | None:
    """An id as text; None if it is empty."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def to_text(value: Any) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def to_number(value: Any) -> float | None:
    """A finite number of at least 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS
    return value if is_number and math.isfinite(value) else None


def tokens(counts: Mapping[str, Any], *names: str) -> int | None:
    """The first of these counts that is a number of tokens."""
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS:
            return value
    return None


def parse_time(value: Any) -> datetime | None:
    """A time in UTC from ISO text, naive text in UTC, or a unix time in seconds or milliseconds."""
    try:
        if isinstance(value, str) and value:
            time = datetime.fromisoformat(value)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def unix_seconds(time: datetime | None) -> int | None:
    """A time as whole unix seconds."""
    if time is None:
        return None
    seconds = int(time.timestamp())
    return seconds if YEARS[0] <= seconds <= YEARS[1] else None


def parse_args(args: Any, extra: dict[str, Any]) -> Any:
    """Decode a call's arguments; models may write invalid JSON, which stays text and is marked in ``extra``."""
    if isinstance(args, str):
        try:
            return json.loads(args)
        except (ValueError, RecursionError):
            extra["args_invalid"] = True
    return args


def load_json(text: Any) -> Any:
    """Decode JSON of a database column; None if it is none."""
    if isinstance(text, (str, bytes)):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    return text


def scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are neither None, objects nor lists."""
    return {key: value for key, value in fields.items() if value is not None and not isinstance(value, (dict, list))}
