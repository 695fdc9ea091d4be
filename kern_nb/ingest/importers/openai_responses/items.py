"""Items of OpenAI's Responses API as messages.

The items of one answer are one assistant message: its reasoning and text are parts of the content, its calls are calls.
A ``..._call_output`` is a tool message. The calls of hosted tools have their results inside, and keep them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kern_nb.ingest.chats.blocks import has_tool_blocks
from kern_nb.ingest.chats.fields import find_time
from kern_nb.ingest.chats.messages import says_something
from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.values import checked_id, drop_null, to_args
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall

_CALLED_BY_NAME = frozenset({"function_call", "custom_tool_call"})
# Event logs of other programs have types such as "tool_call".
_CALL_TYPES = _CALLED_BY_NAME | {
    f"{tool}_call"
    for tool in (
        "apply_patch", "code_interpreter", "computer", "file_search", "image_generation", "local_shell", "mcp", "shell",
        "tool_search", "web_search",
    )
}  # fmt: skip
_OTHER_TYPES = frozenset(
    {"reasoning", "item_reference", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "compaction"}
)
_CALL_FIELDS = frozenset({"id", "type", "call_id", "name", "arguments", "input", "action"})
# The arguments of file_search and code_interpreter.
_HOSTED_ARGS = ("queries", "code")
_RESULT_FIELDS = ("output", "outputs", "results", "result", "error")
# What messages of other layouts with the type "message" have.
_FOREIGN_FIELDS = frozenset({"stop_reason", "tool_calls", "tool_call_id", "message"})
_TEXT_TYPES = frozenset({"input_text", "output_text", "text"})
_MESSAGE_FIELDS = frozenset({"type", "role", "content", "id", "model"})


def is_item(value: Any) -> bool:
    """Whether a value is an item of the Responses API that has a type of its own."""
    if not isinstance(value, dict) or not isinstance(kind := value.get("type"), str):
        return False
    if kind == "message":
        content = value.get("content")
        is_message = isinstance(value.get("role"), str) and isinstance(content, (str, list)) and bool(content)
        return is_message and not _FOREIGN_FIELDS & value.keys() and not has_tool_blocks(content)
    if kind in _CALLED_BY_NAME:
        return isinstance(value.get("name"), str) and ("call_id" in value or "arguments" in value)
    if kind.removesuffix("_output") in _CALL_TYPES:
        return "call_id" in value if kind.endswith("_output") else "id" in value or "call_id" in value
    return kind == "reasoning" and isinstance(value.get("summary"), list)


def are_items(values: Any) -> bool:
    """Whether it is a list of items; messages among them may lack their type, but not all are such messages."""
    if not isinstance(values, list) or not any(map(is_item, values)):
        return False
    return all(isinstance(value, dict) and ("type" in value or says_something(value)) for value in values)


def parse_items(items: Iterable[Any], model: str | None = None) -> list[SourceMessage]:
    """The messages that items are; raises MalformedRecord for what is no item. ``model`` is that of the answers."""
    return [message for _, message in parse_numbered_items(items, model)]


def parse_numbered_items(items: Iterable[Any], model: str | None = None) -> list[tuple[int, SourceMessage]]:
    """The messages that items are, each with the index of its first item; see `parse_items`."""
    builder = _Builder(model)
    first: list[int] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise MalformedRecord(f"item {index} must be an object")
        try:
            builder.add(drop_null(item))
        except RECORD_ERRORS as error:
            raise MalformedRecord(f"item {index}: {error_text(error)}") from error
        first += [index] * (len(builder.messages) - len(first))
    return list(zip(first, builder.messages, strict=True))


class _Builder:
    """Collects the items of an answer in one message."""

    def __init__(self, model: str | None) -> None:
        self.messages: list[SourceMessage] = []
        self._model = model
        self._answer: Message | None = None
        self._records: list[Any] = []
        self._parts: list[Any] = []
        self._has_client_call = False
        self._waiting: list[Any] = []

    def add(self, item: dict[str, Any]) -> None:
        kind = item.get("type", "message")
        if kind == "message" or (kind not in _OTHER_TYPES and isinstance(item.get("role"), str)):
            self._add_message(item)
        elif kind.endswith("_call_output"):
            self._answer = None
            self._append(_to_result(item), [item])
        elif kind.endswith("_call") and (kind not in _CALLED_BY_NAME or "name" in item):
            answer = self._open(item)
            answer.tool_calls.append(_to_call(item))
            self._has_client_call = self._has_client_call or not _is_hosted(item)
        elif kind == "reasoning":
            answer = self._open(item)
            self._parts.append({key: value for key, value in item.items() if key not in ("id", "status")})
            self._set_content(answer)
        else:
            self._add_other(item)

    def _add_message(self, item: dict[str, Any]) -> None:
        role = item.get("role")
        if not isinstance(role, str):
            raise MalformedRecord("a message has no role")
        content = _to_content(item.get("content"))
        extra = {key: value for key, value in item.items() if key not in _MESSAGE_FIELDS}
        if role != "assistant":
            self._answer = None
            message = Message(role=role, content=content, message_id=_text(item, "id"), extra=extra)
            self._append(message, [item])
            return
        if self._answer is not None and (self._has_text() or self._has_client_call):
            self._answer = None  # the result of a tool that the client runs would come first
        answer = self._open(item)
        answer.message_id, answer.extra = _text(item, "id"), answer.extra | extra
        self._parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
        self._set_content(answer)

    def _open(self, item: dict[str, Any]) -> Message:
        """The message of the answer that an item belongs to."""
        if self._answer is None:
            model = item.get("model")
            self._answer = Message(role="assistant", model=model if isinstance(model, str) else self._model)
            self._records, self._parts, self._has_client_call = [], [], False
            self._append(self._answer, self._records)
        self._records.append(item)
        self._set_time(self._answer, item)
        return self._answer

    def _append(self, message: Message, records: list[Any]) -> None:
        if self._waiting:
            message.extra = message.extra | {"items": self._waiting}
            self._waiting = []
        if records:
            self._set_time(message, records[0])
        self.messages.append(SourceMessage(message, records))

    def _add_other(self, item: dict[str, Any]) -> None:
        """An item of another type stays with the message before it, else with the next one."""
        if not self.messages:
            self._waiting.append(item)
            return
        message, records = self.messages[-1].message, self.messages[-1].record
        message.extra = message.extra | {"items": [*message.extra.get("items", ()), item]}
        records.append(item)

    def _set_content(self, answer: Message) -> None:
        parts = self._parts
        is_text = len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() == {"type", "text"}
        answer.content = parts[0]["text"] if is_text else list(parts)

    def _has_text(self) -> bool:
        return any(not isinstance(part, dict) or part.get("type") != "reasoning" for part in self._parts)

    @staticmethod
    def _set_time(message: Message, item: Mapping[str, Any]) -> None:
        time = find_time(item)
        if time is not None and message.created_at is None:
            message.created_at = time[1]
            message.extra.pop(time[0], None)


def _is_hosted(item: Mapping[str, Any]) -> bool:
    """Whether the provider runs the tool of a call."""
    return item["type"] not in _CALLED_BY_NAME and "call_id" not in item


def _text(item: Mapping[str, Any], key: str) -> str | None:
    value = checked_id(item.get(key))
    return value if isinstance(value, str) else None


def _to_content(content: Any) -> Any:
    """A content without empty fields in its parts; a single text is that text, a refusal is text, too."""
    if not isinstance(content, list):
        return content
    parts = [_to_part(part) if isinstance(part, dict) else part for part in content]
    if len(parts) == 1 and isinstance(part := parts[0], dict) and part.keys() == {"type", "text"}:
        return part["text"] if part["type"] in _TEXT_TYPES else parts
    return parts


def _to_part(part: dict[str, Any]) -> dict[str, Any]:
    part = {key: value for key, value in part.items() if value is not None and value != []}
    if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
        return {**part, "text": part["refusal"]}
    return part


def _to_result(item: Mapping[str, Any]) -> Message:
    mapped = ("id", "type", "call_id", "output", "role")
    extra = {key: value for key, value in item.items() if key not in mapped}
    if item["type"] != "function_call_output":
        extra["type"] = item["type"]
    status = item.get("status")
    return Message(
        role="tool",
        content=_to_content(item.get("output")),
        tool_call_id=checked_id(item.get("call_id")),
        is_error=True if status == "failed" else None,
        message_id=_text(item, "id"),
        extra=extra,
    )


def _to_call(item: Mapping[str, Any]) -> ToolCall:
    kind: str = item["type"]
    extra = {key: value for key, value in item.items() if key not in _CALL_FIELDS}
    if kind != "function_call":
        extra["type"] = kind
    if "id" in item and "call_id" in item:
        extra["id"] = item["id"]
    args = next((item[key] for key in ("arguments", "input", "action") if key in item), None)
    if args is None and (stated := {key: extra.pop(key) for key in _HOSTED_ARGS if key in extra}):
        args = stated
    if kind != "custom_tool_call":
        args, notes = to_args(args)
        extra |= notes
    call = ToolCall(
        tool_call_id=checked_id(item.get("call_id")) or checked_id(item.get("id")),
        tool_name=item.get("name", kind.removesuffix("_call")),
        args=args,
        extra=extra,
    )
    if _is_hosted(item):
        key = next((key for key in _RESULT_FIELDS if key in item), None)
        call.result = extra.pop(key) if key else None
        status = item.get("status")
        if key == "error" or status == "failed":
            call.status = "failed"
        elif status == "completed" or call.result is not None:
            call.status = "completed"
    return call


def last_answer(messages: Sequence[SourceMessage]) -> Message | None:
    """The last message of an answer, which has its usage."""
    return next((item.message for item in reversed(messages) if item.message.role == "assistant"), None)
