"""Pages that contain a plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_PLACEHOLDER = {"kern": "the specification"}


def build_page(render: Callable[[dict[str, Any]], str], spec: dict[str, Any]) -> str:
    """Render a page for a specification whose texts cannot end the script element; vl-convert escapes nothing."""
    parts = render(_PLACEHOLDER).split(json.dumps(_PLACEHOLDER, separators=(",", ":")))
    if len(parts) != 2:  # noqa: PLR2004 - before it and after it
        raise RuntimeError(f"The page template must contain the specification once, got {len(parts) - 1} times.")
    return script_json(spec).join(parts)


def script_json(value: Any) -> str:
    """Serialize a value as ASCII JSON for a script element; nothing in it parses as markup."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
