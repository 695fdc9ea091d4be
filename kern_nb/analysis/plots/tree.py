"""The plot of sessions and their branches: a row a session, a dot a run, a link a branch point."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kern_nb.analysis.plots import branch_layout as layout
from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.branch_layout import SessionNode
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require_columns
from kern_nb.text import formatting
from kern_nb.text.tables import Column, Table

MAX_NODES = 40

_TITLE = "Sessions and their branches"
_NO_RUNS = "no runs"
_STEP = 28
_MIN_WIDTH = 200
_GREY_LINE = {"color": "#9a9a9a", "strokeWidth": 2}

_DOT_SPACE = 12
"""In pixels: where a run has less, its dot is small."""

_MARKS_PER_NODE = 3
"""The marks of a node besides its dots: its line, and both ends of its link."""

# Shape, outline and fill. A status that needs attention has a distinct shape.
_STYLES = {
    "COMPLETED": ("circle", vega.BLUE, vega.BLUE),
    "ERROR": ("cross", vega.ORANGE, vega.ORANGE),
    "INTERRUPTED": ("triangle-down", vega.ORANGE, vega.ORANGE),
    "PAUSED": ("square", vega.BROWN, vega.BROWN),
    "RUNNING": ("triangle-right", vega.GREEN, vega.GREEN),
    "PENDING": ("triangle-left", vega.GREEN, vega.GREEN),
    "CANCELLED": ("diamond", vega.GREY, vega.GREY),
    "REGENERATED": ("triangle-up", vega.GREY, vega.GREY),
    layout.UNKNOWN_STATUS: ("circle", vega.GREY, "#d4d4d4"),
    _NO_RUNS: ("circle", vega.GREY, "#ffffff"),
}
_ORDINARY = ("COMPLETED", layout.UNKNOWN_STATUS)


def branch_tree(sessions: pd.DataFrame, runs: pd.DataFrame | None = None) -> Plot:
    """Plot sessions and their branches, a row a session, its runs from left to right by index.

    A link leads from the last run that a branch inherits to the branch's first. Runs that did not complete have other
    shapes. Sessions beyond 40 are left out, and so are dots beyond 2,000; the notes say so.

    Args:
        sessions: The result of ``store.sessions_df()``.
        runs: Their runs, the result of ``store.runs_df()``; where None, as many as the sessions state, of which only
            the last one's status is known.

    Returns:
        A plot; its ``df`` has session_id, session_name, parent_session_id, fork_run_index, fork_message_index,
        first_run, last_run, n_runs and status (of the last run), one row a session, from the top.

    Raises:
        BadUsage: A column is missing.
    """
    require_columns(sessions, layout.SESSION_COLUMNS, "the result of store.sessions_df()")
    if runs is not None:
        require_columns(runs, layout.RUN_COLUMNS, "the result of store.runs_df()")
    nodes = layout.order_nodes(layout.build_nodes(sessions, runs), MAX_NODES)
    df = layout.nodes_frame(nodes)
    if not nodes:
        return Plot(df, _TITLE, Table("No sessions to plot", [], []))
    notes = []
    if len(nodes) < len(sessions):
        notes.append(f"{len(nodes):,} of {len(sessions):,} sessions: the first ones and their ancestors.")
    dots = [dot for node in nodes for dot in _dots(node, vega.MAX_POINTS // len(nodes) - _MARKS_PER_NODE)]
    if len(dots) < sum(max(1, len(node.runs)) for node in nodes):
        notes.append("Some runs have no dot; runs that did not complete or have branches are preferred.")
    return Plot(df, _TITLE, _table(nodes), tuple(notes), _drawing(nodes, dots))


def _dots(node: SessionNode, limit: int) -> list[dict[str, Any]]:
    """The dots of a node's runs; of too many, the ends and forks, those that did not complete, and some others."""
    indexes = sorted(node.runs)
    if len(indexes) > limit:
        ends = {child.fork for child in node.children} | {node.start, node.end}
        inner = [i for i in indexes if i not in ends]
        notable = [i for i in inner if node.runs[i] not in _ORDINARY]
        ordinary = [i for i in inner if node.runs[i] in _ORDINARY]
        by_priority, indexes = ([i for i in indexes if i in ends], notable, ordinary), []
        for group in by_priority:
            n_free = limit - len(indexes)
            is_sampled = len(group) > n_free
            indexes += [group[len(group) * n // n_free] for n in range(n_free)] if is_sampled else group
    runs = {index: node.runs[index] for index in sorted(indexes)} or {node.start: _NO_RUNS}
    session_id = formatting.truncate(node.session_id, 60)
    return [
        {"y": node.label, "x": index, "o": status if status in _STYLES else layout.UNKNOWN_STATUS, "id": session_id}
        for index, status in runs.items()
    ]


def _lines_and_links(nodes: list[SessionNode]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The line of each node, from its first to its last run or link; and two ends a link.

    A link leads from the last run that a branch inherits to its own first.
    """
    lines: dict[str, dict[str, Any]] = {node.label: {"y": node.label, "a": node.start, "b": node.end} for node in nodes}
    links = []
    for number, node in enumerate(nodes):
        if node.parent_id is not None:
            # Where the parent is not shown, the link is a stub in the branch's own row.
            origin = node if node.parent is None else node.parent.owner_of(node.fork)
            for label, x in ((origin.label, node.fork), (node.label, node.start)):
                links.append({"k": number, "y": label, "x": x})
                lines[label] |= {"a": min(lines[label]["a"], x), "b": max(lines[label]["b"], x)}
    return list(lines.values()), links


def _drawing(nodes: list[SessionNode], dots: list[dict[str, Any]]) -> dict[str, Any]:
    lines, links = _lines_and_links(nodes)
    first, last = min(line["a"] for line in lines), max(line["b"] for line in lines)
    width = max(_MIN_WIDTH, min(vega.WIDTH - _STEP, 2 * _STEP * (last - first + 1)))
    is_wide = width / (last - first + 1) > _DOT_SPACE
    y = vega.row_axis([node.label for node in nodes], "y", labelPadding=10, grid=True, gridDash=[1, 3])
    scale = {"domain": [first, max(last, first + 1)], "nice": False, "padding": 14}
    x = {"field": "x", "type": "quantitative", "title": "run", "scale": scale}
    x["axis"] = vega.integer_ticks(max(0, first), last)
    dot = {"type": "point", "size": 110 if is_wide else 24, "opacity": 1, "strokeWidth": 2 if is_wide else 1}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": lines},
            "mark": {"type": "rule", **_GREY_LINE},
            "encoding": {"y": y, "x": x | {"field": "a"}, "x2": {"field": "b"}},
        },
        {
            "data": {"values": links},
            "mark": {"type": "line", **_GREY_LINE},
            "encoding": {"y": y, "x": x, "detail": {"field": "k", "type": "nominal"}, "order": {"field": "x"}},
        },
        {"data": {"values": dots}, "mark": dot, "encoding": {"y": y, "x": x, **_status_encodings(dots)}},
    ]
    return {"width": width, "height": {"step": _STEP}, "layer": layers}


def _status_encodings(dots: list[dict[str, Any]]) -> dict[str, Any]:
    """Shape, outline and fill of the dots, with one legend for all three."""
    present = {dot["o"] for dot in dots}
    statuses = [status for status in _STYLES if status in present]
    legend = {"title": None, "orient": "bottom", "symbolSize": 90, "columns": 5}
    encodings: dict[str, Any] = {
        channel: {
            "field": "o",
            "type": "nominal",
            "legend": legend,
            "scale": {"domain": statuses, "range": [_STYLES[status][part] for status in statuses]},
        }
        for part, channel in enumerate(("shape", "stroke", "fill"))
    }
    tips = [{"field": "id", "title": "session"}, {"field": "x", "title": "run"}, {"field": "o", "title": "status"}]
    return encodings | {"tooltip": tips}


def _table(nodes: list[SessionNode]) -> Table:
    columns = [Column("session"), Column("branch of"), Column("runs"), Column("last status")]
    rows = []
    for node in nodes:
        name = node.label if node.parent_id is None else f"{formatting.BRANCH} {node.label}"
        runs = _NO_RUNS if not node.runs else f"{node.start}" + (f" to {node.end}" if node.end > node.start else "")
        rows.append([name, node.fork_reference, runs, formatting.format_status(node.runs.get(node.end))])
    return Table(_TITLE, columns, rows)
