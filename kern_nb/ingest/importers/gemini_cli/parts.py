"""Contents of the Gemini API, as Gemini CLI and Qwen Code record them: parts, calls, results and counts of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.values import to_count, to_id, to_list, to_object, to_text, without
from kern_nb.records import Message, ToolCall, Usage

COMPACTION_PREFIX = "<state_snapshot>"
_FINISHED = {"success": False, "error": True, "cancelled": None}


def to_parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a content, which may be one text or one part."""
    items = content if isinstance(content, list) else [content]
    return [{"text": item} if isinstance(item, str) else item for item in items if isinstance(item, (str, dict))]


def to_content(parts: list[dict[str, Any]]) -> Any:
    """The content of a message from parts that are no calls and no results; plain text if it consists of one text."""
    content: list[Any] = []
    for part in parts:
        data, text = to_object(part.get("inlineData")), part.get("text")
        if isinstance(text, str):
            if text:
                content.append({"type": "thinking", "thinking": text} if part.get("thought") else _text(text))
        elif data:
            content.append({"type": "media", "media_type": data.get("mimeType"), "data": data.get("data")})
        elif isinstance(part.get("fileData"), dict):
            content.append({"type": "file", **part["fileData"]})
    return simplify(content) or None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def text_of_parts(parts: list[dict[str, Any]]) -> str:
    """The texts, without those of thoughts."""
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought"))


def find_calls(parts: list[dict[str, Any]]) -> Iterator[ToolCall]:
    """The calls among the parts of an answer."""
    for part in parts:
        call = part.get("functionCall")
        if isinstance(call, dict):
            extra = without(call, ("id", "name", "args"))
            name = to_text(call.get("name"))
            yield ToolCall(tool_call_id=to_id(call.get("id")), tool_name=name, args=call.get("args"), extra=extra)


def find_responses(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of calls among parts."""
    return [part["functionResponse"] for part in parts if isinstance(part.get("functionResponse"), dict)]


def is_response(parts: list[dict[str, Any]]) -> bool:
    """Whether the parts are results of calls, with their media, and no text of a person."""
    return bool(find_responses(parts)) and not any(isinstance(part.get("text"), str) for part in parts)


def to_result(response: dict[str, Any], time: datetime | None, status: Any) -> Message:
    """The result of a call; whether it failed is stated by its status."""
    value = response.get("response")
    if isinstance(value, dict) and len(value) == 1 and ("output" in value or "error" in value):
        value = value.get("output", value.get("error"))
    is_error = _FINISHED.get(status) if isinstance(status, str) else None
    return Message(
        role="tool",
        content=value,
        tool_call_id=to_id(response.get("id")),
        tool_name=to_text(response.get("name")),
        is_error=is_error,
        created_at=time,
        extra={"status": status} if status == "cancelled" else {},
    )


def find_recorded_result(call: dict[str, Any], time: datetime | None) -> Message | None:
    """The result that a recorded call states; None while the call runs."""
    status, result = call.get("status"), call.get("result")
    is_finished = isinstance(status, str) and status in _FINISHED
    if result is None and (not is_finished or status == "cancelled"):
        return None
    responses = find_responses(to_parts(result))
    base = {"id": call.get("id"), "name": call.get("name")}
    if len(responses) == 1:
        return to_result(base | without(responses[0], ("id",)), time, status)
    value = [response.get("response") for response in responses] or result
    return to_result(base | {"response": value}, time, status)


def to_usage(counts: dict[str, Any], names: tuple[str, str, str, str, str, str]) -> Usage | None:
    """Usage from the counts of the prompt, answer, thoughts, cache, tools and total, under these names.

    The answer excludes the thoughts, except for some providers whose total says otherwise.
    """
    n_input, n_output, n_thoughts, n_cached, n_tool, total = (to_count(counts.get(name)) for name in names)
    if n_input is None and n_output is None and not total:
        return None
    output = n_output
    if n_output is not None and n_thoughts and total != (n_input or 0) + n_output + (n_tool or 0):
        output = n_output + n_thoughts
    return Usage(
        input_tokens=n_input,
        output_tokens=output,
        cache_read_tokens=n_cached,
        reasoning_tokens=n_thoughts,
        total_tokens=total,
    )


def to_thoughts(thoughts: Any) -> list[dict[str, Any]]:
    """The parts of recorded thoughts."""
    parts = []
    for thought in to_list(thoughts):
        texts = [to_text(to_object(thought).get(name)) for name in ("subject", "description")]
        if text := ": ".join(text for text in texts if text):
            parts.append({"text": text, "thought": True})
    return parts
