"""Splitting what is read or written into parts of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_IDS_PER_QUERY = 5_000
"""Fewer than the parameters that every engine accepts in a statement."""


def batched(values: Iterable[T], length: int = _IDS_PER_QUERY) -> Iterator[list[T]]:
    """Yield lists of up to ``length`` values; as `itertools.batched`, which Python 3.11 lacks."""
    remaining = iter(values)
    while batch := list(islice(remaining, length)):
        yield batch


def group_by_size(values: Iterable[T], size_of: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Yield consecutive values whose sizes add up to less than a limit; a larger value is a group of its own."""
    group: list[T] = []
    total = 0
    for value in values:
        size = size_of(value)
        if group and total + size >= limit:
            yield group
            group, total = [], 0
        group.append(value)
        total += size
    if group:
        yield group
