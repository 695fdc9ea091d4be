"""The lanes of a tree: sessions as nodes, each with its own runs, in the order in which they are drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from kern_nb.analysis.plots.inputs import labels, records
from kern_nb.text import formatting

if TYPE_CHECKING:
    import pandas as pd

SESSIONS = (
    "session_id",
    "session_name",
    "parent_session_id",
    "fork_run_index",
    "fork_message_index",
    "n_runs",
    "status",
)
RUNS = ("session_id", "run_index", "status")

NOT_KNOWN = "status not known"
BEFORE_ALL = -1
"""What stands for the run before the first."""

_ID = 40


@dataclass(eq=False)
class Lane:
    """One session: where it parts from which lane, and its runs by index with their status.

    Attributes:
        session_id: The session.
        name: Its title, or its id.
        parent_id: The session it branches from.
        fork: The last run that it inherits; `BEFORE_ALL` where there is none.
        cut_at: The last message that it inherits of that run; None where it inherits all.
        runs: Its own runs.
        label: Its name as it is shown.
        parent: The lane it branches from, where that is shown.
        children: The lanes that branch from it.
    """

    session_id: str
    name: str
    parent_id: str | None
    fork: int
    cut_at: int | None
    runs: dict[int, str]
    label: str = ""
    parent: Lane | None = None
    children: list[Lane] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it parts from another, as a person names it: ``chat/3``."""
        if self.parent_id is None:
            return ""
        run = "" if self.fork == BEFORE_ALL else f"/{self.fork}"
        return f"{formatting.truncate(self.parent_id, _ID)}{run}" + ("" if self.cut_at is None else f".{self.cut_at}")

    @property
    def start(self) -> int:
        """The index of its first run, or of the one it would have."""
        return min(self.runs, default=self.fork + 1 if self.parent_id is not None else 0)

    @property
    def end(self) -> int:
        """The index of its last run, or of the first one it would have."""
        return max(self.runs, default=self.start)

    def owner_of(self, index: int) -> Lane:
        """The lane whose own run has this index: the parent, or one that it inherits from in its turn."""
        lane = self
        while lane.parent is not None and index <= lane.fork:
            lane = lane.parent
        return lane


def lanes_of(sessions: pd.DataFrame, runs: pd.DataFrame | None) -> list[Lane]:
    """Every session as a lane, in the order of the frame, linked to what it branches from."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for run in records(runs, RUNS) if runs is not None else ():
        found[run["session_id"]][int(run["run_index"])] = run["status"] or NOT_KNOWN
    lanes: dict[str, Lane] = {}
    for row in records(sessions, SESSIONS):
        fork = BEFORE_ALL if row["fork_run_index"] is None else int(row["fork_run_index"])
        name, parent = row["session_name"] or row["session_id"], row["parent_session_id"]
        first = 0 if parent is None else fork + 1
        own = found[row["session_id"]] if runs is not None else _guessed(first, int(row["n_runs"] or 0), row["status"])
        lanes[row["session_id"]] = Lane(row["session_id"], name, parent, fork, row["fork_message_index"], own)
    for lane in lanes.values():
        parent_lane = lanes.get(lane.parent_id or "")
        if parent_lane is not None and lane not in line_of(parent_lane):  # a circle, in a store that is broken
            lane.parent = parent_lane
            parent_lane.children.append(lane)
    return list(lanes.values())


def _guessed(first: int, number: int, last: str | None) -> dict[int, str]:
    return dict.fromkeys(range(first, first + number - 1), NOT_KNOWN) | (
        {first + number - 1: last or NOT_KNOWN} if number else {}
    )


def line_of(lane: Lane | None) -> Iterator[Lane]:
    """A lane and those it comes from."""
    while lane is not None:
        yield lane
        lane = lane.parent


def in_order(lanes: list[Lane], most: int) -> list[Lane]:
    """The first lanes with those they come from, each followed by its branches, those that part last first."""
    kept: set[Lane] = set()
    for lane in lanes:
        line = set(islice(line_of(lane), most))
        if len(kept | line) <= most:
            kept |= line
    for lane in kept:
        lane.parent = lane.parent if lane.parent in kept else None
        lane.children = sorted(kept.intersection(lane.children), key=lambda child: (child.fork, child.session_id))
    # A stack, not a recursion: a branch of a branch may be a thousand deep.
    ordered, stack = [], [lane for lane in reversed(lanes) if lane in kept and lane.parent is None]
    while stack:
        ordered.append(stack.pop())
        stack += ordered[-1].children
    for lane, label in zip(ordered, labels(lane.name for lane in ordered), strict=True):
        lane.label = label
    return ordered


def frame(lanes: list[Lane]) -> pd.DataFrame:
    """One row a lane."""
    import pandas as pd

    columns = {
        "session_id": pd.array([lane.session_id for lane in lanes], dtype="string"),
        "session_name": pd.array([lane.name for lane in lanes], dtype="string"),
        "parent_session_id": pd.array([lane.parent_id for lane in lanes], dtype="string"),
        "fork_run_index": pd.array([None if lane.parent_id is None else lane.fork for lane in lanes], dtype="Int64"),
        "fork_message_index": pd.array([lane.cut_at for lane in lanes], dtype="Int64"),
        "first_run": pd.array([min(lane.runs, default=None) for lane in lanes], dtype="Int64"),
        "last_run": pd.array([max(lane.runs, default=None) for lane in lanes], dtype="Int64"),
        "n_runs": pd.array([len(lane.runs) for lane in lanes], dtype="Int64"),
        "status": pd.array([lane.runs.get(lane.end) for lane in lanes], dtype="string"),
    }
    return pd.DataFrame(columns)
