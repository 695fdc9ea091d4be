"""How far each metric of a comparison is from the baseline, in percent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import difference_marks, vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import records, require
from kern_nb.text import formatting
from kern_nb.text.metrics import format_metric, format_percent
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

FARTHEST = 200
"""Percent: a longer bar ends here, with an arrow beside it, so that the others can be seen."""

_CUT = 24
_TITLE = "Difference from the baseline"
_COLUMNS = ("metric", "a", "b", "delta_pct", "better")
_VERDICTS = {"b": "better", "a": "worse", "neither": "as good"}


def comparison(metrics: pd.DataFrame) -> Plot:
    """How many percent each metric is from the baseline's, and whether that is better.

    Args:
        metrics: As ``Comparison.metrics``: metric, a, b, delta_pct, better (a, b, neither or missing), and contender
            where there are several.

    Returns:
        A plot; its ``df`` are the metrics that are drawn. Those without a percentage are told in the notes; from 0 to 0
        it is 0.

    Raises:
        BadUsage: columns are missing.
    """
    require(metrics, _COLUMNS, "the metrics of a Comparison")
    nothing = (metrics["a"] == 0) & (metrics["b"] == 0)
    metrics = metrics.assign(delta_pct=metrics["delta_pct"].mask(nothing.fillna(value=False).astype(bool), 0.0))
    drawn = difference_marks.finite(metrics, "delta_pct")
    df, rows, notes = difference_marks.read(metrics[drawn], _COLUMNS, "contender", _VERDICTS)
    notes += _without(metrics[~drawn])
    if not rows:
        return Plot(df, _TITLE, Table("There is no difference in percent to draw", [], []), tuple(notes))
    for row in rows:
        row["t"] = f"{format_metric(row['metric'], row['a'])} → {format_metric(row['metric'], row['b'])}"
        row["pct"] = format_percent(row["delta_pct"])
    longest = max(abs(row["delta_pct"]) for row in rows)
    if longest > FARTHEST:
        notes.append(f"Bars with an arrow are longer than {FARTHEST} %.")
    return Plot(df, _TITLE, _table(rows), tuple(notes), _bars(rows, max(1, min(longest, FARTHEST))))


def _without(left: pd.DataFrame) -> list[str]:
    """What there is to say of metrics that have no percentage."""
    rows = records(left, ("metric", "a", "b", *(["contender"] if "contender" in left else [])))
    from_zero = [
        f"{formatting.truncate(row['metric'] or '', _CUT)} 0 → {format_metric(row['metric'] or '', row['b'])}"
        + (f" ({formatting.truncate(row['contender'], _CUT)})" if row.get("contender") else "")
        for row in rows
        if row["a"] == 0 and row["b"] is not None
    ]
    unknown = [row["metric"] for row in rows if row["a"] is None or row["b"] is None]
    notes = [f"No percentage of 0: {difference_marks.named(from_zero)}."] if from_zero else []
    return [*notes, f"Known of one only: {difference_marks.named(unknown)}."] if unknown else notes


def _bars(rows: list[dict[str, Any]], reach: float) -> dict[str, Any]:
    """One block a contender: a bar a metric, with the verdict and the values to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": "difference in percent"}
    x["scale"] = {"domain": [-reach, reach], "nice": False, "padding": 8}
    x["axis"] = {"tickCount": 7, "labelExpr": vega.PERCENT}
    looks = difference_marks.looks()
    bar = {"mark": {"type": "bar", "height": {"band": 0.55}}, "encoding": {"x": x, "color": looks["color"]}}
    sign: dict[str, Any] = {
        "mark": difference_marks.POINT,
        "encoding": {"x": {"value": difference_marks.WIDTH + 92}, **looks},
    }
    sign["transform"] = [{"filter": "datum.v"}]  # none where there is no verdict
    texts = [
        difference_marks.beside("p", 12),
        difference_marks.beside("v", 104, bold=True),
        difference_marks.beside("t", 160),
    ]
    tips = [{"field": "m", "title": "metric"}, {"field": "p", "title": "difference"}]
    tips += [{"field": "t", "title": "values"}, {"field": "v", "title": "b is"}]
    blocks = []
    for of in dict.fromkeys(row["of"] for row in rows):
        mine = [row for row in rows if row["of"] == of]
        encoding = {"y": difference_marks.rows_of([row["m"] for row in mine], "m"), "tooltip": tips}
        title = None if of == formatting.MISSING else of
        blocks.append(
            difference_marks.block(
                title, [_bar(row) for row in mine], encoding, bar, difference_marks.zero_line(), sign, *texts
            )
        )
    return {"vconcat": blocks, "spacing": 20}


def _bar(row: dict[str, Any]) -> dict[str, Any]:
    format_percent = row["delta_pct"]
    arrow = "" if abs(format_percent) <= FARTHEST else "→ " if format_percent > 0 else "← "
    shown = {"d": max(-FARTHEST, min(FARTHEST, format_percent)), "p": arrow + row["pct"]}
    return shown | {key: row[key] for key in ("m", "o", "v", "t")}


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = [Column("contender"), Column("metric"), *(Column(n, number=True) for n in ("a", "b", "difference"))]
    cells = []
    for row in rows:
        values = (format_metric(row["metric"], row[side]) for side in ("a", "b"))
        cells.append([row.get("contender") or "", row["metric"], *values, row["pct"], row["v"]])
    return Table(_TITLE, [*columns, Column("b is")], cells).without_empty_columns()
