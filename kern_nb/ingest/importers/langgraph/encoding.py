"""Encoded values of checkpoints: what LangGraph's serializer writes, decoded as plain JSON values.

A value is kept with its encoding until it is needed: a state repeats all messages before it, and equal bytes are one
message. Nothing in a value is constructed or loaded; pickles and encrypted values are refused by name.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord
from kern_nb.ingest.importers.langgraph import msgpack

MSGPACK, JSON = "msgpack", "json"


class Encoded(NamedTuple):
    """A value and its encoding, as the serializer names it."""

    kind: str
    data: bytes

    def decode(self) -> Any:
        """The value."""
        require_readable("value", self.kind)
        if self.kind == MSGPACK:
            return msgpack.unpack(self.data)
        if self.kind == JSON:
            return json.loads(self.data)
        if self.kind in ("null", "empty"):
            return None
        if self.kind in ("bytes", "bytearray"):
            return {"base64": base64.b64encode(self.data).decode()}
        raise MalformedRecord(f"the value has the unknown encoding {self.kind!r}")

    def is_readable(self) -> bool:
        """Whether the value is neither a pickle nor encrypted."""
        return "pickle" not in self.kind and "+" not in self.kind

    def is_list(self) -> bool:
        """Whether the value is a list."""
        if self.kind == JSON:
            return self.data.startswith(b"[")
        return self.kind == MSGPACK and msgpack.split_list(msgpack.delta_snapshot(self.data)) is not None


@dataclass(frozen=True, slots=True)
class State:
    """A state whose channels are encoded.

    Attributes:
        time: When the step ended, as ISO text.
        channels: The value of each channel.
        versions: The channels that have a version: of a delta channel, a state may have no value.
    """

    time: str | None
    channels: dict[str, Encoded] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()


def read_state(kind: Any, data: Any) -> State:
    """A state that one value holds; raises one of RECORD_ERRORS."""
    kind = str(kind or JSON)
    require_readable("state", kind)
    if kind == MSGPACK:
        state: Any = msgpack.read_state(to_bytes(data))
        values = state.get("channel_values")
        channels = {name: Encoded(MSGPACK, value) for name, value in values.items()} if values is not None else None
    elif kind == JSON:
        state = data if isinstance(data, dict) else json.loads(to_bytes(data))
        values = state.get("channel_values") if isinstance(state, dict) else None
        channels = encode_channels(values) if isinstance(values, dict) else None
    else:
        raise MalformedRecord(f"the state has the unknown encoding {kind!r}")
    if channels is None:
        raise MalformedRecord("the state has no channels")
    time, versions = state.get("ts"), state.get("channel_versions")
    return State(
        time if isinstance(time, str) else None, channels, frozenset(versions if isinstance(versions, dict) else ())
    )


def encode_channels(values: dict[str, Any]) -> dict[str, Encoded]:
    """The channels of a state that is JSON."""
    return {name: Encoded(JSON, json.dumps(value).encode()) for name, value in values.items()}


def read_metadata(data: Any) -> dict[str, Any]:
    """The metadata of a checkpoint; empty if they cannot be read."""
    if isinstance(data, dict):
        return data
    try:
        value = json.loads(to_bytes(data))
    except RECORD_ERRORS:
        try:
            value = msgpack.unpack(to_bytes(data))
        except RECORD_ERRORS:
            return {}
    return value if isinstance(value, dict) else {}


def to_bytes(data: Any) -> bytes:
    """The bytes of a column."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass")
    return data if isinstance(data, bytes) else b""


def require_readable(owner: str, kind: str) -> None:
    """Refuse a pickle and an encrypted value."""
    if "pickle" in kind:
        raise MalformedRecord(f"the {owner} is a pickle, which can run code and is not loaded")
    if "+" in kind:
        raise MalformedRecord(f"the {owner} is encrypted ({kind})")
