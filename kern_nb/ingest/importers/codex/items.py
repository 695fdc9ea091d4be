"""The items of a Codex rollout: what the model read and wrote, and what the events state about its calls."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.parsing.values import to_args, to_id, to_list, to_number, to_object, to_text, without
from kern_nb.records import Message, ToolCall

MESSAGE_TYPES = frozenset({"message", "agent_message"})
ITEM_TYPES = MESSAGE_TYPES | {
    "reasoning", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
    "local_shell_call", "local_shell_call_output", "web_search_call", "image_generation_call", "tool_search_call",
    "tool_search_output", "mcp_tool_call", "mcp_tool_call_output",
}  # fmt: skip

# The client's own texts with the role of a user. Current versions mark each part of a message, older ones do not.
_HARNESS_PREFIXES = (
    "<environment_context>", "<user_instructions>", "# AGENTS.md instructions", "<INSTRUCTIONS>", "<turn_aborted>",
    "<subagent_notification>", "<skill>", "<user_shell_command>", "<model_switch>", "<permissions instructions>",
    "<collaboration_mode>", "<skills_instructions>", "<plugins_instructions>", "<apps_instructions>", "<hook_prompt",
    "<personality_spec>", "<goal_context>", "<recommended_plugins>", "<token_budget>", "<user_action>",
)  # fmt: skip
_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_NAMES = {"local_shell_call": "local_shell", "tool_search_call": "tool_search"}
_EXIT_CODE = re.compile(r"^(?:Process exited with code|Exit code:) (-?\d{1,9})$", re.MULTILINE)
_ABORTION = re.compile(r"(Wall time: .*\n)?aborted( by user.*)?")
_FAILED = frozenset({"failed", "declined", "incomplete"})


@dataclass(slots=True)
class Outcome:
    """What events state about a call; the fields of several events are combined."""

    is_error: bool | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    thread_id: str | None = None

    def update(self, event: dict[str, Any]) -> None:
        """Add the fields of an event, or of the item that it completes."""
        self.is_error = _find_error(event) if self.is_error is None else self.is_error
        self.duration_s = _seconds(event.get("duration")) if self.duration_s is None else self.duration_s
        self.exit_code = event["exit_code"] if type(event.get("exit_code")) is int else self.exit_code
        self.thread_id = to_text(event.get("new_thread_id")) or self.thread_id

    def values(self) -> list[Any]:
        """Its values, for a hash."""
        return [self.is_error, self.duration_s, self.exit_code, self.thread_id]


@dataclass(slots=True)
class Item:
    """A message that is being read. The answer of the model grows by one item of its response after the other."""

    message: Message
    record: list[Any]
    key: str = ""
    starts_run: bool | None = None
    parts: list[Any] = field(default_factory=list)


def is_item(value: Any) -> bool:
    """Whether a JSON value is an item whose content is known."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or value["type"] not in ITEM_TYPES:
        return False
    return value["type"] not in MESSAGE_TYPES or "content" in value


def to_content(parts: Any) -> Any:
    """The content of a message: plain text if it consists of one text."""
    if isinstance(parts, list) and len(parts) == 1:
        part = to_object(parts[0])
        if part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
            return part["text"]
    return parts if parts != [] else None


def is_prompt(payload: dict[str, Any]) -> bool:
    """Whether a person wrote an item with the role of a user."""
    kinds = to_object(payload.get("internal_chat_message_metadata_passthrough")).get("content_item_kinds")
    if isinstance(kinds, list) and kinds and "unknown" not in kinds:
        return any(isinstance(kind, str) and kind.startswith("user.") for kind in kinds)
    content = payload.get("content")
    texts = [content] if isinstance(content, str) else [to_object(part).get("text") for part in to_list(content)]
    has_text = any(isinstance(text, str) for text in texts)
    return not has_text or not all(_is_harness(text) for text in texts if isinstance(text, str))


def _is_harness(text: str) -> bool:
    return text.lstrip().startswith(_HARNESS_PREFIXES)


