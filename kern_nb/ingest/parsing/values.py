"""Values of foreign records, which may be missing or have any type: a value of another type is a missing one.

Missing values stay None, never 0. Ids are strings: numbers become text, and an empty id is no id. Counts are whole
numbers of at least 0; a column with gaps writes them as floats. Numbers are finite. True and false are no numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

from kern_nb.db.schema import MAX_TOKENS

_EXACT_FLOATS = 2**53
_MAX_DURATION_S = 10**9

AnyNumber = TypeVar("AnyNumber", int, float)


def to_object(value: Any) -> dict[str, Any]:
    """An object; an empty one for another value."""
    return value if isinstance(value, dict) else {}


def to_list(value: Any) -> list[Any]:
    """A list; an empty one for another value."""
    return value if isinstance(value, list) else []


def to_text(value: Any) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def first_text(values: Iterable[Any]) -> str | None:
    """The first of the values that is a text and not empty."""
    return next((value for value in values if isinstance(value, str) and value), None)


def to_flag(value: Any) -> bool | None:
    """True or false; None for any other value, 0 and 1 among them."""
    return value if isinstance(value, bool) else None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none."""
    return type(value) in (int, float)


def to_id(value: Any) -> str | None:
    """An id: numbers become text, an empty text is none."""
    if type(value) is int or (type(value) is float and value.is_integer() and abs(value) < _EXACT_FLOATS):
        return str(int(value))
    return to_text(value)


def checked_id(value: Any) -> Any:
    """An id as `to_id` has it; a value that cannot be one is returned as it is, for the record to refuse."""
    return None if value == "" else value if (text := to_id(value)) is None else text


def to_count(value: Any) -> int | None:
    """A number of tokens or of other things."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def first_count(counts: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that has a count."""
    return next((count for name in names if (count := to_count(counts.get(name))) is not None), None)


def to_number(value: Any) -> float | None:
    """A finite number."""
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def to_duration(value: Any, per_second: int = 1) -> float | None:
    """A duration in seconds, at least 0; ``per_second`` is how many of its unit a second has."""
    number = to_number(value)
    return None if number is None or not 0 <= number < _MAX_DURATION_S * per_second else number / per_second


def to_cost(value: Any) -> float | None:
    """A cost; 0 is that of a model without a known price."""
    number = to_number(value)
    return number if number is not None and number > 0 else None


def sum_present(values: Iterable[AnyNumber | None]) -> AnyNumber | None:
    """The sum of the numbers that are stated; None if none is."""
    numbers = [value for value in values if value is not None]
    return sum(numbers[1:], numbers[0]) if numbers else None


def decode_json(value: Any) -> Any:
    """The value of a JSON text; a text that is no JSON and other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def load_json(value: Any) -> Any:
    """The value of the JSON in a column of a database; None for text that is no JSON, other values as they are."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def to_args(value: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call, decoded, and what ``extra`` says of them: models do write invalid JSON, which stays."""
    if not isinstance(value, str):
        return value, {}
    args = decode_json(value)
    return args, {"args_invalid": True} if args is value else {}


def keep_scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose values are text, numbers or booleans: metadata, by which users filter."""
    return {key: value for key, value in fields.items() if isinstance(value, (str, int, float, bool)) and value != ""}


def split_scalars(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scalars of a record, nulls among them, and its larger values."""
    scalars = {key: value for key, value in fields.items() if not isinstance(value, (dict, list))}
    return scalars, {key: value for key, value in fields.items() if key not in scalars}


def without(fields: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The other fields of an object that have a value."""
    omitted = frozenset(keys)
    return {key: value for key, value in fields.items() if key not in omitted and value is not None}


def drop_null(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: a column of structs in Parquet has every field of all its rows."""
    return {key: value for key, value in fields.items() if value is not None}


def finite_scores(values: Mapping[str, Any]) -> dict[str, float]:
    """The scores that are finite numbers; true is 1. An integer beyond the range of floats raises OverflowError.

    A score that is stated and cannot be stored is not passed over: without it, its mean would be wrong.
    """
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, (bool, int, float))}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
