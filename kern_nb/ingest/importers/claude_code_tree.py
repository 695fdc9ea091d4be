"""The conversation tree of a Claude Code transcript.

The records of a transcript form a tree by ``parentUuid``, in which most forks are no branches: hooks, the lines of one
answer, parallel calls and their results. `build_tree` merges these into steps. What is left are edits, retries and
rewinds: each leaf that leads to a prompt or an answer is a line of the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kern_nb.ingest.importers.claude_code_messages import is_message, is_significant, result_ids, to_seconds, usage_of

Record = dict[str, Any]


class Entry(NamedTuple):
    """A record and the line it starts on; ``after_damage`` is whether a part of the file before it is unreadable."""

    line: int
    record: Record
    after_damage: bool = False


@dataclass(slots=True, eq=False)
class Step:
    """An answer with the results of its calls, or a message of the user's side.

    ``answer`` are the records of one response of a model, or the record of the user's side. ``position`` is that of
    the first record in the file, ``end`` that of the last one. ``duration_s`` is the wall time of the turn that ends
    here, if the source states it.
    """

    position: int
    end: int
    parent: Step | None
    answer: list[Record]
    results: list[Record] = field(default_factory=list)
    children: list[Step] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)
    duration_s: float | None = None
    is_significant: bool = False


@dataclass(slots=True)
class Tree:
    """The steps below an empty root step, and the records whose parent is not in the file, with that parent."""

    root: Step
    orphans: list[tuple[Entry, str]]

    def lines(self) -> list[list[Step]]:
        """The steps of each line of the conversation, from the first one on; the current line comes first."""
        leaves = [step for step in _descendants(self.root) if not any(c.is_significant for c in step.children)]
        leaves = [step for step in leaves if step.is_significant]
        leaves.sort(key=_last_position, reverse=True)
        return [_line_to(leaf) for leaf in leaves] or [_line_to(self.root)]


def build_tree(entries: Sequence[Entry]) -> Tree:
    """Build the tree of records with a ``uuid``."""
    return _Builder(entries).build()


def _descendants(step: Step) -> Iterator[Step]:
    """The step and all below it, each before its children."""
    pending = [step]
    while pending:
        step = pending.pop()
        yield step
        pending += reversed(step.children)


def _last_position(leaf: Step) -> int:
    return max(step.end for step in _descendants(leaf))


def _line_to(leaf: Step) -> list[Step]:
    """The steps from the first one to a leaf, each followed by the insignificant ones that hang on it."""
    path: list[Step] = []
    step: Step | None = leaf
    while step is not None:
        path.append(step)
        step = step.parent
    line: list[Step] = []
    for step in reversed(path):
        line.append(step)
        asides = [s for child in step.children if not child.is_significant for s in _descendants(child)]
        line += sorted(asides, key=lambda s: s.position)
    return line[1:]


class _Builder:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.index: dict[str, int] = {}
        for position, entry in enumerate(entries):
            self.index.setdefault(entry.record["uuid"], position)
        self.root = Step(-1, -1, None, [])
        self.steps: dict[int, Step] = {}
        self.previous: dict[int, int] = {}
        self.orphans: list[tuple[Entry, str]] = []
        self.lost: dict[str, int] = {}

    def build(self) -> Tree:
        last = -1
        for position, entry in enumerate(self.entries):
            self.previous[position] = last
            if is_message(entry.record):
                last = position
        for position in range(len(self.entries)):
            self._add_with_ancestors(position)
        order = list(_descendants(self.root))
        for step in order:
            step.is_significant = any(map(is_significant, step.answer))
        for step in reversed(order):
            step.is_significant = step.is_significant or any(child.is_significant for child in step.children)
        return Tree(self.root, self.orphans)

    def _add_with_ancestors(self, position: int) -> None:
        """Add a record after its ancestors, whatever their order in the file; a cycle is cut."""
        chain: list[tuple[int, int | None]] = []
        pending: set[int] = set()
        current: int | None = position
        while current is not None and current not in self.steps and current not in pending:
            parent = self._parent_of(current)
            chain.append((current, parent))
            pending.add(current)
            current = parent
        for current, parent in reversed(chain):
            self.steps[current] = self._add(current, self.root if parent is None else self.steps.get(parent, self.root))

    def _parent_of(self, position: int) -> int | None:
        entry = self.entries[position]
        record = entry.record
        is_boundary = record.get("subtype") == "compact_boundary"
        parent = record.get("parentUuid") or record.get("logicalParentUuid")
        if not parent and not is_boundary:
            return None
        name = parent if isinstance(parent, str) else str(position)
        if self.index.get(name, position) != position:
            return self.index[name]
        previous = self.previous[position]
        # The parent of a record after an unreadable line is probably that line, which continued what is before it.
        if previous >= 0 and (is_boundary or entry.after_damage or not isinstance(parent, str)):
            self.lost.setdefault(name, previous)
        if name not in self.lost and not is_boundary:
            self.orphans.append((entry, name))
        return self.lost.get(name)

    def _add(self, position: int, parent: Step) -> Step:
        record = self.entries[position].record
        if not is_message(record):
            duration = to_seconds(record.get("durationMs")) if record.get("subtype") == "turn_duration" else None
            if duration is not None:
                parent.duration_s = (parent.duration_s or 0) + duration
            return parent
        if _continues(parent, record):
            parent.answer.append(record)
        elif (ids := result_ids(record)) and ids <= parent.call_ids:
            parent.results.append(record)
        else:
            step = Step(position, position, parent, [record])
            parent.children.append(step)
            parent = step
        parent.end = max(parent.end, position)
        parent.call_ids |= set(_call_ids(record))
        return parent


def _continues(step: Step, record: Record) -> bool:
    """Whether a record is a further line of the answer of this step."""
    if record["type"] != "assistant" or not step.answer or step.answer[0]["type"] != "assistant":
        return False
    first = step.answer[0]
    message_id = record["message"].get("id")
    if not message_id or message_id != first["message"].get("id") or record.get("requestId") != first.get("requestId"):
        return False
    # Some gateways give all responses one id: a line after a result needs a further sign.
    return not step.results or bool(record.get("requestId")) or _input_of(record) == _input_of(first)


def _input_of(record: Record) -> list[Any]:
    usage = usage_of(record)
    return [value for key, value in sorted(usage.items()) if "input" in key and isinstance(value, int)]


def _call_ids(record: Record) -> Iterable[str]:
    content = record["message"].get("content") if record["type"] == "assistant" else None
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("id"), str):
            yield part["id"]
