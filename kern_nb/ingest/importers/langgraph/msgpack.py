"""Reading msgpack with the extension types of LangGraph as plain JSON values, without importing what they name.

An extension holds a class as module and name, and the values that it is constructed from. The values are what is read:
the fields of a pydantic model or dataclass, the text of a UUID or date, the items of a set. The state of a checkpoint
repeats the messages of all checkpoints before it, so `read_state` leaves the channels as bytes: `split_list` cuts such
a list into its items, which equal bytes identify.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kern_nb.ingest.importer import MalformedRecord

T = TypeVar("T")

_MAX_DEPTH = 150
_ERRORS = (IndexError, KeyError, struct.error, UnicodeDecodeError)

# Extensions 0 to 5 hold a module, a class and what the class is constructed from.
_CLASSES = range(6)
_NUMPY, _DELTA = 6, 7
_CLASS_VALUE = 2


class _Code(NamedTuple):
    """What the first byte of a value states: its kind, and its value or length if this is not in ``width`` bytes."""

    kind: str
    width: int = 0
    length: int = 0


def _codes() -> dict[int, _Code]:
    codes = {code: _Code("fixed", length=code) for code in range(0x80)}
    codes |= {code: _Code("fixed", length=code - 0x100) for code in range(0xE0, 0x100)}
    for length in range(0x20):
        codes[0xA0 + length] = _Code("text", length=length)
    for length in range(0x10):
        codes[0x80 + length], codes[0x90 + length] = _Code("map", length=length), _Code("list", length=length)
    for i, width in enumerate((1, 2, 4)):
        codes[0xC4 + i], codes[0xC7 + i] = _Code("bytes", width), _Code("extension", width)
        codes[0xD9 + i] = _Code("text", width)
    for i, width in enumerate((2, 4)):
        codes[0xDC + i], codes[0xDE + i] = _Code("list", width), _Code("map", width)
    for i in range(5):
        codes[0xD4 + i] = _Code("extension", length=1 << i)
    for i, width in enumerate((1, 2, 4, 8)):
        codes[0xCC + i], codes[0xD0 + i] = _Code("unsigned", length=width), _Code("signed", length=width)
    codes |= {0xC0: _Code("none"), 0xC2: _Code("false"), 0xC3: _Code("true")}
    return codes | {0xCA: _Code("float", length=4), 0xCB: _Code("float", length=8)}


_CODES = _codes()
_CONSTANTS = {"none": None, "false": False, "true": True}


def unpack(data: bytes) -> Any:
    """Decode one value; raise MalformedRecord if it is truncated or nested too deeply."""
    return _guarded(lambda: _Reader(data).value(0))


def read_state(data: bytes) -> dict[str, Any]:
    """Decode a checkpoint, except that ``channel_values`` maps each channel to the bytes of its value."""

    def read() -> dict[str, Any]:
        reader = _Reader(data)
        state: dict[str, Any] = {}
        for _ in range(reader.length_of("map")):
            key = reader.value(0)
            if key == "channel_values":
                length = reader.length_of("map")
                state[key] = {str(reader.value(0)): reader.skip(0) for _ in range(length)}
            elif key == "versions_seen":  # the largest part besides the channels, of no use here
                reader.skip(0)
            else:
                state[str(key)] = reader.value(0)
        return state

    return _guarded(read)


def split_list(data: bytes) -> list[bytes] | None:
    """Cut an encoded list into the bytes of its items; None if the value is no list."""

    def read() -> list[bytes] | None:
        reader = _Reader(data)
        if _CODES[data[0]].kind != "list":
            return None
        return [reader.skip(0) for _ in range(reader.length_of("list"))]

    return _guarded(read)


def delta_snapshot(data: bytes) -> bytes:
    """The value in a snapshot of a delta channel; any other value as it is."""

    def read() -> bytes:
        reader = _Reader(data)
        kind, _ = reader.header()
        return data[reader.at :] if kind == "extension" and reader.byte() == _DELTA else data

    return _guarded(read)


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except _ERRORS as error:
        raise MalformedRecord(f"the value is not valid msgpack: {error}") from error


class _Reader:
    """A position in encoded values, which reading moves forward."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def take(self, length: int) -> bytes:
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise IndexError("it is truncated")
        return self.data[start : self.at]

    def header(self) -> tuple[str, int]:
        """The kind of the value here, and its value or length."""
        kind, width, length = _CODES[self.byte()]
        return kind, int.from_bytes(self.take(width), "big") if width else length

    def length_of(self, expected: str) -> int:
        kind, length = self.header()
        if kind != expected:
            raise MalformedRecord(f"the value is not valid msgpack: a {expected} is expected, not a {kind}")
        return length

    def skip(self, depth: int) -> bytes:
        """Move behind a value; return its bytes."""
        start = self.at
        kind, length = self.header()
        if kind in ("map", "list"):
            for _ in range(length * 2 if kind == "map" else length):
                self.skip(_deeper(depth))
        elif kind == "extension":
            self.take(length + 1)
        elif kind not in ("fixed", *_CONSTANTS):
            self.take(length)
        return self.data[start : self.at]

    def value(self, depth: int) -> Any:
        kind, length = self.header()
        if kind == "fixed":
            return length
        if kind == "text":
            return self.take(length).decode("utf-8", "surrogatepass")
        if kind == "map":
            deeper = _deeper(depth)
            return {str(self.value(deeper)): self.value(deeper) for _ in range(length)}
        if kind == "list":
            deeper = _deeper(depth)
            return [self.value(deeper) for _ in range(length)]
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind == "extension":
            return _extension(self.byte(), self.take(length), _deeper(depth))
        data = self.take(length)
        if kind == "bytes":
            return {"base64": base64.b64encode(data).decode()}
        if kind == "float":
            return struct.unpack(f">{'fd'[length // 8]}", data)[0]
        return int.from_bytes(data, "big", signed=kind == "signed")


def _deeper(depth: int) -> int:
    if depth >= _MAX_DEPTH:
        raise MalformedRecord(f"the value is nested more than {_MAX_DEPTH} levels deep")
    return depth + 1


def _extension(kind: int, data: bytes, depth: int) -> Any:
    if kind not in (*_CLASSES, _NUMPY, _DELTA):
        return {"msgpack_extension": kind, "base64": base64.b64encode(data).decode()}
    content = _Reader(data).value(depth)
    if kind == _NUMPY and isinstance(content, list):
        return {"numpy": content[:2]}  # its type and shape
    is_class = kind in _CLASSES and isinstance(content, list) and len(content) > _CLASS_VALUE
    return content[_CLASS_VALUE] if is_class else content
