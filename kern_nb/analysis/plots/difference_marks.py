"""What the two plots of differences share: better and worse by colour, by shape and in words, and texts in columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.inputs import labels, records
from kern_nb.text import formatting

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 200
WIDTH = 360
"""Of the plotting area: there are columns of texts to the right of it."""
STEP = 24
POINT: dict[str, Any] = {"type": "point", "filled": True, "size": 90, "opacity": 1}

NO_VERDICT = "none"
_LOOKS = {
    "better": ("triangle-up", vega.BLUE),
    "worse": ("triangle-down", vega.ORANGE),
    "as good": ("square", vega.GREY),
    "not clear": ("circle", vega.GREY),
    NO_VERDICT: ("circle", vega.GREY),
}
_NAMED = 6
_CUT = 60


def read(
    df: pd.DataFrame, names: Iterable[str], of: str, verdicts: Mapping[str, str]
) -> tuple[pd.DataFrame, list[dict[str, Any]], list[str]]:
    """The rows to draw.

    Returns:
        The frame of them; the same as records, with ``m`` and ``of``, the labels of the metric and of whom it tells,
        and ``o`` and ``v``, the verdict as a kind and in words; and a sentence where some are left out.
    """
    df = df.head(MOST_ROWS + 1)
    notes = [f"Only the first {MOST_ROWS} are drawn."] if len(df) > MOST_ROWS else []
    df = df.head(MOST_ROWS).reset_index(drop=True)
    rows = records(df, [*names, *([of] if of in df else [])])
    for row in rows:
        row["metric"] = row["metric"] or ""
        row["o"] = verdicts.get(row["better"], NO_VERDICT)
        row["v"] = "" if row["o"] == NO_VERDICT else row["o"]
    for column, label in (("metric", "m"), (of, "of")):
        distinct = list(dict.fromkeys(row.get(column) for row in rows))
        shown = dict(zip(distinct, labels(distinct), strict=True))
        for row in rows:
            row[label] = shown[row.get(column)]
    return df, rows, notes


def finite(df: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Where a value is known, and a number that can be drawn."""
    import pandas as pd

    return pd.Series([row[column] is not None for row in records(df, [column])], index=df.index, dtype=bool)


def named(names: Iterable[str | None]) -> str:
    """A few names in a sentence."""
    distinct = formatting.truncate_distinct([name or "" for name in dict.fromkeys(names)], _CUT)
    left = len(distinct) - _NAMED
    return ", ".join(distinct[:_NAMED]) + (f" and {left:,} more" if left > 0 else "")


def looks() -> dict[str, dict[str, Any]]:
    """The encodings of better and worse."""
    made = {}
    for part, channel in enumerate(("shape", "color")):
        scale = {"domain": list(_LOOKS), "range": [look[part] for look in _LOOKS.values()]}
        made[channel] = {"field": "o", "type": "nominal", "legend": None, "scale": scale}
    return made


def rows_of(names: list[str], field: str) -> dict[str, Any]:
    """The vertical axis: one row a name, in order."""
    axis = {"ticks": False, "domain": False, "grid": False, "labelPadding": 8}
    return {"field": field, "type": "nominal", "title": None, "scale": {"domain": names}, "axis": axis}


def beside(column: str, offset: int, *, bold: bool = False) -> dict[str, Any]:
    """A column of texts to the right of the plotting area."""
    mark = {"type": "text", "align": "left", "fontWeight": "bold" if bold else "normal"}
    return {"mark": mark, "encoding": {"x": {"value": WIDTH + offset}, "text": {"field": column}}}


def zero_line() -> dict[str, Any]:
    """Where there is no difference."""
    mark = {"type": "rule", "color": vega.MUTED, "strokeWidth": 1}
    place = {"x": {"datum": 0}, "y": {"value": 0}, "y2": {"value": "height"}}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": place | {"tooltip": None}}


def block(title: str | None, values: list[dict[str, Any]], encoding: dict[str, Any], *layers: Any) -> dict[str, Any]:
    """One of the blocks below each other that a plot is made of."""
    made = {"data": {"values": values}, "width": WIDTH, "height": {"step": STEP}}
    made |= {"encoding": encoding, "layer": list(layers)}
    return made if title is None else made | {"title": vega.heading(title) | {"offset": 6}}
