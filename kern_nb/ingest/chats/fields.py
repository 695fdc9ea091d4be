"""Fields as chat logs of many programs name them: ids, times, tokens and cost, scores, and whether a tool failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeGuard

from kern_nb.db.schema import MAX_TOKENS
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import first_count, to_id, to_object
from kern_nb.records import Usage

TIME_FIELDS = ("timestamp", "created_at", "createdAt", "created", "create_time", "ts", "time", "date")
_TIME_FIELDS = frozenset(TIME_FIELDS)


_FAILED = frozenset({"error", "errored", "failed", "failure"})
_COMPLETED = frozenset({"success", "succeeded", "ok", "completed", "complete"})

_INPUT = ("prompt_tokens", "input_tokens", "prompt_eval_count", "inputTokens", "input")
_OUTPUT = ("completion_tokens", "output_tokens", "eval_count", "outputTokens", "output")
_TOTAL = ("total_tokens", "totalTokens", "total")
_CACHE_READ = (
    "cache_read_input_tokens", "cache_read_tokens", "prompt_cache_hit_tokens", "cached_tokens", "cached_input_tokens",
    "cache_read", "cacheRead",
)  # fmt: skip
_CACHE_WRITE = (
    "cache_creation_input_tokens", "cache_write_tokens", "cache_creation_tokens", "cache_creation", "cache_write",
    "cacheWrite",
)  # fmt: skip
_REASONING = ("reasoning_tokens", "reasoning")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_COST = ("cost", "cost_usd", "total_cost", "response_cost", "costUSD")
_COST_FIELDS = frozenset(_COST)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none."""
    return type(value) in (int, float)


def find_id(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these fields that has an id."""
    for name in names:
        if name in record:
            value = to_id(record[name])
            if isinstance(value, str):
                return value
    return None


def find_time(record: Mapping[str, Any]) -> tuple[str, datetime] | None:
    """The first of the fields of times that has one, and the time."""
    if _TIME_FIELDS.isdisjoint(record):
        return None
    for name in TIME_FIELDS:
        if name in record and (time := parse_time(record[name])) is not None:
            return name, time
    return None


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


def find_error(record: Mapping[str, Any]) -> bool | None:
    """Whether the message of a tool states that it failed; None if it states nothing."""
    flags = [record[name] for name in ("is_error", "isError", "error") if isinstance(record.get(name), bool)]
    error, status = record.get("error"), record.get("status")
    if error and not isinstance(error, bool):
        flags.append(True)
    if isinstance(status, str) and status.lower() in _FAILED | _COMPLETED:
        flags.append(status.lower() in _FAILED)
    return any(flags) if flags else None


def parse_scores(fields: Mapping[str, Any]) -> dict[str, float]:
    """The reward or score of a conversation, and whether its task was solved."""
    values = {name: fields.get(name) for name in ("reward", "score", "resolved", "target")}
    values |= {str(name): value for name, value in to_object(fields.get("scores")).items()}
    if not isinstance(values["target"], bool):
        del values["target"]  # the expected answer
    return {
        name: float(value)
        for name, value in values.items()
        if (isinstance(value, bool) or is_number(value)) and abs(value) <= MAX_TOKENS
    }
