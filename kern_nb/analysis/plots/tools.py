"""The plot of tool calls by outcome."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import make_labels, require_columns, to_records
from kern_nb.text.formatting import pluralize
from kern_nb.text.tables import Column, Table

MAX_TOOLS = 30

_TITLE = "Tool calls"
_COLUMNS = ("succeeded", "failed", "not_known")
_OUTCOMES = ("succeeded", "failed", "unknown outcome")
_STEP = 24


def tool_use(tool_calls: pd.DataFrame) -> Plot:
    """Plot the calls of each tool by outcome, the most called first.

    Calls by a simulated user are not counted. Tools beyond the 30 most called are one bar.

    Args:
        tool_calls: The result of ``store.tool_calls_df()``.

    Returns:
        A plot; its ``df`` has tool_name, calls, succeeded, failed and not_known.

    Raises:
        BadUsage: A column is missing.
    """
    require_columns(tool_calls, ("tool_name", "is_error"), "the result of store.tool_calls_df()")
    calls, notes = tool_calls, []
    if "caller" in calls:
        by_user = (calls["caller"] == "user").fillna(value=False).astype(bool)
        calls = calls[~by_user]
        notes = [f"{pluralize(int(by_user.sum()), 'call')} by a simulated user not counted."] if by_user.any() else []
    tools = _count_by_tool(calls)
    if tools.empty:
        return Plot(tools, _TITLE, Table("No tool calls to plot", [], [], " ".join(notes)), tuple(notes))
    rows = to_records(tools, tools.columns)
    columns = [Column("tool"), *(Column(title, number=True) for title in ("calls", *_OUTCOMES))]
    cells = [[row["tool_name"] or "", *(f"{row[n]:,}" for n in tools.columns[1:])] for row in rows]
    table = Table(f"{_TITLE} by tool", columns, cells)
    return Plot(tools, _TITLE, table, tuple(notes), _bars(tools))


def _count_by_tool(calls: pd.DataFrame) -> pd.DataFrame:
    failed = calls["is_error"].astype("boolean")
    flags = calls[["tool_name"]].assign(
        calls=1,
        succeeded=(~failed).fillna(value=False).astype(int),
        failed=failed.fillna(value=False).astype(int),
        not_known=failed.isna().astype(int),
    )
    sums = flags.groupby("tool_name", dropna=False, sort=True).sum().reset_index()
    return sums.sort_values("calls", ascending=False, kind="stable", ignore_index=True)


def _bars(tools: pd.DataFrame) -> dict[str, Any]:
    rows = to_records(tools.head(MAX_TOOLS), tools.columns)
    names = make_labels(row["tool_name"] for row in rows)
    overflow = tools.iloc[MAX_TOOLS:]
    if len(overflow):
        names.append(pluralize(len(overflow), "other tool"))
        rows.append({name: int(overflow[name].sum()) for name in tools.columns[1:]})
    parts, ends = [], []
    for name, row in zip(names, rows, strict=True):
        for n, (column, outcome) in enumerate(zip(_COLUMNS, _OUTCOMES, strict=True)):
            if row[column]:
                parts.append({"t": name, "n": row[column], "o": outcome, "k": n})
        failed = f", {row['failed']:,} failed" if row["failed"] else ""
        ends.append({"t": name, "n": row["calls"], "l": f"{row['calls']:,}{failed}"})
    y = vega.row_axis(names, "t")
    axis = vega.integer_ticks(0, max(end["n"] for end in ends)) | {"grid": True}
    x = {"field": "n", "type": "quantitative", "title": "calls", "axis": axis}
    # Full for success, hollow for failure: colour alone is not enough.
    outline = {"domain": list(_OUTCOMES), "range": [vega.BLUE, vega.ORANGE, vega.GREY]}
    fill = {"domain": list(_OUTCOMES), "range": [vega.BLUE, "#ffffff", "#d4d4d4"]}
    present = [o for o in _OUTCOMES if any(part["o"] == o for part in parts)]
    legend = {"title": None, "orient": "top", "values": present, "symbolStrokeWidth": 1.5}
    tips = [{"field": "t", "title": "tool"}, {"field": "o", "title": "outcome"}, {"field": "n", "title": "calls"}]
    bars = {
        "data": {"values": parts},
        "mark": {"type": "bar", "strokeWidth": 1.5, "height": {"band": 0.7}},
        "encoding": {
            "y": y,
            "x": x,
            "fill": {"field": "o", "type": "nominal", "scale": fill, "legend": legend},
            "stroke": {"field": "o", "type": "nominal", "scale": outline, "legend": legend},
            "order": {"field": "k"},
            "tooltip": tips,
        },
    }
    texts = {
        "data": {"values": ends},
        "mark": {"type": "text", "align": "left", "dx": 6},
        "encoding": {"y": y, "x": x, "text": {"field": "l"}},
    }
    return {"width": vega.WIDTH - 120, "height": {"step": _STEP}, "layer": [bars, texts]}
