"""Agno's metrics: tokens, cost and times. It leaves out zeros, so that an absent count is unknown.

``input_tokens`` of a store includes cached tokens. Agno states what the provider does: Anthropic's models, on all
clouds, state them beside the input tokens, and the others include them.
"""

from __future__ import annotations

from typing import Any

from kern_nb.interop.agno.values import JsonObject, without_none
from kern_nb.records import Usage

_COUNTS = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
)  # fmt: skip
_CACHE_BESIDE_INPUT = frozenset({"Anthropic", "AwsBedrock", "VertexAI"})


def usage_from_metrics(metrics: Any, provider: str | None) -> Usage | None:
    """The usage that metrics state; None if they state none."""
    if not isinstance(metrics, dict):
        return None
    counts: dict[str, Any] = {name: value for name in _COUNTS if type(value := metrics.get(name)) is int}
    cost = metrics.get("cost")
    if isinstance(cost, (int, float)) and not isinstance(cost, bool):
        counts["cost"] = cost
    if not counts:
        return None
    if _is_beside(counts, provider) and "input_tokens" in counts:
        cached = _cached(counts)
        counts["input_tokens"] += cached
        if "total_tokens" in counts:
            counts["total_tokens"] += cached
    return Usage(**counts)


def metrics_from_usage(usage: Usage | None, provider: str | None) -> JsonObject | None:
    """The inverse of `usage_from_metrics`."""
    if usage is None:
        return None
    counts = without_none({name: getattr(usage, name) for name in (*_COUNTS, "cost")})
    if provider in _CACHE_BESIDE_INPUT and "input_tokens" in counts:
        cached = _cached(counts)
        counts["input_tokens"] -= cached
        if "total_tokens" in counts:
            counts["total_tokens"] -= cached
    return counts


def _is_beside(counts: dict[str, Any], provider: str | None) -> bool:
    return provider in _CACHE_BESIDE_INPUT or _cached(counts) > counts.get("input_tokens", 0)


def _cached(counts: dict[str, Any]) -> int:
    return int(counts.get("cache_read_tokens") or 0) + int(counts.get("cache_write_tokens") or 0)
