"""Values that the records of benchmarks share: ids, scores, and objects that may be missing. No importer is here."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

from kern_nb.errors import UnstorableValue
from kern_nb.records import to_utc


def to_dict(value: Any) -> dict[str, Any]:
    """An object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def to_list(value: Any) -> list[Any]:
    """A list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def to_id(value: Any) -> Any:
    """An id: numbers become text, an empty text is none. A value of another type stays, for its record to refuse."""
    if type(value) is int:
        return str(value)
    return None if value == "" else value


def to_count(value: Any) -> int | None:
    """A number of tokens, if it is one."""
    return value if type(value) is int and value >= 0 else None


def to_number(value: Any) -> float | None:
    """A finite number, if it is one; an integer beyond the range of floats raises OverflowError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def to_args(value: Any) -> tuple[Any, dict[str, Any]]:
    """The decoded arguments of a call, and what to note about them: models do write invalid JSON."""
    if not isinstance(value, str):
        return value, {}
    try:
        return json.loads(value), {}
    except (ValueError, RecursionError):
        return value, {"args_invalid": True}


def finite_scores(values: dict[str, Any]) -> dict[str, float]:
    """The scores that are finite numbers, as floats; true is 1."""
    numbers = {name: float(v) if isinstance(v, bool) else to_number(v) for name, v in values.items()}
    return {name: float(number) for name, number in numbers.items() if number is not None}


def split_scalars(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scalars of a record, which users filter by, and its larger values."""
    scalars = {key: value for key, value in fields.items() if not isinstance(value, (dict, list))}
    return scalars, {key: value for key, value in fields.items() if key not in scalars}


def to_time(value: Any) -> datetime | None:
    """A time from ISO text; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        return to_utc(datetime.fromisoformat(value))
    except (ValueError, UnstorableValue):
        return None


def to_seconds(time: datetime | None) -> int | None:
    """Unix seconds."""
    return None if time is None else int(time.timestamp())
