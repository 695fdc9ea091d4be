"""The plot of costs by group: stated and estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import make_labels, to_records
from kern_nb.text.formatting import format_money, pluralize
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.analysis.costs import Costs

MAX_GROUPS = 60

_STEP = 24
_SOURCES = ("stated", "estimated")


def cost_plot(costs: Costs) -> Plot:
    """Plot the cost of each group as a bar; estimates are hollow.

    Args:
        costs: The result of `kern_nb.cost`.

    Returns:
        A plot; its ``df`` has the columns of ``by``, stated, estimated and cost.
    """
    df = costs.df[[*costs.by, *_SOURCES, "cost"]]
    title = f"Cost by {', '.join(costs.by)}"
    rows = to_records(df, df.columns)
    cells = [[*_labels(costs, row), *(_money(row[name]) for name in (*_SOURCES, "cost"))] for row in rows]
    columns = [*map(Column, costs.by), *(Column(name, number=True) for name in (*_SOURCES, "cost"))]
    table = Table(title, columns, cells)
    has_cost = df["cost"].notna()
    notes = [f"{pluralize(int((~has_cost).sum()), 'group')} of unknown cost left out."] if (~has_cost).any() else []
    known = [row for row in rows if row["cost"] is not None and not pd.isna(row["cost"])]
    if len(known) > MAX_GROUPS:
        notes.append(f"The first {MAX_GROUPS} of {len(known):,} groups.")
    if not known:
        return Plot(df, title, table, tuple(notes))
    return Plot(df, title, table, tuple(notes), _bars(costs, known[:MAX_GROUPS]))


def _labels(costs: Costs, row: dict[str, Any]) -> list[str]:
    return ["unknown" if row[name] is None or pd.isna(row[name]) else str(row[name]) for name in costs.by]


def _money(value: Any) -> str:
    return "" if value is None or pd.isna(value) else format_money(value)


def _bars(costs: Costs, rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = make_labels(" · ".join(_labels(costs, row)) for row in rows)
    parts, ends = [], []
    for name, row in zip(names, rows, strict=True):
        parts += [{"g": name, "n": row[s], "s": s, "k": k} for k, s in enumerate(_SOURCES) if row[s]]
        ends.append({"g": name, "n": row["cost"], "l": format_money(row["cost"])})
    y = vega.row_axis(names, "g")
    x = {"field": "n", "type": "quantitative", "title": "US dollars", "axis": {"grid": True, "tickCount": 6}}
    fill = {"domain": list(_SOURCES), "range": [vega.BLUE, "#ffffff"]}
    present = [source for source in _SOURCES if any(part["s"] == source for part in parts)]
    legend = {
        "title": None,
        "orient": "top",
        "values": present,
        "symbolStrokeWidth": 1.5,
        "symbolStrokeColor": vega.BLUE,
    }
    bars = {
        "data": {"values": parts},
        "mark": {"type": "bar", "strokeWidth": 1.5, "stroke": vega.BLUE, "height": {"band": 0.7}},
        "encoding": {
            "y": y,
            "x": x,
            "fill": {"field": "s", "type": "nominal", "scale": fill, "legend": legend},
            "order": {"field": "k"},
            "tooltip": [{"field": "g", "title": ", ".join(costs.by)}, {"field": "s"}, {"field": "n", "title": "cost"}],
        },
    }
    texts = {
        "data": {"values": ends},
        "mark": {"type": "text", "align": "left", "dx": 6},
        "encoding": {"y": y, "x": x, "text": {"field": "l"}},
    }
    return {"width": vega.WIDTH - 120, "height": {"step": _STEP}, "layer": [bars, texts]}
