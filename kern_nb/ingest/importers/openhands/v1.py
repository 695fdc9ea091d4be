"""Events of the OpenHands SDK (version 1): their ``kind`` is the name of their class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kern_nb.ingest.importers.openhands.thread import Record, Thread, to_call, to_content
from kern_nb.ingest.importers.openhands.usage import Spent
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import to_args, to_flag, to_id, to_list, to_object, to_text, without
from kern_nb.records import PART_TYPES, Message

SOURCES = ("agent", "user", "environment", "hook")
STATE = "ConversationStateUpdateEvent"
_BASE_FIELDS = ("id", "timestamp", "source", "kind", "parent_id")
_ROLES = ("user", "assistant", "system", "tool")
_FAILED_STATES = ("error", "stuck")


def is_event(value: Any) -> bool:
    """Whether a value is an event of the SDK."""
    if not isinstance(value, dict) or value.get("source") not in SOURCES or not isinstance(value.get("timestamp"), str):
        return False
    return isinstance(value.get("kind"), str) and value["kind"] in _KINDS


def is_message(event: Record) -> bool:
    """Whether an event is a message, a call or a result."""
    kind = event.get("kind")
    return isinstance(kind, str) and (kind in _ANSWERS or kind in _RESULTS)


def is_significant(event: Record) -> bool:
    """Whether an event alone makes a branch: a prompt or an answer does."""
    return event.get("kind") in ("MessageEvent", "ActionEvent")


def add_event(thread: Thread, event: Record, key: str, spent: Spent | None) -> bool:
    """Add an event to a thread; false if its kind is unknown."""
    kind = str(event.get("kind"))
    if kind in _ANSWERS:
        _ANSWERS[kind](thread, event, key, spent)
    elif kind in _RESULTS:
        _RESULTS[kind](thread, event, key)
    elif kind in _PAUSES:
        thread.end_run("CANCELLED")
    elif kind in _ERRORS:
        texts = [to_text(event.get(name)) for name in ("code", "detail")]
        thread.end_run("ERROR", ": ".join(text for text in texts if text) or "The conversation failed.")
    elif kind == STATE and event.get("key") == "execution_status" and event.get("value") in _FAILED_STATES:
        thread.end_run("ERROR", f"The agent is in the state {event['value']!r}.")
    return kind in _KINDS


def _parts(content: Any) -> list[Any]:
    """The parts of a content: texts without the settings of the cache, and images."""
    parts: list[Any] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str) and part:
            parts.append({"type": "text", "text": part})
        elif isinstance(part, dict) and _is_part(part):
            parts.append(without(part, ("cache_prompt",)))
    return parts


def _is_part(part: Record) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in PART_TYPES and (kind != "text" or to_text(part.get("text")) is not None)


def _thinking(event: Record) -> list[Any]:
    """The reasoning of an answer, which may be stated twice."""
    blocks = [block for block in to_list(event.get("thinking_blocks")) if isinstance(block, dict)]
    parts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    text = to_text(event.get("reasoning_content"))
    return parts or ([{"type": "thinking", "thinking": text}] if text else [])


def _add_message(thread: Thread, event: Record, key: str, spent: Spent | None) -> None:
    stated = to_object(event.get("llm_message"))
    role = str(stated["role"]) if stated.get("role") in _ROLES else "user"
    role = "assistant" if event.get("source") == "agent" and role != "tool" else role
    extra = without(event, (*_BASE_FIELDS, "llm_message"))
    message = Message(
        role=role,
        content=to_content(_thinking(stated), _parts(stated.get("content"))),
        message_id=to_id(event.get("id")),
        created_at=to_time(event.get("timestamp")),
        extra={name: value for name, value in extra.items() if value != []},
    )
    if role == "assistant":
        thread.add_answer(to_id(event.get("llm_response_id")), message, event, key, spent)
    else:
        thread.add(message, event, key, starts_run=role == "user" and event.get("source") == "user")


def _add_action(thread: Thread, event: Record, key: str, spent: Spent | None) -> None:
    action, stated = to_object(event.get("action")), to_object(event.get("tool_call"))
    time = to_time(event.get("timestamp"))
    args, notes = to_args(stated.get("arguments", without(action, ("kind",)) or None))
    extra = {name: event.get(name) for name in ("security_risk", "summary", "critic_result")}
    extra |= {"action": action.get("kind"), "event_id": event.get("id")} | notes
    call_id = to_id(event.get("tool_call_id")) or to_id(stated.get("id"))
    name = to_text(event.get("tool_name")) or to_text(stated.get("name"))
    message = Message(
        role="assistant",
        content=to_content(_thinking(event), _parts(event.get("thought"))),
        tool_calls=[to_call(call_id, name, args, time, extra)],
        message_id=to_id(event.get("llm_response_id")) or to_id(event.get("id")),
        created_at=time,
    )
    thread.add_answer(to_id(event.get("llm_response_id")), message, event, key, spent)


def _add_result(thread: Thread, event: Record, content: Any, key: str, extra: Record, *, is_error: bool | None) -> None:
    message = Message(
        role="tool",
        content=content,
        tool_call_id=to_id(event.get("tool_call_id")),
        tool_name=to_text(event.get("tool_name")),
        is_error=is_error,
        message_id=to_id(event.get("id")),
        created_at=to_time(event.get("timestamp")),
        extra=extra,
    )
    thread.add(message, event, key)


def _add_observation(thread: Thread, event: Record, key: str) -> None:
    observation = event.get("observation")
    if not isinstance(observation, dict):
        _add_result(thread, event, observation, key, {}, is_error=None)
        return
    extra = without(observation, ("content", "is_error", "kind"))
    if "content" in observation:
        content = to_content([], _parts(observation["content"]))
    else:  # early versions have fields of the tool only
        content = extra.pop("output", None)
        content, extra = (extra, {}) if content is None else (content, extra)
    is_error = observation.get("is_error")
    extra |= {"kind": observation["kind"]} if observation.get("kind") else {}
    _add_result(thread, event, content, key, extra, is_error=to_flag(is_error))


def _add_error(thread: Thread, event: Record, key: str) -> None:
    _add_result(thread, event, event.get("error"), key, {"kind": event.get("kind")}, is_error=True)


def _add_rejection(thread: Thread, event: Record, key: str) -> None:
    reason = to_text(event.get("rejection_reason")) or "The user rejected the action."
    _add_result(thread, event, reason, key, {"rejected": True}, is_error=None)


def _add_acp_call(thread: Thread, event: Record, key: str, spent: Spent | None) -> None:
    """A call of an agent that runs as another program: its result is in the same event."""
    time, call_id = to_time(event.get("timestamp")), to_id(event.get("tool_call_id"))
    name = to_text(event.get("tool_kind")) or to_text(event.get("title"))
    extra = {"title": event.get("title"), "parent_tool_call_id": event.get("parent_tool_call_id")}
    call = to_call(call_id, name, event.get("raw_input"), time, extra)
    message = Message(role="assistant", tool_calls=[call], message_id=to_id(event.get("id")), created_at=time)
    thread.add_answer(None, message, event, key, spent)
    result = event.get("raw_output") if event.get("raw_output") is not None else event.get("content")
    if result is not None or event.get("status") in ("completed", "failed"):
        is_error = to_flag(event.get("is_error"))
        _add_result(thread, event, result, f"{key}:result", {}, is_error=is_error)


def _add_system_prompt(thread: Thread, event: Record, key: str) -> None:
    names = [to_text(to_object(tool).get("name")) for tool in to_list(event.get("tools"))]
    prompts = [*_parts([event.get("system_prompt")]), *_parts([event.get("dynamic_context")])]
    message = Message(
        role="system",
        content=to_content([], prompts),
        message_id=to_id(event.get("id")),
        created_at=to_time(event.get("timestamp")),
        extra={"tools": names} if names else {},
    )
    thread.add(message, event, key)


def _add_condensation(thread: Thread, event: Record, key: str, spent: Spent | None) -> None:
    """A compaction. Its summary is no prompt, its usage counts."""
    message = Message(
        role="system",
        content=to_text(event.get("summary")),
        message_id=to_id(event.get("id")),
        model=spent.model if spent else None,
        usage=spent.usage if spent else None,
        created_at=to_time(event.get("timestamp")),
        extra={"compaction": True} | without(event, (*_BASE_FIELDS, "summary")),
    )
    thread.add(message, event, key)


_ANSWERS: dict[str, Callable[[Thread, Record, str, Spent | None], None]] = {
    "MessageEvent": _add_message,
    "ActionEvent": _add_action,
    "ACPToolCallEvent": _add_acp_call,
    "Condensation": _add_condensation,
    "CondensationSummaryEvent": _add_condensation,
}
_RESULTS: dict[str, Callable[[Thread, Record, str], None]] = {
    "ObservationEvent": _add_observation,
    "AgentErrorEvent": _add_error,
    "UserRejectObservation": _add_rejection,
    "SystemPromptEvent": _add_system_prompt,
}
_PAUSES = ("PauseEvent", "InterruptEvent")
_ERRORS = ("ConversationErrorEvent", "ServerErrorEvent")
_KINDS = frozenset({*_ANSWERS, *_RESULTS, *_PAUSES, *_ERRORS, STATE})
