"""Content blocks of Bedrock's Converse API and of the AI SDK, as those of Anthropic's API, which `blocks` reads.

* Converse has no types: ``{"text": ...}``, ``{"toolUse": {...}}``, ``{"toolResult": {...}}``,
* the AI SDK has ``tool-call`` and ``tool-result`` parts in messages of the roles "assistant" and "tool"; the messages
  of its pages have ``parts``, with the result beside each call.

Other blocks stay as they are. A tool's message is its result, whatever it looks like, unless a block says that it is
one.
"""

from __future__ import annotations

from typing import Any

from kern_nb.ingest.parsing.values import to_object

_MEDIA = ("image", "document", "video", "audio")
_ERROR_OUTPUTS = frozenset({"error-text", "error-json", "execution-denied"})


def to_known_blocks(content: list[Any], *, is_result: bool) -> list[Any]:
    """The blocks of a message; ``is_result`` is whether it is that of a tool."""
    if is_result and not any(isinstance(block, dict) and _is_result(block) for block in content):
        return content
    blocks = [block for block in content if not (isinstance(block, dict) and block.keys() == {"cachePoint"})]
    return [_convert(block) if isinstance(block, dict) else block for block in blocks]


def blocks_of_parts(parts: Any) -> list[Any] | None:
    """The blocks of the ``parts`` of a page's message; None if it has no such parts."""
    if not isinstance(parts, list) or not parts:
        return None
    if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        return None
    blocks: list[Any] = []
    for part in parts:
        kind: str = part["type"]
        if kind in ("tool-invocation", "dynamic-tool") or (kind.startswith("tool-") and "state" in part):
            blocks += _call_of_page(to_object(part.get("toolInvocation")) or part)
        elif kind != "step-start":
            blocks.append(part)
    return blocks


def _call_of_page(part: dict[str, Any]) -> list[dict[str, Any]]:
    call_id, state = part.get("toolCallId"), str(part.get("state"))
    name = part.get("toolName") or str(part.get("type")).removeprefix("tool-")
    call = {"type": "tool_use", "id": call_id, "name": name, "input": part.get("input", part.get("args"))}
    if state == "result":
        return [call, _result(call_id, part.get("result"), None)]
    if state in ("output-available", "output-error"):
        is_error = state == "output-error"
        return [call, _result(call_id, part.get("errorText") if is_error else part.get("output"), is_error)]
    return [call]


def _is_result(block: dict[str, Any]) -> bool:
    return isinstance(block.get("toolResult"), dict) or block.get("type") == "tool-result"


def _convert(block: dict[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "tool-call":
        return {"type": "tool_use", "id": block.get("toolCallId"), "name": block.get("toolName"),
                "input": block.get("input", block.get("args"))}  # fmt: skip
    if kind == "tool-result":
        return _convert_output(block)
    if kind is not None:
        return block
    if call := to_object(block.get("toolUse")):
        return {"type": "tool_use", "id": call.get("toolUseId"), "name": call.get("name"), "input": call.get("input")}
    if result := to_object(block.get("toolResult")):
        is_error = {"error": True, "success": False}.get(str(result.get("status")))
        return _result(result.get("toolUseId"), _content_of(result.get("content")), is_error)
    if reasoning := to_object(block.get("reasoningContent")):
        thought = to_object(reasoning.get("reasoningText"))
        return {"type": "thinking", "thinking": thought.get("text"), "signature": thought.get("signature")}
    if isinstance(block.get("text"), str):
        return {"type": "text", **block}
    media = next((name for name in _MEDIA if isinstance(block.get(name), dict)), None)
    return {"type": media, **block} if media else block


def _convert_output(block: dict[str, Any]) -> dict[str, Any]:
    output = block.get("output", block.get("result"))
    is_error = block["isError"] if isinstance(block.get("isError"), bool) else None
    if isinstance(output, dict) and isinstance(output.get("type"), str) and "value" in output:
        is_error = True if output["type"] in _ERROR_OUTPUTS else is_error
        output = output["value"]
    return _result(block.get("toolCallId"), output, is_error)


def _content_of(content: Any) -> Any:
    """The content of a result; that of one block is its value."""
    blocks = [to_object(block) for block in content] if isinstance(content, list) else []
    if len(blocks) == 1 and len(blocks[0]) == 1 and (key := next(iter(blocks[0]))) in ("text", "json"):
        return blocks[0][key]
    return [_convert(block) for block in blocks] if blocks and all(blocks) else content


def _result(call_id: Any, content: Any, is_error: bool | None) -> dict[str, Any]:  # noqa: FBT001 - or unknown
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, "is_error": is_error}
