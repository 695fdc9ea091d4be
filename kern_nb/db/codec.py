"""Values to text and back, exactly: what went in comes out, from every engine.

Two things are coded, both reversibly and only where needed:

* **Characters** that some engine cannot store in text: NUL (PostgreSQL, C strings) and lone surrogates (no UTF-8 for
  them). Each becomes U+0010 and four hex digits; U+0010 itself too, so that decoding is unambiguous.
* **Values** that JSON lacks. They become an object with the key ``$type``:
  ``{"$type": "decimal", "value": "1.10"}``. A dict that has a key ``$type``, or keys that are no strings, is stored as
  pairs under ``{"$type": "dict", ...}``.

numpy and pandas scalars come back as the Python value they equal, tuples and arrays as lists, pydantic models and
dataclasses as dicts. Anything else raises UnstorableValue: a guess would not come back as it went in.
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
_TYPE = "$type"
_SHOWN = 80


def encode_text(text: str) -> str:
    """Text that every engine stores."""
    if text.isascii() and "\x00" not in text and ESCAPE not in text:
        return text
    return _UNSAFE.sub(lambda m: f"{ESCAPE}{ord(m[0]):04x}", text)


def decode_text(text: str) -> str:
    """The text that `encode_text` was given."""
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text) if ESCAPE in text else text


def dumps(value: object) -> str:
    """JSON text of a value; raises UnstorableValue, naming the place, where that cannot be exact."""
    return json.dumps(_plain(value, "value"), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def loads(text: str) -> Any:
    """The value that `dumps` was given."""
    value = json.loads(text)
    # Only these two marks call for a walk; both are rare, and neither can hide from this test.
    return _restore(value) if _TYPE in text or "\\u0010" in text else value


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
    "bytes": base64.b64decode,
    "complex": lambda v: complex(float(v[0]), float(v[1])),
    "float": float,
    "timestamp": lambda v: _pandas().Timestamp(v),
    "set": lambda v: {_restore(i) for i in v},
    "frozenset": lambda v: frozenset(_restore(i) for i in v),
    "dict": lambda v: {_hashable(_restore(k)): _restore(i) for k, i in v},
}


def _plain(value: Any, where: str) -> Any:
    """The value in JSON's own types; the same object where it is that already."""
    kind = type(value)
    if kind is str:
        return encode_text(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else {_TYPE: "float", "value": repr(value)}
    if kind is dict:
        if _TYPE not in value and all(type(k) is str for k in value):
            return {encode_text(k): _plain(v, where) for k, v in value.items()}
        return {_TYPE: "dict", "value": [[_plain(k, where), _plain(v, where)] for k, v in value.items()]}
    if kind is list or kind is tuple:
        return [_plain(v, where) for v in value]
    if kind in _ENCODERS:
        tag, text = _ENCODERS[kind](value)
        return {_TYPE: tag, "value": text}
    return _plain_other(value, where)


def _plain_other(value: Any, where: str) -> Any:
    """What is rare: scientific scalars, containers of other kinds, subclasses."""
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(), where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, where)
    if isinstance(value, (set, frozenset)):
        return {_TYPE: "set" if isinstance(value, set) else "frozenset", "value": [_plain(v, where) for v in value]}
    if isinstance(value, PurePath):
        return str(value)
    if getattr(value, "nanosecond", 0) > 0:  # a pandas Timestamp finer than a datetime (NaT has nan)
        return {_TYPE: "timestamp", "value": value.isoformat()}
    found, simpler = _scientific(value)
    if found:
        return _plain(simpler, where)
    bases: tuple[Callable[[Any], Any], ...] = (int, float, str, dict, list, tuple)
    for base in bases:
        if isinstance(value, cast("type", base)):  # a subclass: its plain value
            return _plain(base(value), where)
    raise UnstorableValue(
        f"A {kind_name(value)} in {where} cannot be stored: {_shorten(repr(value))}.",
        "Store text, numbers, lists or dicts of it instead, for example str(value) or value.to_dict().",
    )


def _scientific(value: Any) -> tuple[bool, Any]:
    """The Python value of a numpy or pandas one, asked without importing either."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return True, None
        if isinstance(value, pandas.Timestamp):
            return True, value.to_pydatetime(warn=False)
        if isinstance(value, pandas.Timedelta):
            return True, value.to_pytimedelta()
    if numpy is not None:
        if isinstance(value, numpy.datetime64):
            return True, value.item()
        if isinstance(value, numpy.generic):
            return True, value.item()
        if isinstance(value, numpy.ndarray):
            return True, value.tolist()
    return False, None


def _restore(value: Any) -> Any:
    if isinstance(value, str):
        return decode_text(value)
    if isinstance(value, list):
        return [_restore(v) for v in value]
    if not isinstance(value, dict):
        return value
    decoder = _DECODERS.get(cast("str", value.get(_TYPE)))
    if decoder is not None and value.keys() == {_TYPE, "value"}:
        return decoder(value["value"])
    return {decode_text(k): _restore(v) for k, v in value.items()}


def _hashable(key: Any) -> Any:
    """Tuple keys come back as lists, which no dict takes."""
    return tuple(_hashable(k) for k in key) if isinstance(key, list) else key


def _pandas() -> Any:
    import pandas

    return pandas


def kind_name(value: object) -> str:
    """The full name of a value's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
