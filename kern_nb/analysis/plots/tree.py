"""Sessions and their branches, as a tree: a lane for each, a dot for each run, a link where one parts from another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kern_nb.analysis.plots import branch_layout as tree
from kern_nb.analysis.plots import vega
from kern_nb.analysis.plots.branch_layout import Lane
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.inputs import require
from kern_nb.text import formatting
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

MOST_LANES = 40

_TITLE = "Sessions and their branches"
_NONE = "no run yet"
_STEP = 28
_NARROWEST = 200
_GREY_LINE = {"color": "#9a9a9a", "strokeWidth": 2}
_ID = 60

_ROOM = 12
"""Pixels: where a run has less, its dot is a small one."""

_BESIDES = 3
"""What is drawn of a lane besides its dots: its line, and both ends of its link."""

# Shape, outline and inside. What needs a look has a shape that stands out.
_LOOKS = {
    "COMPLETED": ("circle", vega.BLUE, vega.BLUE),
    "ERROR": ("cross", vega.ORANGE, vega.ORANGE),
    "INTERRUPTED": ("triangle-down", vega.ORANGE, vega.ORANGE),
    "PAUSED": ("square", vega.BROWN, vega.BROWN),
    "RUNNING": ("triangle-right", vega.GREEN, vega.GREEN),
    "PENDING": ("triangle-left", vega.GREEN, vega.GREEN),
    "CANCELLED": ("diamond", vega.GREY, vega.GREY),
    "REGENERATED": ("triangle-up", vega.GREY, vega.GREY),
    tree.NOT_KNOWN: ("circle", vega.GREY, "#d4d4d4"),
    _NONE: ("circle", vega.GREY, "#ffffff"),
}
_ORDINARY = ("COMPLETED", tree.NOT_KNOWN)


def branch_tree(sessions: pd.DataFrame, runs: pd.DataFrame | None = None) -> Plot:
    """Sessions and their branches, one lane a session, its runs from left to right by their index.

    A link leads from the last run that a branch inherits to the branch's first. Runs that did not complete differ in
    shape. Lanes beyond 40 are left out, and so are dots beyond 2,000; the notes say so.

    Args:
        sessions: As ``store.sessions_df()`` gives it.
        runs: Their runs, as ``store.runs_df()`` gives it; where None, as many as the sessions say they have, of
            which only the last one's status is known.

    Returns:
        A plot; its ``df`` has session_id, session_name, parent_session_id, fork_run_index, fork_message_index,
        first_run, last_run, n_runs and status (of the last run), one row a lane, from the top.

    Raises:
        BadUsage: columns are missing.
    """
    require(sessions, tree.SESSIONS, "what store.sessions_df() gives")
    if runs is not None:
        require(runs, tree.RUNS, "what store.runs_df() gives")
    lanes = tree.in_order(tree.lanes_of(sessions, runs), MOST_LANES)
    df = tree.frame(lanes)
    if not lanes:
        return Plot(df, _TITLE, Table("There are no sessions to draw", [], []))
    notes = []
    if len(lanes) < len(sessions):
        notes.append(f"{len(lanes):,} of {len(sessions):,} sessions: the first ones, and what they branch from.")
    dots = [dot for lane in lanes for dot in _dots(lane, vega.MOST_POINTS // len(lanes) - _BESIDES)]
    if len(dots) < sum(max(1, len(lane.runs)) for lane in lanes):
        notes.append("Not every run has a dot; those that did not complete or are branched from come first.")
    return Plot(df, _TITLE, _table(lanes), tuple(notes), _drawing(lanes, dots))


def _dots(lane: Lane, most: int) -> list[dict[str, Any]]:
    """A lane's runs as dots; of too many, the ends and forks, those that did not complete, and some of the others."""
    chosen = sorted(lane.runs)
    if len(chosen) > most:
        ends = {child.fork for child in lane.children} | {lane.start, lane.end}
        others = [i for i in chosen if i not in ends]
        telling = [i for i in others if lane.runs[i] not in _ORDINARY]
        ordinary = [i for i in others if lane.runs[i] in _ORDINARY]
        some, chosen = ([i for i in chosen if i in ends], telling, ordinary), []
        for indexes in some:
            chosen += _evenly(indexes, most - len(chosen))
    return [_dot(lane, index, lane.runs[index]) for index in sorted(chosen)] or [_dot(lane, lane.start, _NONE)]


