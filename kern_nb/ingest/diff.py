"""The difference between a draft and the stored rows of its session. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import RowMapping

from kern_nb.db import mapping
from kern_nb.db.mapping import Row
from kern_nb.ingest.bundle_schema import TABLES, Rows
from kern_nb.ingest.importer import Draft, MalformedRecord, hash_record

ORIGIN = "source"
"""The key of `session_data` that records where an imported session comes from: a branch does not inherit it."""


@dataclass
class Changes:
    """The changes to write.

    Attributes:
        rows: New rows by table.
        updated: Ids of stored sessions that have changed, and the new columns of each.
        rescored: The session and the source of scores that are replaced by new ones.
        replaced: Ids of runs whose rows are replaced by new ones.
        renewed: Ids of requirements whose rows are replaced by new ones.
        blobs: Shared JSON by its SHA-256.
        warning: What the import reports about a session that it stores.
    """

    rows: Rows = field(default_factory=lambda: {name: [] for name in TABLES})
    updated: list[tuple[str, Row]] = field(default_factory=list)
    rescored: list[tuple[str, str]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    warning: str = ""

    def __bool__(self) -> bool:
        return bool(self.updated or any(self.rows.values()))

    def add(self, other: Changes) -> None:
        """Append other changes to these."""
        for name in TABLES:
            self.rows[name] += other.rows[name]
        self.updated += other.updated
        self.rescored += other.rescored
        self.replaced += other.replaced
        self.renewed += other.renewed
        self.blobs |= other.blobs


def diff_session(draft: Draft, session: RowMapping | None, runs: Mapping[int, RowMapping]) -> Changes:
    """Compute what storing a draft changes; raise MalformedRecord if the session of its id is a different one."""
    changes = Changes()
    if session is not None:
        _refuse_other_session(draft, session, runs)
    for index, (run, source_hash) in enumerate(zip(draft.runs, draft.hashes, strict=True)):
        if index in runs:
            if runs[index]["source_hash"] == source_hash:
                continue
            changes.replaced.append(run.run_id)
        rows = mapping.run_rows(run, draft.session_id)
        rows.run["source_hash"] = source_hash
        for row in (rows.run, *rows.messages, *rows.tool_calls):
            row["run_index"] = index
        changes.rows["runs"].append(rows.run)
        changes.rows["messages"] += rows.messages
        changes.rows["tool_calls"] += rows.tool_calls
    row = mapping.session_row(draft.session)
    if session is None:
        changes.rows["sessions"].append(row | {"session_data": _with_origin(draft, row["session_data"])})
        changes.rows["scores"] = _score_rows(draft)
    elif _origin(session).get("hash") != draft.session_hash:
        changes.updated.append((draft.session_id, _merge_columns(draft, row, session)))
        changes.rescored.append((draft.session_id, draft.source))
        changes.rows["scores"] = _score_rows(draft)
    if changes:
        changes.blobs |= draft.blobs
    return changes


def _refuse_other_session(draft: Draft, session: RowMapping, runs: Mapping[int, RowMapping]) -> None:
    """Never overwrite a different session of the same id."""
    if session["parent_session_id"] is not None:
        raise MalformedRecord("the store has a branch with this id")
    for index, run in enumerate(draft.runs):
        if index in runs and runs[index]["run_id"] != run.run_id:
            raise MalformedRecord(f"run {index} of the stored session is not from this source")
    origin = _origin(session)
    is_elsewhere = bool(origin) and (origin.get("format"), origin.get("place")) != (draft.source, draft.scope)
    if is_elsewhere and runs and draft.hashes[:1] != [runs[0]["source_hash"]]:
        raise MalformedRecord("the store has a session with this id from another file, and its first run differs")


def _origin(session: RowMapping) -> dict[str, Any]:
    origin = (session["session_data"] or {}).get(ORIGIN)
    return origin if isinstance(origin, dict) else {}


def _with_origin(draft: Draft, data: dict[str, Any] | None) -> dict[str, Any]:
    origin = {"format": draft.source, "hash": draft.session_hash} | ({"place": draft.scope} if draft.scope else {})
    return (data or {}) | {ORIGIN: origin}


def _merge_columns(draft: Draft, row: Row, session: RowMapping) -> Row:
    """The new columns of a session whose record has changed; the user's additions stay."""
    columns = {name: value for name, value in row.items() if value is not None}
    columns["metadata"] = (session["metadata"] or {}) | (row["metadata"] or {})
    columns["session_data"] = _with_origin(draft, (session["session_data"] or {}) | (row["session_data"] or {}))
    times = [time for time in (session["updated_at"], row["updated_at"]) if time is not None]
    return columns | {"updated_at": max(times, default=None)}


def _score_rows(draft: Draft) -> list[Row]:
    return [
        {
            "score_id": hash_record(draft.session_id, draft.source, name),
            "session_id": draft.session_id,
            "run_id": None,
            "name": name,
            "value": value,
            "source": draft.source,
            "created_at": draft.scored_at,
        }
        for name, value in draft.scores.items()
    ]
