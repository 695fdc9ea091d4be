"""Merging a session of a bundle with the stored rows of that session. Nothing here writes.

A new session is stored as it is. To a stored session, only missing runs and scores are added. The user's changes stay;
a session that has diverged is refused.

A PAUSED run stays paused and can be answered and continued here: the bundle is a copy, so answer it in one of the two
stores only. A claim on its requirements belongs to the other store and is dropped. A RUNNING run becomes INTERRUPTED,
its started calls unknown, and its requirements expired, because its process is elsewhere.

A PAUSED or INTERRUPTED run is replaced if a later bundle has a later state of it, unless it was answered, claimed or
continued here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.batches import batched
from kern_nb.db.column_types import StoredRow
from kern_nb.db.mapping import Row
from kern_nb.db.store import SessionStore
from kern_nb.ingest.bundle_schema import RUN_TABLES, Rows
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import MalformedRecord, hash_record
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES

INTERRUPTED, PAUSED = "INTERRUPTED", "PAUSED"
_REPLACEABLE = (INTERRUPTED, PAUSED)

_MESSAGE_LENGTH = 500
"""Characters of a typical message."""

_MESSAGE_KEY = ("message_index", "role", "created_at")
"""What identifies a message of a run."""


class InheritedRun(NamedTuple):
    """The last run that a branch inherits, which identifies its parent."""

    session_id: str
    run_id: str
    run_index: int


@dataclass(slots=True)
class BundledSession:
    """A session of a bundle; `merge_session` ends its open runs.

    ``line`` returns the line where its record starts. ``inherits`` is the last run that it inherits, if its parent is
    in the bundle too.
    """

    file: str
    line: Callable[[], int]
    rows: Rows
    inherits: InheritedRun | None = None

    @property
    def session(self) -> Row:
        """The session's row."""
        return self.rows["sessions"][0]

    @property
    def session_id(self) -> str:
        """The session's id."""
        return str(self.session["session_id"])

    @property
    def weight(self) -> int:
        """Its size in memory, in messages of typical length."""
        return sum(1 + len(row["content"] or "") // _MESSAGE_LENGTH for row in self.rows["messages"])


@dataclass
class ExistingRows:
    """The stored rows that may conflict with the sessions of a batch, including those accepted so far.

    Sessions (parents, too) and runs are by id, requirements by run and id, ``run_ids`` by session and index.
    ``last_messages`` are those of the runs that a later bundle may replace. ``scores`` are keys: session, run, name and
    source.
    """

    sessions: dict[str, StoredRow] = field(default_factory=dict)
    runs: dict[str, StoredRow] = field(default_factory=dict)
    run_ids: dict[tuple[str, int], str] = field(default_factory=dict)
    requirements: dict[tuple[str, str], StoredRow] = field(default_factory=dict)
    last_messages: dict[str, StoredRow] = field(default_factory=dict)
    scores: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, draft: BundledSession) -> None:
        """Add a session that is going to be stored."""
        self.sessions.setdefault(draft.session_id, draft.session)
        self.add_runs(draft.rows["runs"])
        self.requirements |= {_key(row): row for row in draft.rows["requirements"]}

    def add_runs(self, rows: Iterable[StoredRow]) -> None:
        """Add runs."""
        for row in rows:
            self.runs[row["run_id"]] = row
            self.run_ids[row["session_id"], row["run_index"]] = row["run_id"]


def _key(requirement: StoredRow) -> tuple[str, str]:
    return requirement["run_id"], requirement["requirement_id"]