def _evenly(indexes: list[int], most: int) -> list[int]:
    """At most so many of them, as far from one another as can be."""
    return [indexes[len(indexes) * n // most] for n in range(most)] if len(indexes) > most else indexes


def _dot(lane: Lane, index: int, status: str) -> dict[str, Any]:
    known = status if status in _LOOKS else tree.NOT_KNOWN
    return {"y": lane.label, "x": index, "o": known, "id": formatting.truncate(lane.session_id, _ID)}


def _links(lanes: list[Lane]) -> Iterator[dict[str, Any]]:
    """From the last run that a branch inherits to its own first: two ends a link."""
    for number, lane in enumerate(lanes):
        if lane.parent_id is not None:
            # Where the lane it parts from is not shown, the link is a stub on its own.
            origin = lane if lane.parent is None else lane.parent.owner_of(lane.fork)
            yield {"k": number, "y": origin.label, "x": lane.fork}
            yield {"k": number, "y": lane.label, "x": lane.start}


def _spans(lanes: list[Lane], links: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the lanes, from the first to the last run, or to where a branch parts before or after."""
    spans: dict[str, dict[str, Any]] = {n.label: {"y": n.label, "a": n.start, "b": n.end} for n in lanes}
    for end in links:
        span = spans[end["y"]]
        span["a"], span["b"] = min(span["a"], end["x"]), max(span["b"], end["x"])
    return list(spans.values())


def _drawing(lanes: list[Lane], dots: list[dict[str, Any]]) -> dict[str, Any]:
    links = list(_links(lanes))
    spans = _spans(lanes, links)
    first, last = min(span["a"] for span in spans), max(span["b"] for span in spans)
    width = max(_NARROWEST, min(vega.WIDTH - _STEP, 2 * _STEP * (last - first + 1)))
    has_room = width / (last - first + 1) > _ROOM
    left = {"ticks": False, "domain": False, "labelPadding": 10, "grid": True, "gridDash": [1, 3]}
    names = [lane.label for lane in lanes]
    y = {"field": "y", "type": "nominal", "title": None, "scale": {"domain": names}, "axis": left}
    scale = {"domain": [first, max(last, first + 1)], "nice": False, "padding": 14}
    x = {"field": "x", "type": "quantitative", "title": "run", "scale": scale}
    x["axis"] = vega.whole_ticks(max(0, first), last)
    dot = {"type": "point", "size": 110 if has_room else 24, "opacity": 1, "strokeWidth": 2 if has_room else 1}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": spans},
            "mark": {"type": "rule", **_GREY_LINE},
            "encoding": {"y": y, "x": x | {"field": "a"}, "x2": {"field": "b"}},
        },
        {
            "data": {"values": links},
            "mark": {"type": "line", **_GREY_LINE},
            "encoding": {"y": y, "x": x, "detail": {"field": "k", "type": "nominal"}, "order": {"field": "x"}},
        },
        {"data": {"values": dots}, "mark": dot, "encoding": {"y": y, "x": x, **_by_status(dots)}},
    ]
    return {"width": width, "height": {"step": _STEP}, "layer": layers}


def _by_status(dots: list[dict[str, Any]]) -> dict[str, Any]:
    """Shape, outline and inside of the dots, with one legend for all three."""
    seen = {dot["o"] for dot in dots}
    statuses = [status for status in _LOOKS if status in seen]
    legend = {"title": None, "orient": "bottom", "symbolSize": 90, "columns": 5}
    made: dict[str, Any] = {
        channel: {
            "field": "o",
            "type": "nominal",
            "legend": legend,
            "scale": {"domain": statuses, "range": [_LOOKS[status][part] for status in statuses]},
        }
        for part, channel in enumerate(("shape", "stroke", "fill"))
    }
    tips = [{"field": "id", "title": "session"}, {"field": "x", "title": "run"}, {"field": "o", "title": "status"}]
    return made | {"tooltip": tips}


def _table(lanes: list[Lane]) -> Table:
    columns = [Column("session"), Column("branch of"), Column("runs"), Column("last status")]
    rows = []
    for lane in lanes:
        name = lane.label if lane.parent_id is None else f"{formatting.BRANCH} {lane.label}"
        own = _NONE if not lane.runs else f"{lane.start}" + (f" to {lane.end}" if lane.end > lane.start else "")
        rows.append([name, lane.place, own, formatting.format_status(lane.runs.get(lane.end))])
    return Table(_TITLE, columns, rows)
