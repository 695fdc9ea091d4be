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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db.mapping import Row
from kern_nb.db.store import SessionStore
from kern_nb.ingest.batches import batched
from kern_nb.ingest.bundle_schema import RUN_TABLES, Rows
from kern_nb.ingest.diff import Changes
from kern_nb.ingest.importer import MalformedRecord, hash_record
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES

INTERRUPTED, PAUSED = "INTERRUPTED", "PAUSED"
_REPLACEABLE = (INTERRUPTED, PAUSED)

_MESSAGE_LENGTH = 500
"""Characters of a typical message."""


class InheritedRun(NamedTuple):
    """The last run that a branch inherits, which identifies its parent."""

    session_id: str
    run_id: str
    run_index: int


class _Run(NamedTuple):
    session_id: str
    run_index: int
    status: str


class _Requirement(NamedTuple):
    run_id: str
    status: str
    claimed_by: str | None = None
    resolved_at: int | None = None


class _Message(NamedTuple):
    message_index: int
    role: str
    created_at: int | None


@dataclass(slots=True)
class BundledSession:
    """A session of a bundle; `merge_session` ends its open runs.

    Attributes:
        file: The file name, as problems show it.
        line: Returns the line where its record starts.
        rows: Its rows, by table.
        inherits: The last run it inherits, if its parent is in the bundle too.
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

    Attributes:
        sessions: The rows of the sessions, and of their parents.
        runs: Runs by id.
        run_ids: The ids of runs by session and index.
        requirements: Requirements by id.
        last_messages: The last message of each run that a later bundle may replace.
        scores: The keys of scores: session, run, name and source.
    """

    sessions: dict[str, RowMapping | Row] = field(default_factory=dict)
    runs: dict[str, _Run] = field(default_factory=dict)
    run_ids: dict[tuple[str, int], str] = field(default_factory=dict)
    requirements: dict[str, _Requirement] = field(default_factory=dict)
    last_messages: dict[str, _Message] = field(default_factory=dict)
    scores: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, draft: BundledSession) -> None:
        """Add a session that is going to be stored."""
        self.sessions.setdefault(draft.session_id, draft.session)
        for row in draft.rows["runs"]:
            self.runs[row["run_id"]] = _Run(draft.session_id, row["run_index"], row["status"])
            self.run_ids[draft.session_id, row["run_index"]] = row["run_id"]
        for row in draft.rows["requirements"]:
            self.requirements[row["requirement_id"]] = _Requirement(*(row[name] for name in _Requirement._fields))


def load_existing(connection: Connection, store: SessionStore, drafts: Sequence[BundledSession]) -> ExistingRows:
    """Load the stored rows of these sessions, locking them on engines that lock rows."""
    tables = store.tables
    s, r, c = tables.sessions, tables.runs, tables.scores
    existing = ExistingRows()
    ids = [draft.session_id for draft in drafts]
    for batch in batched(ids):
        for row in connection.execute(store.locked(sa.select(s).where(s.c.session_id.in_(batch)))).mappings():
            existing.sessions[row["session_id"]] = row
    stored_ids = list(existing.sessions)
    owners = {d.session["parent_session_id"] for d in drafts} | {d.inherits.session_id for d in drafts if d.inherits}
    for batch in batched(owners - {None} - existing.sessions.keys()):
        for row in connection.execute(sa.select(s).where(s.c.session_id.in_(batch))).mappings():
            existing.sessions[row["session_id"]] = row
    run_ids = {row["run_id"] for draft in drafts for row in draft.rows["runs"]}
    run_ids |= {draft.inherits.run_id for draft in drafts if draft.inherits}
    for column, values in ((r.c.session_id, stored_ids), (r.c.run_id, run_ids)):
        for batch in batched(values):
            query = sa.select(r.c.run_id, r.c.session_id, r.c.run_index, r.c.status).where(column.in_(batch))
            for run_id, session_id, run_index, status in connection.execute(query):
                existing.runs[run_id] = _Run(session_id, run_index, status)
                existing.run_ids[session_id, run_index] = run_id
    _load_unfinished(connection, store, drafts, existing)
    for batch in batched(stored_ids):
        keys = sa.select(c.c.session_id, c.c.run_id, c.c.name, c.c.source).where(c.c.session_id.in_(batch))
        existing.scores |= {tuple(row) for row in connection.execute(keys)}
    return existing


def _load_unfinished(
    connection: Connection, store: SessionStore, drafts: Sequence[BundledSession], existing: ExistingRows
) -> None:
    """Load the stored requirements of these sessions, and the last messages of their unfinished runs."""
    q, m = store.tables.requirements, store.tables.messages
    for batch in batched({row["requirement_id"] for draft in drafts for row in draft.rows["requirements"]}):
        query = sa.select(q.c.requirement_id, *(q.c[name] for name in _Requirement._fields))
        for requirement_id, *values in connection.execute(query.where(q.c.requirement_id.in_(batch))):
            existing.requirements[requirement_id] = _Requirement(*values)
    run_ids = {row["run_id"] for draft in drafts for row in draft.rows["runs"]} & existing.runs.keys()
    for batch in batched(run_id for run_id in run_ids if existing.runs[run_id].status in _REPLACEABLE):
        query = sa.select(m.c.run_id, *(m.c[name] for name in _Message._fields)).where(m.c.run_id.in_(batch))
        for run_id, *values in connection.execute(query.order_by(m.c.message_index)):
            existing.last_messages[run_id] = _Message(*values)


