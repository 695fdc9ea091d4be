"""The values of channels as parts: what two states share is stored once.

A list of messages grows by a few items per step, and a state repeats all of it. An encoded list is therefore cut into
parts of several items, at items that their own bytes determine: an item that is inserted or removed changes the part
that it is in, and no other. The parts are stored by their SHA-256, and a value refers to them; joined, they are the
bytes that the serializer wrote.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS
from kern_nb.ingest.importers.langgraph import msgpack

INLINE, WHOLE, CUT = 0, 1, 2
"""How a value is stored: in the checkpoint, as one part, or as the list of its parts."""

_MAX_INLINE = 96
_MIN_CUT = 1024  # a shorter value is one part
_ITEMS_PER_PART = 8  # on average; a longer part is written again more often, a shorter one makes the list longer
_MAX_PART = 32_768
_DIGEST = 32

Reference = tuple[str, int, bytes]
"""The encoding of a value, how it is stored, and its bytes or the digest under which it is."""


class Encoded(NamedTuple):
    """An encoded value.

    Attributes:
        reference: How to find it.
        parts: The parts to store, by digest.
        items: The items, if it is a list in plain msgpack.
    """

    reference: Reference
    parts: dict[bytes, bytes]
    items: list[bytes] | None


def cut_value(kind: str, data: bytes) -> Encoded:
    """Cut an encoded value into the parts to store."""
    prefix, items = split(kind, data)
    if len(data) <= _MAX_INLINE:
        return Encoded((kind, INLINE, data), {}, items)
    if items is None or len(data) < _MIN_CUT:
        digest = hashlib.sha256(data).digest()
        return Encoded((kind, WHOLE, digest), {digest: data}, items)
    parts: dict[bytes, bytes] = {}
    node = bytes([len(prefix)]) + prefix
    start, size = 0, 0
    for end, item in enumerate(items, 1):
        size += len(item)
        if zlib.crc32(item) % _ITEMS_PER_PART == 0 or size >= _MAX_PART or end == len(items):
            part = b"".join(items[start:end])
            digest = hashlib.sha256(part).digest()
            parts[digest] = part
            node += digest
            start, size = end, 0
    digest = hashlib.sha256(node).digest()
    parts[digest] = node
    return Encoded((kind, CUT, digest), parts, items)


def join_values(
    references: Iterable[Reference], load: Callable[[list[bytes]], Mapping[bytes, bytes]]
) -> dict[Reference, bytes]:
    """The bytes of values; ``load`` returns the stored parts of these digests. Raises KeyError if one is missing."""
    references = set(references)
    stored = load([content for _, how, content in references if how != INLINE])
    nodes = {content: _digests(stored[content]) for _, how, content in references if how == CUT}
    parts = load([digest for digests in nodes.values() for digest in digests])
    joined = {}
    for reference in references:
        _, how, content = reference
        if how == CUT:
            node = stored[content]
            prefix = node[1 : 1 + node[0]]
            joined[reference] = prefix + b"".join(parts[digest] for digest in nodes[content])
        else:
            joined[reference] = content if how == INLINE else stored[content]
    return joined


def part_digests(node: bytes) -> list[bytes]:
    """The digests of the parts of a value that is cut."""
    return _digests(node)


def _digests(node: bytes) -> list[bytes]:
    start = 1 + node[0]
    return [node[i : i + _DIGEST] for i in range(start, len(node), _DIGEST)]


def split(kind: str, data: bytes) -> tuple[bytes, list[bytes] | None]:
    """What precedes the items of an encoded list, and the items; None for any other value or encoding."""
    if kind != "msgpack" or not data:
        return b"", None
    try:
        inner = msgpack.delta_snapshot(data)
        items = msgpack.split_list(inner)
    except RECORD_ERRORS:
        return b"", None
    if items is None:
        return b"", None
    return data[: len(data) - sum(map(len, items))], items
