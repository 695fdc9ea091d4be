"""Format single values for text and markup: numbers, times, truncated texts, escaped control characters.

Texts from a store are untrusted: NUL, terminal escapes and direction overrides are shown as signs, never emitted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kern_nb.control_characters import escape_controls as escape_controls  # noqa: PLC0414 - a part of formatting

MISSING = "—"
"""Stands for an unknown value; 0 is a number."""

BRANCH = "↳"
GOOD = "✓"
BAD = "✗"

_MIN_DISTINCT_WIDTH = 12
_MAX_COMPARED = 4_000
"""Characters of a text that `truncate_distinct` compares."""


def single_line(text: str) -> str:
    """Escape control characters and collapse all whitespace, line breaks included, to single spaces."""
    return " ".join(escape_controls(text).split())


def truncate(text: str, width: int) -> str:
    """Put a text on one line of at most ``width`` characters; an ellipsis marks a longer text."""
    line = single_line(text[: 8 * width])  # a text may be megabytes long
    return line if len(line) <= width and len(text) <= 8 * width else line[: width - 1] + "…"


def truncate_distinct(texts: Sequence[str], width: int) -> list[str]:
    """Truncate texts; where different texts would look the same, shorten their common middle instead."""
    by_line: dict[str, dict[str, None]] = {}
    for text in texts:
        by_line.setdefault(truncate(text, width), {})[text] = None
    lines = {text: line for line, collisions in by_line.items() for text in collisions}
    for collisions in by_line.values():
        if len(collisions) > 1 and width >= _MIN_DISTINCT_WIDTH:
            lines |= dict(zip(collisions, _shorten_middle(list(collisions), width), strict=True))
    return [lines[text] for text in texts]


def _shorten_middle(texts: Sequence[str], width: int) -> list[str]:
    lines = [single_line(text[:_MAX_COMPARED]) for text in texts]
    head = lines[0][: width // 3] + "…"
    tail_width = width - len(head)
    # The end of the longest line if that shows the difference, else from shortly before the difference.
    start = min(common_prefix_length(min(lines), max(lines)) - 3, max(map(len, lines)) - tail_width)
    return [head + tail for tail in truncate_distinct([line[max(start, len(head)) :] for line in lines], tail_width)]


def common_prefix_length(a: Sequence[object], b: Sequence[object]) -> int:
    """Count the characters, or elements, with which both sequences begin."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def format_count(number: Any) -> str:
    """Format a whole number with thousands separators."""
    return MISSING if number is None else f"{number:,}"


def format_money(cost: Any) -> str:
    """Format a cost without a currency: two decimals, four below 1."""
    if cost is None:
        return MISSING
    return f"{cost:,.2f}" if cost == 0 or abs(cost) >= 1 else f"{cost:.4f}"


def format_seconds(duration: Any) -> str:
    """Format a duration: ``< 0.01 s``, ``0.24 s``, ``12.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if duration is None:
        return MISSING
    if 0 < duration < 0.005:  # noqa: PLR2004 - would be rounded to 0
        return "< 0.01 s"
    if duration < 59.95:  # noqa: PLR2004 - from here on it is rounded to a minute
        return f"{duration:.2f} s" if duration < 10 else f"{duration:.1f} s"  # noqa: PLR2004 - three digits
    minutes, remainder = divmod(round(duration), 60)
    return f"{minutes} min {remainder} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def format_time(time: datetime | float | None) -> str:
    """Format a time in UTC to the minute, from an aware datetime or unix seconds."""
    if time is None:
        return MISSING
    moment = time.astimezone(UTC) if isinstance(time, datetime) else datetime.fromtimestamp(time, UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


def pluralize(number: int, noun: str, plural_noun: str = "") -> str:
    """Format a number with its noun: ``1 run``, ``1,204 runs``."""
    return f"{number:,} {noun if number == 1 else plural_noun or noun + 's'}"


def join_first(values: Sequence[str], limit: int = 5) -> str:
    """Join the first values for a sentence, with the number of the others."""
    return ", ".join(values[:limit]) + (f" and {len(values) - limit:,} more" if len(values) > limit else "")


def more_note(total: int, limit: int, attribute: str, noun: str = "") -> str:
    """State how many items exceed a limit, ``… 5 more rows; see .df.``, and where they are; empty if none do."""
    n_more = total - limit
    more = pluralize(n_more, f"more {noun}") if noun else f"{n_more:,} more"
    return f"… {more}; see {attribute}." if n_more > 0 else ""


def format_status(name: str | None) -> str:
    """Format a status; failures get a sign."""
    if name is None:
        return MISSING
    return f"{BAD} {name}" if name in ("ERROR", "INTERRUPTED", "failed") else name


def format_value(value: Any) -> str:
    """Format a value for reading: a text unchanged, anything else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def format_arguments(value: Any, width: int) -> str:
    """Format the arguments of a tool on one line, like a call: ``order_id="W1", n=2``."""
    if isinstance(value, dict):
        parts = (f"{name}={json.dumps(v, ensure_ascii=False, default=str)}" for name, v in value.items())
        return truncate(", ".join(parts), width)
    return "" if value is None else truncate(format_value(value), width)
