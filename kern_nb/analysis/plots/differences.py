"""The plots of differences from a baseline: of a comparison's metrics in percent, of groups with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import make_labels, require_columns, to_records
from kern_nb.text import formatting
from kern_nb.text.metrics import format_delta, format_metric, format_percent
from kern_nb.text.tables import Column, Table

MAX_PERCENT = 200
"""A longer bar ends here, with an arrow beside it, so that the others stay visible."""

_MAX_ROWS = 200
_MAX_NAMES = 6
_WIDTH = 360
"""The width of the plotting area, left of the columns of text."""

_METRICS = ("metric", "a", "b", "delta_pct", "better")
_GROUP_METRICS = ("metric", "n_pairs", "a", "b", "delta", "low", "high", "better")

_NO_VERDICT = "none"
_VERDICTS = {"b": "better", "a": "worse", "neither": "equal"}
# The interval of "neither" contains 0, which does not prove that the groups are equal.
_GROUP_VERDICTS = _VERDICTS | {"neither": "not clear"}
_STYLES = {
    "better": ("triangle-up", vega.BLUE),
    "worse": ("triangle-down", vega.ORANGE),
    "equal": ("square", vega.GREY),
    "not clear": ("circle", vega.GREY),
    _NO_VERDICT: ("circle", vega.GREY),
}
_SHAPE, _COLOR = (
    {
        "field": "o",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(_STYLES), "range": [style[part] for style in _STYLES.values()]},
    }
    for part in (0, 1)
)
_POINT = {"type": "point", "filled": True, "size": 90, "opacity": 1}
_ZERO_LINE = {
    "data": {"values": [{}]},
    "mark": {"type": "rule", "color": vega.MUTED, "strokeWidth": 1},
    "encoding": {"x": {"datum": 0}, "y": {"value": 0}, "y2": {"value": "height"}, "tooltip": None},
}


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
    require_columns(metrics, _METRICS, "the metrics of a Comparison")
    both_zero = (metrics["a"] == 0) & (metrics["b"] == 0)
    metrics = metrics.assign(delta_pct=metrics["delta_pct"].mask(both_zero.fillna(value=False).astype(bool), 0.0))
    has_percent = _is_finite(metrics, "delta_pct")
    df, rows, notes = _select_rows(metrics[has_percent], _METRICS, "contender", _VERDICTS)
    notes += _omission_notes(metrics[~has_percent])
    title = "Difference from the baseline"
    if not rows:
        return Plot(df, title, Table("No difference in percent to plot", [], []), tuple(notes))
    longest = max(abs(row["delta_pct"]) for row in rows)
    if longest > MAX_PERCENT:
        notes.append(f"Bars with an arrow exceed {MAX_PERCENT} %.")
    for row in rows:
        row["d"] = max(-MAX_PERCENT, min(MAX_PERCENT, row["delta_pct"]))
        row["difference"] = format_percent(row["delta_pct"])
        arrow = "" if row["d"] == row["delta_pct"] else "→ " if row["d"] > 0 else "← "
        row["p"] = arrow + row["difference"]
        row["t"] = f"{row['a_text']} → {row['b_text']}"
    columns = {"contender": "contender", "metric": "metric", "a": "a_text", "b": "b_text", "difference": "difference"}
    table = _table(title, rows, columns | {"b is": "v"})
    return Plot(df, title, table, tuple(notes), _bars(rows, max(1, min(longest, MAX_PERCENT))))


def _omission_notes(metrics: pd.DataFrame) -> list[str]:
    rows = to_records(metrics, ("metric", "a", "b", *(["contender"] if "contender" in metrics else [])))
    from_zero = [
        f"{formatting.truncate(row['metric'] or '', 24)} 0 → {format_metric(row['metric'] or '', row['b'])}"
        + (f" ({formatting.truncate(row['contender'], 24)})" if row.get("contender") else "")
        for row in rows
        if row["a"] == 0 and row["b"] is not None
    ]
    unknown = [row["metric"] for row in rows if row["a"] is None or row["b"] is None]
    notes = [f"No percentage with a baseline of 0: {_join_names(from_zero)}."] if from_zero else []
    return [*notes, f"Known for one side only: {_join_names(unknown)}."] if unknown else notes


def _bars(rows: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """One block a contender: a bar a metric, with verdict and values to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": "difference in percent"}
    x["scale"] = {"domain": [-limit, limit], "nice": False, "padding": 8}
    x["axis"] = {"tickCount": 7, "labelExpr": vega.PERCENT}
    bar = {"mark": {"type": "bar", "height": {"band": 0.55}}, "encoding": {"x": x, "color": _COLOR}}
    sign: dict[str, Any] = {"mark": _POINT, "encoding": {"x": {"value": _WIDTH + 92}, "shape": _SHAPE, "color": _COLOR}}
    sign["transform"] = [{"filter": "datum.v"}]  # no sign without a verdict
    texts = [_text_column("p", 12), _text_column("v", 104, bold=True), _text_column("t", 160)]
    tips = [{"field": "m", "title": "metric"}, {"field": "p", "title": "difference"}]
    tips += [{"field": "t", "title": "values"}, {"field": "v", "title": "b is"}]
    blocks = []
    for of in dict.fromkeys(row["of"] for row in rows):
        values = [{key: row[key] for key in ("d", "p", "m", "o", "v", "t")} for row in rows if row["of"] == of]
        encoding = {"y": vega.row_axis([row["m"] for row in values], "m", grid=False), "tooltip": tips}
        title = None if of == formatting.MISSING else of
        blocks.append(_block(title, values, encoding, bar, _ZERO_LINE, sign, *texts))
    return {"vconcat": blocks, "spacing": 20}


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
    require_columns(metrics, _GROUP_METRICS, "the metrics of a GroupComparison")
    is_known = _is_finite(metrics, "delta")
    df, rows, notes = _select_rows(metrics[is_known], _GROUP_METRICS, "group", _GROUP_VERDICTS)
    if not is_known.all():
        notes.append(f"No pair has a value for {_join_names(metrics['metric'][~is_known])}.")
    title = "Paired differences from the baseline"
    if not rows:
        return Plot(df, title, Table("No paired differences to plot", [], []), tuple(notes))
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
    columns = {"group": "group", "metric": "metric", "pairs": "pairs", "a": "a_text", "b": "b_text"}
    columns |= {"difference": "difference", "interval": "interval", "b is": "v"}
    return Plot(df, title, _table(title, rows, columns), tuple(notes), _forest(rows))


