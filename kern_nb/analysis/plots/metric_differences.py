"""The plot of a comparison's metrics: the difference from the baseline in percent."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kern_nb.analysis.plots import difference_marks as marks
from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require_columns, to_records
from kern_nb.text import formatting
from kern_nb.text.metrics import format_metric, format_percent
from kern_nb.text.tables import Table

MAX_PERCENT = 200
"""A longer bar ends here, with an arrow beside it, so that the others stay visible."""

_NAME_WIDTH = 24
_TITLE = "Difference from the baseline"
_COLUMNS = ("metric", "a", "b", "delta_pct", "better")
_VERDICTS = {"b": "better", "a": "worse", "neither": "equal"}
_TABLE = {"contender": "contender", "metric": "metric", "a": "a_text", "b": "b_text", "difference": "pct", "b is": "v"}


def comparison(metrics: pd.DataFrame) -> Plot:
    """Plot the difference of each metric from the baseline in percent, and whether that is better.

    Args:
        metrics: ``Comparison.metrics``: metric, a, b, delta_pct, better (a, b, neither or missing), and contender where
            there are several.

    Returns:
        A plot; its ``df`` has the metrics that are drawn. The notes name those without a percentage; from 0 to 0 it is
        0.

    Raises:
        BadUsage: A column is missing.
    """
    require_columns(metrics, _COLUMNS, "the metrics of a Comparison")
    both_zero = (metrics["a"] == 0) & (metrics["b"] == 0)
    metrics = metrics.assign(delta_pct=metrics["delta_pct"].mask(both_zero.fillna(value=False).astype(bool), 0.0))
    has_percent = marks.is_finite(metrics, "delta_pct")
    df, rows, notes = marks.select_rows(metrics[has_percent], _COLUMNS, "contender", _VERDICTS)
    notes += _omission_notes(metrics[~has_percent])
    if not rows:
        return Plot(df, _TITLE, Table("No difference in percent to plot", [], []), tuple(notes))
    for row in rows:
        row["t"] = f"{row['a_text']} → {row['b_text']}"
        row["pct"] = format_percent(row["delta_pct"])
    longest = max(abs(row["delta_pct"]) for row in rows)
    if longest > MAX_PERCENT:
        notes.append(f"Bars with an arrow exceed {MAX_PERCENT} %.")
    drawing = _bars(rows, max(1, min(longest, MAX_PERCENT)))
    return Plot(df, _TITLE, marks.build_table(_TITLE, rows, _TABLE), tuple(notes), drawing)


def _omission_notes(metrics: pd.DataFrame) -> list[str]:
    """Notes on metrics without a percentage."""
    rows = to_records(metrics, ("metric", "a", "b", *(["contender"] if "contender" in metrics else [])))
    from_zero = [
        f"{formatting.truncate(row['metric'] or '', _NAME_WIDTH)} 0 → {format_metric(row['metric'] or '', row['b'])}"
        + (f" ({formatting.truncate(row['contender'], _NAME_WIDTH)})" if row.get("contender") else "")
        for row in rows
        if row["a"] == 0 and row["b"] is not None
    ]
    unknown = [row["metric"] for row in rows if row["a"] is None or row["b"] is None]
    notes = [f"No percentage with a baseline of 0: {marks.join_names(from_zero)}."] if from_zero else []
    return [*notes, f"Known for one side only: {marks.join_names(unknown)}."] if unknown else notes


def _bars(rows: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """One block a contender: a bar a metric, with verdict and values to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": "difference in percent"}
    x["scale"] = {"domain": [-limit, limit], "nice": False, "padding": 8}
    x["axis"] = {"tickCount": 7, "labelExpr": vega.PERCENT}
    encodings = marks.verdict_encodings()
    bar = {"mark": {"type": "bar", "height": {"band": 0.55}}, "encoding": {"x": x, "color": encodings["color"]}}
    sign: dict[str, Any] = {"mark": marks.POINT, "encoding": {"x": {"value": marks.WIDTH + 92}, **encodings}}
    sign["transform"] = [{"filter": "datum.v"}]  # no sign without a verdict
    texts = [marks.text_column("p", 12), marks.text_column("v", 104, bold=True), marks.text_column("t", 160)]
    tips = [{"field": "m", "title": "metric"}, {"field": "p", "title": "difference"}]
    tips += [{"field": "t", "title": "values"}, {"field": "v", "title": "b is"}]
    blocks = []
    for of in dict.fromkeys(row["of"] for row in rows):
        block_rows = [row for row in rows if row["of"] == of]
        encoding = {"y": vega.row_axis([row["m"] for row in block_rows], "m", grid=False), "tooltip": tips}
        title = None if of == formatting.MISSING else of
        values = [_bar(row) for row in block_rows]
        blocks.append(marks.block(title, values, encoding, bar, marks.zero_line(), sign, *texts))
    return {"vconcat": blocks, "spacing": 20}


def _bar(row: dict[str, Any]) -> dict[str, Any]:
    percent = row["delta_pct"]
    arrow = "" if abs(percent) <= MAX_PERCENT else "→ " if percent > 0 else "← "
    values = {"d": max(-MAX_PERCENT, min(MAX_PERCENT, percent)), "p": arrow + row["pct"]}
    return values | {key: row[key] for key in ("m", "o", "v", "t")}
