"""Values to text and back, exactly: what went in comes out, from every engine.

Two things are coded, both reversibly and only where needed:

* **Characters** that some engine cannot store in text: NUL (PostgreSQL, C strings) and lone surrogates (no UTF-8 for
  them). Each becomes U+0010 and four hex digits; U+0010 itself too, so that decoding is unambiguous.
* **Values** that JSON lacks. They become an object with the key ``$type``: ``{"$type": "decimal", "value": "1.10"}``.
  Keys of a dict that are no strings, or are such marks themselves, are stored as pairs beside the others:
  ``{"name": "x", "$type": "dict", "$items": [["name"], [1, "one"]]}``; a pair without a value tells the place of a
  usual key, so that the order is kept.

numpy and pandas scalars come back as the Python value they equal, tuples and arrays as lists, pydantic models and
dataclasses as dicts, missing values as None. Anything else raises UnstorableValue: a guess would not come back as it
went in.
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
_LONGEST_SHOWN = 80
_MOST_LOOKED_AT = 1_000_000

MAX_DEPTH = 400
"""Levels of nesting that are stored. Python's parser gives up at 1,000 frames, whoever called it among them."""

MAX_DIGITS = 4300
"""Digits of an integer: Python reads no longer ones from text unless its limit is raised."""
_MAX_BITS = int(MAX_DIGITS * math.log2(10))


def encode_text(text: str) -> str:
    """Text that every engine stores."""
    if "\x00" not in text and ESCAPE not in text and _is_utf8(text):
        return text
    return _UNSAFE.sub(lambda m: f"{ESCAPE}{ord(m[0]):04x}", text)


def _is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates; several times faster than looking for them."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_text(text: str) -> str:
    """The text that `encode_text` was given."""
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text) if ESCAPE in text else text


def dumps(value: object) -> str:
    """JSON text of a value; raises UnstorableValue where that cannot be exact."""
    try:
        if _is_json(value) and (text := _as_it_is(value)) is not None:
            return text
        plain = _plain(value)
        if not _is_json(plain):
            raise _unstorable(value, _TOO_DEEP)  # noqa: TRY301 - it passes unchanged
        return _write(plain)
    except UnstorableValue:
        raise
    except RecursionError as error:
        raise _unstorable(value, _TOO_DEEP) from error
    except Exception as error:  # too long a number; or what the value's own methods raise, which can be anything
        raise _unstorable(value, f"{type(error).__name__}: {error}") from error


# Circles are found before anything is written.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(", ", ": ")).encode
_SCALARS = frozenset({str, int, float, bool, type(None)})
_KEYS = frozenset({str})
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep, or holds itself"


def _is_json(value: Any) -> bool:
    """Whether a value is of JSON's own types through and through, and no deeper than `MAX_DEPTH`.

    Most are: they need no copy in those types.
    """
    level = [value] if type(value) not in _SCALARS else []
    seen = 0
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        seen += len(level)
        if seen > _MOST_LOOKED_AT:  # huge, or without end
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
                    deeper.append(member)  # noqa: PERF401 - a list made for each would take longer
        level = deeper
    return not level


def _as_it_is(value: Any) -> str | None:
    """The JSON text of such a value; None where it holds a number or text that has to be coded."""
    try:
        text = _write(value)
    except ValueError:  # NaN, infinity, an integer of very many digits
        return None
    if len(text) > MAX_DIGITS and sys.get_int_max_str_digits() != MAX_DIGITS:  # the walk looks at every integer
        return None
    # U+0010 and NUL are written as escapes; lone surrogates as they are.
    coded = _TYPE in text or _ITEMS in text or "\\u00" in text or not _is_utf8(text)
    return None if coded else text


def loads(text: str) -> Any:
    """The value that `dumps` was given.

    Raises:
        ValueError: the text is not what `dumps` writes.
    """
    try:
        value = _decoder.decode(text)
        # Only these two marks call for a walk; both are rare, and neither can hide from this test.
        return _restore(value) if _TYPE in text or "\\u0010" in text or _ITEMS in text else value
    except _MALFORMED as error:
        raise ValueError(_reason(error)) from error


def restore(value: Any) -> Any:
    """What `dumps` was given, from its JSON as anybody's parser reads it.

    Raises:
        ValueError: it is not what `dumps` writes.
    """
    try:
        return _restore(value)
    except _MALFORMED as error:
        raise ValueError(_reason(error)) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_MALFORMED = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)


