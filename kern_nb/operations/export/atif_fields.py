"""Fields of steps in ATIF: metrics, ``extra``, and those that a session imported from ATIF has in ``extra``."""

from __future__ import annotations

from typing import Any

from kern_nb.ingest.importers.atif.own import OWN
from kern_nb.operations.export.conversations import messages_of, stated_cost
from kern_nb.operations.export.plain import without_none
from kern_nb.records import Run, Usage, text_of

JsonObject = dict[str, Any]

_ROLLOUT = ("prompt_token_ids", "completion_token_ids", "logprobs")


def lift_fields(extra: JsonObject, source: str) -> tuple[JsonObject, JsonObject]:
    """Take the fields of ATIF out of the ``extra`` of a message that was imported from it."""
    fields: JsonObject = {}
    metrics: JsonObject = {}
    extra.pop("step_id", None)
    count, effort = extra.get("llm_call_count"), extra.get("reasoning_effort")
    if type(count) is int and count >= 0:
        fields["llm_call_count"] = extra.pop("llm_call_count")
    if source == "agent":
        if type(effort) in (str, int, float):
            fields["reasoning_effort"] = extra.pop("reasoning_effort")
        for key in _ROLLOUT:
            values = extra.get(key)
            kinds = (int,) if key != "logprobs" else (int, float)
            if isinstance(values, list) and all(type(value) in kinds for value in values):
                metrics[key] = extra.pop(key)
    nested = extra.get("extra")
    if isinstance(nested, dict):
        extra.pop("extra")
        for key, value in nested.items():
            extra.setdefault(key, value)
    return fields, metrics


def unstated_ends(run: Run) -> JsonObject:
    """The input and output of a run, also if there is none, where these are not its prompts and its last answer."""
    own = [message for message in messages_of(run) if not message.from_history]
    prompts = [text for m in own if m.role == "user" and (text := text_of(m.content))]
    answers = [text for m in own if m.role == "assistant" and (text := text_of(m.content))]
    stated = {"input": ["\n".join(prompts)] if prompts else [], "output": answers[-1:]}
    ends = {"input": run.input, "output": run.output}
    texts = {name: text_of(value) for name, value in ends.items()}
    return {
        name: value if texts[name] is None else texts[name]
        for name, value in ends.items()
        if (value is not None or stated[name]) and [texts[name]] != stated[name]
    }


def to_metrics(usage: Usage | None, *, is_estimate: bool) -> JsonObject:
    """The metrics of a usage; an estimated cost is no cost that was stated."""
    if usage is None:
        return {}
    details = without_none(
        {
            "cache_write_tokens": usage.cache_write_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_tokens": usage.total_tokens,
            "estimated_cost_usd": usage.cost if is_estimate else None,
        }
    )
    fields = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "cached_tokens": usage.cache_read_tokens,
        "cost_usd": None if is_estimate else stated_cost(usage),
        "extra": details or None,
    }
    return without_none(fields)


def results_of(step: JsonObject) -> list[JsonObject]:
    """The results of a step, to add to."""
    results: list[JsonObject] = step.setdefault("observation", {"results": []})["results"]
    return results


def set_extra(record: JsonObject, extra: JsonObject, own: JsonObject) -> None:
    """Set the ``extra`` of a step, call or result: that of the source, and what kern_nb adds."""
    extra.pop(OWN, None)
    if own:
        extra[OWN] = own
    if extra:
        record["extra"] = extra
