"""Times of foreign records, in UTC: ISO text, and unix times in seconds, milliseconds, microseconds or nanoseconds.

What is no time is None, never now. ISO text without a zone is read as UTC; `is_local_time` tells such a text, so that
the metadata of the session states that its zone is unknown.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from kern_nb.ingest.parsing.values import to_number

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
# From 1973 to the year 5138 in each unit: a smaller number is an offset or a duration, no time.
_SECONDS_RANGE = (1e8, 1e11)
_UNITS = (1, 10**3, 10**6, 10**9)
_MAX_DIGITS = 30


def to_time(value: Any) -> datetime | None:
    """A time from ISO text."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def to_time_from_ms(value: Any) -> datetime | None:
    """A time from the milliseconds since 1970; 0 and -1 are how programs write none."""
    milliseconds = to_number(value)
    try:
        return None if milliseconds in (None, 0, -1) else _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def to_time_from_ns(value: Any) -> datetime | None:
    """A time from the nanoseconds since 1970, as a number or as digits; 0 is none."""
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < _MAX_DIGITS else None
    try:
        return _EPOCH + timedelta(microseconds=value // 1000) if type(value) is int and value >= 10**9 else None
    except OverflowError:
        return None


def parse_time(value: Any) -> datetime | None:
    """A time from ISO text, or from a unix time, a number or its text, whose size tells its unit."""
    if isinstance(value, str):
        if _ISO_DATE.match(value.strip()):
            return to_time(value)
        try:
            value = float(value)
        except ValueError:
            return None
    return _from_unix(value) if type(value) in (int, float) else None


def _from_unix(value: float) -> datetime | None:
    low, high = _SECONDS_RANGE
    for per_second in _UNITS:
        if low * per_second <= value < high * per_second:
            # Integers are divided exactly.
            seconds, rest = divmod(value, per_second)
            return _EPOCH + timedelta(seconds=seconds, microseconds=rest * 1_000_000 / per_second)
    return None


def is_local_time(value: Any) -> bool:
    """Whether it is ISO text without a time zone."""
    if not isinstance(value, str) or not _ISO_DATE.match(value) or value.endswith(" UTC"):
        return False
    try:
        return datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False


def to_unix_seconds(time: datetime | None) -> int | None:
    """A time as a session has it."""
    return None if time is None else math.floor(time.timestamp())
