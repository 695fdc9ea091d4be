"""The steps of an ATIF trajectory as messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text, require_field
from kern_nb.ingest.importers.atif import own as atif_own
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import checked_id, to_args, to_count, to_flag, to_list, to_number, to_object, without
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall, Usage

_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
_MAPPED_FIELDS = frozenset({"source", "message", "reasoning_content", "tool_calls", "observation", "timestamp"})
_MAPPED_FIELDS |= {"model_name", "metrics", "is_copied_context"}
_ROLLOUT = ("prompt_token_ids", "completion_token_ids", "logprobs")

Parsed = TypeVar("Parsed")


def parse_step(
    step: Any, model: str | None, errors: list[str], *, is_copied: bool, is_prompt: bool, is_own: bool = False
) -> list[SourceMessage]:
    """The message of a step, then one for each result of its observation; raise MalformedRecord for another value.

    ``errors`` gets the calls and results that are malformed. With ``is_own``, kern_nb wrote the trajectory.
    """
    source = require_field(step, "source", str, "the step")
    role = _ROLES.get(source)
    if role is None:
        raise MalformedRecord(f"'source' of the step must be system, user or agent, got {source!r}")
    extra = without(step, _MAPPED_FIELDS)
    metrics = to_object(step.get("metrics"))
    if metrics:
        extra["usage"] = without(metrics, _ROLLOUT)
        extra |= {key: metrics[key] for key in _ROLLOUT if metrics.get(key) is not None}
    own = atif_own.own_of(step) if is_own else {}
    records = to_list(step.get("tool_calls")) + to_list(own.get("tool_calls"))
    calls = [call for _, call in _parse_each(records, "Call", partial(_parse_call, is_own=is_own), errors)]
    metrics = metrics or to_object(own.get("metrics"))
    if is_copied and calls and not is_own:
        extra["tool_calls"] = step["tool_calls"]
    message = Message(
        role=role,
        content=_content(step, role),
        tool_calls=[] if is_copied else calls,
        model=_model_of(step, model) if role == "assistant" else None,
        usage=parse_metrics(metrics) if metrics and not is_copied else None,
        created_at=to_time(step.get("timestamp")),
        from_history=True if is_copied else None,
        extra=extra,
    )
    if is_own:
        atif_own.restore_message(message, step)
    results = to_list(to_object(step.get("observation")).get("results"))
    names = {call.tool_call_id: call.tool_name for call in calls}
    record = {key: value for key, value in step.items() if key != "observation"}
    parsed = [SourceMessage(message, record, None, is_prompt if role == "user" else None)]
    for result, said in _parse_each(results, "Result", partial(_parse_result, names, is_copied=is_copied), errors):
        answer = SourceMessage(said, result)
        if is_own:
            atif_own.restore_message(answer.message, result)
            answer.message.extra.pop("is_error", None)
        if not is_own or atif_own.is_message(result):
            parsed.append(answer)
        elif call := next((call for call in calls if call.tool_call_id == answer.message.tool_call_id), None):
            atif_own.set_result(call, result)
    return parsed if not is_own or atif_own.is_message(step) else parsed[1:]


def parse_metrics(metrics: dict[str, Any]) -> Usage:
    """The usage of a step. The prompt's tokens include the cached ones; details are provider-specific extras."""
    details = to_object(metrics.get("extra"))
    written = details.get("cache_creation_input_tokens", details.get("cache_write_tokens"))
    reasoning = details.get("reasoning_tokens", details.get("reasoning_output_tokens"))
    return Usage(
        input_tokens=to_count(metrics.get("prompt_tokens")),
        output_tokens=to_count(metrics.get("completion_tokens")),
        cache_read_tokens=to_count(metrics.get("cached_tokens")),
        cache_write_tokens=to_count(written),
        reasoning_tokens=to_count(reasoning),
        total_tokens=to_count(details.get("total_tokens")),
        cost=to_number(metrics.get("cost_usd")),
    )


def _content(step: dict[str, Any], role: str) -> Any:
    """The text or the parts of a step, after the model's reasoning."""
    content, reasoning = step.get("message"), step.get("reasoning_content")
    if role != "assistant" or not isinstance(reasoning, str) or not reasoning:
        return content
    parts: list[Any] = [{"type": "thinking", "thinking": reasoning}]
    if isinstance(content, list):
        return parts + content
    return parts + ([{"type": "text", "text": content}] if content else [])


def _model_of(step: dict[str, Any], model: str | None) -> str | None:
    """The model of a step; a step without a call of a model, such as a fixed command, has none."""
    if isinstance(step.get("model_name"), str) and step["model_name"]:
        return str(step["model_name"])
    return None if step.get("llm_call_count") == 0 else model


def _parse_call(call: Any, *, is_own: bool = False) -> ToolCall:
    require_field(call, "function_name", str, "the tool call")
    args, notes = to_args(call.get("arguments"))
    mapped = ("tool_call_id", "function_name", "arguments")
    extra = without(call, mapped)
    parsed = ToolCall(
        tool_call_id=checked_id(call.get("tool_call_id")),
        tool_name=call["function_name"],
        args=args,
        extra=extra | notes,
    )
    if is_own:
        atif_own.restore_call(parsed, call)
    return parsed


def _parse_each(
    records: list[Any], name: str, parse: Callable[[Any], Parsed], errors: list[str]
) -> list[tuple[Any, Parsed]]:
    """The records that can be parsed, and what is parsed from them: a malformed one does not lose its step."""
    parsed = []
    for index, record in enumerate(records):
        try:
            parsed.append((record, parse(record)))
        except RECORD_ERRORS as error:
            errors.append(f"{name} {index + 1} of the step is not imported: {error_text(error)}.")
    return parsed


def _parse_result(names: dict[str | None, str | None], result: Any, *, is_copied: bool) -> Message:
    if not isinstance(result, dict):
        raise MalformedRecord("it must be an object")
    call_id = checked_id(result.get("source_call_id"))
    extra = {
        key: value for key, value in result.items() if key not in ("source_call_id", "content") and value is not None
    }
    is_error = to_object(result.get("extra")).get("is_error")
    return Message(
        role="tool",
        content=result.get("content"),
        tool_call_id=call_id,
        tool_name=names.get(call_id) if isinstance(call_id, str) else None,
        is_error=to_flag(is_error),
        from_history=True if is_copied else None,
        extra=extra,
    )
