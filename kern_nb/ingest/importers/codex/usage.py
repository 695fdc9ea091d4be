"""The usage of a Codex rollout: each response of the model is counted once.

Current versions write a ``token_usage_record`` for each response. All versions write ``token_count`` events with the
usage of the last response and a total, and repeat them when the rate limits change. The total restarts at 0 when some
versions resume a session, so that the last one is not the total of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.parsing.values import to_count, to_object, to_text
from kern_nb.records import Usage

_FIELDS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_input_tokens": "cache_write_tokens",
    "reasoning_output_tokens": "reasoning_tokens",
    "total_tokens": "total_tokens",
}
_COMPARED = ("input_tokens", "cached_input_tokens", "output_tokens", "total_tokens")


@dataclass(slots=True)
class UsageCounter:
    """Decides which records are the usage of a new response."""

    _total: list[int | None] | None = None
    _responses: set[str] = field(default_factory=set)
    _has_records: bool = False

    def begin_turn(self) -> None:
        """A turn that has records does not need its events."""
        self._has_records = False

    def count_record(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The counts of a ``token_usage_record``; None if its response is counted already."""
        self._has_records = True
        total = to_object(payload.get("thread_token_usage"))
        self._total = _compared(total) if total else self._total
        response_id = to_text(payload.get("response_id"))
        key = f"{payload.get('turn_id')}/{response_id}"
        if response_id is not None and key in self._responses:
            return None
        self._responses.add(key)
        return to_object(payload.get("usage"))

    def count_event(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The counts of a ``token_count`` event; None if its total has not changed."""
        info = to_object(payload.get("info"))
        total = to_object(info.get("total_token_usage"))
        if not total or _compared(total) == self._total:
            return None
        self._total = _compared(total)
        return None if self._has_records else to_object(info.get("last_token_usage"))


def to_usage(counts: dict[str, Any]) -> Usage | None:
    """Usage in our terms, which are those of Codex: cached tokens are input, reasoning is output."""
    values = {name: to_count(counts.get(logged)) for logged, name in _FIELDS.items()}
    return None if all(value is None for value in values.values()) else Usage(**values)


def _compared(usage: dict[str, Any]) -> list[int | None]:
    return [to_count(usage.get(name)) for name in _COMPARED]
