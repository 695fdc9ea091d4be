"""Items of the SDK, which are those of the Responses API, as messages; and messages of any source as items.

Each message keeps the items that it stands for, as they are, in its ``internal[ITEMS]``: pairs of a position and an
item. The position orders the items of a run in its session's memory; an item without one is not in it: the SDK has not
saved it, or has removed it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from kern_nb.db import codec
from kern_nb.extra_keys import ITEMS
from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.importers.openai_responses.items import parse_items
from kern_nb.records import RESULT_ROLES, Message, is_parts, message_text

Item = dict[str, Any]
Entry = list[Any]
"""``[position, item]``; the position is None for an item that is not in the memory."""

ItemKey = tuple[str, ...]

_PARTS_OF_ITEMS = frozenset({"input_text", "input_image", "input_file", "input_audio", "output_text", "refusal"})


def group_items(items: Sequence[Item], model: str | None = None) -> list[tuple[Message, list[Item]]]:
    """The messages that items are, each with its items, in order. Every item belongs to one message.

    What is no item of the Responses API is a message, too, with the value in its ``extra``.
    """
    items = list(items)
    try:
        parsed = parse_items(items, model)
    except MalformedRecord:
        if len(items) == 1:
            return [(_to_unknown(items), items)]
        return [group for item in items for group in group_items([item], model)]
    if not parsed:
        return [(_to_unknown(items), items)] if items else []
    sizes = [len(source.record) for source in parsed]
    sizes[0] += len(items) - sum(sizes)  # items before the first message belong to it
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [(s.message, items[end - size : end]) for s, size, end in zip(parsed, sizes, ends, strict=True)]


def _to_unknown(items: list[Any]) -> Message:
    role = items[0].get("role") if isinstance(items[0], dict) else None
    return Message(role=role if isinstance(role, str) else "assistant", extra={"items": items})


def is_prompt(item: Any) -> bool:
    """Whether an item is a person's message, with which a run starts."""
    return isinstance(item, dict) and item.get("role") == "user" and item.get("type", "message") == "message"


def is_reply(item: Any) -> bool:
    """Whether an item answers a prompt: it is not a message of a user, nor an instruction."""
    return not isinstance(item, dict) or item.get("role") not in ("user", "system", "developer")


def find_keys(item: Any) -> Iterator[ItemKey]:
    """What identifies an item, best first: the SDK changes some fields of an item before it saves it."""
    if not isinstance(item, dict):
        yield ("json", codec.dumps(item))
        return
    kind = item.get("type", "message")
    if isinstance(call_id := item.get("call_id"), str):
        yield ("call", str(kind), call_id)
        return
    if kind == "message":
        content = item.get("content")
        text = message_text(Message(role="user", content=content))
        yield ("message", str(item.get("role")), codec.dumps(content) if text is None else text)
        return
    if isinstance(item_id := item.get("id"), str):
        yield ("id", str(kind), item_id)
    yield ("json", codec.dumps({key: value for key, value in item.items() if key != "id" and value is not None}))


def is_output(item: Any) -> bool:
    """Whether an item is the result of a tool."""
    return isinstance(item, dict) and isinstance(kind := item.get("type"), str) and kind.endswith("_call_output")


def next_position(last: int) -> int:
    """The next position in a run: the time in microseconds, so that another process continues after this one."""
    return max(last + 1, time.time_ns() // 1000)


def memory_entries(internal: dict[str, Any] | None) -> list[Entry] | None:
    """The entries of a message that are in the memory; None if a message was not written by this bridge."""
    entries = (internal or {}).get(ITEMS)
    return None if entries is None else [entry for entry in entries if entry[0] is not None]


def to_items(message: Message) -> list[Item]:
    """The items of a message of another source, as the SDK passes them to a model."""
    if message.role in RESULT_ROLES:
        content = message.content
        output = content if isinstance(content, str) else codec.dumps(content)
        return [{"type": "function_call_output", "call_id": message.tool_call_id or "", "output": output}]
    items: list[Item] = []
    if (content := _to_content(message)) is not None:
        items.append({"role": message.role, "content": content})
    for call in message.tool_calls:
        arguments = call.args if isinstance(call.args, str) else codec.dumps(call.args if call.args is not None else {})
        call_id = call.tool_call_id or ""
        items.append(
            {"type": "function_call", "call_id": call_id, "name": call.tool_name or "", "arguments": arguments}
        )
    return items


def _to_content(message: Message) -> str | list[Item] | None:
    content = message.content
    if message.role == "assistant" or not is_parts(content):
        text = message_text(message)
        return text if text is not None or content is None or is_parts(content) else codec.dumps(content)
    parts = []
    for part in content:
        if isinstance(part, dict) and part["type"] in _PARTS_OF_ITEMS:
            parts.append(part)
            continue
        text = part if isinstance(part, str) else part.get("text")
        text = text if isinstance(text, str) else f"[{part['type']}]"
        parts.append({"type": "input_text", "text": text})
    return parts