def merge_session(draft: BundledSession, existing: ExistingRows) -> tuple[Changes, str]:
    """Compute what storing a bundle's session changes.

    Returns:
        The changes, and a warning about the stored session; empty if there is none.

    Raises:
        MalformedRecord: the session conflicts with stored rows.
    """
    stored = existing.sessions.get(draft.session_id)
    if stored is not None:
        _refuse_other_session(draft, stored, existing)
    _refuse_duplicate_ids(draft, existing)
    warning = _check_parent(draft, existing)
    _end_open_runs(draft)
    changes = Changes()
    new, continued = _select_runs(draft, existing)
    changes.replaced = sorted(continued)
    selected = new | continued
    for name in ("runs", *RUN_TABLES):
        changes.rows[name] = [row for row in draft.rows[name] if row["run_id"] in selected]
    requirement_ids = [row["requirement_id"] for row in changes.rows["requirements"]]
    changes.renewed = [name for name in requirement_ids if name in existing.requirements]
    changes.rows["scores"] = _new_scores(draft, existing)
    if stored is None:
        changes.rows["sessions"] = draft.rows["sessions"]
    elif selected:
        changes.updated.append((draft.session_id, _updated_columns(draft, stored, existing)))
    return changes, warning


def _refuse_other_session(draft: BundledSession, stored: RowMapping | Row, existing: ExistingRows) -> None:
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
        if run is not None and (run.session_id, run.run_index) != (draft.session_id, row["run_index"]):
            raise MalformedRecord(f"its run {row['run_id']!r} is stored already, as {run.session_id}/{run.run_index}")
    for row in draft.rows["requirements"]:
        requirement = existing.requirements.get(row["requirement_id"])
        if requirement is not None and requirement.run_id != row["run_id"]:
            raise MalformedRecord(f"its requirement {row['requirement_id']!r} is stored already, for another run")


def _check_parent(draft: BundledSession, existing: ExistingRows) -> str:
    """Return a warning if the parent of a branch is missing, so that the branch has no inherited rows.

    Raises:
        MalformedRecord: the store has a different session with the id of the parent.
    """
    parent, inherits = draft.session["parent_session_id"], draft.inherits
    if parent is None:
        return ""
    _refuse_cycle(draft, existing)
    owner = parent if inherits is None else inherits.session_id
    for session_id in (parent, owner):
        if session_id not in existing.sessions:
            return f"is stored without its inherited runs: the store has no session {session_id!r}"
    run = None if inherits is None else existing.runs.get(inherits.run_id)
    if inherits is not None and (run is None or (run.session_id, run.run_index) != (owner, inherits.run_index)):
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


def _has_continued(draft: BundledSession, run: Row, stored: _Run, existing: ExistingRows) -> bool:
    """Whether the bundle has a later state of a stored run: its end, or an answer to its pause."""
    if stored.status == INTERRUPTED:
        return run["status"] not in (INTERRUPTED, PAUSED)
    if stored.status != PAUSED:
        return False
    if run["status"] != PAUSED:
        return True
    return any(
        row["run_id"] == run["run_id"]
        and row["status"] not in UNRESOLVED_STATUSES
        and (requirement := existing.requirements.get(row["requirement_id"])) is not None
        and requirement.status in UNRESOLVED_STATUSES
        for row in draft.rows["requirements"]
    )


def _is_untouched(draft: BundledSession, run: Row, existing: ExistingRows) -> bool:
    """Whether the stored run has no answer, claim or message that the bundle lacks."""
    run_id = run["run_id"]
    for row in draft.rows["requirements"]:
        stored = existing.requirements.get(row["requirement_id"])
        if row["run_id"] != run_id or stored is None:
            continue
        is_answered_here = stored.status == "resolved" and stored.resolved_at != row["resolved_at"]
        if is_answered_here or stored.claimed_by not in (None, row["claimed_by"]):
            return False
    last = existing.last_messages.get(run_id)
    if last is None:
        return True
    messages = (row for row in draft.rows["messages"] if row["run_id"] == run_id)
    return any(_Message(*(row[name] for name in _Message._fields)) == last for row in messages)


def _new_scores(draft: BundledSession, existing: ExistingRows) -> list[Row]:
    rows = []
    for position, row in enumerate(draft.rows["scores"]):
        key = (draft.session_id, row["run_id"], row["name"], row["source"])
        if key not in existing.scores:  # which has keys of stored sessions only
            rows.append(row | {"score_id": hash_record(*key, position)})
    return rows


def _updated_columns(draft: BundledSession, stored: RowMapping | Row, existing: ExistingRows) -> Row:
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
