"""Pages that hold a plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_HERE = {"kern": "the specification"}


def build_page(made_by: Callable[[dict[str, Any]], str], spec: dict[str, Any]) -> str:
    """A page for a specification, whose texts cannot end the script they stand in.

    Args:
        made_by: Makes a page of a specification, which it writes as JSON; vl-convert's escapes nothing.
        spec: The specification.
    """
    around = made_by(_HERE).split(json.dumps(_HERE, separators=(",", ":")))
    if len(around) != 2:  # noqa: PLR2004 - before it and after it
        raise RuntimeError("The page of a plot has no single place for the plot.")
    return script_json(spec).join(around)


def script_json(value: Any) -> str:
    """JSON for within a script element: nothing in it reads as markup, and all of it is ASCII."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