def load_existing(connection: Connection, store: SessionStore, drafts: Sequence[BundledSession]) -> ExistingRows:
    """Load the stored rows of these sessions, locking them on engines that lock rows."""
    tables = store.tables
    s, r, m, q, c = tables.sessions, tables.runs, tables.messages, tables.requirements, tables.scores

    def select(query: sa.Select[Any], column: sa.Column[Any], values: Iterable[str]) -> Iterator[RowMapping]:
        for batch in batched(values):
            yield from connection.execute(query.where(column.in_(batch))).mappings()

    existing = ExistingRows()
    ids = [draft.session_id for draft in drafts]
    existing.sessions |= {row["session_id"]: row for row in select(store.locked(sa.select(s)), s.c.session_id, ids)}
    stored_ids = list(existing.sessions)
    owners = {d.session["parent_session_id"] for d in drafts} | {d.inherits.session_id for d in drafts if d.inherits}
    owners -= {None} | existing.sessions.keys()
    existing.sessions |= {row["session_id"]: row for row in select(sa.select(s), s.c.session_id, owners)}
    run_ids = {row["run_id"] for draft in drafts for row in draft.rows["runs"]}
    run_ids |= {draft.inherits.run_id for draft in drafts if draft.inherits}
    query: Any = sa.select(r.c.run_id, r.c.session_id, r.c.run_index, r.c.status)
    existing.add_runs(select(query, r.c.session_id, stored_ids))
    existing.add_runs(select(query, r.c.run_id, run_ids))
    requirement_ids = {row["requirement_id"] for draft in drafts for row in draft.rows["requirements"]}
    query = sa.select(q.c.requirement_id, q.c.run_id, q.c.status, q.c.claimed_by, q.c.resolved_at)
    existing.requirements |= {_key(row): row for row in select(query, q.c.requirement_id, requirement_ids)}
    bundled = run_ids & existing.runs.keys()
    unfinished = [run_id for run_id in bundled if existing.runs[run_id]["status"] in _REPLACEABLE]
    query = sa.select(m.c.run_id, *(m.c[name] for name in _MESSAGE_KEY)).order_by(m.c.message_index)
    existing.last_messages |= {row["run_id"]: row for row in select(query, m.c.run_id, unfinished)}
    query = sa.select(c.c.session_id, c.c.run_id, c.c.name, c.c.source)
    existing.scores |= {tuple(row.values()) for row in select(query, c.c.session_id, stored_ids)}
    return existing


def merge_session(draft: BundledSession, existing: ExistingRows) -> Changes:
    """Compute what storing a bundle's session changes; raise MalformedRecord if it conflicts with stored rows."""
    stored = existing.sessions.get(draft.session_id)
    if stored is not None:
        _refuse_other_session(draft, stored, existing)
    _refuse_duplicate_ids(draft, existing)
    changes = Changes(warning=_check_parent(draft, existing))
    _end_open_runs(draft)
    new, continued = _select_runs(draft, existing)
    changes.replaced = sorted(continued)
    selected = new | continued
    for name in ("runs", *RUN_TABLES):
        changes.rows[name] = [row for row in draft.rows[name] if row["run_id"] in selected]
    changes.renewed = [key for row in changes.rows["requirements"] if (key := _key(row)) in existing.requirements]
    changes.rows["scores"] = _new_scores(draft, existing)
    if stored is None:
        changes.rows["sessions"] = draft.rows["sessions"]
    elif selected:
        changes.updated.append((draft.session_id, _updated_columns(draft, stored, existing)))
    return changes


def _refuse_other_session(draft: BundledSession, stored: StoredRow, existing: ExistingRows) -> None:
    session, session_id = draft.session, draft.session_id
    fork = ("parent_session_id", "fork_run_index", "fork_message_index")
    if [session[name] for name in fork] != [stored[name] for name in fork]:
        raise MalformedRecord("the store has a session with this id that branches elsewhere")
    shared = 0
    for row in draft.rows["runs"]:
        run_id = existing.run_ids.get((session_id, row["run_index"]))
        if run_id is not None and run_id != row["run_id"]:
            raise MalformedRecord(f"the store has a session with this id whose run {row['run_index']} differs")
        shared += run_id is not None
    if not shared and session["created_at"] != stored["created_at"]:
        raise MalformedRecord("the store has a different session with this id")


def _refuse_duplicate_ids(draft: BundledSession, existing: ExistingRows) -> None:
    """Refuse ids that belong to other rows of the store."""
    for row in draft.rows["runs"]:
        run = existing.runs.get(row["run_id"])
        if run is not None and (run["session_id"], run["run_index"]) != (draft.session_id, row["run_index"]):
            stored_as = f"{run['session_id']}/{run['run_index']}"
            raise MalformedRecord(f"its run {row['run_id']!r} is stored already, as {stored_as}")


def _check_parent(draft: BundledSession, existing: ExistingRows) -> str:
    """Return a warning if the parent of a branch is missing; refuse another session with the id of the parent."""
    parent, inherits = draft.session["parent_session_id"], draft.inherits
    if parent is None:
        return ""
    _refuse_cycle(draft, existing)
    owner = parent if inherits is None else inherits.session_id
    for session_id in (parent, owner):
        if session_id not in existing.sessions:
            return f"is stored without its inherited runs: the store has no session {session_id!r}"
    if inherits is not None and existing.run_ids.get((owner, inherits.run_index)) != inherits.run_id:
        raise MalformedRecord(
            f"it inherits run {inherits.run_index} of {owner!r}, which the stored {owner!r} does not have"
        )
    return ""


