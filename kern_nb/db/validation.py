"""Arguments of store methods that are numbers: an engine's own complaint would say nothing to a reader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

from kern_nb.db import codec
from kern_nb.errors import BadUsage

MOST = 2**62
"""What any larger number is taken for: no store has so many rows, and engines add to a limit."""


def require_count(name: str, value: Any, *, least: int = 0) -> int:
    """A whole number of any kind, numpy's among them.

    Raises:
        BadUsage: it is no whole number, or less than the least.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise BadUsage(f"{name}={codec.shown(value)} is no whole number.", f"For example: {name}=100")
    number = value.__index__()
    if number < least:
        raise BadUsage(f"{name}={codec.shown(number)} is too small.", f"Give {name} a number of {least} or more.")
    return min(number, MOST)


def text(name: str, value: Any) -> str:
    """A text.

    Raises:
        BadUsage: it is none.
    """
    if not isinstance(value, str):
        raise BadUsage(f"{name}={codec.shown(value)} is no text.", "Pass a str.")
    return value


def texts(name: str, values: Any) -> list[str]:
    """Several texts.

    Raises:
        BadUsage: they are no list of texts.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise BadUsage(f"{name}={codec.shown(values)} is no list.", f"For example: {name}=['a', 'b']")
    return [text(name, value) for value in values]
