"""From frames to what a specification may hold: plain values, texts that are cut and visible, labels that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.text import formatting

if TYPE_CHECKING:
    import pandas as pd

LABEL = 36
"""Names longer than this are cut on axes and in legends: a UUID is not."""

_ROOM = 6
"""So much of a label goes to what tells it from another of the same name."""


def require(df: pd.DataFrame, names: Iterable[str], like: str) -> None:
    """Refuse a frame that lacks columns.

    Raises:
        BadUsage: it does, or is no frame; the hint says which frame has them.
    """
    if not hasattr(df, "columns"):
        raise BadUsage(f"A {type(df).__name__} is no frame.", f"Give it {like}.")
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise BadUsage(f"The frame has no column {', '.join(map(repr, missing))}.", f"Give it {like}.")


def records(df: pd.DataFrame, names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of some columns as plain values; None where one is missing or is no finite number."""
    columns = {name: [_plain(value) for value in df[name].astype(object)] for name in names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def labels(names: Iterable[str | None], width: int = LABEL) -> list[str]:
    """Names as they are shown: on one line, cut, nothing in them acts; and no two alike, though the names may be."""
    made: dict[str, None] = {}
    tried: dict[str, int] = {}
    given = [name or "" for name in names]
    for name, cut in zip(given, formatting.truncate_distinct(given, width), strict=True):
        label = cut or formatting.MISSING
        while label in made:
            first = formatting.truncate(name, width - _ROOM) or formatting.MISSING
            tried[first] = tried.get(first, 1) + 1
            label = f"{first} ({tried[first]})"
        made[label] = None
    return list(made)
