"""Transcripts of Cursor's agent as text: ``user:`` and ``assistant:`` on lines of their own.

In an answer, ``[Thinking]`` begins a thought, ``[Tool call] <name>`` a call with its arguments, and ``[Tool result]``
the result of the latest call without one. Each extends over the indented lines after it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.parsing.values import decode_json

_ROLE = re.compile(r"^(user|assistant):[ \t]*$")
_MARK = re.compile(r"^\[(Thinking|Tool call|Tool result)\][ \t]*(.*)$")
_ARGUMENT = re.compile(r"^[ \t]+([A-Za-z_][\w.-]*)[ \t]?[=:][ \t]?(.*)$")


def is_transcript(text: str) -> bool:
    """Whether a text begins with the first message, and has something in it."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and lines[0].rstrip() == "user:"


def read_records(text: str) -> Iterator[dict[str, Any]]:
    """Yield the messages as the newer transcripts have them."""
    role: str | None = None
    blocks: list[dict[str, Any]] = []
    for line in [*text.replace("\r\n", "\n").split("\n"), None]:
        begun = None if line is None else _ROLE.match(line)
        if line is not None and begun is None:
            if role is not None:
                _add_line(blocks, line, role)
            continue
        if role is not None and blocks:
            yield {"role": role, "message": {"content": [_finish(block) for block in blocks]}}
        role, blocks = (None if begun is None else begun[1]), []


def _add_line(blocks: list[dict[str, Any]], line: str, role: str) -> None:
    mark = _MARK.match(line) if role == "assistant" else None
    if mark is not None:
        kind, rest = mark[1], mark[2]
        if kind == "Thinking":
            blocks.append({"type": "thinking", "lines": [rest]})
        elif kind == "Tool call":
            blocks.append({"type": "tool_use", "name": rest.strip() or None, "lines": []})
        else:
            blocks.append({"type": "tool_result", "name": rest.strip() or None, "lines": []})
        return
    last = blocks[-1] if blocks else None
    if last is not None and last["type"] != "text" and line and not line[0].isspace():
        last = None
    if last is None:
        last = {"type": "text", "lines": []}
        blocks.append(last)
    last["lines"].append(line)


def _finish(block: dict[str, Any]) -> dict[str, Any]:
    lines = block.pop("lines")
    text = textwrap.dedent("\n".join(lines)).strip()
    if block["type"] == "tool_use":
        return block | {"input": _arguments(lines)}
    if block["type"] == "tool_result":
        return block | {"content": text}
    return block | {("thinking" if block["type"] == "thinking" else "text"): text}


def _arguments(lines: list[str]) -> Any:
    """The arguments: JSON, or one in a line with what follows it; as text if they are written in another way."""
    text = textwrap.dedent("\n".join(lines)).strip()
    value = decode_json(text)
    if isinstance(value, dict):
        return value
    arguments: dict[str, str] = {}
    last: str | None = None
    for line in lines:
        argument = _ARGUMENT.match(line)
        if argument is not None:
            last = argument[1]
            arguments[last] = argument[2]
        elif last is not None:
            arguments[last] += f"\n{line}"
        elif line.strip():
            return text
    return {name: decode_json(value.strip()) for name, value in arguments.items()}
