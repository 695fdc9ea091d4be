"""The layout of a branch tree: one node a session, with its own runs, in the order of the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import pandas as pd

from kern_nb.analysis.dataframe import build_frame
from kern_nb.analysis.plots.inputs import make_labels, to_records
from kern_nb.db.columns import Kind
from kern_nb.db.references import Reference
from kern_nb.text import formatting

T = TypeVar("T")

_IDS = ("session_id", "session_name", "parent_session_id")
SESSION_COLUMNS = (*_IDS, "fork_run_index", "fork_message_index", "n_runs", "status")
RUN_COLUMNS = ("session_id", "run_index", "status")

UNKNOWN_STATUS = "unknown status"
BEFORE_FIRST = -1
"""The fork index of a branch that inherits no run."""


@dataclass(eq=False)
class SessionNode:
    """A session in the tree.

    Attributes:
        session_id: The session.
        name: Its title, or its id.
        parent_id: The session it branches from.
        fork: The index of the last run that it inherits, or `BEFORE_FIRST`.
        fork_message: The index of the last message that it inherits of that run; None where it inherits all.
        runs: The status of its own runs by index.
        label: The displayed name.
        parent: The node it branches from, where that is shown.
        children: The nodes that branch from it.
    """

    session_id: str
    name: str
    parent_id: str | None
    fork: int
    fork_message: int | None
    runs: dict[int, str]
    label: str = ""
    parent: SessionNode | None = None
    children: list[SessionNode] = field(default_factory=list)

    @property
    def fork_reference(self) -> str:
        """The reference of the branch point: ``chat/3``."""
        if self.parent_id is None:
            return ""
        run_index = None if self.fork == BEFORE_FIRST else self.fork
        return str(Reference(formatting.truncate(self.parent_id, 40), run_index, self.fork_message))

    @property
    def start(self) -> int:
        """The index of its first run, or of the next one where it has none."""
        return min(self.runs, default=self.fork + 1 if self.parent_id is not None else 0)

    @property
    def end(self) -> int:
        """The index of its last run, or of the next one where it has none."""
        return max(self.runs, default=self.start)

    def owner_of(self, index: int) -> SessionNode:
        """Return the node that owns a run: this one or an ancestor."""
        node = self
        while node.parent is not None and index <= node.fork:
            node = node.parent
        return node


def build_nodes(sessions: pd.DataFrame, runs: pd.DataFrame | None) -> list[SessionNode]:
    """Build the nodes in the order of the frame, linked to their parents."""
    statuses: dict[str, dict[int, str]] = defaultdict(dict)
    for run in to_records(runs, RUN_COLUMNS) if runs is not None else ():
        statuses[run["session_id"]][int(run["run_index"])] = run["status"] or UNKNOWN_STATUS
    nodes: dict[str, SessionNode] = {}
    for row in to_records(sessions, SESSION_COLUMNS):
        session_id = row["session_id"]
        fork = BEFORE_FIRST if row["fork_run_index"] is None else int(row["fork_run_index"])
        name = row["session_name"] or session_id
        origin = (row["parent_session_id"], fork, row["fork_message_index"])
        node = nodes[session_id] = SessionNode(session_id, name, *origin, statuses[session_id])
        if runs is None and row["n_runs"]:  # only the status of the last one is known
            node.runs = dict.fromkeys(range(node.start, node.start + int(row["n_runs"])), UNKNOWN_STATUS)
            node.runs[node.end] = row["status"] or UNKNOWN_STATUS
    for node in nodes.values():
        parent = nodes.get(node.parent_id or "")
        if parent is not None and node not in iter_ancestors(parent):  # a damaged store may have a cycle
            node.parent = parent
            parent.children.append(node)
    return list(nodes.values())


def iter_ancestors(node: SessionNode | None) -> Iterator[SessionNode]:
    """Iterate over a node and its ancestors."""
    while node is not None:
        yield node
        node = node.parent


def limit_with_ancestors(items: Iterable[T], ancestors: Callable[[T], Iterable[T]], limit: int) -> list[T]:
    """Return the first items with their ancestors, as many as the limit allows; ``ancestors`` begin with the item."""
    selected: dict[T, None] = {}
    for item in items:
        extended = selected | dict.fromkeys(islice(ancestors(item), limit))
        selected = extended if len(extended) <= limit else selected
        if len(selected) == limit:
            break
    return list(selected)


def order_nodes(nodes: list[SessionNode], limit: int) -> list[SessionNode]:
    """Return the first nodes with their ancestors, each followed by its branches, the latest fork first."""
    selected = set(limit_with_ancestors(nodes, iter_ancestors, limit))
    for node in selected:
        node.parent = node.parent if node.parent in selected else None
        node.children = sorted(selected.intersection(node.children), key=lambda child: (child.fork, child.session_id))
    # A stack, not recursion: a chain of branches may be a thousand deep.
    ordered, stack = [], [node for node in reversed(nodes) if node in selected and node.parent is None]
    while stack:
        ordered.append(stack.pop())
        stack += ordered[-1].children
    for node, label in zip(ordered, make_labels(node.name for node in ordered), strict=True):
        node.label = label
    return ordered


def nodes_frame(nodes: list[SessionNode]) -> pd.DataFrame:
    """Build one row a node."""
    texts: dict[str, Kind] = dict.fromkeys(_IDS, "text")
    counts = ("fork_run_index", "fork_message_index", "first_run", "last_run", "n_runs")
    rows = [
        (
            *(node.session_id, node.name, node.parent_id),
            *(None if node.parent_id is None else node.fork, node.fork_message),
            *(min(node.runs, default=None), max(node.runs, default=None), len(node.runs), node.runs.get(node.end)),
        )
        for node in nodes
    ]
    return build_frame(rows, {**texts, **dict.fromkeys(counts, "count"), "status": "text"})