def _refuse_cycle(draft: BundledSession, existing: ExistingRows) -> None:
    visited: set[str] = set()
    ancestor: str | None = draft.session["parent_session_id"]
    while ancestor is not None and ancestor not in visited:
        if ancestor == draft.session_id:
            raise MalformedRecord("it is a branch of itself")
        visited.add(ancestor)
        row = existing.sessions.get(ancestor)
        ancestor = None if row is None else row["parent_session_id"]


def _end_open_runs(draft: BundledSession) -> None:
    """End the open runs, except paused ones, whose requirements are resolved in this store."""
    state = (draft.session["session_data"] or {}).get("session_state")
    paused = {row["run_id"] for row in draft.rows["runs"] if row["status"] == PAUSED and row["copied_from"] is None}
    interrupted = {row["run_id"] for row in draft.rows["runs"] if row["status"] in OPEN_STATUSES} - paused
    for row in draft.rows["runs"]:
        if row["run_id"] in interrupted:
            row.update(status=INTERRUPTED, session_state=state if isinstance(state, dict) else None)
    for row in draft.rows["tool_calls"]:
        if row["run_id"] in interrupted and row["status"] == "started":
            row["status"] = "unknown"
    for row in draft.rows["requirements"]:
        if row["status"] in UNRESOLVED_STATUSES:
            row.update(status="pending" if row["run_id"] in paused else "expired", claimed_by=None)


def _select_runs(draft: BundledSession, existing: ExistingRows) -> tuple[set[str], set[str]]:
    """Return the ids of runs that the store lacks, and of stored runs that continued in the bundle only."""
    new, continued = set(), set()
    for row in draft.rows["runs"]:
        stored = existing.runs.get(row["run_id"])
        if stored is None:
            new.add(row["run_id"])
        elif _has_continued(draft, row, stored, existing) and _is_untouched(draft, row, existing):
            continued.add(row["run_id"])
    return new, continued


def _has_continued(draft: BundledSession, run: Row, stored: StoredRow, existing: ExistingRows) -> bool:
    """Whether the bundle has a later state of a stored run: its end, or an answer to its pause."""
    if stored["status"] == INTERRUPTED:
        return run["status"] not in (INTERRUPTED, PAUSED)
    if stored["status"] != PAUSED:
        return False
    if run["status"] != PAUSED:
        return True
    return any(
        row["run_id"] == run["run_id"]
        and row["status"] not in UNRESOLVED_STATUSES
        and (requirement := existing.requirements.get(_key(row))) is not None
        and requirement["status"] in UNRESOLVED_STATUSES
        for row in draft.rows["requirements"]
    )


def _is_untouched(draft: BundledSession, run: Row, existing: ExistingRows) -> bool:
    """Whether the stored run has no answer, claim or message that the bundle lacks."""
    run_id = run["run_id"]
    for row in draft.rows["requirements"]:
        stored = existing.requirements.get(_key(row))
        if row["run_id"] != run_id or stored is None:
            continue
        is_answered_here = stored["status"] == "resolved" and stored["resolved_at"] != row["resolved_at"]
        if is_answered_here or stored["claimed_by"] not in (None, row["claimed_by"]):
            return False
    last = existing.last_messages.get(run_id)
    if last is None:
        return True
    messages = (row for row in draft.rows["messages"] if row["run_id"] == run_id)
    return any(all(row[name] == last[name] for name in _MESSAGE_KEY) for row in messages)


def _new_scores(draft: BundledSession, existing: ExistingRows) -> list[Row]:
    rows = []
    for position, row in enumerate(draft.rows["scores"]):
        key = (draft.session_id, row["run_id"], row["name"], row["source"])
        if key not in existing.scores:  # which has keys of stored sessions only
            rows.append(row | {"score_id": hash_record(*key, position)})
    return rows


def _updated_columns(draft: BundledSession, stored: StoredRow, existing: ExistingRows) -> Row:
    """The new columns of a stored session with more runs: its time of change, and its state after the last run."""
    session, data = draft.session, stored["session_data"] or {}
    times = [time for time in (stored["updated_at"], session["updated_at"]) if time is not None]
    columns: Row = {"updated_at": max(times, default=None)}
    last = max(row["run_index"] for row in draft.rows["runs"])
    if any(owner == draft.session_id and index > last for owner, index in existing.run_ids):
        return columns
    state = (session["session_data"] or {}).get("session_state")
    if state is not None:
        columns["session_data"] = data | {"session_state": state}
    if session["summary"] is not None:
        columns["summary"] = session["summary"]
    return columns
