"""The tokens and the cost that a response of a model states, under the names of OpenAI, Anthropic, Ollama and others.

``input_tokens`` includes cached tokens, whatever the source does, and ``output_tokens`` reasoning. What is not stated
stays None, and a stated cost stays as it is stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kern_nb.db.schema import MAX_TOKENS
from kern_nb.ingest.parsing.values import first_count, is_number, to_object
from kern_nb.records import Usage

_INPUT = ("prompt_tokens", "input_tokens", "prompt_eval_count", "inputTokens", "input")
_OUTPUT = ("completion_tokens", "output_tokens", "eval_count", "outputTokens", "output")
_TOTAL = ("total_tokens", "totalTokens", "total")
_CACHE_READ = (
    "cache_read_input_tokens", "cache_read_tokens", "prompt_cache_hit_tokens", "cached_tokens", "cached_input_tokens",
    "cache_read", "cacheRead", "cacheReadInputTokens",
)  # fmt: skip
_CACHE_WRITE = (
    "cache_creation_input_tokens", "cache_write_tokens", "cache_creation_tokens", "cache_creation", "cache_write",
    "cacheWrite", "cacheWriteInputTokens",
)  # fmt: skip
_REASONING = ("reasoning_tokens", "reasoning")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_COST = ("cost", "cost_usd", "total_cost", "response_cost", "costUSD")
_COST_FIELDS = frozenset(_COST)


def parse_usage(usage: Any, record: Mapping[str, Any] | None = None) -> Usage | None:
    """Tokens and cost of a model response; ``record`` is the object that has the usage, and maybe the cost.

    ``input_tokens`` of the result includes cached tokens. OpenAI's counts do, too; Anthropic's, which name the cached
    ones beside them, do not. A stated total decides where the names do not.
    """
    if not isinstance(usage, dict) and (record is None or _COST_FIELDS.isdisjoint(record)):
        return None
    counts = to_object(usage)
    input_details = _first_dict(counts, _INPUT_DETAILS)
    input_tokens = first_count(counts, *_INPUT)
    output_tokens = first_count(counts, *_OUTPUT)
    total = first_count(counts, *_TOTAL)
    read = first_count(input_details, *_CACHE_READ) if input_details else None
    write = first_count(input_details, *_CACHE_WRITE) if input_details else None
    read = first_count(counts, *_CACHE_READ) if read is None else read
    write = first_count(counts, *_CACHE_WRITE) if write is None else write
    if input_tokens is not None and (cached := (read or 0) + (write or 0)):
        is_openai = bool(input_details) or "prompt_tokens" in counts
        if total is not None and output_tokens is not None and not is_openai:
            is_openai = total == input_tokens + output_tokens
        if not is_openai or input_tokens < cached:
            input_tokens += cached
    result = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=first_count(_first_dict(counts, _OUTPUT_DETAILS) or counts, *_REASONING),
        total_tokens=total,
        cost=_parse_cost(counts, record or {}),
    )
    return result if any(value is not None for _, value in result) else None


def _parse_cost(counts: Mapping[str, Any], record: Mapping[str, Any]) -> float | None:
    for source in (record, counts):
        for name in _COST:
            value = source.get(name)
            value = value.get("total") if isinstance(value, dict) else value
            if is_number(value) and abs(value) <= MAX_TOKENS:
                return float(value)
    return None


def _first_dict(counts: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return next((counts[name] for name in names if isinstance(counts.get(name), dict)), {})
