"""Where an imported session comes from, and the columns and scores that its source states."""

from __future__ import annotations

from typing import Any

from kern_nb.db.column_types import StoredRow
from kern_nb.db.mapping import Row
from kern_nb.ingest.importer import Draft, hash_record
from kern_nb.ingest.stored_lines import StoredLine

ORIGIN = "source"
"""The key of `session_data` that records where an imported session comes from: a branch does not inherit it."""


def source_key(draft: Draft) -> str | None:
    """The key of the first record of a draft, by which copies of its session are recognized."""
    first = next((key for keys in draft.keys for key in keys), None)  # a run may end before its first record
    return None if not draft.has_record_ids or first is None else hash_record(draft.source, first)


def describe_other_session(line: StoredLine, draft: Draft) -> str:
    """Say why the session of a draft's id is another one."""
    if line.session["parent_session_id"] is not None and not line.runs[line.n_inherited :]:
        return "the store has a branch with this id"
    if line.runs and line.runs[0].source_hash is None:
        return "run 0 of the stored session is not from this source"
    origin = origin_of(line.session).get("format")
    where = "" if origin in (None, draft.source) else f", imported from the format {origin}"
    return f"the store has a session with this id from another file{where}, and its first run differs"


def origin_of(session: StoredRow | Row) -> dict[str, Any]:
    """Where a session comes from; empty for one that was not imported."""
    origin = (session["session_data"] or {}).get(ORIGIN)
    return origin if isinstance(origin, dict) else {}


def is_same_file(draft: Draft, session: StoredRow | Row) -> bool:
    """Whether a session was imported from the file of a draft."""
    origin = origin_of(session)
    return origin.get("format") == draft.source and origin.get("file", draft.path_hash) == draft.path_hash


def with_origin(draft: Draft, data: dict[str, Any] | None) -> dict[str, Any]:
    """The ``session_data`` of a session with where it comes from."""
    return (data or {}) | {ORIGIN: {"format": draft.source, "hash": draft.session_hash, "file": draft.path_hash}}


def merge_columns(draft: Draft, row: Row, session: StoredRow | Row) -> Row:
    """The new columns of a session whose record has changed; the user's additions stay."""
    # The time of a branch is that of its branch point.
    kept = ("session_id",) if session["parent_session_id"] is None else ("session_id", "created_at")
    columns = {name: value for name, value in row.items() if value is not None and name not in kept}
    columns["metadata"] = (session["metadata"] or {}) | (row["metadata"] or {})
    columns["session_data"] = with_origin(draft, (session["session_data"] or {}) | (row["session_data"] or {}))
    if draft.has_run_ids:  # it may have a part of the session's runs
        columns |= _merge_parts(columns, session)
    times = [time for time in (session["updated_at"], row["updated_at"]) if time is not None]
    return columns | {"updated_at": max(times, default=None)}


def _merge_parts(columns: Row, session: StoredRow | Row) -> Row:
    """The columns of a session to which a draft adds runs: it began with the first of them all."""
    old, new = session["agent_data"] or {}, columns.get("agent_data") or {}
    data = old | new
    evaluations = [item for part in (old, new) for item in part.get("evaluations", ())]
    if evaluations:
        data["evaluations"] = [item for i, item in enumerate(evaluations) if item not in evaluations[:i]]
    merged: Row = {"agent_data": data} if data else {}
    if session["created_at"] is not None and "created_at" in columns:
        merged["created_at"] = min(session["created_at"], columns["created_at"])
    return merged


def score_rows(draft: Draft, session_id: str) -> dict[str, Row]:
    """The scores of a session by their id."""
    ids = {name: hash_record(session_id, draft.source, name) for name in draft.scores}
    shared = {"session_id": session_id, "run_id": None, "source": draft.source, "created_at": draft.scored_at}
    return {ids[name]: shared | {"score_id": ids[name], "name": name, "value": v} for name, v in draft.scores.items()}


def branch_time(draft: Draft, stated: int | None, parent: StoredLine, i: int, n: int) -> int | None:
    """When a branch began. A copy has the time of what it copies: it began with the first message of its own."""
    begin = parent.session["created_at"]
    if i >= len(draft.runs) or stated is None or begin is None or stated > begin:
        return stated
    own = next((m.created_at for m in draft.runs[i].messages[n:] if m.created_at is not None), None)
    return stated if own is None else max(stated, int(own.timestamp()))
