"""One side of a comparison beside the baseline: their turns aligned, where they part, their calls, what they took."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from kern_nb.analysis import metric_directions
from kern_nb.analysis.compare.alignment import Pair as Places
from kern_nb.analysis.compare.alignment import aligned, common_prefix
from kern_nb.analysis.conversation import Call, Side, Turn, rows, sorted_json
from kern_nb.analysis.dataframe import framed
from kern_nb.analysis.totals import metric_of, totals
from kern_nb.db.columns import Kind
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

T = TypeVar("T")

MATCHED, CHANGED, ONLY_A, ONLY_B = "matched", "changed", "only in a", "only in b"


@dataclass(frozen=True, repr=False)
class Divergence(DisplayMixin):
    """The first place where two conversations part.

    Attributes:
        turn: The row of ``turns`` it is.
        a: The baseline's message there, as a person writes it (``chat/2.5``); None where it has ended.
        b: The other's.
        a_text: What that message says; empty where it only calls tools.
        b_text: The same of the other.
        contender: The side that parts, where several are compared with the baseline.
        a_calls: The tools that the baseline's message calls, one a line; None where it calls none.
        b_calls: The same of the other.
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
    """A side beside the baseline.

    Attributes:
        a: The baseline.
        b: The other side.
        shared: How many turns both inherit: the same rows, not only the same words.
        alike: How many turns they begin with alike, shared ones among them.
    """

    def __init__(self, a: Side, b: Side) -> None:
        self.a = a
        self.b = b
        shared = common_prefix([t.row for t in a.turns], [t.row for t in b.turns])
        self.shared = shared if _is_one_place(a.store, b.store) else 0
        rest = self.shared
        self.alike = rest + common_prefix([t.said for t in a.turns[rest:]], [t.said for t in b.turns[rest:]])

    @cached_property
    def places(self) -> list[Places]:
        """The places of the turns, those that belong together side by side."""
        start = self.alike
        rest = aligned(self.a.turns[start:], self.b.turns[start:], tuple(map(attrgetter, ("said", "kind", "role"))))
        moved = [(None if i is None else start + i, None if j is None else start + j) for i, j in rest]
        return [(n, n) for n in range(start)] + moved

    @cached_property
    def divergence(self) -> Divergence | None:
        """Where they part; None where they say the same to the end."""
        a, b = (side.turns[self.alike] if self.alike < len(side.turns) else None for side in (self.a, self.b))
        if a is None and b is None:
            return None
        (at_a, text_a, calls_a), (at_b, text_b, calls_b) = _told_apart(a, b)
        return Divergence(self.alike, at_a, at_b, text_a, text_b, self.b.label, calls_a, calls_b)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The turns of both, aligned: what `turns` holds, as dicts, None where a side has no turn."""
        made = []
        for n, (i, j) in enumerate(self.places):
            a = None if i is None else self.a.turns[i]
            b = None if j is None else self.b.turns[j]
            status = _status(a, b, attrgetter("said"))
            told = _told_apart(a, b) if status == CHANGED else map(_said, (a, b))
            cells = [cell if t else (None, None, None) for t, cell in zip((a, b), told, strict=True)]
            role = (a or b or _NOBODY).role
            made.append(dict(zip(_TURNS, (n, status, n < self.shared, role, *cells[0], *cells[1]), strict=True)))
        return made

    @cached_property
    def turns(self) -> pd.DataFrame:
        """The turns of both, aligned; see `Comparison.turns`."""
        kinds: dict[str, Kind] = {**dict.fromkeys(_TURNS, "text"), "turn": "count", "shared": "flag"}
        return framed([tuple(row.values()) for row in self.rows], kinds)

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """The tool calls of both, aligned; see `Comparison.tool_calls`."""
        a, b = _tool_calls(self.a), _tool_calls(self.b)
        made = []
        for i, j in aligned(a, b, (_called, _tool)):
            x = None if i is None else a[i]
            y = None if j is None else b[j]
            one: dict[str, Any] = x or y or {}
            cells = [[t[name] for name in _CALL_CELLS] if t else [None] * len(_CALL_CELLS) for t in (x, y)]
            made.append((_status(x, y, _called), one["tool_name"], one["caller"], *cells[0], *cells[1]))
        names = [f"{side}{name}" for side in "ab" for name in ("", "_args", "_status", "_result", "_duration_s")]
        kinds: dict[str, Kind] = dict.fromkeys(("status", "tool_name", "caller", *names), "text")
        return framed(made, {**kinds, "a_duration_s": "number", "b_duration_s": "number"})

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What both took; see `Comparison.metrics`."""
        of_a, of_b = totals(self.a), totals(self.b)
        scores = {metric_of(str(name)) for side in (self.a, self.b) for name in side.scores["name"]}
        made = []
        for name in dict.fromkeys([*of_a, *of_b]):
            x, y = of_a.get(name), of_b.get(name)
            if x is None and y is None:
                continue
            delta = None if x is None or y is None else y - x
            percent = None if delta is None or not x else 100 * delta / abs(x)
            is_score = name in scores
            made.append(
                (name, x, y, delta, percent, _better(delta, 1 if is_score else metric_directions.direction(name)))
            )
        numbers: dict[str, Kind] = dict.fromkeys(("a", "b", "delta", "delta_pct"), "number")
        return framed(made, {"metric": "text", **numbers, "better": "text"})


