"""The conversation tree of a Claude Code transcript.

The records of a transcript form a tree by ``parentUuid``, in which most forks are no branches: hooks, the lines of one
answer, parallel calls and their results. `build_lines` merges these into steps. What is left are edits, retries and
rewinds: each leaf that leads to a prompt or an answer is a line of the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.importers.claude_code.messages import (
    Record,
    is_message,
    is_significant,
    result_ids,
    usage_of,
)
from kern_nb.ingest.parsing import tree
from kern_nb.ingest.parsing.tree import Entry
from kern_nb.ingest.parsing.values import to_count, to_duration


@dataclass(slots=True, eq=False)
class Step(tree.Step):
    """An answer with the results of its calls, or a message of the user's side.

    ``answer`` are the records of one response of a model, or the record of the user's side. ``counted`` is the record
    with its usage; None if an earlier step, which a message parts from this one, is of the same response.
    ``duration_s`` is the wall time of the turn that ends here, if the source states it.
    """

    answer: list[Record] = field(default_factory=list)
    counted: Record | None = None
    results: list[Record] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)
    duration_s: float | None = None


def to_entry(line: int, record: Record, *, after_damage: bool = False) -> Entry:
    """The entry of a record with a ``uuid``."""
    is_boundary = record.get("subtype") == "compact_boundary"
    parent = record.get("parentUuid") or record.get("logicalParentUuid") or ("" if is_boundary else None)
    is_valid = parent is None or isinstance(parent, str)
    return Entry(
        line=line,
        record=record,
        key=record["uuid"],
        parent=parent if is_valid else f"line {line}",
        is_message=is_message(record),
        after_damage=after_damage or not is_valid,
        continues=is_boundary,
    )


def build_lines(entries: Sequence[Entry]) -> tuple[list[tuple[list[Step], Step | None]], list[Entry]]:
    """The steps of each line, see `tree.by_root`, and the entries whose parent is missing."""
    links = tree.link(entries)
    root = Step(-1, -1, None)
    steps: dict[int, Step] = {}
    for position in links.order:
        parent = links.parents[position]
        steps[position] = _add(entries[position], position, root if parent is None else steps[parent])
    _count_usage(tree.descendants(root))
    return tree.by_root(tree.lines(root)), links.orphans


def _count_usage(steps: Iterable[Step]) -> None:
    """Set the record of each response whose usage counts: the one with the largest output."""
    responses: dict[Any, list[Step]] = {}
    for step in steps:
        if step.answer and step.answer[0]["type"] == "assistant":
            responses.setdefault(_response_of(step), []).append(step)
    for parts in responses.values():
        records = [record for part in parts for record in part.answer]
        first = min(parts, key=lambda part: part.position)
        first.counted = max(records, key=lambda record: to_count(usage_of(record).get("output_tokens")) or 0)


def _response_of(step: Step) -> Any:
    first = step.answer[0]
    message_id, request_id = first["message"].get("id"), first.get("requestId")
    if not isinstance(message_id, str) or not message_id:
        return id(step)
    return message_id, request_id if isinstance(request_id, str) and request_id else tuple(_input_of(first))


def _add(entry: Entry, position: int, parent: Step) -> Step:
    """Add a record below a step; returns the step that it belongs to."""
    record = entry.record
    if not entry.is_message:
        duration = to_duration(record.get("durationMs"), 1000) if record.get("subtype") == "turn_duration" else None
        if duration is not None:
            parent.duration_s = (parent.duration_s or 0) + duration
        return parent
    if _continues(parent, record):
        parent.answer.append(record)
    elif (ids := result_ids(record)) and ids <= parent.call_ids:
        parent.results.append(record)
    else:
        step = Step(position, position, parent, is_significant=is_significant(record), answer=[record])
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
