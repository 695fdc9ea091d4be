"""Tokens, cost and time, run by run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import labels, records, require
from kern_nb.text.formatting import pluralize
from kern_nb.text.metrics import format_metric
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

MOST_SESSIONS = len(vega.SHAPES)
"""More lines than there are shapes could not be told apart."""

_TITLE = "Tokens, cost and time over runs"
_HEIGHT = 110
_AXIS = 56
_CROWDED = 60
_KEYS = ("session_id", "run_index")


class _Metric(NamedTuple):
    column: str
    title: str
    unknown: str


_METRICS = (
    _Metric("total_tokens", "tokens", "Tokens are not known of any run."),
    _Metric("cost", "cost", "Cost is not known of any run."),
    _Metric("duration_s", "seconds", "Time is not known of any run."),
)

COLUMNS = (*_KEYS, "created_at", *(metric.column for metric in _METRICS))
"""What is read of runs."""


def over_runs(runs: pd.DataFrame) -> Plot:
    """Tokens, cost and time of each run, one line a session; a value that nobody knows is a gap.

    Sessions beyond the eight newest are left out, and runs beyond 2,000 points are drawn as the mean of several
    neighbours; the notes say so. Where every session has a single run, they stand side by side, oldest first.

    Args:
        runs: As ``store.runs_df()`` gives it.

    Returns:
        A plot; its ``df`` has session_id, run_index, total_tokens, cost and duration_s.

    Raises:
        BadUsage: columns are missing.
    """
    require(runs, [*_KEYS, *(m.column for m in _METRICS)], "what store.runs_df() gives")
    if runs.empty:
        return Plot(runs, _TITLE, Table("There are no runs to draw", [], []))
    known = [m for m in _METRICS if runs[m.column].notna().any()]
    notes = [m.unknown for m in _METRICS if m not in known]
    if not known:
        return Plot(runs.iloc[:0], _TITLE, Table("Tokens, cost and time are not known of any run", [], []))
    sizes = runs["session_id"].value_counts()
    alone = len(sizes) > 1 and sizes.max() == 1
    chosen, left_out = _chosen(runs, vega.MOST_POINTS // len(known) if alone else MOST_SESSIONS)
    chosen, together = _thinned(chosen, vega.MOST_POINTS // len(known))
    if together > 1:
        notes.append(f"A point is the mean of up to {together:,} neighbouring runs.")
    df = chosen[[*_KEYS, *(m.column for m in _METRICS)]].reset_index(drop=True)
    title = "Tokens, cost and time of sessions" if alone else _TITLE
    drawing = _side_by_side(df, known) if alone else _lines(df, known)
    return Plot(df, title, _table(title, df, known), (*left_out, *notes), drawing)


def _chosen(runs: pd.DataFrame, most: int) -> tuple[pd.DataFrame, list[str]]:
    """The runs of the newest sessions, the oldest of these first; without times, in the order they came."""
    newest = runs.groupby("session_id", sort=False)["created_at" if "created_at" in runs else "run_index"].max()
    ids = list((newest.sort_values(kind="stable") if "created_at" in runs else newest).index)
    notes = [f"The {most:,} newest of {len(ids):,} sessions."] if len(ids) > most else []
    ids = ids[-most:]
    rank = {session_id: place for place, session_id in enumerate(ids)}
    kept = runs[runs["session_id"].isin(ids)]
    return kept.sort_values(list(_KEYS), key=lambda c: c.map(rank) if c.name == "session_id" else c), notes


def _thinned(runs: pd.DataFrame, most: int) -> tuple[pd.DataFrame, int]:
    """Neighbouring runs drawn together, as many as it takes; and how many that is."""
    together = -(-len(runs) // most)
    if together == 1:
        return runs, 1
    # Of each session, one group may be begun and not full: they must fit as well.
    together = -(-len(runs) // max(1, most - runs["session_id"].nunique()))
    place = runs.groupby("session_id", sort=False).cumcount() // together
    values = {name: runs[name].astype("Float64") for name in ("run_index", *(m.column for m in _METRICS))}
    means = runs.assign(**values).groupby(["session_id", place], sort=False)[list(values)].mean()
    return means.reset_index(level="session_id"), together


def _lines(df: pd.DataFrame, known: list[_Metric]) -> dict[str, Any]:
    ids = list(dict.fromkeys(df["session_id"]))
    names = dict(zip(ids, labels(ids), strict=True))
    rows = [
        {"x": row["run_index"], "s": names[row["session_id"]], **{m.title: row[m.column] for m in known}}
        for row in records(df, df.columns)
    ]
    domain = list(names.values())
    legend = {"title": "session", "orient": "bottom", "columns": 2, "symbolSize": 70} if len(ids) > 1 else None
    size = 45 if len(df) <= _CROWDED * len(ids) else 16
    points = {"type": "point", "filled": True, "size": size, "opacity": 1}
    panels = []
    for encoding in _panels(known, rows, "run"):
        # The same legend for each, or it would be no single one.
        of = {"field": "s", "type": "nominal", "legend": legend}
        color = of | {"scale": {"domain": domain, "range": list(vega.PALETTE[: len(ids)])}}
        shape = of | {"scale": {"domain": domain, "range": list(vega.SHAPES[: len(ids)])}}
        layers = [
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"color": color}},
            {"mark": points, "encoding": {"color": color, "shape": shape}},
        ]
        tooltip = [{"field": "s", "title": "session"}, {"field": "x", "title": "run"}]
        panels.append(_panel(encoding, layers, tooltip))
    return {"data": {"values": rows}, "vconcat": panels, "spacing": 14}


def _side_by_side(df: pd.DataFrame, known: list[_Metric]) -> dict[str, Any]:
    rows = [
        {"x": place, "s": name, **{m.title: row[m.column] for m in known}}
        for place, (name, row) in enumerate(zip(labels(df["session_id"]), records(df, df.columns), strict=True), 1)
    ]
    points = {"type": "point", "filled": True, "size": 40 if len(df) <= _CROWDED else 16, "opacity": 0.8}
    points["color"] = vega.BLUE
    tooltip = [{"field": "s", "title": "session"}]
    panels = [_panel(axes, [{"mark": points}], tooltip) for axes in _panels(known, rows, "sessions, oldest first")]
    return {"data": {"values": rows}, "vconcat": panels, "spacing": 14}


def _panels(known: list[_Metric], rows: list[dict[str, Any]], title: str) -> Iterator[dict[str, Any]]:
    """For each metric, where its marks stand. Only the last says what is below it."""
    ticks = vega.whole_ticks(min(row["x"] for row in rows), max(row["x"] for row in rows))
    scale = {"zero": False, "nice": False, "padding": 10}
    left = {"tickCount": 4, "minExtent": _AXIS, "maxExtent": _AXIS, "labelExpr": vega.SHORT}
    for metric in known:
        is_last = metric == known[-1]
        x = {"field": "x", "type": "quantitative", "title": title if is_last else None, "scale": scale}
        y = {"field": metric.title, "type": "quantitative", "title": metric.title, "axis": left}
        yield {"x": x | {"axis": ticks | {"labels": is_last}}, "y": y}


def _panel(encoding: dict[str, Any], layers: list[dict[str, Any]], tooltip: list[dict[str, Any]]) -> dict[str, Any]:
    value = {"field": encoding["y"]["field"], "type": "quantitative", "format": ",.6~g"}
    encoding = encoding | {"tooltip": [*tooltip, value]}
    return {"width": vega.WIDTH, "height": _HEIGHT, "encoding": encoding, "layer": layers}


def _table(title: str, df: pd.DataFrame, known: list[_Metric]) -> Table:
    columns = [Column("session"), Column("run", number=True), *(Column(m.title, number=True) for m in known)]
    rows = [
        [row["session_id"], f"{row['run_index']:g}", *(format_metric(m.column, row[m.column]) for m in known)]
        for row in records(df, df.columns)
    ]
    return Table(f"{title}, {pluralize(len(df), 'point')}", columns, rows)
