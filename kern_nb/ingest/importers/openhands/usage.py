"""Which response of the model spent what, from the statistics of an OpenHands conversation.

The statistics list the usage of each response by its id, or state only what was spent so far: then a response spent
what was added before it. Both have one entry for each purpose, such as the agent and the condenser.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kern_nb.ingest.parsing.values import drop_null, to_count, to_id, to_list, to_number, to_object, to_text
from kern_nb.records import Usage

Record = dict[str, Any]

_COUNTS = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
}


class Spent(NamedTuple):
    """What a response spent, and its model."""

    usage: Usage
    model: str | None


def to_usage(counts: Record, cost: float | None = None) -> Usage:
    """Usage from the names that OpenHands uses; the input includes cached tokens. A cost of 0 is unknown."""
    values = {name: to_count(counts.get(logged)) for logged, name in _COUNTS.items()}
    return Usage(**values, cost=cost or None)


def is_response(event: Record) -> bool:
    """Whether a model's response made an event."""
    kind = event.get("kind")
    return kind in ("ActionEvent", "Condensation") or (kind == "MessageEvent" and event.get("source") == "agent")


def stats_of(event: Record) -> Record:
    """The statistics that an event states."""
    value = event.get("value")
    if event.get("kind") != "ConversationStateUpdateEvent" or not isinstance(value, dict):
        return {}
    return to_object(value.get("stats")) if event.get("key") == "full_state" else value if _metrics(value) else {}


def assign_usage(events: Sequence[Record], state: Record) -> dict[int, Spent]:
    """What the responses spent, by the position of the first event of each."""
    positions: dict[str, int] = {}
    for position, event in enumerate(events):
        if is_response(event):
            positions.setdefault(to_id(event.get("llm_response_id")) or f"event {position}", position)
    if not positions:
        return {}
    final = to_object(state.get("stats"))
    by_response = _by_response(final) or _by_response(next((s for e in reversed(events) if (s := stats_of(e))), {}))
    last = max(positions.values())
    spent: dict[int, list[Spent]] = {}
    if by_response.keys() & positions.keys():
        for response_id, entry in by_response.items():
            spent.setdefault(positions.get(response_id, last), []).append(entry)
    else:
        _assign_differences(events, final, set(positions.values()), last, spent)
    result = {}
    for position, several in spent.items():
        usage = Usage.total(entry.usage for entry in several)
        if usage is not None:
            result[position] = Spent(usage, next((entry.model for entry in several if entry.model), None))
    return result


def model_of(state: Record, events: Iterable[Record]) -> str | None:
    """The model of the agent: that of its settings, else of its statistics."""
    model = to_text(to_object(to_object(state.get("agent")).get("llm")).get("model"))
    stats = [to_object(state.get("stats")), *(s for event in events if (s := stats_of(event)))]
    names = (to_text(metrics.get("model_name")) for entry in stats for metrics in _metrics(entry).values())
    return model or next((name for name in names if name), None)


def _metrics(stats: Record) -> dict[str, Record]:
    metrics = to_object(stats.get("usage_to_metrics"))
    return {name: value for name, value in metrics.items() if isinstance(value, dict)}


def _by_response(stats: Record) -> dict[str, Spent]:
    """The usage of each response; costs have no ids, but come in the order of the responses."""
    result: dict[str, list[Spent]] = {}
    for metrics in _metrics(stats).values():
        usages = [to_object(usage) for usage in to_list(metrics.get("token_usages"))]
        costs = [to_number(to_object(cost).get("cost")) for cost in to_list(metrics.get("costs"))]
        has_costs = len(costs) == len(usages)
        name = to_text(metrics.get("model_name"))
        for index, usage in enumerate(usages):
            entry = Spent(to_usage(usage, costs[index] if has_costs else None), to_text(usage.get("model")) or name)
            result.setdefault(to_id(usage.get("response_id")) or f"{name} {index}", []).append(entry)
        total = to_number(metrics.get("accumulated_cost"))
        if usages and not has_costs and total:
            last = to_id(usages[-1].get("response_id")) or f"{name} {len(usages) - 1}"
            result[last].append(Spent(Usage(cost=total), name))
    totals = {key: Usage.total(entry.usage for entry in several) for key, several in result.items()}
    return {key: Spent(usage, result[key][0].model) for key, usage in totals.items() if usage is not None}


def _assign_differences(
    events: Sequence[Record], final: Record, responses: set[int], last: int, spent: dict[int, list[Spent]]
) -> None:
    before: dict[str, dict[str, float]] = {}
    pending: list[Spent] = []
    for position, event in enumerate(events):
        pending += _differences(stats_of(event), before)
        if position in responses:
            spent.setdefault(position, []).extend(pending)
            pending = []
    pending += _differences(final, before)
    spent.setdefault(last, []).extend(pending)


def _differences(stats: Record, before: dict[str, dict[str, float]]) -> list[Spent]:
    """What each purpose has spent since the last statistics, which are then those before the next ones."""
    result = []
    for purpose, metrics in _metrics(stats).items():
        counts = to_object(metrics.get("accumulated_token_usage"))
        numbers: dict[str, float | None] = {name: to_count(counts.get(name)) for name in _COUNTS}
        numbers["cost"] = to_number(metrics.get("accumulated_cost"))
        stated = drop_null(numbers)
        old = before.get(purpose, {})
        if any(number < old.get(name, 0) for name, number in stated.items()):
            old = {}  # counted from the start again
        added = {name: number - old.get(name, 0) for name, number in stated.items()}
        before[purpose] = stated
        if any(added.values()):
            cost = added.pop("cost", None)
            result.append(Spent(to_usage(added, cost), to_text(metrics.get("model_name"))))
    return result
