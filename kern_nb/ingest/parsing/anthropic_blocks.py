"""Content blocks as the Messages API of Anthropic has them: text, thinking, calls and results.

Several programs record a whole answer with the results of its calls in one list of blocks.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import to_flag, to_id, to_object, to_text, without
from kern_nb.records import PART_TYPES, Message, ToolCall

Record = dict[str, Any]

_CALL_FIELDS = ("type", "id", "name", "input", "start_timestamp", "stop_timestamp")
_RESULT_FIELDS = ("type", "tool_use_id", "name", "content", "is_error", "start_timestamp", "stop_timestamp")
_EMPTY: tuple[Any, ...] = (None, [], {}, "")


class Blocks(NamedTuple):
    """The blocks of a message, by kind.

    Attributes:
        parts: Its content.
        calls: Its calls of tools.
        results: Messages with the results that it has.
        others: Blocks that are none of these.
    """

    parts: list[Any]
    calls: list[ToolCall]
    results: list[Message]
    others: list[Any]


def is_content(value: Any) -> bool:
    """Whether a value is the content of a message: text, or a list of blocks."""
    if isinstance(value, list):
        return any(isinstance(b, str) or (isinstance(b, dict) and isinstance(b.get("type"), str)) for b in value)
    return isinstance(value, str)


def split_blocks(content: Any, time: datetime | None = None) -> Blocks:
    """Sort the blocks of a content. A block that states no time has that of the message."""
    blocks = Blocks([], [], [], [])
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, str):
            block = {"type": "text", "text": block}  # noqa: PLW2901 - a text is short for that
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use":
            blocks.calls.append(_to_call(block, time))
        elif kind == "tool_result":
            blocks.results.append(_to_result(block, time))
        elif kind == "text":
            if to_text(block.get("text")):
                blocks.parts.append({key: value for key, value in block.items() if value not in _EMPTY})
        elif isinstance(kind, str) and kind in PART_TYPES:
            blocks.parts.append(block)
        elif block is not None:
            blocks.others.append(block)
    return blocks


def _to_call(block: Record, time: datetime | None) -> ToolCall:
    return ToolCall(
        tool_call_id=to_id(block.get("id")),
        tool_name=to_text(block.get("name")),
        args=block.get("input"),
        created_at=to_time(block.get("start_timestamp")) or time,
        extra=without(block, _CALL_FIELDS),
    )


def _to_result(block: Record, time: datetime | None) -> Message:
    content = block.get("content")
    if isinstance(content, list) and len(content) == 1 and to_object(content[0]).get("type") == "text":
        content = content[0].get("text")
    return Message(
        role="tool",
        content=content,
        tool_call_id=to_id(block.get("tool_use_id")),
        tool_name=to_text(block.get("name")),
        is_error=to_flag(block.get("is_error")),
        created_at=to_time(block.get("start_timestamp")) or time,
        extra=without(block, _RESULT_FIELDS),
    )
