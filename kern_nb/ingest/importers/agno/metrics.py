"""The tokens that Agno counts.

Agno keeps the counts of the providers, and leaves out what is 0 or unknown. Those of Anthropic and Amazon do not
include cached tokens in the input, those of Google not the reasoning in the output. A run's metrics are sums over its
models, which ``details`` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import first_count, to_list, to_object, to_text
from kern_nb.records import Usage


def to_usage(metrics: Any, provider: str | None, model: str | None) -> Usage | None:
    """The tokens and cost of a response or a run; ``provider`` and ``model`` are those of the run."""
    counts = to_object(metrics)
    usage = parse_usage({name: value for name, value in counts.items() if name != "details"})
    if usage is None:
        return None
    models = [to_object(item) for items in to_object(counts.get("details")).values() for item in to_list(items)]
    cached = reasoning = 0
    for item in models or [{**counts, "provider": provider, "id": model}]:
        added = _excluded(item)
        cached, reasoning = cached + added[0], reasoning + added[1]
    # What `parse_usage` derives from the names and the total is replaced by what the provider is known to do.
    stated = first_count(counts, "input_tokens")
    if stated is not None:
        usage.input_tokens = stated + cached
    if usage.output_tokens is not None:
        usage.output_tokens += reasoning
    if usage.total_tokens is not None:
        usage.total_tokens += (cached if stated is not None else 0) + reasoning
    return usage


def _excluded(counts: Mapping[str, Any]) -> tuple[int, int]:
    """The tokens that a provider counts beside the input, and beside the output."""
    provider, model = to_text(counts.get("provider")) or "", (to_text(counts.get("id")) or "").lower()
    cached = sum(first_count(counts, name) or 0 for name in ("cache_read_tokens", "cache_write_tokens"))
    if provider in ("Anthropic", "AwsBedrock") or "claude" in model:
        return cached, 0
    if provider == "Google" or "gemini" in model:
        return 0, first_count(counts, "reasoning_tokens") or 0
    return 0, 0
