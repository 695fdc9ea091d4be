"""Parts of the content of a message."""

from __future__ import annotations

from typing import Any

_TEXT_FIELDS = {"type", "text"}


def simplify(content: Any) -> Any:
    """The text of a content that is a single text without further fields; any other content as it is."""
    if not isinstance(content, list) or len(content) != 1:
        return content
    part = content[0]
    if isinstance(part, dict) and part.keys() == _TEXT_FIELDS and part["type"] == "text":
        part = part["text"]
    return part if isinstance(part, str) else content
