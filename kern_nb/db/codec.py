"""Encoding of values as text that decodes to the same value on every engine.

Two things are encoded, reversibly and only where needed:

* **Characters** that some engine cannot store in text: NUL (PostgreSQL, C strings) and lone surrogates (not encodable
  as UTF-8). Each becomes U+0010 and four hex digits; so does U+0010, which makes decoding unambiguous.
* **Values** that JSON lacks. They become an object with the key ``$type``: ``{"$type": "decimal", "value": "1.10"}``.
  If a dict has keys that are not strings, or that equal these tags, they are stored as pairs:
  ``{"name": "x", "$type": "dict", "$items": [["name"], [1, "one"]]}``; a pair without a value is the position of an
  ordinary key, which preserves the order.

numpy and pandas scalars decode to the equal Python value, tuples and arrays to lists, pydantic models and dataclasses
to dicts, missing values to None. Anything else raises UnstorableValue.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import re
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel

from kern_nb.errors import UnstorableValue

ESCAPE = "\x10"
_UNSAFE = re.compile("[\x00\x10\ud800-\udfff]")
_ESCAPED = re.compile("\x10([0-9a-f]{4})")
_TYPE, _ITEMS = "$type", "$items"
_MAX_REPR_LENGTH = 80
_MAX_CHECKED_VALUES = 1_000_000

MAX_DEPTH = 400
"""The maximum depth of nesting. Python's parser fails at 1,000 stack frames, its callers included."""

MAX_DIGITS = 4300
"""The maximum number of digits of an integer: Python's default limit for parsing one."""
_MAX_BITS = int(MAX_DIGITS * math.log2(10))


def encode_text(text: str) -> str:
    """Escape what some engine cannot store."""
    if "\x00" not in text and ESCAPE not in text and _is_utf8(text):
        return text
    return _UNSAFE.sub(lambda m: f"{ESCAPE}{ord(m[0]):04x}", text)


def _is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates; several times faster than a search for them."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_text(text: str) -> str:
    """Undo `encode_text`."""
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text) if ESCAPE in text else text


def dumps(value: object) -> str:
    """Encode a value as JSON text; raise UnstorableValue if it could not be decoded to the same value."""
    try:
        if _is_json(value) and (text := _write_unescaped(value)) is not None:
            return text
        encoded = _encode(value)
        if not _is_json(encoded):
            raise _unstorable(value, _TOO_DEEP)  # noqa: TRY301 - it passes unchanged
        return _write(encoded)
    except UnstorableValue:
        raise
    except RecursionError as error:
        raise _unstorable(value, _TOO_DEEP) from error
    except Exception as error:  # a number with too many digits, or any error of the value's own methods
        raise _unstorable(value, f"{type(error).__name__}: {error}") from error


def dumps_all(values: list[Any]) -> list[str]:
    """Encode many values as `dumps` does each; most need no test of their own."""
    try:
        texts = list(map(_write, values)) if _is_json(values) else None
    except ValueError:
        texts = None
    if texts is None:
        return list(map(dumps, values))
    if _is_decodable("\n".join(texts)):
        return texts
    return [text if _is_decodable(text) else dumps(value) for text, value in zip(texts, values, strict=True)]


# `_is_json` detects cycles before anything is written.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(", ", ": ")).encode
_SCALARS = frozenset({str, int, float, bool, type(None)})
_KEYS = frozenset({str})
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep, or contains itself"


def _is_json(value: Any) -> bool:
    """Whether a value has only JSON's types and is no deeper than `MAX_DEPTH`: most do, and need no copy."""
    level = [value] if type(value) not in _SCALARS else []
    checked = 0
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        checked += len(level)
        if checked > _MAX_CHECKED_VALUES:  # huge or cyclic
            return False
        deeper: list[Any] = []
        for item in level:
            members = item.values() if type(item) is dict else item
            if type(item) is dict:
                if not _KEYS.issuperset(map(type, item)):
                    return False
            elif type(item) is not list:
                return False
            for member in members:
                if type(member) not in _SCALARS:
                    deeper.append(member)  # noqa: PERF401 - one list for each is slower
        level = deeper
    return not level


def _write_unescaped(value: Any) -> str | None:
    """Return the JSON text of such a value; None if a number or text in it must be encoded."""
    try:
        text = _write(value)
    except ValueError:  # NaN, infinity, an integer of very many digits
        return None
    return text if _is_decodable(text) else None


