"""The plot of paired differences between groups, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import difference_marks as marks
from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require_columns
from kern_nb.text import formatting
from kern_nb.text.metrics import format_delta, format_metric
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

_TITLE = "Paired differences from the baseline"
_COLUMNS = ("metric", "n_pairs", "a", "b", "delta", "low", "high", "better")
# The interval of "neither" contains 0, which does not prove that the groups are equal.
_VERDICTS = {"b": "better", "a": "worse", "neither": "not clear"}


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
        low, high = (format_metric(row["metric"], row[end]) for end in ("low", "high"))
        has_interval = row["low"] is not None and row["high"] is not None
        row["interval"] = f"{low} to {high}" if has_interval else ""
        row["t"] = format_delta(row["metric"], row["delta"]) + (f" ({low} to {high})" if has_interval else "")
        row["n"] = "" if row["n_pairs"] is None else formatting.pluralize(int(row["n_pairs"]), "pair")
    if not all(row["interval"] for row in rows):
        notes.append("A point without a line has too few pairs for an interval.")
    return Plot(df, _TITLE, _table(rows), tuple(notes), _forest(rows))


def _forest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One block a metric: a point a group with its interval, and texts to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": None, "scale": {"zero": True, "padding": 12}}
    x["axis"] = {"tickCount": 6, "labelExpr": vega.SHORT}
    encodings = marks.verdict_encodings()
    ends: dict[str, Any] = {"x": x | {"field": "l"}, "x2": {"field": "h"}, "color": encodings["color"]}
    line = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}
    point = {"mark": marks.POINT, "encoding": {"x": x, **encodings}}
    texts = [
        marks.text_column("v", 12, bold=True),
        marks.text_column("t", 72),
        marks.text_column("n", 240),
    ]
    tips = [{"field": "m", "title": "metric"}, {"field": "g", "title": "group"}, {"field": "t", "title": "difference"}]
    tips += [{"field": "v", "title": "b is"}, {"field": "n", "title": "pairs"}]
    blocks = []
    for metric in dict.fromkeys(row["m"] for row in rows):
        block_rows = [row for row in rows if row["m"] == metric]
        is_single = all(row["of"] == formatting.MISSING for row in block_rows)
        names = [metric if is_single else row["of"] for row in block_rows]
        values = [
            {
                "g": name,
                "d": row["delta"],
                "l": row["low"],
                "h": row["high"],
                **{k: row[k] for k in ("m", "o", "v", "t", "n")},
            }
            for name, row in zip(names, block_rows, strict=True)
        ]
        encoding = {"y": vega.row_axis(names, "g", grid=False), "tooltip": tips}
        title = None if is_single else metric
        blocks.append(marks.block(title, values, encoding, marks.zero_line(), line, point, *texts))
    return {"vconcat": blocks, "spacing": 12}


def _table(rows: list[dict[str, Any]]) -> Table:
    numbers = ("pairs", "a", "b", "difference")
    columns = [Column("group"), Column("metric"), *(Column(n, number=True) for n in numbers)]
    cells = []
    for row in rows:
        pairs = None if row["n_pairs"] is None else int(row["n_pairs"])
        values = (format_metric(row["metric"], row[side]) for side in ("a", "b"))
        delta = format_delta(row["metric"], row["delta"])
        cells.append(
            [
                row.get("group") or "",
                row["metric"],
                formatting.format_count(pairs),
                *values,
                delta,
                row["interval"],
                row["v"],
            ]
        )
    return Table(_TITLE, [*columns, Column("interval"), Column("b is")], cells).without_empty_columns()
