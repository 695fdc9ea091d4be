"""Which tools were called, and how often that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import labels, records, require
from kern_nb.text.formatting import pluralize
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

MOST_TOOLS = 30

_TITLE = "Tool calls"
_OUTCOMES = ("succeeded", "failed", "outcome not known")
_STEP = 24


def tool_use(tool_calls: pd.DataFrame) -> Plot:
    """Calls of each tool, most called first: those that succeeded, failed, and of which that is not known.

    Calls by a simulated user are not counted. Tools beyond the 30 most called are drawn as one.

    Args:
        tool_calls: As ``store.tool_calls_df()`` gives it.

    Returns:
        A plot; its ``df`` has tool_name, calls, succeeded, failed and not_known.

    Raises:
        BadUsage: columns are missing.
    """
    require(tool_calls, ("tool_name", "is_error"), "what store.tool_calls_df() gives")
    calls, notes = tool_calls, []
    if "caller" in calls:
        by_user = (calls["caller"] == "user").fillna(value=False).astype(bool)
        calls = calls[~by_user]
        notes = [f"{pluralize(int(by_user.sum()), 'call')} by a simulated user not counted."] if by_user.any() else []
    counted = _counted(calls)
    if counted.empty:
        return Plot(counted, _TITLE, Table("There are no tool calls to draw", [], [], " ".join(notes)), tuple(notes))
    table = Table(
        f"{_TITLE} by tool",
        [Column("tool"), *(Column(title, number=True) for title in ("calls", *_OUTCOMES))],
        [
            [row["tool_name"] or "", *(f"{row[n]:,}" for n in counted.columns[1:])]
            for row in records(counted, counted.columns)
        ],
    )
    return Plot(counted, _TITLE, table, tuple(notes), _bars(counted))


def _counted(calls: pd.DataFrame) -> pd.DataFrame:
    failed = calls["is_error"].astype("boolean")
    each = calls[["tool_name"]].assign(
        calls=1,
        succeeded=(~failed).fillna(value=False).astype(int),
        failed=failed.fillna(value=False).astype(int),
        not_known=failed.isna().astype(int),
    )
    sums = each.groupby("tool_name", dropna=False, sort=True).sum().reset_index()
    return sums.sort_values("calls", ascending=False, kind="stable").reset_index(drop=True)


def _bars(counted: pd.DataFrame) -> dict[str, Any]:
    rows = records(counted.head(MOST_TOOLS), counted.columns)
    rest = counted.iloc[MOST_TOOLS:]
    names = labels(row["tool_name"] for row in rows)
    if len(rest):
        names.append(pluralize(len(rest), "other tool"))
        rows.append({name: int(rest[name].sum()) for name in counted.columns[1:]})
    parts, ends = [], []
    for name, row in zip(names, rows, strict=True):
        for place, (column, outcome) in enumerate(zip(("succeeded", "failed", "not_known"), _OUTCOMES, strict=True)):
            if row[column]:
                parts.append({"t": name, "n": row[column], "o": outcome, "k": place})
        ends.append({"t": name, "n": row["calls"], "l": _said(row)})
    axis = {"ticks": False, "domain": False, "labelPadding": 8}
    y = {"field": "t", "type": "nominal", "title": None, "scale": {"domain": names}, "axis": axis}
    most = max(end["n"] for end in ends)
    x = {"field": "n", "type": "quantitative", "title": "calls", "axis": vega.whole_ticks(0, most) | {"grid": True}}
    # Full where it succeeded, hollow where it failed: the difference is not one of colour alone.
    outline = {"domain": list(_OUTCOMES), "range": [vega.BLUE, vega.ORANGE, vega.GREY]}
    inside = {"domain": list(_OUTCOMES), "range": [vega.BLUE, "#ffffff", "#d4d4d4"]}
    seen = [o for o in _OUTCOMES if any(part["o"] == o for part in parts)]
    legend = {"title": None, "orient": "top", "values": seen, "symbolStrokeWidth": 1.5}
    tips = [{"field": "t", "title": "tool"}, {"field": "o", "title": "outcome"}, {"field": "n", "title": "calls"}]
    bars = {
        "data": {"values": parts},
        "mark": {"type": "bar", "strokeWidth": 1.5, "height": {"band": 0.7}},
        "encoding": {
            "y": y,
            "x": x,
            "fill": {"field": "o", "type": "nominal", "scale": inside, "legend": legend},
            "stroke": {"field": "o", "type": "nominal", "scale": outline, "legend": legend},
            "order": {"field": "k"},
            "tooltip": tips,
        },
    }
    said = {
        "data": {"values": ends},
        "mark": {"type": "text", "align": "left", "dx": 6},
        "encoding": {"y": y, "x": x, "text": {"field": "l"}},
    }
    return {"width": vega.WIDTH - 120, "height": {"step": _STEP}, "layer": [bars, said]}


def _said(row: dict[str, Any]) -> str:
    failed = f", {row['failed']:,} failed" if row["failed"] else ""
    return f"{row['calls']:,}{failed}"
