"""The ticks of a spoken tau2 simulation as messages.

A spoken simulation has no messages but ticks of a fraction of a second, in which both sides may speak: an utterance is
the chunks of one side that share an utterance id, or that nothing interrupts. Silent chunks are no messages.
"""

from __future__ import annotations

from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.values import to_list, to_number, to_object

_SIDES = (("agent", "assistant"), ("user", "user"))
_COUNTS = ("prompt_tokens", "completion_tokens")


def flatten_ticks(ticks: list[Any]) -> list[dict[str, Any]]:
    """The messages of a simulation, in the layout of a written one, in the order in which they begin."""
    messages: list[dict[str, Any]] = []
    speaking: dict[str, dict[str, Any]] = {}  # the latest utterance of each side
    for index, tick in enumerate(ticks):
        if not isinstance(tick, dict):
            raise MalformedRecord(f"tick {index} must be an object")
        for side, role in _SIDES:
            chunk = to_object(tick.get(f"{side}_chunk"))
            if chunk.get("content") or chunk.get("usage") or chunk.get("cost"):
                _add_chunk(messages, speaking, role, chunk, tick)
            calls = to_list(tick.get(f"{side}_tool_calls"))
            if calls:
                record = {"role": role, "content": None, "tool_calls": calls, "timestamp": tick.get("timestamp")}
                messages.append(record)
            results = [result for result in to_list(tick.get(f"{side}_tool_results")) if isinstance(result, dict)]
            messages += [{**result, "role": "tool"} for result in results]
            if calls or results:
                speaking.pop(role, None)
    return messages


def _add_chunk(
    messages: list[dict[str, Any]],
    speaking: dict[str, dict[str, Any]],
    role: str,
    chunk: dict[str, Any],
    tick: dict[str, Any],
) -> None:
    text, ids = chunk.get("content"), [i for i in to_list(chunk.get("utterance_ids")) if isinstance(i, str)]
    utterance = speaking.get(role)
    if utterance is None or not _continues(utterance, ids, is_latest=messages[-1] is utterance):
        timestamp = chunk.get("timestamp") or tick.get("timestamp")
        utterance = {"role": role, "content": None, "timestamp": timestamp, "utterance_ids": []}
        speaking[role] = utterance
        messages.append(utterance)
    if isinstance(text, str):
        utterance["content"] = (utterance["content"] or "") + text
    utterance["utterance_ids"] += [i for i in ids if i not in utterance["utterance_ids"]]
    cost = to_number(chunk.get("cost"))
    if cost is not None:
        utterance["cost"] = utterance.get("cost", 0) + cost
    usage = to_object(chunk.get("usage"))
    for name in _COUNTS:
        if type(usage.get(name)) is int:
            total = utterance.setdefault("usage", {})
            total[name] = total.get(name, 0) + usage[name]


def _continues(utterance: dict[str, Any], ids: list[str], *, is_latest: bool) -> bool:
    before = utterance["utterance_ids"]
    return not set(ids).isdisjoint(before) if ids and before else is_latest
