"""A contender beside the baseline: aligned turns and tool calls, the divergence, and the metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pandas as pd

from kern_nb.analysis.compare.alignment import align
from kern_nb.analysis.conversation import Conversation, Turn, sort_json
from kern_nb.analysis.dataframe import build_frame
from kern_nb.analysis.metrics import RUN_TOTALS, better_side, compute_run_totals, compute_totals, score_metric
from kern_nb.db.columns import Kind
from kern_nb.db.references import Reference
from kern_nb.display import DisplayMixin
from kern_nb.text.formatting import common_prefix_length
from kern_nb.text.metrics import to_records

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

T = TypeVar("T")
_Cells: TypeAlias = tuple[str | None, str | None, str | None]

_TURN_COLUMNS = ("turn", "status", "shared", "role", "a", "a_text", "a_calls", "b", "b_text", "b_calls")
_CALL_CELLS = ("reference", "args", "status", "result", "duration_s")


@dataclass(frozen=True, repr=False)
class Divergence(DisplayMixin):
    """The first turn where two conversations differ.

    Attributes:
        turn: The row of ``turns``.
        a: The reference of the baseline's message (``chat/2.5``); None after its end.
        b: The same of the contender.
        a_text: The text of the baseline's message; empty where it only calls tools.
        b_text: The same of the contender.
        contender: The label of the contender.
        a_calls: The tool calls of the baseline's message, one a line; None where there are none.
        b_calls: The same of the contender.
    """

    _view = "kern_nb.views.comparison:divergence"

    turn: int
    a: str | None
    b: str | None
    a_text: str
    b_text: str
    contender: str
    a_calls: str | None = None
    b_calls: str | None = None


class Pair:
    """A contender beside the baseline.

    Attributes:
        a: The baseline.
        b: The contender.
        shared: The number of turns that both inherit: the same rows, not only equal content.
        alike: The number of equal turns at the start, shared ones included.
    """

    def __init__(self, a: Conversation, b: Conversation) -> None:
        self.a = a
        self.b = b
        shared = common_prefix_length([turn.row for turn in a.turns], [turn.row for turn in b.turns])
        self.shared = shared if _is_same_store(a.store, b.store) else 0
        keys_a, keys_b = ([turn.key for turn in side.turns[self.shared :]] for side in (a, b))
        self.alike = self.shared + common_prefix_length(keys_a, keys_b)

    @cached_property
    def divergence(self) -> Divergence | None:
        """The first turn that differs; None where all are equal."""
        a, b = (side.turns[self.alike] if self.alike < len(side.turns) else None for side in (self.a, self.b))
        if a is None and b is None:
            return None
        (a_reference, a_text, a_calls), (b_reference, b_text, b_calls) = _distinct_cells(a, b)
        texts = a_text or "", b_text or ""
        return Divergence(self.alike, a_reference, b_reference, *texts, self.b.label, a_calls, b_calls)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `turns` as dicts, None where a side has no turn."""
        a_rest, b_rest = (side.turns[self.alike :] for side in (self.a, self.b))
        keys = tuple(map(attrgetter, ("key", "kind", "role")))
        pairs = [*zip(self.a.turns[: self.alike], self.b.turns, strict=False), *align(a_rest, b_rest, keys)]
        rows = []
        for n, (a, b) in enumerate(pairs):
            status = _status(a, b, attrgetter("key"))
            cells = _distinct_cells(a, b) if status == "changed" else [_cells(a), _cells(b)]
            role = next(turn.role for turn in (a, b) if turn is not None)
            values = (n, status, n < self.shared, role, *cells[0], *cells[1])
            rows.append(dict(zip(_TURN_COLUMNS, values, strict=True)))
        return rows

    @cached_property
    def turns(self) -> pd.DataFrame:
        """The aligned turns; see `Comparison.turns`."""
        kinds: dict[str, Kind] = {**dict.fromkeys(_TURN_COLUMNS, "text"), "turn": "count", "shared": "flag"}
        return build_frame([tuple(row.values()) for row in self.rows], kinds)

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """The aligned tool calls; see `Comparison.tool_calls`."""
        rows = []
        for a, b in align(_tool_calls(self.a), _tool_calls(self.b), (_call_key, _tool_key)):
            call: dict[str, Any] = a or b or {}
            cells = [(side or {}).get(name) for side in (a, b) for name in _CALL_CELLS]
            rows.append((_status(a, b, _call_key), call["tool_name"], call["caller"], *cells))
        names = [f"{side}{name}" for side in "ab" for name in ("", "_args", "_status", "_result", "_duration_s")]
        kinds: dict[str, Kind] = dict.fromkeys(("status", "tool_name", "caller", *names), "text")
        return build_frame(rows, {**kinds, "a_duration_s": "number", "b_duration_s": "number"})

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of both; see `Comparison.metrics`."""
        totals_a, totals_b = compute_totals(self.a), compute_totals(self.b)
        judges_totals = not self.has_unequal_runs
        scores = {score_metric(str(name)) for side in (self.a, self.b) for name in side.scores["name"]}
        rows = []
        for name in dict.fromkeys([*totals_a, *totals_b]):
            x, y = totals_a.get(name), totals_b.get(name)
            if x is None and y is None:
                continue
            delta = None if x is None or y is None else y - x
            percent = None if delta is None or not x else 100 * delta / abs(x)
            is_score = name in scores
            better = better_side(name, delta, delta, is_score=is_score) if is_score or judges_totals else None
            rows.append((name, x, y, delta, percent, better))
        numbers: dict[str, Kind] = dict.fromkeys(("a", "b", "delta", "delta_pct"), "number")
        return build_frame(rows, {"metric": "text", **numbers, "better": "text"})

    @cached_property
    def has_unequal_runs(self) -> bool:
        """Whether one is a branch of the other's conversation, and has fewer runs.

        Its totals are then lower whatever its runs are like, so neither side is better; see `runs`.
        """
        is_related = self.shared > 0 or _is_branch(self.a, self.b) or _is_branch(self.b, self.a)
        return is_related and len(compute_run_totals(self.a)) != len(compute_run_totals(self.b))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The aligned runs; see `Comparison.runs`."""
        is_same_store = _is_same_store(self.a.store, self.b.store)
        rows = []
        for n, (a, b) in enumerate(zip_longest(compute_run_totals(self.a), compute_run_totals(self.b))):
            values = [value for name in RUN_TOTALS for value in (a and a[name], b and b[name])]
            refs = [
                run and str(Reference(side.session_id, run["run_index"])) for side, run in ((self.a, a), (self.b, b))
            ]
            is_shared = is_same_store and a is not None and b is not None and a["run_id"] == b["run_id"]
            rows.append((n, is_shared, *refs, *values))
        kinds: dict[str, Kind] = {"run": "count", "shared": "flag", "a": "text", "b": "text"}
        return build_frame(rows, kinds | {f"{side}_{name}": "number" for name in RUN_TOTALS for side in "ab"})


