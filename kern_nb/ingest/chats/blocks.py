"""Content blocks of Anthropic's Messages API, as messages: tool calls and results are messages' own fields here.

A ``tool_use`` block is a call of its message, a ``tool_result`` block in a user's message a message of the role "tool";
one text block without other fields is that text. ``cache_control`` is dropped: it moves from message to message as a
conversation goes on, and says nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.values import checked_id, drop_null, to_args, to_flag
from kern_nb.records import RESULT_ROLES, Message, ToolCall

CALL_TYPES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
RESULT_TYPES = frozenset({"tool_result", "mcp_tool_result"})
_THINKING_TYPES = frozenset({"thinking", "redacted_thinking"})
_TEXT_FIELDS = frozenset({"type", "text"})


def block_types(content: Any) -> frozenset[str]:
    """The types of the blocks of a content."""
    blocks = content if isinstance(content, list) else ()
    return frozenset(b["type"] for b in blocks if isinstance(b, dict) and isinstance(b.get("type"), str))


def has_tool_blocks(content: Any) -> bool:
    """Whether a content has calls or results of tools, which only Anthropic's layout has there."""
    return isinstance(content, list) and bool(block_types(content) & (CALL_TYPES | RESULT_TYPES))


def has_anthropic_blocks(content: Any) -> bool:
    """Whether a content has blocks that only Anthropic's layout has."""
    return bool(block_types(content) & (CALL_TYPES | RESULT_TYPES | _THINKING_TYPES))


def to_content(value: Any) -> Any:
    """A content without nulls and cache marks in its blocks; a single plain text block is its text."""
    if not isinstance(value, list):
        return value
    blocks = [_clean(block) if isinstance(block, dict) else block for block in value]
    if len(blocks) == 1 and isinstance(blocks[0], dict) and blocks[0].keys() == _TEXT_FIELDS:
        return blocks[0]["text"] if blocks[0]["type"] == "text" else blocks
    return blocks


def _clean(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if value is not None and key != "cache_control"}


def split_blocks(message: Message) -> Iterator[tuple[Message, bool | None]]:
    """Yield the messages that a message with tool blocks consists of, and whether each one starts a run.

    Results come first, as the API requires. The text after them is a prompt, unless it is a note of the client in a
    tag: clients merge the next prompt into the message with the last results.
    """
    if message.role == "assistant" or not block_types(message.content) & RESULT_TYPES:
        yield _take_calls(message), None
        return
    rest: list[Any] = []
    for block in message.content:
        if isinstance(block, dict) and block.get("type") in RESULT_TYPES:
            yield _to_result(block, message), False
        else:
            rest.append(block)
    if rest:
        message.content = to_content(rest)
        first = rest[0].get("text") if isinstance(rest[0], dict) else rest[0]
        is_note = isinstance(first, str) and first.lstrip().startswith("<")
        yield message, False if is_note and message.role == "user" else None


def _to_result(block: dict[str, Any], message: Message) -> Message:
    block = drop_null(block)
    mapped = ("type", "tool_use_id", "content", "is_error", "cache_control")
    return Message(
        role="tool",
        content=to_content(block.get("content")),
        tool_call_id=checked_id(block.get("tool_use_id")),
        is_error=to_flag(block.get("is_error")),
        created_at=message.created_at,
        extra={key: value for key, value in block.items() if key not in mapped},
    )


def _take_calls(message: Message) -> Message:
    """Move the calls in a message's content to its ``tool_calls``."""
    if not has_tool_blocks(message.content):
        return message
    rest = []
    for block in message.content:
        if isinstance(block, dict) and block.get("type") in CALL_TYPES:
            message.tool_calls.append(_to_call(block))
        else:
            rest.append(block)
    for block in rest:
        if message.role not in RESULT_ROLES and isinstance(block, dict):
            _set_server_result(message.tool_calls, block)
    message.content = to_content(rest) if rest else None
    return message


def _to_call(block: dict[str, Any]) -> ToolCall:
    block = drop_null(block)
    if not isinstance(block.get("name"), str):
        raise MalformedRecord("a tool_use block has no name")
    extra = {key: value for key, value in block.items() if key not in ("id", "name", "input", "cache_control")}
    if extra.get("type") == "tool_use":
        del extra["type"]
    args, notes = to_args(block.get("input"))  # a column of a dataset has it as JSON text
    return ToolCall(tool_call_id=checked_id(block.get("id")), tool_name=block["name"], args=args, extra=extra | notes)


def _set_server_result(calls: list[ToolCall], block: dict[str, Any]) -> None:
    """Set the result of a tool that the provider runs: it stands in the answer that calls it."""
    call_id, content = block.get("tool_use_id"), block.get("content")
    call = next((call for call in calls if call_id and call.tool_call_id == call_id), None)
    if call is None or content is None:
        return
    kind = content.get("type") if isinstance(content, dict) else None
    is_error = block.get("is_error") is True or (isinstance(kind, str) and kind.endswith("_error"))
    call.result, call.status = to_content(content), "failed" if is_error else "completed"
