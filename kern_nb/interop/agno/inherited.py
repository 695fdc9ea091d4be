"""Runs that a branch inherits, as Agno has them: copies in a session of their own, with ids of their own.

Agno copies the runs of a session that it forks. A branch copies none. Agno is shown each inherited run under an id that
is derived from it and the branch; a copy that Agno saves unchanged is not stored, and of a changed one, what the
inherited run has is marked as repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from kern_nb.interop.agno.messages import AGNO
from kern_nb.interop.agno.runs import AS_IS
from kern_nb.interop.agno.values import JsonObject, is_same
from kern_nb.records import Run, Usage

_IDENTITY = ("run_id", "session_id", "parent_run_id", "user_id", "forked_from_session_id")
_EMPTY: tuple[Any, ...] = (None, [], {})  # Agno reads one and writes the other
REPLACES = "replaces"
"""In the ``internal`` of a run, under `AGNO`: the inherited run that it continues, in whose position Agno has it."""


def inherited_id(session_id: str, run_id: str) -> str:
    """The id under which a branch shows an inherited run to Agno."""
    return str(uuid5(NAMESPACE_URL, f"kern_nb:{session_id}/{run_id}"))


def as_copy(data: JsonObject, session_id: str, ids: dict[str, str]) -> JsonObject:
    """Agno's dict of an inherited run in a branch; ``ids`` are the derived ids by id."""
    copy = data | {"run_id": ids[data["run_id"]], "session_id": session_id}
    if data.get("parent_run_id") in ids:
        copy["parent_run_id"] = ids[data["parent_run_id"]]
    if not data.get("forked_from_session_id"):
        copy["forked_from_session_id"] = data.get("session_id")
    return copy


def is_copy(data: JsonObject, source: JsonObject) -> bool:
    """Whether a run is a copy of another: it differs in nothing but what identifies it."""
    first, second = (
        {key: value for key, value in run.items() if key not in _IDENTITY and value not in _EMPTY}
        for run in (data, source)
    )
    return is_same(first, second)


def in_agnos_order(runs: Sequence[Run]) -> list[Run]:
    """Runs in order; one that continues an inherited run is in the position of that."""
    notes = ((run.internal.get(AGNO, {}).get(REPLACES), run) for run in runs)
    replacing = {source: run for source, run in notes if source is not None}
    moved = {run.run_id for run in replacing.values()}
    return [replacing.get(run.run_id, run) for run in runs if run.run_id not in moved]


def continue_inherited(run: Run, source: Run, data: JsonObject) -> None:
    """Make a run the continuation of an inherited one: what that has is marked as repeated, and so counted once.

    ``data`` is Agno's dict of the run, which is kept as it is.
    """
    ids = {message.message_id for message in source.messages if message.message_id is not None}
    for message in run.messages:
        if message.message_id in ids:
            message.from_history, message.tool_calls = True, []
    ended = {call.tool_call_id for call in source.tool_calls if call.is_error is not None}
    run.tool_calls = [call for call in run.tool_calls if call.tool_call_id not in ended]
    if run.usage is not None and source.usage is not None:
        parts = {name: (getattr(run.usage, name), getattr(source.usage, name)) for name in Usage.model_fields}
        differences: dict[str, Any] = {name: _difference(*values) for name, values in parts.items()}
        run.usage = Usage(**differences)
    run.extra = data
    run.internal = {AGNO: {AS_IS: True, REPLACES: source.run_id}}


def _difference(total: float | None, part: float | None) -> float | None:
    return total if total is None or part is None else max(total - part, 0)