def _reason(error: Exception) -> str:
    """Why a text is not what `dumps` writes, on one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.pos})"
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
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
    "set": lambda v: {_key(i) for i in v},
    "frozenset": lambda v: frozenset(_key(i) for i in v),
}
_LISTS = frozenset({"timedelta", "complex", "set", "frozenset"})
"""The marks whose value is a list; that of the others is text."""


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
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
            return _plain_odd_dict(value)
        return {encode_text(k): _plain(v) for k, v in value.items()}
    if kind is list or kind is tuple:
        return [_plain(v) for v in value]
    if kind in _ENCODERS:
        return _tagged(*_ENCODERS[kind](value))
    return _plain_other(value)


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {_TYPE: tag, "value": value}


def _plain_odd_dict(value: dict[Any, Any]) -> dict[str, Any]:
    """A dict with keys that JSON lacks, or that would be taken for our marks."""
    usual: dict[str, Any] = {}
    items: list[list[Any]] = []
    for key, item in value.items():
        stored = _plain(key)
        if type(key) is str and key not in (_TYPE, _ITEMS):
            usual[stored] = _plain(item)
            items.append([stored])
        else:
            items.append([stored, _plain(item)])
    _require_keys(value, [pair[0] for pair in items])
    return usual | {_TYPE: "dict", _ITEMS: items}


def _require_keys(value: Any, stored: list[Any]) -> None:
    """Keys, or members of a set, come back as many as they were, and can be keys again."""
    try:
        distinct = {_key(k) for k in stored}
    except TypeError as error:
        raise _unstorable(value, "one of its keys comes back as a dict") from error
    if len(distinct) < len(stored):
        raise _unstorable(value, "two of its keys come back as one")


def _plain_other(value: Any) -> Any:
    """What is rare: scientific scalars, containers of other kinds, subclasses."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, (set, frozenset)):
        members = [_plain(v) for v in value]
        _require_keys(value, members)
        return _tagged("set" if isinstance(value, set) else "frozenset", members)
    if isinstance(value, PurePath):
        return str(value)
    simpler = _scientific(value)
    if simpler is not value:
        return _plain(simpler)
    if hasattr(value, "to_pydatetime") and getattr(value, "nanosecond", None):  # finer than a datetime
        return _tagged("timestamp", value.isoformat())
    bases: tuple[Callable[[Any], Any], ...] = (int, float, str, dict, list, tuple)
    for base in bases:
        if isinstance(value, cast("type", base)):  # a subclass: its plain value
            return _plain(base(value))
    raise _unstorable(value)


def _unstorable(value: object, reason: str = "") -> UnstorableValue:
    return UnstorableValue(
        f"A value of type {kind_name(value)} cannot be stored{f': {reason}' if reason else ''}: {short_repr(value)}",
        "Store text, numbers, lists or dicts of it instead, for example str(value) or value.to_dict().",
    )


def _scientific(value: Any) -> Any:
    """A simpler value that equals a numpy or pandas one, or the value itself; asked without importing either."""
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
    # A bare count stands for times that Python's types cannot hold; a complex long double stays what it is.
    lost = isinstance(value, (numpy.datetime64, numpy.timedelta64)) and isinstance(item, int)
    return value if lost or type(item) is type(value) else item


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
    """A value that JSON lacks, from the object that stands for it."""
    tag = value.get(_TYPE)
    if tag == "dict" and isinstance(value.get(_ITEMS), list):
        if not all(isinstance(item, list) and len(item) in (1, 2) for item in value[_ITEMS]):
            raise ValueError(f"{_ITEMS} are not pairs")
        return {_key(k): _restore(v[0] if v else value[k]) for k, *v in value[_ITEMS]}
    if isinstance(tag, str) and tag in _DECODERS and value.keys() == {_TYPE, "value"}:
        if type(value["value"]) is not (list if tag in _LISTS else str):
            raise ValueError(f"the value marked {tag!r} is of another type")
        return _DECODERS[tag](value["value"])
    raise ValueError(f"the mark {tag!r} is unknown, or its value is missing")


def _key(stored: Any) -> Any:
    """A key, or a member of a set, from its stored form; tuples were stored as lists, which no dict takes."""
    return _hashable(_restore(stored))


def _hashable(key: Any) -> Any:
    return tuple(_hashable(k) for k in key) if isinstance(key, list) else key


def _pandas() -> Any:
    import pandas

    return pandas


def kind_name(value: object) -> str:
    """The full name of a value's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def short_repr(value: object) -> str:
    """A value as an error shows it: short, on one line, with nothing in it that acts on a terminal."""
    try:
        text = repr(value[: 2 * _LONGEST_SHOWN] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001 - a value that cannot be stored may not be able to show itself either
        text = "…"
    text = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
