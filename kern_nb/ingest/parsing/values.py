"""Reading fields of foreign JSON, which may be missing or have any type: a value of another type is a missing one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kern_nb.db.schema import MAX_TOKENS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_object(value: Any) -> dict[str, Any]:
    """An object; an empty one for another value."""
    return value if isinstance(value, dict) else {}


def to_list(value: Any) -> list[Any]:
    """A list; an empty one for another value."""
    return value if isinstance(value, list) else []


def to_text(value: Any) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def to_id(value: Any) -> str | None:
    """An id: numbers become text, an empty text is none."""
    return str(value) if type(value) is int else to_text(value)


def to_count(value: Any) -> int | None:
    """A number of tokens."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def to_number(value: Any) -> float | None:
    """A finite number."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def to_time(value: Any) -> datetime | None:
    """A time from ISO text; one without a zone is read as UTC."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def to_time_from_ms(value: Any) -> datetime | None:
    """A time from the milliseconds since 1970."""
    milliseconds = to_number(value)
    try:
        return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def to_seconds(time: datetime | None) -> int | None:
    """The unix seconds of a time."""
    return None if time is None else int(time.timestamp())


def parse_arguments(value: Any) -> tuple[Any, bool]:
    """The arguments of a call from their JSON text, and whether the text is invalid: models do write invalid JSON."""
    if not isinstance(value, str):
        return value, False
    try:
        return json.loads(value), False
    except (ValueError, RecursionError):
        return value, True


def keep_scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose values are text, numbers or booleans."""
    return {key: value for key, value in fields.items() if isinstance(value, (str, int, float, bool)) and value != ""}


def without(fields: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The other fields of an object that have a value."""
    omitted = frozenset(keys)
    return {key: value for key, value in fields.items() if key not in omitted and value is not None}


def sum_numbers(values: Iterable[float | None]) -> float | None:
    """The sum of the numbers that are known; None if none is."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None
