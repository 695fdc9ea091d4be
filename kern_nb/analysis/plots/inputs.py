"""Frames as input of plots: column checks, rows as plain values, and labels that are distinct and safe to show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from kern_nb.errors import BadUsage
from kern_nb.text import formatting

_LABEL_WIDTH = 36
"""Longer names are cut on axes and in legends; a UUID is not."""

_SUFFIX_WIDTH = 6
"""The part of a label that is reserved for a number, where names are equal."""


def require_columns(df: pd.DataFrame, names: Iterable[str], source: str) -> None:
    """Raise BadUsage if this is not a frame with some columns; the hint names the ``source`` of such a frame."""
    if not hasattr(df, "columns"):
        raise BadUsage(f"A plot takes a DataFrame, got {type(df).__name__}.", f"Pass {source}.")
    absent = [name for name in names if name not in df.columns]
    if absent:
        raise BadUsage(f"The frame has no column {', '.join(map(repr, absent))}.", f"Pass {source}.")


def to_records(df: pd.DataFrame, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of some columns as plain values; None where one is missing or not finite."""
    columns = {name: [_to_plain(value) for value in df[name].astype(object)] for name in names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _to_plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_labels(names: Iterable[str | None]) -> list[str]:
    """Return a distinct label for each name: on one line, cut, control characters made visible."""
    labels: dict[str, None] = {}
    numbers: dict[str, int] = {}
    texts = [name or "" for name in names]
    for text, cut in zip(texts, formatting.truncate_distinct(texts, _LABEL_WIDTH), strict=True):
        label = cut or formatting.MISSING
        while label in labels:
            prefix = formatting.truncate(text, _LABEL_WIDTH - _SUFFIX_WIDTH) or formatting.MISSING
            numbers[prefix] = numbers.get(prefix, 1) + 1
            label = f"{prefix} ({numbers[prefix]})"
        labels[label] = None
    return list(labels)
