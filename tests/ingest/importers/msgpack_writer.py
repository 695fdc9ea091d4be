"""Writing msgpack with LangGraph's extension types, for the tests of its importer."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple


class Ext(NamedTuple):
    """An extension: its type, and the value that its data encodes."""

    kind: int
    value: Any


def message(kind: str, content: Any, message_id: str | None = None, **fields: Any) -> Ext:
    """A message as LangGraph encodes a pydantic model."""
    values = {"content": content, "type": kind, "id": message_id, "additional_kwargs": {}, **fields}
    return Ext(5, ["langchain_core.messages", f"{kind.title()}Message", values, "model_validate_json"])


def pack(value: Any) -> bytes:
    """Encode a value."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return (bytes([0xA0 + len(data)]) if len(data) < 32 else b"\xdb" + struct.pack(">I", len(data))) + data
    if isinstance(value, bytes):
        return b"\xc5" + struct.pack(">H", len(value)) + value
    if isinstance(value, Ext):
        data = pack(value.value)
        return b"\xc9" + struct.pack(">I", len(data)) + bytes([value.kind]) + data
    if isinstance(value, dict):
        items = b"".join(pack(key) + pack(item) for key, item in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + items
    items = b"".join(map(pack, value))
    return (bytes([0x90 + len(value)]) if len(value) < 16 else b"\xdd" + struct.pack(">I", len(value))) + items
