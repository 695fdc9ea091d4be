"""Conversation trees: sources whose records state the record before them, so that an edit or a retry makes a branch.

`link` finds the parent of each record, whatever the order and the damage of the file; `lines` returns the lines of a
conversation, one for each leaf.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from kern_nb.ingest.importer import hash_record

_GLOBAL_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def record_key(session_id: str, record_id: str) -> str:
    """The key of a record, equal in every copy of it: an id that is no UUID may mean something else elsewhere."""
    return record_id if _GLOBAL_ID.fullmatch(record_id) else hash_record(session_id, record_id)


def copy_key(record_id: str, *content: Any) -> str:
    """The key of a record that other sessions may copy: an id that is no UUID is told apart by what the record says."""
    return record_id if _GLOBAL_ID.fullmatch(record_id) else hash_record(record_id, *content)


class Entry(NamedTuple):
    """A record with an id.

    Attributes:
        line: The line where the record starts.
        record: The record.
        key: Its id in the file.
        parent: The id of the record before it; None for the first one of a conversation.
        is_message: Whether it is a message, not an event.
        after_damage: Whether a part of the file before it is unreadable.
        continues: Whether it continues the message before it if its parent is not in the file.
    """

    line: int
    record: dict[str, Any]
    key: str
    parent: str | None
    is_message: bool
    after_damage: bool = False
    continues: bool = False


@dataclass(slots=True, eq=False)
class Step:
    """A step of a conversation: one message, or an answer with the results of its calls.

    ``position`` is that of its first record in the file, ``end`` that of the last one. It is significant if it alone
    makes a branch, as a prompt or an answer does.
    """

    position: int
    end: int
    parent: Step | None
    children: list[Step] = field(default_factory=list)
    is_significant: bool = False


AnyStep = TypeVar("AnyStep", bound=Step)


class Links(NamedTuple):
    """The position of the parent of each entry, an order in which parents come first, and entries without a parent."""

    parents: list[int | None]
    order: list[int]
    orphans: list[Entry]


def link(entries: Sequence[Entry]) -> Links:
    """Find the parent of each entry; of entries with one id, the first one counts, and a cycle is cut."""
    index: dict[str, int] = {}
    for position, entry in enumerate(entries):
        index.setdefault(entry.key, position)
    parents: list[int | None] = []
    orphans: list[Entry] = []
    lost: dict[str, int] = {}
    previous = None
    for position, entry in enumerate(entries):
        parent = None if entry.parent is None else index.get(entry.parent)
        if entry.parent is not None and parent in (None, position):
            # The parent of a record after an unreadable line is probably that line, which continued what is before it.
            if previous is not None and (entry.after_damage or entry.continues):
                lost.setdefault(entry.parent, previous)
            parent = lost.get(entry.parent)
            if parent is None and not entry.continues:
                orphans.append(entry)
        parents.append(parent)
        previous = position if entry.is_message else previous
    return Links(parents, _parents_first(parents), orphans)


def _parents_first(parents: list[int | None]) -> list[int]:
    order: list[int] = []
    done: set[int] = set()
    for position in range(len(parents)):
        chain: list[int] = []
        pending: set[int] = set()
        current: int | None = position
        while current is not None and current not in done and current not in pending:
            chain.append(current)
            pending.add(current)
            current = parents[current]
        if current in pending:
            parents[chain[-1]] = None
        order += reversed(chain)
        done |= pending
    return order


def build_steps(
    entries: list[Entry], links: Links, is_significant: Callable[[Entry], bool] | None = None
) -> dict[int, Step]:
    """The steps of a tree, by the position of the entry: that of its parent, if it is no message. -1 is the empty root.

    A step that is not significant makes no line of its own; without the function, all are.
    """
    steps = {-1: Step(-1, -1, None)}
    for position in links.order:
        parent = links.parents[position]
        above = steps[-1 if parent is None else parent]
        if entries[position].is_message:
            step = Step(
                position, position, above, is_significant=is_significant is None or is_significant(entries[position])
            )
            above.children.append(step)
            above = step
        above.end = max(above.end, position)
        steps[position] = above
    return steps


def descendants(step: AnyStep) -> Iterator[AnyStep]:
    """The step and all below it, each before its children."""
    pending = [step]
    while pending:
        step = pending.pop()
        yield step
        pending += cast("list[AnyStep]", step.children[::-1])


def lines(root: AnyStep, current: AnyStep | None = None) -> list[list[AnyStep]]:
    """The steps of each line of the conversation below an empty root, the current line first.

    That is the line through ``current``, if it is stated, else the one that was continued last. A step that leads to
    no prompt or answer makes no line; it follows the step on which it hangs.
    """
    steps = list(descendants(root))
    for step in reversed(steps):
        step.is_significant = step.is_significant or any(child.is_significant for child in step.children)
    leaves = [s for s in steps if s.is_significant and not any(child.is_significant for child in s.children)]
    below = {id(step) for step in descendants(current or root)}
    leaves.sort(key=lambda leaf: (id(leaf) in below, max(step.end for step in descendants(leaf))), reverse=True)
    return [_line_to(leaf) for leaf in leaves] or [_line_to(root)]


def by_root(lines: list[list[AnyStep]]) -> list[tuple[list[AnyStep], AnyStep | None]]:
    """The lines in their order, those that begin with the first step of all before those that share nothing with it.

    Of the latter, the second value is the step with which the line begins; of the others it is None.
    """
    first = min((line[0].position for line in lines if line), default=None)
    pairs = [(line, None if not line or line[0].position == first else line[0]) for line in lines]
    return sorted(pairs, key=lambda pair: pair[1] is not None)


def _line_to(leaf: AnyStep) -> list[AnyStep]:
    path: list[AnyStep] = []
    step: AnyStep | None = leaf
    while step is not None:
        path.append(step)
        step = cast("AnyStep | None", step.parent)
    line: list[AnyStep] = []
    for step in reversed(path):
        line.append(step)
        children = cast("list[AnyStep]", step.children)
        asides = [s for child in children if not child.is_significant for s in descendants(child)]
        line += sorted(asides, key=lambda s: s.position)
    return line[1:]