def _is_decodable(text: str) -> bool:
    """Whether JSON text decodes to what was written, without an encoding of a number or text in it."""
    if len(text) > MAX_DIGITS and sys.get_int_max_str_digits() != MAX_DIGITS:  # `_encode` checks every integer
        return False
    # U+0010 and NUL are written as escapes, lone surrogates unescaped.
    return not (_TYPE in text or _ITEMS in text or "\\u00" in text or not _is_utf8(text))


def loads(text: str) -> Any:
    """Undo `dumps`; raise ValueError for a text that it cannot have written."""
    try:
        value = _decoder.decode(text)
        # Only these tags require a walk; all are rare, and this test cannot miss one.
        return _restore(value) if _TYPE in text or "\\u0010" in text or _ITEMS in text else value
    except _MALFORMED as error:
        raise ValueError(_reason(error)) from error


def restore(value: Any) -> Any:
    """Undo `dumps` for JSON that was parsed by any parser; raise ValueError if it cannot have written it."""
    try:
        return _restore(value)
    except _MALFORMED as error:
        raise ValueError(_reason(error)) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_MALFORMED = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)


def _reason(error: Exception) -> str:
    """Return why `dumps` cannot have written a text, on one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.pos})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{type(error).__name__}: {error}"


_ENCODERS: dict[type, Callable[[Any], tuple[str, Any]]] = {
    Decimal: lambda v: ("decimal", str(v)),
    datetime: lambda v: ("datetime", v.isoformat()),
    date: lambda v: ("date", v.isoformat()),
    time: lambda v: ("time", v.isoformat()),
    timedelta: lambda v: ("timedelta", [v.days, v.seconds, v.microseconds]),
    UUID: lambda v: ("uuid", str(v)),
    bytes: lambda v: ("bytes", base64.b64encode(v).decode()),
    complex: lambda v: ("complex", [repr(v.real), repr(v.imag)]),
}

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda v: timedelta(*v),
    "uuid": UUID,
    "bytes": lambda v: base64.b64decode(v, validate=True),
    "complex": lambda v: complex(float(v[0]), float(v[1])),
    "float": float,
    "timestamp": lambda v: _pandas().Timestamp(v),
    "set": lambda v: {_restore_key(i) for i in v},
    "frozenset": lambda v: frozenset(_restore_key(i) for i in v),
}
_LISTS = frozenset({"timedelta", "complex", "set", "frozenset"})
"""The tags whose value is a list; the others have text."""


def _encode(value: Any) -> Any:
    """Convert a value to JSON's types."""
    kind = type(value)
    if kind is str:
        return encode_text(value)
    if kind is int:
        if value.bit_length() > _MAX_BITS:
            raise _unstorable(value, f"it has more than {MAX_DIGITS:,} digits")
        return value
    if value is None or kind is bool:
        return value
    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if kind is dict:
        if _TYPE in value or _ITEMS in value or not all(type(k) is str for k in value):
            return _encode_tagged_dict(value)
        return {encode_text(k): _encode(v) for k, v in value.items()}
    if kind is list or kind is tuple:
        return [_encode(v) for v in value]
    if kind in _ENCODERS:
        return _tagged(*_ENCODERS[kind](value))
    return _encode_rare_type(value)


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {_TYPE: tag, "value": value}


def _encode_tagged_dict(value: dict[Any, Any]) -> dict[str, Any]:
    """Encode a dict with keys that are not strings or equal a tag."""
    ordinary: dict[str, Any] = {}
    items: list[list[Any]] = []
    for key, item in value.items():
        stored = _encode(key)
        if type(key) is str and key not in (_TYPE, _ITEMS):
            ordinary[stored] = _encode(item)
            items.append([stored])
        else:
            items.append([stored, _encode(item)])
    _require_keys(value, [pair[0] for pair in items])
    return ordinary | {_TYPE: "dict", _ITEMS: items}


def _require_keys(value: Any, stored: list[Any]) -> None:
    """Check that keys, or members of a set, stay distinct and hashable once decoded."""
    try:
        distinct = {_restore_key(k) for k in stored}
    except TypeError as error:
        raise _unstorable(value, "one of its keys would decode to a dict") from error
    if len(distinct) < len(stored):
        raise _unstorable(value, "two of its keys would decode to the same value")


