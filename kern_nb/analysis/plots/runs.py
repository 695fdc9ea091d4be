"""The plot of tokens, cost and time over runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import make_labels, require_columns, to_records
from kern_nb.text.formatting import pluralize
from kern_nb.text.metrics import format_metric
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

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
    title = "Tokens, cost and time of sessions" if is_flat else _TITLE
    drawing = _side_by_side(df, metrics) if is_flat else _lines(df, metrics)
    return Plot(df, title, _table(title, df, metrics), (*selection_notes, *notes), drawing)


def _select_newest(runs: pd.DataFrame, limit: int) -> tuple[pd.DataFrame, list[str]]:
    """The runs of the newest sessions, oldest first; without times, in the order of the frame."""
    newest = runs.groupby("session_id", sort=False)["created_at" if "created_at" in runs else "run_index"].max()
    ids = list((newest.sort_values(kind="stable") if "created_at" in runs else newest).index)
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


def _lines(df: pd.DataFrame, metrics: list[_Metric]) -> dict[str, Any]:
    ids = list(dict.fromkeys(df["session_id"]))
    names = dict(zip(ids, make_labels(ids), strict=True))
    rows = [
        {"x": row["run_index"], "s": names[row["session_id"]], **{m.title: row[m.column] for m in metrics}}
        for row in to_records(df, df.columns)
    ]
    domain = list(names.values())
    legend = {"title": "session", "orient": "bottom", "columns": 2, "symbolSize": 70} if len(ids) > 1 else None
    size = 45 if len(df) <= _MAX_LARGE_POINTS * len(ids) else 16
    points = {"type": "point", "filled": True, "size": size, "opacity": 1}
    panels = []
    for encoding in _panels(metrics, rows, "run"):
        # Equal legends are merged into one.
        session = {"field": "s", "type": "nominal", "legend": legend}
        color = session | {"scale": {"domain": domain, "range": list(vega.PALETTE[: len(ids)])}}
        shape = session | {"scale": {"domain": domain, "range": list(vega.SHAPES[: len(ids)])}}
        layers = [
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"color": color}},
            {"mark": points, "encoding": {"color": color, "shape": shape}},
        ]
        tooltip = [{"field": "s", "title": "session"}, {"field": "x", "title": "run"}]
        panels.append(_panel(encoding, layers, tooltip))
    return {"data": {"values": rows}, "vconcat": panels, "spacing": 14}


def _side_by_side(df: pd.DataFrame, metrics: list[_Metric]) -> dict[str, Any]:
    rows = [
        {"x": n, "s": name, **{m.title: row[m.column] for m in metrics}}
        for n, (name, row) in enumerate(zip(make_labels(df["session_id"]), to_records(df, df.columns), strict=True), 1)
    ]
    points = {"type": "point", "filled": True, "size": 40 if len(df) <= _MAX_LARGE_POINTS else 16, "opacity": 0.8}
    points["color"] = vega.BLUE
    tooltip = [{"field": "s", "title": "session"}]
    panels = [_panel(axes, [{"mark": points}], tooltip) for axes in _panels(metrics, rows, "sessions, oldest first")]
    return {"data": {"values": rows}, "vconcat": panels, "spacing": 14}


def _panels(metrics: list[_Metric], rows: list[dict[str, Any]], title: str) -> Iterator[dict[str, Any]]:
    """The axes of each metric's panel. Only the last has a title and labels below."""
    ticks = vega.integer_ticks(min(row["x"] for row in rows), max(row["x"] for row in rows))
    scale = {"zero": False, "nice": False, "padding": 10}
    y_axis = {"tickCount": 4, "minExtent": _AXIS_WIDTH, "maxExtent": _AXIS_WIDTH, "labelExpr": vega.SHORT}
    for metric in metrics:
        is_last = metric == metrics[-1]
        x = {"field": "x", "type": "quantitative", "title": title if is_last else None, "scale": scale}
        y = {"field": metric.title, "type": "quantitative", "title": metric.title, "axis": y_axis}
        yield {"x": x | {"axis": ticks | {"labels": is_last}}, "y": y}


def _panel(encoding: dict[str, Any], layers: list[dict[str, Any]], tooltip: list[dict[str, Any]]) -> dict[str, Any]:
    value = {"field": encoding["y"]["field"], "type": "quantitative", "format": ",.6~g"}
    encoding = encoding | {"tooltip": [*tooltip, value]}
    return {"width": vega.WIDTH, "height": _HEIGHT, "encoding": encoding, "layer": layers}


def _table(title: str, df: pd.DataFrame, metrics: list[_Metric]) -> Table:
    columns = [Column("session"), Column("run", number=True), *(Column(m.title, number=True) for m in metrics)]
    rows = [
        [row["session_id"], f"{row['run_index']:g}", *(format_metric(m.column, row[m.column]) for m in metrics)]
        for row in to_records(df, df.columns)
    ]
    return Table(f"{title}, {pluralize(len(df), 'point')}", columns, rows)
