"""Damaged versions of a file, for tests that an importer reports damage and imports the rest."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

WRONG_VALUES: tuple[Any, ...] = (None, True, -1, 10**30, 1.5, "", "x", "\ud800", [], {}, [[]], [None], {"x": {"y": []}})


def truncated(data: bytes, n: int, seed: int = 1) -> Iterator[bytes]:
    """Yield versions of a file that end at random offsets."""
    rng = random.Random(seed)
    for _ in range(n):
        yield data[: rng.randrange(len(data))]


def torn(data: bytes, n: int, seed: int = 1) -> Iterator[bytes]:
    """Yield versions of a file that lack a random range of bytes."""
    rng = random.Random(seed)
    for _ in range(n):
        start = rng.randrange(len(data))
        yield data[:start] + data[start + rng.randrange(1, 200) :]


def mistyped(value: Any, n: int, seed: int = 1) -> Iterator[Any]:
    """Yield versions of a JSON value in which a random part has a wrong type or is missing."""
    rng = random.Random(seed)
    for _ in range(n):
        changed = copy.deepcopy(value)
        parent, key = rng.choice(list(_parts(changed)))
        if isinstance(parent, dict) and rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(rng.choice(WRONG_VALUES))
        yield changed


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with the key or index of each of its items, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _parts(item)
