"""Which way is better, by the name of a metric: declared here, never guessed from a value.

A count that may be good or bad (messages, tool calls, tokens read from a cache) is neutral: it has no better side.
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
"""The metrics that have a better side. A score that a caller names is better when higher, whatever its name."""

_PASS_K = re.compile(r"pass_[1-9][0-9]*")


def direction(metric: str) -> int:
    """-1 where lower is better, 1 where higher is, 0 where neither."""
    if _PASS_K.fullmatch(metric):
        return HIGHER
    return DIRECTIONS.get(metric, NEUTRAL)
