"""Events of OpenHands 0.x: each is an action or an observation, which states the action that caused it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern_nb.ingest.importers.openhands.thread import Record, Thread, to_call, to_content
from kern_nb.ingest.importers.openhands.usage import Spent, to_usage
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import to_args, to_count, to_id, to_list, to_number, to_object, to_text, without
from kern_nb.records import Message, Usage

_SOURCES = ("agent", "user", "environment")
_STATE_ACTIONS = frozenset({"change_agent_state", "null", "recall", "pause", "resume", "start", "stop"})
_STATE_OBSERVATIONS = frozenset({"agent_state_changed", "null", "recall"})
_HIDDEN_ARGS = frozenset({"thought", "hidden", "confirmation_state", "blocking", "wait_for_response", "keep_prompt"})
_BASE_FIELDS = ("id", "timestamp", "source", "action", "observation", "args", "content", "tool_call_metadata", "cause")
_CANCELLED_STATES = ("stopped", "paused", "rejected")


def is_event(value: Any) -> bool:
    """Whether a value is an action with arguments, or an observation with a content."""
    if not isinstance(value, dict) or value.get("source", "agent") not in _SOURCES or "kind" in value:
        return False
    if isinstance(value.get("action"), str):
        is_stated = ("timestamp" in value or "id" in value) and ("source" in value or "message" in value)
        return is_stated and isinstance(value.get("args"), dict)
    return isinstance(value.get("observation"), str) and ("extras" in value or "cause" in value) and "content" in value


def assign_usage(events: Sequence[Record]) -> dict[int, Spent]:
    """What each response spent, by the position of its first action: as it states, else what was added since."""
    result: dict[int, Spent] = {}
    seen: set[str] = set()
    before: dict[str, float] = {}
    for position, event in enumerate(events):
        metrics = to_object(event.get("llm_metrics"))
        counts = to_object(metrics.get("accumulated_token_usage"))
        now: dict[str, float] = {name: n for name, value in counts.items() if (n := to_count(value)) is not None}
        cost = to_number(metrics.get("accumulated_cost"))
        now |= {} if cost is None else {"cost": cost}
        added = {name: number - before.get(name, 0) for name, number in now.items()}
        is_growing = all(number >= 0 for number in added.values())
        added = added if is_growing else now
        before = now or before
        response = to_object(to_object(event.get("tool_call_metadata")).get("model_response"))
        response_id = to_id(response.get("id"))
        if response_id is not None and response_id in seen:
            continue
        seen |= {response_id} if response_id is not None else set()
        model = to_text(response.get("model")) or to_text(counts.get("model"))
        usage = _response_usage(to_object(response.get("usage")), added.get("cost"))
        if usage is None and any(added.values()):
            usage = to_usage(added, added.get("cost"))
        if usage is not None and event.get("source") == "agent" and "action" in event:
            result[position] = Spent(usage, model)
    return result


def _response_usage(usage: Record, cost: float | None) -> Usage | None:
    n_input, n_output = (to_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if n_input is None and n_output is None:
        return None
    cached = to_count(to_object(usage.get("prompt_tokens_details")).get("cached_tokens"))
    read, written = (to_count(usage.get(f"cache_{name}_input_tokens")) for name in ("read", "creation"))
    reasoning = to_count(to_object(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    return Usage(
        input_tokens=n_input,
        output_tokens=n_output,
        cache_read_tokens=read if cached is None else cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        cost=cost or None,
    )


def add_event(thread: Thread, event: Record, key: str, spent: Spent | None) -> bool:
    """Add an event to a thread; false if it says nothing."""
    if isinstance(event.get("action"), str):
        return _add_action(thread, event, key, spent)
    return _add_observation(thread, event, key)


def _add_action(thread: Thread, event: Record, key: str, spent: Spent | None) -> bool:
    action, args, source = event["action"], to_object(event.get("args")), event.get("source")
    if action in _STATE_ACTIONS:
        return False
    base: Record = {"message_id": to_id(event.get("id")), "created_at": to_time(event.get("timestamp"))}
    extra = without(event, (*_BASE_FIELDS, "message", "llm_metrics"))
    if action == "message" and source == "agent":
        response_id = _response_id(event)
        message = Message(role="assistant", content=to_text(args.get("content")), extra=extra, **base)
        thread.add_answer(response_id, message, event, key, spent)
    elif action == "message":
        images = [{"type": "image", "url": url} for url in to_list(args.get("image_urls"))]
        text = to_text(args.get("content")) or to_text(event.get("message"))
        parts = [*([{"type": "text", "text": text}] if text else []), *images]
        thread.add(
            Message(role="user", content=to_content([], parts), extra=extra, **base),
            event,
            key,
            starts_run=source == "user",
        )
    elif action == "system":
        thread.add(Message(role="system", content=args.get("content"), extra=extra, **base), event, key)
    elif action in ("condensation", "summarize"):
        extra |= {"compaction": True} | without(args, ("summary",))
        message = Message(role="system", content=to_text(args.get("summary")), extra=extra, **base)
        if spent is not None:
            message.usage, message.model = spent.usage, spent.model
        thread.add(message, event, key)
    else:
        _add_call(thread, event, key, spent, Message(role="assistant", extra=extra, **base))
    return True


def _add_call(thread: Thread, event: Record, key: str, spent: Spent | None, message: Message) -> None:
    args, stated = to_object(event.get("args")), to_object(event.get("tool_call_metadata"))
    call_id = to_id(stated.get("tool_call_id")) or to_id(event.get("id"))
    called, notes = _stated_arguments(stated)
    if called is None:
        called = {name: value for name, value in args.items() if name not in _HIDDEN_ARGS}
    name = to_text(stated.get("function_name")) or event["action"]
    extra = {"action": event["action"]} | notes
    message.tool_calls = [to_call(call_id, name, called, message.created_at, extra)]
    message.content = to_text(args.get("thought"))
    if event.get("source") == "user":  # a command that the person ran
        message.role = "user"
        message.tool_calls[0].caller = "user"
        thread.add(message, event, key)
        return
    if event["action"] == "finish" and not stated:
        message.content = message.content or to_text(args.get("final_thought")) or to_text(event.get("message"))
    thread.add_answer(_response_id(event), message, event, key, spent)


def _response_id(event: Record) -> str | None:
    return to_id(to_object(to_object(event.get("tool_call_metadata")).get("model_response")).get("id"))


def _stated_arguments(stated: Record) -> tuple[Any, Record]:
    """The arguments that the model wrote, as `to_args` has them."""
    for choice in to_list(to_object(stated.get("model_response")).get("choices")):
        for call in to_list(to_object(to_object(choice).get("message")).get("tool_calls")):
            function = to_object(to_object(call).get("function"))
            if function and to_object(call).get("id") == stated.get("tool_call_id"):
                return to_args(function.get("arguments"))
    return None, {}


def _add_observation(thread: Thread, event: Record, key: str) -> bool:
    kind, extras = event["observation"], to_object(event.get("extras"))
    if kind == "agent_state_changed":
        state = extras.get("agent_state")
        if state == "error":
            thread.end_run(
                "ERROR", to_text(extras.get("reason")) or to_text(event.get("content")) or "The agent failed."
            )
        elif state in _CANCELLED_STATES:
            thread.end_run("CANCELLED")
        return True
    if kind in _STATE_OBSERVATIONS:
        return False
    stated = to_object(event.get("tool_call_metadata"))
    is_success = event.get("success")
    message = Message(
        role="tool",
        content=event.get("content"),
        tool_call_id=to_id(stated.get("tool_call_id")) or to_id(event.get("cause")),
        tool_name=to_text(stated.get("function_name")),
        is_error=True if kind == "error" else not is_success if isinstance(is_success, bool) else None,
        message_id=to_id(event.get("id")),
        created_at=to_time(event.get("timestamp")),
        extra=without(event, (*_BASE_FIELDS, "message", "llm_metrics", "success")) | {"observation": kind},
    )
    thread.add(message, event, key)
    return True