def _is_branch(side: Conversation, other: Conversation) -> bool:
    """Whether a side is a branch of the other, of which it may inherit nothing."""
    parent_id = side.session["parent_session_id"]
    return isinstance(parent_id, str) and parent_id == other.session_id and _is_same_store(side.store, other.store)


def _tool_calls(side: Conversation) -> list[dict[str, Any]]:
    calls = to_records(side.tool_calls)
    for call in calls:
        call["reference"] = str(Reference(side.session_id, call["run_index"], call["message_index"]))
        call["sorted_args"] = sort_json(call["args"])
    return calls


def _call_key(call: dict[str, Any]) -> Hashable:
    return *_tool_key(call), call["sorted_args"], call["status"] == "failed"


def _tool_key(call: dict[str, Any]) -> tuple[Hashable, ...]:
    return call["caller"], call["tool_name"]


def _status(a: T | None, b: T | None, key: Callable[[T], Hashable]) -> str:
    if a is None:
        return "only in b"
    if b is None:
        return "only in a"
    return "matched" if key(a) == key(b) else "changed"


def _distinct_cells(a: Turn | None, b: Turn | None) -> list[_Cells]:
    """The cells of two turns that differ; in literal form where the plain texts would be equal."""
    cells = [_cells(a), _cells(b)]
    return [_cells(a, literal=True), _cells(b, literal=True)] if a and b and cells[0][1:] == cells[1][1:] else cells


def _cells(turn: Turn | None, *, literal: bool = False) -> _Cells:
    """The reference, text and calls of a turn; the calls one a line, None where there are none."""
    if turn is None:
        return None, None, None
    calls = []
    for call in turn.calls:
        result = call.result
        if literal and result is not None:
            result = call.value or json.dumps(result)
        suffix = "" if result is None else f" → {result}"
        calls.append(f"{call.tool_name}({call.args}){' failed' if call.failed else ''}{suffix}")
    return turn.reference, turn.literal if literal else turn.text, "\n".join(calls) or None


def _is_same_store(a: SessionStore, b: SessionStore) -> bool:
    """Whether two stores have the same rows: the same tables of the same database."""
    tables = [(store.database, store.tables.name) for store in (a, b)]
    return a is b or (tables[0] == tables[1] and ":memory:" not in a.url)
