"""Paired differences between groups, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import difference_marks, vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require
from kern_nb.text import formatting
from kern_nb.text.metrics import format_delta, format_metric
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

_TITLE = "Paired differences from the baseline"
_COLUMNS = ("metric", "n_pairs", "a", "b", "delta", "low", "high", "better")
# The interval of "neither" holds 0: that is no proof that they are alike.
_VERDICTS = {"b": "better", "a": "worse", "neither": "not clear"}


def groups(metrics: pd.DataFrame) -> Plot:
    """The mean paired difference of each metric with its interval, beside a line at zero; each metric in its own unit.

    Args:
        metrics: As ``GroupComparison.metrics``: metric, n_pairs, a, b, delta, low, high, better, and group where there
            are several.

    Returns:
        A plot; its ``df`` are the metrics that are drawn. Those whose difference is not known are told in the notes.

    Raises:
        BadUsage: columns are missing.
    """
    require(metrics, _COLUMNS, "the metrics of a GroupComparison")
    drawn = difference_marks.finite(metrics, "delta")
    df, rows, notes = difference_marks.read(metrics[drawn], _COLUMNS, "group", _VERDICTS)
    if not drawn.all():
        notes.append(f"No pair has values of {difference_marks.named(metrics['metric'][~drawn])}.")
    if not rows:
        return Plot(df, _TITLE, Table("There are no paired differences to draw", [], []), tuple(notes))
    for row in rows:
        low, high = (format_metric(row["metric"], row[end]) for end in ("low", "high"))
        has_both = row["low"] is not None and row["high"] is not None
        row["interval"] = f"{low} to {high}" if has_both else ""
        row["t"] = format_delta(row["metric"], row["delta"]) + (f" ({low} to {high})" if has_both else "")
        row["n"] = "" if row["n_pairs"] is None else formatting.pluralize(int(row["n_pairs"]), "pair")
    if not all(row["interval"] for row in rows):
        notes.append("A point without a line has too few pairs for an interval.")
    return Plot(df, _TITLE, _table(rows), tuple(notes), _forest(rows))


def _forest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One block a metric: a point a group, with its interval, and what it says to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": None, "scale": {"zero": True, "padding": 12}}
    x["axis"] = {"tickCount": 6, "labelExpr": vega.SHORT}
    looks = difference_marks.looks()
    ends: dict[str, Any] = {"x": x | {"field": "l"}, "x2": {"field": "h"}, "color": looks["color"]}
    line = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}
    point = {"mark": difference_marks.POINT, "encoding": {"x": x, **looks}}
    texts = [
        difference_marks.beside("v", 12, bold=True),
        difference_marks.beside("t", 72),
        difference_marks.beside("n", 240),
    ]
    tips = [{"field": "m", "title": "metric"}, {"field": "g", "title": "group"}, {"field": "t", "title": "difference"}]
    tips += [{"field": "v", "title": "b is"}, {"field": "n", "title": "pairs"}]
    blocks = []
    for metric in dict.fromkeys(row["m"] for row in rows):
        mine = [row for row in rows if row["m"] == metric]
        is_alone = all(row["of"] == formatting.MISSING for row in mine)
        names = [metric if is_alone else row["of"] for row in mine]
        values = [
            {
                "g": name,
                "d": row["delta"],
                "l": row["low"],
                "h": row["high"],
                **{k: row[k] for k in ("m", "o", "v", "t", "n")},
            }
            for name, row in zip(names, mine, strict=True)
        ]
        encoding = {"y": difference_marks.rows_of(names, "g"), "tooltip": tips}
        title = None if is_alone else metric
        blocks.append(
            difference_marks.block(title, values, encoding, difference_marks.zero_line(), line, point, *texts)
        )
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
