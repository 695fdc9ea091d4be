"""Stored values as plain JSON, which the readers of other programs accept: no lone surrogates, no NaN, no bytes."""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import date, time
from typing import Any

from kern_nb.control_characters import replace_surrogates

_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def to_plain(value: Any) -> Any:
    """Convert a value to plain JSON types; what JSON lacks becomes text."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    # Loops, because a comprehension takes a stack frame of its own at each level.
    if isinstance(value, dict):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            copy[replace_surrogates(key) if isinstance(key, str) else str(key)] = to_plain(item)
        return copy
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            items.append(to_plain(item))  # noqa: PERF401
        return items
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON. Characters that some readers take for the end of a line are escaped."""
    text = json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return _LINE_ENDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def without_none(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is unknown."""
    return {key: value for key, value in fields.items() if value is not None}