_TURNS = ("turn", "status", "shared", "role", "a", "a_text", "a_calls", "b", "b_text", "b_calls")
_NOBODY = Turn("", ("", 0), "", "", "", ())
_CALL_CELLS = ("place", "args", "status", "result", "duration_s")


def _tool_calls(side: Side) -> list[dict[str, Any]]:
    names = ("run_index", "message_index", "tool_name", "caller", "args", "status", "result", "duration_s")
    found = []
    for row in rows(side.tool_calls, names):
        call = dict(zip(names, row, strict=True))
        at = "" if call["message_index"] is None else f".{call['message_index']}"
        place = f"{side.session_id}/{call['run_index']}{at}"
        found.append({**call, "place": place, "sorted": sorted_json(call["args"])})
    return found


def _called(call: dict[str, Any]) -> Hashable:
    return call["caller"], call["tool_name"], call["sorted"], call["status"] == "failed"


def _tool(call: dict[str, Any]) -> Hashable:
    return call["caller"], call["tool_name"]


def _status(a: T | None, b: T | None, key: Callable[[T], Hashable]) -> str:
    if a is None:
        return ONLY_B
    if b is None:
        return ONLY_A
    return MATCHED if key(a) == key(b) else CHANGED


def _calls(turn: Turn, *, exact: bool = False) -> str | None:
    """The calls of a turn as text; None where it makes none."""
    return "\n".join(_call(call, exact=exact) for call in turn.calls) or None


def _call(call: Call, *, exact: bool) -> str:
    result = call.result
    if exact and result is not None:
        result = call.value or json.dumps(result)
    told = "" if result is None else f" → {result}"
    return f"{call.tool_name}({call.args}){' failed' if call.failed else ''}{told}"


def _told_apart(a: Turn | None, b: Turn | None) -> list[tuple[str | None, str, str | None]]:
    """As `_said`, of two turns that differ; where that would be the same text, each is spelled exactly."""
    told = [_said(a), _said(b)]
    if a is None or b is None or told[0][1:] != told[1][1:]:
        return told
    return [(turn.place, turn.exact, _calls(turn, exact=True)) for turn in (a, b)]


def _said(turn: Turn | None) -> tuple[str | None, str, str | None]:
    """Where a turn stands, its text and its calls."""
    return (None, "", None) if turn is None else (turn.place, turn.text, _calls(turn))


def _is_one_place(one: SessionStore, other: SessionStore) -> bool:
    """Whether the rows of two stores are the same: one database and one workload of it."""
    where = [(store.database, store.tables.name) for store in (one, other)]
    return one is other or (where[0] == where[1] and ":memory:" not in one.url)


def _better(delta: float | None, direction: int) -> str | None:
    """The side that a difference speaks for: a, b or neither; None where it says nothing."""
    if delta is None or not direction:
        return None
    return "neither" if delta == 0 else "b" if delta * direction > 0 else "a"
