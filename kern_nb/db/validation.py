"""Validate arguments of store methods: an engine's own error would not name the argument."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

from kern_nb.db import codec
from kern_nb.errors import BadUsage

MAX_COUNT = 2**62
"""Larger numbers are reduced to this one: no store has so many rows, and engines add to a limit."""


def require_count(name: str, value: Any, *, least: int = 0) -> int:
    """An integer of any type, numpy's included; raises BadUsage if it is not one, or less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise BadUsage(f"{name} must be an int, got {codec.short_repr(value)}.", f"For example: {name}=100")
    number = value.__index__()
    if number < least:
        raise BadUsage(
            f"{name} must be at least {least}, got {codec.short_repr(number)}.", f"For example: {name}={least}"
        )
    return min(number, MAX_COUNT)


def require_text(name: str, value: Any) -> str:
    """A string; raises BadUsage for any other value."""
    if not isinstance(value, str):
        raise BadUsage(f"{name} must be a str, got {codec.short_repr(value)}.", "Pass a str.")
    return value


def require_texts(name: str, values: Any) -> list[str]:
    """A list of strings; raises BadUsage for any other value."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise BadUsage(f"{name} must be a list, got {codec.short_repr(values)}.", f"For example: {name}=['a', 'b']")
    return [require_text(name, value) for value in values]
