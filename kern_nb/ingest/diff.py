"""What storing a draft would change, given what the store has of its session. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import RowMapping

from kern_nb.db import mapping
from kern_nb.db.mapping import Row
from kern_nb.ingest.importer import Draft, Malformed, hash_of

TABLES = ("sessions", "runs", "messages", "tool_calls", "requirements", "scores")


@dataclass
class Stored:
    """What the store has of the sessions of a batch."""

    sessions: dict[str, RowMapping]
    runs: dict[str, dict[int, RowMapping]]


@dataclass
class Changes:
    """What is to be written: new rows by table, sessions that have changed, the ids of runs that new rows replace.

    Of a bundle, ``touched`` are sessions that have more runs now, and ``renewed`` requirements that new rows replace.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    updated: list[tuple[Draft, Row]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    touched: list[tuple[str, Row]] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.updated or any(self.rows.values()))

    def add(self, other: Changes) -> None:
        """Take another's changes in."""
        for name in TABLES:
            self.rows[name] += other.rows[name]
        self.updated += other.updated
        self.replaced += other.replaced
        self.blobs |= other.blobs
        self.touched += other.touched
        self.renewed += other.renewed


def changes_of(draft: Draft, stored: Stored) -> Changes:
    """What storing a draft would write.

    Raises:
        Malformed: it cannot go where it belongs.
    """
    changes = Changes()
    session_id = draft.session.session_id
    there, runs = stored.sessions.get(session_id), stored.runs.get(session_id, {})
    if there is not None:
        _refuse_strangers(draft, there, runs)
    for index, (run, record_hash) in enumerate(zip(draft.runs, draft.hashes, strict=True)):
        if index in runs:
            if runs[index]["source_hash"] == record_hash:
                continue
            changes.replaced.append(run.run_id)
        made = mapping.run_rows(run, session_id)
        made.run["source_hash"] = record_hash
        for row in (made.run, *made.messages, *made.tool_calls):
            row["run_index"] = index
        changes.rows["runs"].append(made.run)
        changes.rows["messages"] += made.messages
        changes.rows["tool_calls"] += made.tool_calls
    row = mapping.session_row(draft.session)
    if there is None:
        changes.rows["sessions"].append(row | {"session_data": _marked(draft, row["session_data"])})
        changes.rows["scores"] = _score_rows(draft)
    elif _mark(there).get("hash") != draft.session_hash:
        changes.updated.append((draft, _update(draft, row, there)))
        changes.rows["scores"] = _score_rows(draft)
    if changes:
        changes.blobs |= draft.blobs
    return changes


def _refuse_strangers(draft: Draft, there: RowMapping, runs: Mapping[int, RowMapping]) -> None:
    """Never write over a session that is another one.

    Raises:
        Malformed: it is.
    """
    if there["parent_session_id"] is not None:
        raise Malformed("the store has a branch of that name")
    for index, run in enumerate(draft.runs):
        if index in runs and runs[index]["run_id"] != run.run_id:
            raise Malformed(f"the store has a run of its own at {index}, where the source goes on")
    mark = _mark(there)
    elsewhere = bool(mark) and (mark.get("format"), mark.get("place")) != (draft.source, draft.place)
    if elsewhere and runs and draft.hashes[:1] != [runs[0]["source_hash"]]:
        raise Malformed("the store has a session of that id from another file, and it begins differently")


# An imported session says in `session_data` where it is from: a branch does not inherit that.
_MARK = "source"


def _mark(session: RowMapping) -> dict[str, Any]:
    mark = (session["session_data"] or {}).get(_MARK)
    return mark if isinstance(mark, dict) else {}


def _marked(draft: Draft, data: dict[str, Any] | None) -> dict[str, Any]:
    mark = {"format": draft.source, "hash": draft.session_hash}
    return (data or {}) | {_MARK: mark | ({"place": draft.place} if draft.place else {})}


def _update(draft: Draft, row: Row, there: RowMapping) -> Row:
    """The columns of a session whose record has changed. What the analyst added to it stays."""
    new = {name: value for name, value in row.items() if value is not None}
    new["metadata"] = (there["metadata"] or {}) | (row["metadata"] or {})
    new["session_data"] = _marked(draft, (there["session_data"] or {}) | (row["session_data"] or {}))
    times = [time for time in (there["updated_at"], row["updated_at"]) if time is not None]
    return new | {"updated_at": max(times, default=None)}


def _score_rows(draft: Draft) -> list[Row]:
    session_id = draft.session.session_id
    return [
        {
            "score_id": hash_of(session_id, draft.source, name),
            "session_id": session_id,
            "run_id": None,
            "name": name,
            "value": value,
            "source": draft.source,
            "created_at": draft.scored_at,
        }
        for name, value in draft.scores.items()
    ]
