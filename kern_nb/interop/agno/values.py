"""Values of Agno's dicts: as JSON has them, compared, and split into columns and the rest."""

from __future__ import annotations

import enum
import json
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

JsonObject = dict[str, Any]

_SCALARS = frozenset({str, int, float, bool, type(None)})
_ABSENT = "absent"  # in ``internal``: keys of the columns that the source does not have


def json_value(value: Any) -> Any:
    """A value as Agno reads it back from its own database; a value that it cannot store, such as a Decimal, is kept."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {k if type(k) is str else _json_key(k): json_value(item) for k, item in value.items()}
    if kind in {list, tuple}:
        return [json_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return json_value(value.value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, type):
        return str(value)
    if isinstance(value, Mapping):
        return json_value(dict(value))
    to_dict = getattr(value, "to_dict", None)
    if kind.__module__.partition(".")[0] == "agno" and callable(to_dict):
        return json_value(to_dict())
    return value


def _json_key(key: Any) -> Any:
    """The key of an object, as JSON has it."""
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    return str(key)


def is_same(first: Any, second: Any) -> bool:
    """Whether two values are equal, and of the same types at every depth: 1 and True differ."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list):
        return len(first) == len(second) and all(map(is_same, first, second))
    return bool(first == second)


def split(source: JsonObject, columns: JsonObject, nested: Collection[str] = ()) -> tuple[JsonObject, JsonObject]:
    """What a dict has beside what is rebuilt from the ``columns``, and a note for `restore`.

    The values of ``nested`` keys are split themselves.
    """
    rest: JsonObject = {}
    absent = [key for key in columns if key not in source]
    for key, value in source.items():
        if key in columns:
            column = columns[key]
            if is_same(column, value):
                continue
            if key in nested and isinstance(column, dict) and isinstance(value, dict):
                value, note = split(value, column)  # noqa: PLW2901
                absent += [f"{key}.{name}" for name in note.get(_ABSENT, ())]
        rest[key] = value
    return rest, {_ABSENT: absent} if absent else {}


def restore(columns: JsonObject, rest: JsonObject, note: JsonObject, nested: Collection[str] = ()) -> JsonObject:
    """The inverse of `split`."""
    absent = note.get(_ABSENT, ())
    result = {key: value for key, value in columns.items() if key not in absent}
    for key, value in rest.items():
        column = result.get(key)
        if key in nested and isinstance(column, dict) and isinstance(value, dict):
            inner = [name.removeprefix(f"{key}.") for name in absent if name.startswith(f"{key}.")]
            value = restore(column, value, {_ABSENT: inner})  # noqa: PLW2901
        result[key] = value
    for key in nested:  # without a rest, but with absent keys
        if key not in rest and isinstance(result.get(key), dict):
            inner = [name.removeprefix(f"{key}.") for name in absent if name.startswith(f"{key}.")]
            result[key] = restore(result[key], {}, {_ABSENT: inner}) if inner else result[key]
    return result


def without_none(values: JsonObject) -> JsonObject:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def to_time(seconds: Any) -> datetime | None:
    """A time in unix seconds; None if it is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def to_seconds(time: datetime | None) -> int | None:
    """Unix seconds, as Agno has them."""
    return None if time is None else int(time.timestamp())


def to_text(value: Any) -> str | None:
    """A text; None if the value is none."""
    return value if isinstance(value, str) else None


def to_float(value: Any) -> float | None:
    """A number of seconds; None if the value is no number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
