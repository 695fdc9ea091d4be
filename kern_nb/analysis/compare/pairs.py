"""A contender beside the baseline: aligned turns and tool calls, the divergence, and the metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from kern_nb.analysis.compare.alignment import IndexPair, align, common_prefix
from kern_nb.analysis.conversation import Call, Conversation, Turn, sort_json
from kern_nb.analysis.dataframe import build_frame, iter_rows
from kern_nb.analysis.metric_directions import HIGHER, better_side, get_direction
from kern_nb.analysis.totals import compute_totals, score_metric
from kern_nb.db.columns import Kind
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

T = TypeVar("T")

MATCHED, CHANGED, ONLY_A, ONLY_B = "matched", "changed", "only in a", "only in b"


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
        shared = common_prefix([turn.row for turn in a.turns], [turn.row for turn in b.turns])
        self.shared = shared if _is_same_store(a.store, b.store) else 0
        keys_a, keys_b = ([turn.key for turn in side.turns[self.shared :]] for side in (a, b))
        self.alike = self.shared + common_prefix(keys_a, keys_b)

    @cached_property
    def index_pairs(self) -> list[IndexPair]:
        """The aligned indexes of the turns."""
        start = self.alike
        aligned = align(self.a.turns[start:], self.b.turns[start:], tuple(map(attrgetter, ("key", "kind", "role"))))
        shifted = [(None if i is None else start + i, None if j is None else start + j) for i, j in aligned]
        return [(n, n) for n in range(start)] + shifted

    @cached_property
    def divergence(self) -> Divergence | None:
        """The first turn that differs; None where all are equal."""
        a, b = (side.turns[self.alike] if self.alike < len(side.turns) else None for side in (self.a, self.b))
        if a is None and b is None:
            return None
        (a_reference, a_text, a_calls), (b_reference, b_text, b_calls) = _distinct_cells(a, b)
        return Divergence(self.alike, a_reference, b_reference, a_text, b_text, self.b.label, a_calls, b_calls)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `turns` as dicts, None where a side has no turn."""
        rows = []
        for n, (i, j) in enumerate(self.index_pairs):
            a = None if i is None else self.a.turns[i]
            b = None if j is None else self.b.turns[j]
            status = _status(a, b, attrgetter("key"))
            both = _distinct_cells(a, b) if status == CHANGED else map(_cells, (a, b))
            cells = [cell if turn else (None, None, None) for turn, cell in zip((a, b), both, strict=True)]
            role = (a or b or _NO_TURN).role
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
        a, b = _tool_calls(self.a), _tool_calls(self.b)
        rows = []
        for i, j in align(a, b, (_call_key, _tool_key)):
            x = None if i is None else a[i]
            y = None if j is None else b[j]
            call: dict[str, Any] = x or y or {}
            cells = [[c[name] for name in _CALL_CELLS] if c else [None] * len(_CALL_CELLS) for c in (x, y)]
            rows.append((_status(x, y, _call_key), call["tool_name"], call["caller"], *cells[0], *cells[1]))
        names = [f"{side}{name}" for side in "ab" for name in ("", "_args", "_status", "_result", "_duration_s")]
        kinds: dict[str, Kind] = dict.fromkeys(("status", "tool_name", "caller", *names), "text")
        return build_frame(rows, {**kinds, "a_duration_s": "number", "b_duration_s": "number"})

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of both; see `Comparison.metrics`."""
        totals_a, totals_b = compute_totals(self.a), compute_totals(self.b)
        scores = {score_metric(str(name)) for side in (self.a, self.b) for name in side.scores["name"]}
        rows = []
        for name in dict.fromkeys([*totals_a, *totals_b]):
            x, y = totals_a.get(name), totals_b.get(name)
            if x is None and y is None:
                continue
            delta = None if x is None or y is None else y - x
            percent = None if delta is None or not x else 100 * delta / abs(x)
            direction = HIGHER if name in scores else get_direction(name)
            rows.append((name, x, y, delta, percent, better_side(delta, delta, direction)))
        numbers: dict[str, Kind] = dict.fromkeys(("a", "b", "delta", "delta_pct"), "number")
        return build_frame(rows, {"metric": "text", **numbers, "better": "text"})


_TURN_COLUMNS = ("turn", "status", "shared", "role", "a", "a_text", "a_calls", "b", "b_text", "b_calls")
_NO_TURN = Turn("", ("", 0), "", "", "", ())
_CALL_CELLS = ("reference", "args", "status", "result", "duration_s")


def _tool_calls(side: Conversation) -> list[dict[str, Any]]:
    names = ("run_index", "message_index", "tool_name", "caller", "args", "status", "result", "duration_s")
    calls = []
    for row in iter_rows(side.tool_calls, names):
        call = dict(zip(names, row, strict=True))
        message = "" if call["message_index"] is None else f".{call['message_index']}"
        reference = f"{side.session_id}/{call['run_index']}{message}"
        calls.append({**call, "reference": reference, "sorted_args": sort_json(call["args"])})
    return calls


def _call_key(call: dict[str, Any]) -> Hashable:
    return call["caller"], call["tool_name"], call["sorted_args"], call["status"] == "failed"


def _tool_key(call: dict[str, Any]) -> Hashable:
    return call["caller"], call["tool_name"]


def _status(a: T | None, b: T | None, key: Callable[[T], Hashable]) -> str:
    if a is None:
        return ONLY_B
    if b is None:
        return ONLY_A
    return MATCHED if key(a) == key(b) else CHANGED


def _calls_text(turn: Turn, *, literal: bool = False) -> str | None:
    """The calls of a turn, one a line; None where there are none."""
    return "\n".join(_call_text(call, literal=literal) for call in turn.calls) or None


def _call_text(call: Call, *, literal: bool) -> str:
    result = call.result
    if literal and result is not None:
        result = call.value or json.dumps(result)
    suffix = "" if result is None else f" → {result}"
    return f"{call.tool_name}({call.args}){' failed' if call.failed else ''}{suffix}"


def _distinct_cells(a: Turn | None, b: Turn | None) -> list[tuple[str | None, str, str | None]]:
    """The cells of two turns that differ; in literal form where the plain texts would be equal."""
    cells = [_cells(a), _cells(b)]
    if a is None or b is None or cells[0][1:] != cells[1][1:]:
        return cells
    return [(turn.reference, turn.literal, _calls_text(turn, literal=True)) for turn in (a, b)]


def _cells(turn: Turn | None) -> tuple[str | None, str, str | None]:
    """The reference, text and calls of a turn."""
    return (None, "", None) if turn is None else (turn.reference, turn.text, _calls_text(turn))


def _is_same_store(a: SessionStore, b: SessionStore) -> bool:
    """Whether two stores have the same rows: the same tables of the same database."""
    tables = [(store.database, store.tables.name) for store in (a, b)]
    return a is b or (tables[0] == tables[1] and ":memory:" not in a.url)
