"""How single values read, in text as in markup: numbers, times, cut texts, and characters that must not act.

Whatever comes from a store is foreign: a NUL, a terminal's escape or a right-to-left override is shown, never obeyed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kern_nb.control_characters import escape_controls

__all__ = [
    "BAD", "BRANCH", "GOOD", "MISSING", "escape_controls", "format_arguments", "format_count", "format_money",
    "format_seconds", "format_status", "format_time", "format_value", "pluralize", "single_line", "truncate",
    "truncate_distinct",
]  # fmt: skip

MISSING = "—"
"""What stands for a value that nobody knows; 0 is a number."""

_LEAST_APART = 12
_COMPARED = 4_000
"""So much of texts is looked at for what tells them apart."""

BRANCH = "↳"
GOOD = "✓"
BAD = "✗"


def single_line(text: str) -> str:
    """Text on one line."""
    return " ".join(escape_controls(text).split())


def truncate(text: str, width: int) -> str:
    """Text on one line of at most ``width`` characters, an ellipsis at its end where it was longer."""
    # What can never show need not be looked at: a text may be megabytes long.
    line = single_line(text[: 8 * width])
    return line if len(line) <= width and len(text) <= 8 * width else line[: width - 1] + "…"


def truncate_distinct(texts: Sequence[str], width: int) -> list[str]:
    """Texts cut as `truncate` does; of those that would read alike, what is alike is left out of the middle instead."""
    shown = [truncate(text, width) for text in texts]
    cut_alike: dict[str, dict[str, None]] = {}
    for text, line in zip(texts, shown, strict=True):
        cut_alike.setdefault(line, {})[text] = None
    told = {text: line for line, alike in cut_alike.items() for text in alike}
    for alike in cut_alike.values():
        if len(alike) > 1 and width >= _LEAST_APART:
            told |= dict(zip(alike, _middle_cut(list(alike), width), strict=True))
    return [told[text] for text in texts]


def _middle_cut(texts: Sequence[str], width: int) -> list[str]:
    lines = [single_line(text[:_COMPARED]) for text in texts]
    head = lines[0][: width // 3] + "…"
    room = width - len(head)
    # The end of the longest where that shows what differs, else from shortly before it.
    first = min(_alike(min(lines), max(lines)) - 3, max(map(len, lines)) - room)
    return [head + tail for tail in truncate_distinct([line[max(first, len(head)) :] for line in lines], room)]


def _alike(a: str, b: str) -> int:
    """How many characters two texts begin alike."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def format_count(number: Any) -> str:
    """A whole number with its thousands apart."""
    return MISSING if number is None else f"{number:,}"


def format_money(cost: Any) -> str:
    """A cost in the currency of its source: cents as such, and four digits of what is less."""
    if cost is None:
        return MISSING
    return f"{cost:,.2f}" if cost == 0 or abs(cost) >= 1 else f"{cost:.4f}"


def format_seconds(duration: Any) -> str:
    """A duration: ``< 0.01 s``, ``0.24 s``, ``12.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if duration is None:
        return MISSING
    if 0 < duration < 0.005:  # noqa: PLR2004 - what is rounded to nothing has taken some time
        return "< 0.01 s"
    if duration < 59.95:  # noqa: PLR2004 - what would be rounded to a minute is one
        return f"{duration:.2f} s" if duration < 10 else f"{duration:.1f} s"  # noqa: PLR2004 - three digits are enough
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def format_time(time: datetime | float | None) -> str:
    """A time in UTC to the minute, from an aware datetime or unix seconds."""
    if time is None:
        return MISSING
    moment = time if isinstance(time, datetime) else datetime.fromtimestamp(time, UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def pluralize(number: int, noun: str, nouns: str = "") -> str:
    """``1 run``, ``1,204 runs``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def format_status(word: str | None) -> str:
    """A status, the bad ones with a sign."""
    if word is None:
        return MISSING
    return f"{BAD} {word}" if word in ("ERROR", "INTERRUPTED", "failed") else word


def format_value(value: Any) -> str:
    """A value as people read it: text as it is, anything else as indented JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def format_arguments(value: Any, width: int) -> str:
    """A tool's arguments on one line, like a call: ``order_id="W1", n=2``."""
    if isinstance(value, dict):
        parts = (f"{name}={json.dumps(v, ensure_ascii=False, default=str)}" for name, v in value.items())
        return truncate(", ".join(parts), width)
    return "" if value is None else truncate(value if isinstance(value, str) else format_value(value), width)
