"""The plot of tokens, cost and time over runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import make_labels, require_columns, to_records
from kern_nb.text.formatting import pluralize
from kern_nb.text.metrics import format_metric
from kern_nb.text.tables import Column, Table

MAX_SESSIONS = len(vega.SHAPES)
"""One line a shape: more could not be distinguished."""

_TITLE = "Tokens, cost and time over runs"
_HEIGHT = 110
_AXIS_WIDTH = 56
_MAX_LARGE_POINTS = 60
_KEYS = ("session_id", "run_index")


class _Metric(NamedTuple):
    column: str
    title: str
    note: str


_METRICS = (
    _Metric("total_tokens", "tokens", "Tokens are unknown for all runs."),
    _Metric("cost", "cost", "Cost is unknown for all runs."),
    _Metric("duration_s", "seconds", "Time is unknown for all runs."),
)

COLUMNS = (*_KEYS, "created_at", *(metric.column for metric in _METRICS))
"""The columns of ``runs_df`` that are read."""


def over_runs(runs: pd.DataFrame) -> Plot:
    """Plot tokens, cost and time of each run, one line a session; an unknown value is a gap.

    Sessions beyond the eight newest are left out, and more runs than 2,000 points are drawn as means of neighbours; the
    notes say so. Where every session has a single run, they are side by side, oldest first.

    Args:
        runs: The result of ``store.runs_df()``.

    Returns:
        A plot; its ``df`` has session_id, run_index, total_tokens, cost and duration_s.

    Raises:
        BadUsage: A column is missing.
    """
    require_columns(runs, [*_KEYS, *(m.column for m in _METRICS)], "the result of store.runs_df()")
    if runs.empty:
        return Plot(runs, _TITLE, Table("No runs to plot", [], []))
    metrics = [m for m in _METRICS if runs[m.column].notna().any()]
    notes = [m.note for m in _METRICS if m not in metrics]
    if not metrics:
        return Plot(runs.iloc[:0], _TITLE, Table("Tokens, cost and time are unknown for all runs", [], []))
    sizes = runs["session_id"].value_counts()
    is_flat = len(sizes) > 1 and sizes.max() == 1
    max_points = vega.MAX_POINTS // len(metrics)
    selected, selection_notes = _select_newest(runs, max_points if is_flat else MAX_SESSIONS)
    selected, group_size = _merge_neighbours(selected, max_points)
    if group_size > 1:
        notes.append(f"A point is the mean of up to {group_size:,} adjacent runs.")
    df = selected[[*_KEYS, *(m.column for m in _METRICS)]].reset_index(drop=True)
    rows = to_records(df, df.columns)
    title = "Tokens, cost and time of sessions" if is_flat else _TITLE
    drawing = _side_by_side(rows, metrics) if is_flat else _lines(rows, metrics)
    columns = [Column("session"), Column("run", number=True), *(Column(m.title, number=True) for m in metrics)]
    cells = [
        [row["session_id"], f"{row['run_index']:g}", *(format_metric(m.column, row[m.column]) for m in metrics)]
        for row in rows
    ]
    table = Table(f"{title}, {pluralize(len(rows), 'point')}", columns, cells)
    return Plot(df, title, table, (*selection_notes, *notes), drawing)


def _select_newest(runs: pd.DataFrame, limit: int) -> tuple[pd.DataFrame, list[str]]:
    """The runs of the newest sessions, oldest first; without times, in the order of the frame."""
    if "created_at" in runs:
        ids = list(runs.groupby("session_id", sort=False)["created_at"].max().sort_values(kind="stable").index)
    else:
        ids = list(runs["session_id"].dropna().unique())
    notes = [f"The {limit:,} newest of {len(ids):,} sessions."] if len(ids) > limit else []
    ids = ids[-limit:]
    rank = {session_id: n for n, session_id in enumerate(ids)}
    selected = runs[runs["session_id"].isin(ids)]
    return selected.sort_values(list(_KEYS), key=lambda c: c.map(rank) if c.name == "session_id" else c), notes


def _merge_neighbours(runs: pd.DataFrame, limit: int) -> tuple[pd.DataFrame, int]:
    """Merge adjacent runs to their means where there are too many; and the size of a group."""
    if len(runs) <= limit:
        return runs, 1
    # The last group of each session may be incomplete, and must fit as well.
    group_size = -(-len(runs) // max(1, limit - runs["session_id"].nunique()))
    group = runs.groupby("session_id", sort=False).cumcount() // group_size
    values = {name: runs[name].astype("Float64") for name in ("run_index", *(m.column for m in _METRICS))}
    means = runs.assign(**values).groupby(["session_id", group], sort=False)[list(values)].mean()
    return means.reset_index(level="session_id"), group_size


def _lines(rows: list[dict[str, Any]], metrics: list[_Metric]) -> dict[str, Any]:
    ids = list(dict.fromkeys(row["session_id"] for row in rows))
    names = dict(zip(ids, make_labels(ids), strict=True))
    # Equal legends are merged into one.
    legend = {"title": "session", "orient": "bottom", "columns": 2, "symbolSize": 70} if len(ids) > 1 else None
    session = {"field": "s", "type": "nominal", "legend": legend}
    color, shape = (
        session | {"scale": {"domain": list(names.values()), "range": list(distinct[: len(ids)])}}
        for distinct in (vega.PALETTE, vega.SHAPES)
    )
    size = 45 if len(rows) <= _MAX_LARGE_POINTS * len(ids) else 16
    points = {"type": "point", "filled": True, "size": size, "opacity": 1}
    layers = [
        {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"color": color}},
        {"mark": points, "encoding": {"color": color, "shape": shape}},
    ]
    tooltip = [{"field": "s", "title": "session"}, {"field": "x", "title": "run"}]
    positions = [(row["run_index"], names[row["session_id"]]) for row in rows]
    return _panels(rows, metrics, positions, "run", layers, tooltip)


def _side_by_side(rows: list[dict[str, Any]], metrics: list[_Metric]) -> dict[str, Any]:
    points = {"type": "point", "filled": True, "size": 40 if len(rows) <= _MAX_LARGE_POINTS else 16, "opacity": 0.8}
    points["color"] = vega.BLUE
    positions = list(enumerate(make_labels(row["session_id"] for row in rows), 1))
    tooltip = [{"field": "s", "title": "session"}]
    return _panels(rows, metrics, positions, "sessions, oldest first", [{"mark": points}], tooltip)


def _panels(
    rows: list[dict[str, Any]],
    metrics: list[_Metric],
    positions: Sequence[tuple[float, str]],
    title: str,
    layers: list[dict[str, Any]],
    tooltip: list[dict[str, Any]],
) -> dict[str, Any]:
    """One panel a metric, the rows at their positions. Only the last has a title and labels below."""
    values = [
        {"x": x, "s": name, **{m.title: row[m.column] for m in metrics}}
        for (x, name), row in zip(positions, rows, strict=True)
    ]
    ticks = vega.integer_ticks(min(positions)[0], max(positions)[0])
    scale = {"zero": False, "nice": False, "padding": 10}
    y_axis = {"tickCount": 4, "minExtent": _AXIS_WIDTH, "maxExtent": _AXIS_WIDTH, "labelExpr": vega.SHORT}
    panels = []
    for metric in metrics:
        is_last = metric == metrics[-1]
        x: dict[str, Any] = {"field": "x", "type": "quantitative", "title": title if is_last else None, "scale": scale}
        y = {"field": metric.title, "type": "quantitative", "title": metric.title, "axis": y_axis}
        tip = {"field": metric.title, "type": "quantitative", "format": ",.6~g"}
        encoding = {"x": x | {"axis": ticks | {"labels": is_last}}, "y": y, "tooltip": [*tooltip, tip]}
        panels.append({"width": vega.WIDTH, "height": _HEIGHT, "encoding": encoding, "layer": layers})
    return {"data": {"values": values}, "vconcat": panels, "spacing": 14}