def _encode_rare_type(value: Any) -> Any:
    """Encode rare types: numpy and pandas scalars, other containers, subclasses."""
    if isinstance(value, enum.Enum):
        return _encode(value.value)
    if isinstance(value, BaseModel):
        return _encode(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, (set, frozenset)):
        members = [_encode(v) for v in value]
        _require_keys(value, members)
        return _tagged("set" if isinstance(value, set) else "frozenset", members)
    if isinstance(value, PurePath):
        return str(value)
    converted = _convert_array_type(value)
    if converted is not value:
        return _encode(converted)
    if hasattr(value, "to_pydatetime") and getattr(value, "nanosecond", None):  # finer than a datetime
        return _tagged("timestamp", value.isoformat())
    bases: tuple[Callable[[Any], Any], ...] = (int, float, str, dict, list, tuple)
    for base in bases:
        if isinstance(value, cast("type", base)):  # a subclass: the value of its base
            return _encode(base(value))
    raise _unstorable(value)


def _unstorable(value: object, reason: str = "") -> UnstorableValue:
    return UnstorableValue(
        f"A value of type {type_name(value)} cannot be stored{f': {reason}' if reason else ''}: {short_repr(value)}",
        "Convert it to text, numbers, lists or dicts, for example with str(value) or value.to_dict().",
    )


def _convert_array_type(value: Any) -> Any:
    """Convert a numpy or pandas value to an equal Python value, without importing either; else return the value."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return None
        if isinstance(value, pandas.Timestamp):
            return value if value.nanosecond else value.to_pydatetime()
        if isinstance(value, pandas.Timedelta):
            return value if value.nanoseconds else value.to_pytimedelta()
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.ndim == 0:
            return value[()]
        return list(value) if value.dtype.kind in "mMgG" else value.tolist()
    return _numpy_scalar(numpy, value) if numpy is not None and isinstance(value, numpy.generic) else value


def _numpy_scalar(numpy: Any, value: Any) -> Any:
    if isinstance(value, numpy.longdouble):
        exact = float(value) == value or numpy.isnan(value)
        return float(value) if exact else value
    if isinstance(value, numpy.datetime64) and numpy.datetime_data(value)[0] == "ns" and not numpy.isnat(value):
        return _pandas().Timestamp(value)
    item = value.item()
    # `item` returns an int for times outside Python's range, and a complex long double unchanged.
    inexact = isinstance(value, (numpy.datetime64, numpy.timedelta64)) and isinstance(item, int)
    return value if inexact or type(item) is type(value) else item


def _restore(value: Any) -> Any:
    if isinstance(value, str):
        return decode_text(value)
    if isinstance(value, list):
        return [_restore(v) for v in value]
    if not isinstance(value, dict):
        return value
    if _TYPE in value or _ITEMS in value:
        return _restore_tagged(value)
    return {decode_text(k): _restore(v) for k, v in value.items()}


def _restore_tagged(value: dict[str, Any]) -> Any:
    """Restore a value that JSON lacks."""
    tag = value.get(_TYPE)
    if tag == "dict" and isinstance(value.get(_ITEMS), list):
        if not all(isinstance(item, list) and len(item) in (1, 2) for item in value[_ITEMS]):
            raise ValueError(f"{_ITEMS} are not pairs")
        return {_restore_key(k): _restore(v[0] if v else value[k]) for k, *v in value[_ITEMS]}
    if isinstance(tag, str) and tag in _DECODERS and value.keys() == {_TYPE, "value"}:
        if type(value["value"]) is not (list if tag in _LISTS else str):
            raise ValueError(f"the value of tag {tag!r} has the wrong type")
        return _DECODERS[tag](value["value"])
    raise ValueError(f"the tag {tag!r} is unknown, or its value is missing")


def _restore_key(stored: Any) -> Any:
    """Restore a key, or a member of a set; tuples are stored as lists."""
    return tuple(_restore_key(k) for k in stored) if isinstance(stored, list) else _restore(stored)


def _pandas() -> Any:
    import pandas

    return pandas


def type_name(value: object) -> str:
    """Return the qualified name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def short_repr(value: object) -> str:
    """Return a value's repr for an error message: short, on one line, without control characters."""
    try:
        text = repr(value[: 2 * _MAX_REPR_LENGTH] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001 - its repr may fail too
        text = "…"
    text = text if len(text) <= _MAX_REPR_LENGTH else text[: _MAX_REPR_LENGTH - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