def to_reasoning(payload: dict[str, Any]) -> list[Any]:
    """The part of a reasoning item; none if the provider only sent it encrypted."""
    texts = {key: payload[key] for key in ("summary", "content") if payload.get(key)}
    return [{"type": "reasoning", **texts}] if texts else []


def to_call(payload: dict[str, Any]) -> ToolCall:
    """A call of a tool. Tools of the provider have no output item: their result is part of the call."""
    kind = payload["type"]
    name = to_text(payload.get("name")) or _NAMES.get(kind, kind.removesuffix("_call"))
    mapped = {"type", "name", "call_id", "id", "internal_chat_message_metadata_passthrough"}
    call = ToolCall(tool_call_id=to_id(payload.get("call_id")) or to_id(payload.get("id")), tool_name=name)
    if kind == "custom_tool_call":
        call.args = payload.get("input")  # free text, such as a patch
        mapped.add("input")
    elif "arguments" in payload:
        call.args, call.extra = to_args(payload["arguments"])
        mapped.add("arguments")
    else:
        call.args = payload.get("action")
        mapped |= {"action", "result"}
        call.result = payload.get("result")
        if kind in ("web_search_call", "image_generation_call") and isinstance(payload.get("status"), str):
            call.status = {"completed": "completed", "failed": "failed"}.get(payload["status"])  # type: ignore[assignment]
    call.extra |= without(payload, mapped)
    if payload.get("id") and payload.get("call_id"):
        call.extra["id"] = payload["id"]
    return call


def to_result(payload: dict[str, Any]) -> tuple[Message, float | None]:
    """The result of a call, and how long the call took if the result states it."""
    output = payload["tools"] if "output" not in payload and "tools" in payload else payload.get("output")
    message = Message(role="tool", tool_call_id=to_id(payload.get("call_id")), message_id=to_id(payload.get("id")))
    duration = None
    if isinstance(output, str):
        wrapped = _unwrap(output)
        if wrapped is not None:
            metadata = to_object(wrapped.get("metadata"))
            message.content, message.extra = wrapped["output"], {"metadata": metadata}
            message.is_error = _find_error(metadata)
            duration = to_number(metadata.get("duration_seconds"))
        else:
            message.content = output
            header, end, _ = output.partition("\nOutput:\n")
            if end and (code := _EXIT_CODE.search(header)):
                message.is_error = code[1] != "0"
    elif isinstance(output, dict) and "content" in output:
        message.content, message.is_error = output["content"], _find_error(output)
    else:
        message.content = to_content(output)
    message.extra |= without(
        payload, ("type", "call_id", "id", "output", "tools", "internal_chat_message_metadata_passthrough")
    )
    return message, duration


def is_abortion(content: Any) -> bool:
    """Whether a result is what the client writes for a call that a person aborted."""
    return isinstance(content, str) and _ABORTION.fullmatch(content) is not None


def _unwrap(output: str) -> dict[str, Any] | None:
    """The object of older versions, ``{"output": ..., "metadata": ...}``, that they write as text."""
    if not output.startswith("{"):
        return None
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return None
    is_wrapped = isinstance(value, dict) and isinstance(value.get("output"), str) and "metadata" in value
    return value if is_wrapped else None


def _find_error(fields: dict[str, Any]) -> bool | None:
    """Whether a call failed, from the fields of a result or an event; None if they do not state it."""
    if type(fields.get("exit_code")) is int:
        return bool(fields["exit_code"] != 0)
    if isinstance(fields.get("success"), bool):
        return not fields["success"]
    result = fields.get("result")
    if isinstance(result, dict):
        if "Err" in result:
            return True
        value = to_object(result.get("Ok", result))
        for key in ("isError", "is_error"):
            if isinstance(value.get(key), bool):
                return bool(value[key])
    if fields.get("error"):
        return True
    if isinstance(fields.get("status"), str):
        return True if fields["status"] in _FAILED else False if fields["status"] == "completed" else None
    return None


def _seconds(duration: Any) -> float | None:
    """Seconds from ``{"secs": 1, "nanos": 500}``."""
    seconds, nanos = (to_number(to_object(duration).get(key)) for key in ("secs", "nanos"))
    return None if seconds is None else seconds + (nanos or 0) / 1e9
