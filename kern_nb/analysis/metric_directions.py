"""Which values of a metric are better, declared by its name.

A count that may be good or bad (messages, tool calls, tokens read from a cache) is neutral.
"""

from __future__ import annotations

import re

LOWER, NEUTRAL, HIGHER = -1, 0, 1

DIRECTIONS: dict[str, int] = {
    "score": HIGHER,
    "reward": HIGHER,
    "success_rate": HIGHER,
    "tokens": LOWER,
    "input_tokens": LOWER,
    "output_tokens": LOWER,
    "reasoning_tokens": LOWER,
    "cache_write_tokens": LOWER,
    "total_tokens": LOWER,
    "cost": LOWER,
    "time": LOWER,
    "duration_s": LOWER,
    "time_to_first_token_s": LOWER,
    "n_tool_errors": LOWER,
    "tool_errors": LOWER,
}
"""The metrics with a direction. A score that a caller names is better when higher, whatever its name."""

_PASS_K = re.compile(r"pass_[1-9][0-9]*")


def get_direction(metric: str) -> int:
    """Return `LOWER`, `HIGHER` or `NEUTRAL`."""
    if _PASS_K.fullmatch(metric):
        return HIGHER
    return DIRECTIONS.get(metric, NEUTRAL)


def better_side(low: float | None, high: float | None, direction: int) -> str | None:
    """Return the better side by the interval of the difference b - a: "a", "b", or "neither" where it contains 0.

    None where there is no interval or the metric is neutral.
    """
    if low is None or high is None or direction == NEUTRAL:
        return None
    if low <= 0 <= high:
        return "neither"
    return "b" if low * direction > 0 else "a"