def _forest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One block a metric: a point a group with its interval, and texts to the right."""
    x: dict[str, Any] = {"field": "d", "type": "quantitative", "title": None, "scale": {"zero": True, "padding": 12}}
    x["axis"] = {"tickCount": 6, "labelExpr": vega.SHORT}
    ends: dict[str, Any] = {"x": x | {"field": "l"}, "x2": {"field": "h"}, "color": _COLOR}
    line = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}
    point = {"mark": _POINT, "encoding": {"x": x, "shape": _SHAPE, "color": _COLOR}}
    texts = [_text_column("v", 12, bold=True), _text_column("t", 72), _text_column("n", 240)]
    tips = [{"field": "m", "title": "metric"}, {"field": "g", "title": "group"}, {"field": "t", "title": "difference"}]
    tips += [{"field": "v", "title": "b is"}, {"field": "n", "title": "pairs"}]
    blocks = []
    for metric in dict.fromkeys(row["m"] for row in rows):
        block_rows = [row for row in rows if row["m"] == metric]
        is_single = all(row["of"] == formatting.MISSING for row in block_rows)
        names = [metric if is_single else row["of"] for row in block_rows]
        values = [
            {"g": name, "d": row["delta"], "l": row["low"], "h": row["high"]}
            | {key: row[key] for key in ("m", "o", "v", "t", "n")}
            for name, row in zip(names, block_rows, strict=True)
        ]
        encoding = {"y": vega.row_axis(names, "g", grid=False), "tooltip": tips}
        title = None if is_single else metric
        blocks.append(_block(title, values, encoding, _ZERO_LINE, line, point, *texts))
    return {"vconcat": blocks, "spacing": 12}


def _select_rows(
    df: pd.DataFrame, names: Iterable[str], of: str, verdicts: Mapping[str, str]
) -> tuple[pd.DataFrame, list[dict[str, Any]], list[str]]:
    """Return the frame and the records of the rows to draw, and a note where rows are left out.

    A record has also ``m`` and ``of``, the labels of metric and contender (of the column ``of``); ``o`` and ``v``, the
    verdict as a kind and as text; ``a_text`` and ``b_text``, the formatted values.
    """
    notes = [f"Only the first {_MAX_ROWS} are drawn."] if len(df) > _MAX_ROWS else []
    df = df.head(_MAX_ROWS).reset_index(drop=True)
    rows = to_records(df, [*names, *([of] if of in df else [])])
    for row in rows:
        row["metric"] = row["metric"] or ""
        row["o"] = verdicts.get(row["better"], _NO_VERDICT)
        row["v"] = verdicts.get(row["better"], "")
        row["a_text"], row["b_text"] = (format_metric(row["metric"], row[side]) for side in ("a", "b"))
    for column, label in (("metric", "m"), (of, "of")):
        distinct = list(dict.fromkeys(row.get(column) for row in rows))
        labels = dict(zip(distinct, make_labels(distinct), strict=True))
        for row in rows:
            row[label] = labels[row.get(column)]
    return df, rows, notes


def _is_finite(df: pd.DataFrame, column: str) -> pd.Series[bool]:
    return pd.Series([row[column] is not None for row in to_records(df, [column])], index=df.index, dtype=bool)


def _join_names(names: Iterable[str | None]) -> str:
    distinct = formatting.truncate_distinct([name or "" for name in dict.fromkeys(names)], 60)
    return formatting.join_first(distinct, _MAX_NAMES)


def _text_column(column: str, offset: int, *, bold: bool = False) -> dict[str, Any]:
    mark = {"type": "text", "align": "left", "fontWeight": "bold" if bold else "normal"}
    return {"mark": mark, "encoding": {"x": {"value": _WIDTH + offset}, "text": {"field": column}}}


def _block(title: str | None, values: list[dict[str, Any]], encoding: dict[str, Any], *layers: Any) -> dict[str, Any]:
    spec = {"data": {"values": values}, "width": _WIDTH, "height": {"step": 24}}
    spec |= {"encoding": encoding, "layer": list(layers)}
    return spec if title is None else spec | {"title": vega.make_title(title) | {"offset": 6}}


def _table(title: str, rows: list[dict[str, Any]], keys: Mapping[str, str]) -> Table:
    columns = [Column(name, number=name in ("pairs", "a", "b", "difference")) for name in keys]
    cells = [[row.get(key) or "" for key in keys.values()] for row in rows]
    return Table(title, columns, cells).without_empty_columns()
