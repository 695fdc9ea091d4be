"""The plot of paired differences between groups, with their intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kern_nb.analysis.plots import difference_marks as marks
from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require_columns
from kern_nb.text import formatting
from kern_nb.text.metrics import format_delta, format_metric
from kern_nb.text.tables import Table

_TITLE = "Paired differences from the baseline"
_COLUMNS = ("metric", "n_pairs", "a", "b", "delta", "low", "high", "better")
# The interval of "neither" contains 0, which does not prove that the groups are equal.
_VERDICTS = {"b": "better", "a": "worse", "neither": "not clear"}
_VALUES = ("m", "o", "v", "t", "n")
_TABLE = {"group": "group", "metric": "metric", "pairs": "pairs", "a": "a_text", "b": "b_text"}
_TABLE |= {"difference": "difference", "interval": "interval", "b is": "v"}


def groups(metrics: pd.DataFrame) -> Plot:
    """Plot the mean paired difference of each metric with its interval, each in its own unit.

    Args:
        metrics: ``GroupComparison.metrics``: metric, n_pairs, a, b, delta, low, high, better, and group where there are
            several.

    Returns:
        A plot; its ``df`` has the metrics that are drawn. The notes name those of unknown difference.

    Raises:
        BadUsage: A column is missing.
    """
    require_columns(metrics, _COLUMNS, "the metrics of a GroupComparison")
    is_known = marks.is_finite(metrics, "delta")
    df, rows, notes = marks.select_rows(metrics[is_known], _COLUMNS, "group", _VERDICTS)
    if not is_known.all():
        notes.append(f"No pair has a value for {marks.join_names(metrics['metric'][~is_known])}.")
    if not rows:
        return Plot(df, _TITLE, Table("No paired differences to plot", [], []), tuple(notes))
    for row in rows:
        n_pairs = None if row["n_pairs"] is None else int(row["n_pairs"])
        row["pairs"] = formatting.format_count(n_pairs)
        row["n"] = "" if n_pairs is None else formatting.pluralize(n_pairs, "pair")
        low, high = (format_metric(row["metric"], row[end]) for end in ("low", "high"))
        row["interval"] = "" if row["low"] is None or row["high"] is None else f"{low} to {high}"
        row["difference"] = format_delta(row["metric"], row["delta"])
        row["t"] = row["difference"] + (f" ({row['interval']})" if row["interval"] else "")
    if not all(row["interval"] for row in rows):
        notes.append("A point without a line has too few pairs for an interval.")
    return Plot(df, _TITLE, marks.build_table(_TITLE, rows, _TABLE), tuple(notes), _forest(rows))


def _forest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One block a metric: a point a group with its interval, and texts to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": None, "scale": {"zero": True, "padding": 12}}
    x["axis"] = {"tickCount": 6, "labelExpr": vega.SHORT}
    encodings = marks.verdict_encodings()
    ends: dict[str, Any] = {"x": x | {"field": "l"}, "x2": {"field": "h"}, "color": encodings["color"]}
    line = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}
    point = {"mark": marks.POINT, "encoding": {"x": x, **encodings}}
    texts = [marks.text_column("v", 12, bold=True), marks.text_column("t", 72), marks.text_column("n", 240)]
    tips = [{"field": "m", "title": "metric"}, {"field": "g", "title": "group"}, {"field": "t", "title": "difference"}]
    tips += [{"field": "v", "title": "b is"}, {"field": "n", "title": "pairs"}]
    blocks = []
    for metric in dict.fromkeys(row["m"] for row in rows):
        block_rows = [row for row in rows if row["m"] == metric]
        is_single = all(row["of"] == formatting.MISSING for row in block_rows)
        names = [metric if is_single else row["of"] for row in block_rows]
        values = [
            {"g": name, "d": row["delta"], "l": row["low"], "h": row["high"], **{key: row[key] for key in _VALUES}}
            for name, row in zip(names, block_rows, strict=True)
        ]
        encoding = {"y": vega.row_axis(names, "g", grid=False), "tooltip": tips}
        title = None if is_single else metric
        blocks.append(marks.block(title, values, encoding, marks.zero_line(), line, point, *texts))
    return {"vconcat": blocks, "spacing": 12}
