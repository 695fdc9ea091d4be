"""Marks that the plots of differences share: verdicts by colour, shape and text, and columns of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.inputs import make_labels, to_records
from kern_nb.text import formatting
from kern_nb.text.metrics import format_metric
from kern_nb.text.tables import Column, Table

MAX_ROWS = 200
WIDTH = 360
"""The width of the plotting area, left of the columns of text."""
STEP = 24
POINT: dict[str, Any] = {"type": "point", "filled": True, "size": 90, "opacity": 1}

NO_VERDICT = "none"
_STYLES = {
    "better": ("triangle-up", vega.BLUE),
    "worse": ("triangle-down", vega.ORANGE),
    "equal": ("square", vega.GREY),
    "not clear": ("circle", vega.GREY),
    NO_VERDICT: ("circle", vega.GREY),
}
_MAX_NAMES = 6
_NAME_WIDTH = 60


def select_rows(
    df: pd.DataFrame, names: Iterable[str], of: str, verdicts: Mapping[str, str]
) -> tuple[pd.DataFrame, list[dict[str, Any]], list[str]]:
    """Select the rows to draw.

    Args:
        df: The metrics.
        names: The columns to read.
        of: The column that names the contender, where there are several.
        verdicts: The verdict for each value of ``better``.

    Returns:
        The frame of the rows; the rows as records, with ``m`` and ``of``, the labels of metric and contender, and ``o``
        and ``v``, the verdict as a kind and as text, and ``a_text`` and ``b_text``, the formatted values; and a note
        where rows are left out.
    """
    notes = [f"Only the first {MAX_ROWS} are drawn."] if len(df) > MAX_ROWS else []
    df = df.head(MAX_ROWS).reset_index(drop=True)
    rows = to_records(df, [*names, *([of] if of in df else [])])
    for row in rows:
        row["metric"] = row["metric"] or ""
        row["o"] = verdicts.get(row["better"], NO_VERDICT)
        row["v"] = "" if row["o"] == NO_VERDICT else row["o"]
        row["a_text"], row["b_text"] = (format_metric(row["metric"], row[side]) for side in ("a", "b"))
    for column, label in (("metric", "m"), (of, "of")):
        distinct = list(dict.fromkeys(row.get(column) for row in rows))
        labels = dict(zip(distinct, make_labels(distinct), strict=True))
        for row in rows:
            row[label] = labels[row.get(column)]
    return df, rows, notes


def is_finite(df: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Flag the rows with a known and finite value."""
    return pd.Series([row[column] is not None for row in to_records(df, [column])], index=df.index, dtype=bool)


def join_names(names: Iterable[str | None]) -> str:
    """Join the first names for a sentence, with the number of the others."""
    distinct = formatting.truncate_distinct([name or "" for name in dict.fromkeys(names)], _NAME_WIDTH)
    omitted = len(distinct) - _MAX_NAMES
    return ", ".join(distinct[:_MAX_NAMES]) + (f" and {omitted:,} more" if omitted > 0 else "")


def verdict_encodings() -> dict[str, dict[str, Any]]:
    """Return the encodings of the verdict."""
    encodings = {}
    for part, channel in enumerate(("shape", "color")):
        scale = {"domain": list(_STYLES), "range": [style[part] for style in _STYLES.values()]}
        encodings[channel] = {"field": "o", "type": "nominal", "legend": None, "scale": scale}
    return encodings


def text_column(column: str, offset: int, *, bold: bool = False) -> dict[str, Any]:
    """Return a column of text to the right of the plotting area."""
    mark = {"type": "text", "align": "left", "fontWeight": "bold" if bold else "normal"}
    return {"mark": mark, "encoding": {"x": {"value": WIDTH + offset}, "text": {"field": column}}}


def zero_line() -> dict[str, Any]:
    """Return the line of no difference."""
    mark = {"type": "rule", "color": vega.MUTED, "strokeWidth": 1}
    position = {"x": {"datum": 0}, "y": {"value": 0}, "y2": {"value": "height"}}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": position | {"tooltip": None}}


def block(title: str | None, values: list[dict[str, Any]], encoding: dict[str, Any], *layers: Any) -> dict[str, Any]:
    """Return one of the stacked blocks of a plot."""
    spec = {"data": {"values": values}, "width": WIDTH, "height": {"step": STEP}}
    spec |= {"encoding": encoding, "layer": list(layers)}
    return spec if title is None else spec | {"title": vega.make_title(title) | {"offset": 6}}


def build_table(title: str, rows: list[dict[str, Any]], keys: Mapping[str, str]) -> Table:
    """Return the table of the rows, from the key of each column."""
    columns = [Column(name, number=name in ("pairs", "a", "b", "difference")) for name in keys]
    cells = [[row.get(key) or "" for key in keys.values()] for row in rows]
    return Table(title, columns, cells).without_empty_columns()
