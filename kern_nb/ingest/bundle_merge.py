"""What storing a bundle's session would change, given what the store has of it. Nothing here writes.

A session that is new goes in as it is. Of one that is there already, only what is missing is added: runs, and scores.
What the analyst did in between stays; a session that went on differently is left alone.

A run that was PAUSED stays so, and is answered and continued here: the bundle is a copy, so it is to be answered in one
of the two stores. A claim on what it waits for was made there, and is not kept. A run that was RUNNING is INTERRUPTED
here, its calls that had started are unknown, and what it waited for has expired: its process is elsewhere.

If a later bundle knows more of a run that is PAUSED or INTERRUPTED here, the run is replaced, unless it was answered,
claimed or continued here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db.mapping import Row
from kern_nb.db.store import SessionStore
from kern_nb.ingest.bundle_schema import OF_RUN, Rows
from kern_nb.ingest.diff import Changes
from kern_nb.ingest.importer import Malformed, hash_of
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES

LOST, PAUSED = "INTERRUPTED", "PAUSED"
_REPLACEABLE = (LOST, PAUSED)

_ASKED_AT_ONCE = 5_000
_USUAL = 500
"""Characters of a message, beside what else it takes."""


class Inherited(NamedTuple):
    """The last run that a branch inherits, by which its parent is known."""

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
class Bundled:
    """A session as a bundle has it; its rows are closed when they are taken in.

    Attributes:
        file: The file it is from, as problems call it.
        line: Gives the line where its record starts.
        rows: Its rows, by table.
        inherits: What it inherits, where its parent is in the bundle too.
    """

    file: str
    line: Callable[[], int]
    rows: Rows
    inherits: Inherited | None = None

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
        """How much is held in memory with it, in messages of usual length."""
        return sum(1 + len(row["content"] or "") // _USUAL for row in self.rows["messages"])


@dataclass
class Known:
    """What the store has that the sessions of a batch may meet. What is accepted is added as it goes.

    Attributes:
        sessions: Their rows, and those of parents.
        runs: Runs by id.
        places: The ids of runs by session and index.
        requirements: Requirements by id.
        last_messages: Of runs that a later bundle may replace, the last message.
        scores: What is rated: session, run, name and source.
    """

    sessions: dict[str, RowMapping | Row] = field(default_factory=dict)
    runs: dict[str, _Run] = field(default_factory=dict)
    places: dict[tuple[str, int], str] = field(default_factory=dict)
    requirements: dict[str, _Requirement] = field(default_factory=dict)
    last_messages: dict[str, _Message] = field(default_factory=dict)
    scores: set[tuple[Any, ...]] = field(default_factory=set)

    def accept(self, draft: Bundled) -> None:
        """Take in what is going to be stored."""
        self.sessions.setdefault(draft.session_id, draft.session)
        for row in draft.rows["runs"]:
            self.runs[row["run_id"]] = _Run(draft.session_id, row["run_index"], row["status"])
            self.places[draft.session_id, row["run_index"]] = row["run_id"]
        for row in draft.rows["requirements"]:
            self.requirements[row["requirement_id"]] = _Requirement(*(row[name] for name in _Requirement._fields))


def known(connection: Connection, store: SessionStore, drafts: Sequence[Bundled]) -> Known:
    """What the store has of these sessions; their rows are locked where the engine locks rows."""
    tables = store.tables
    s, r, c = tables.sessions, tables.runs, tables.scores
    found = Known()
    ids = [draft.session_id for draft in drafts]
    for some in _parts(ids):
        for row in connection.execute(store.locked(sa.select(s).where(s.c.session_id.in_(some)))).mappings():
            found.sessions[row["session_id"]] = row
    ours = list(found.sessions)
    owners = {d.session["parent_session_id"] for d in drafts} | {d.inherits.session_id for d in drafts if d.inherits}
    for some in _parts(owners - {None} - found.sessions.keys()):
        for row in connection.execute(sa.select(s).where(s.c.session_id.in_(some))).mappings():
            found.sessions[row["session_id"]] = row
    run_ids = {row["run_id"] for draft in drafts for row in draft.rows["runs"]}
    run_ids |= {draft.inherits.run_id for draft in drafts if draft.inherits}
    asked = [(r.c.session_id, ours), (r.c.run_id, run_ids)]
    for column, values in asked:
        for some in _parts(values):
            query = sa.select(r.c.run_id, r.c.session_id, r.c.run_index, r.c.status).where(column.in_(some))
            for run_id, session_id, run_index, status in connection.execute(query):
                found.runs[run_id] = _Run(session_id, run_index, status)
                found.places[session_id, run_index] = run_id
    _add_pauses(connection, store, drafts, found, run_ids)
    for some in _parts(ours):
        rated = sa.select(c.c.session_id, c.c.run_id, c.c.name, c.c.source).where(c.c.session_id.in_(some))
        found.scores |= {tuple(row) for row in connection.execute(rated)}
    return found


def _add_pauses(
    connection: Connection, store: SessionStore, drafts: Sequence[Bundled], found: Known, run_ids: set[str]
) -> None:
    """What runs of these drafts wait for in the store, and how far those came that may go on."""
    q, m = store.tables.requirements, store.tables.messages
    for some in _parts({row["requirement_id"] for draft in drafts for row in draft.rows["requirements"]}):
        query = sa.select(q.c.requirement_id, *(q.c[name] for name in _Requirement._fields))
        for name, *values in connection.execute(query.where(q.c.requirement_id.in_(some))):
            found.requirements[name] = _Requirement(*values)
    unfinished = (run_id for run_id, run in found.runs.items() if run.status in _REPLACEABLE)
    for some in _parts(run_id for run_id in unfinished if run_id in run_ids):
        query = sa.select(m.c.run_id, *(m.c[name] for name in _Message._fields)).where(m.c.run_id.in_(some))
        for run_id, *values in connection.execute(query.order_by(m.c.message_index)):
            found.last_messages[run_id] = _Message(*values)


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    """So many at once as every engine takes parameters."""
    every = list(values)
    for start in range(0, len(every), _ASKED_AT_ONCE):
        yield every[start : start + _ASKED_AT_ONCE]


def restoring(draft: Bundled, store: Known) -> tuple[Changes, str]:
    """What storing a bundle's session would write; and what is wrong with it though it is stored.

    Raises:
        Malformed: it cannot go where it belongs.
    """
    there = store.sessions.get(draft.session_id)
    if there is not None:
        _refuse_strangers(draft, there, store)
    _refuse_taken(draft, store)
    lost = _parent_lost(draft, store)
    _close(draft)
    changes = Changes()
    new, ended = _news(draft, store)
    changes.replaced = sorted(ended)
    wanted = new | ended
    for name in ("runs", *OF_RUN):
        changes.rows[name] = [row for row in draft.rows[name] if row["run_id"] in wanted]
    asked = [row["requirement_id"] for row in changes.rows["requirements"]]
    changes.renewed = [name for name in asked if name in store.requirements]
    changes.rows["scores"] = _scores(draft, store)
    if there is None:
        changes.rows["sessions"] = draft.rows["sessions"]
    elif wanted:
        changes.touched.append((draft.session_id, _gone_on(draft, there, store)))
    return changes, lost


def _refuse_strangers(draft: Bundled, there: RowMapping | Row, store: Known) -> None:
    session, session_id = draft.session, draft.session_id
    fork = ("parent_session_id", "fork_run_index", "fork_message_index")
    if [session[name] for name in fork] != [there[name] for name in fork]:
        raise Malformed("the store has a session of that id, and it branches elsewhere")
    shared = 0
    for row in draft.rows["runs"]:
        stored = store.places.get((session_id, row["run_index"]))
        if stored is not None and stored != row["run_id"]:
            raise Malformed(f"the store has a session of that id, and its run {row['run_index']} is another one")
        shared += stored is not None
    if not shared and session["created_at"] != there["created_at"]:
        raise Malformed("the store has a session of that id that is another one")


def _refuse_taken(draft: Bundled, store: Known) -> None:
    """Ids that no two rows of a store may have."""
    for row in draft.rows["runs"]:
        run = store.runs.get(row["run_id"])
        if run is not None and (run.session_id, run.run_index) != (draft.session_id, row["run_index"]):
            raise Malformed(f"its run {row['run_id']!r} is stored already, as {run.session_id}/{run.run_index}")
    for row in draft.rows["requirements"]:
        stored = store.requirements.get(row["requirement_id"])
        if stored is not None and stored.run_id != row["run_id"]:
            raise Malformed(f"its requirement {row['requirement_id']!r} is stored already, of another run")


def _parent_lost(draft: Bundled, store: Known) -> str:
    """Why a branch does not see what it inherits, where its parent is not there; empty where it does.

    Raises:
        Malformed: the store has a parent of that name, and it is another session.
    """
    parent, inherits = draft.session["parent_session_id"], draft.inherits
    if parent is None:
        return ""
    _refuse_circle(draft, store)
    owner = parent if inherits is None else inherits.session_id
    if parent not in store.sessions or owner not in store.sessions:
        gone = parent if parent not in store.sessions else owner
        return f"is stored without what it inherits: there is no session {gone!r}"
    run = None if inherits is None else store.runs.get(inherits.run_id)
    if inherits is not None and (run is None or (run.session_id, run.run_index) != (owner, inherits.run_index)):
        raise Malformed(
            f"it inherits run {inherits.run_index} of {owner!r}, and the store's {owner!r} has not that run"
        )
    return ""


def _refuse_circle(draft: Bundled, store: Known) -> None:
    met: set[str] = set()
    link: str | None = draft.session["parent_session_id"]
    while link is not None and link not in met:
        if link == draft.session_id:
            raise Malformed("it is a branch of itself")
        met.add(link)
        above = store.sessions.get(link)
        link = None if above is None else above["parent_session_id"]


def _close(draft: Bundled) -> None:
    """End what was open, but for pauses, which are answered here."""
    state = (draft.session["session_data"] or {}).get("session_state")
    paused = {row["run_id"] for row in draft.rows["runs"] if row["status"] == PAUSED and row["copied_from"] is None}
    lost = {row["run_id"] for row in draft.rows["runs"] if row["status"] in OPEN_STATUSES} - paused
    for row in draft.rows["runs"]:
        if row["run_id"] in lost:
            row.update(status=LOST, session_state=state if isinstance(state, dict) else None)
    for row in draft.rows["tool_calls"]:
        if row["run_id"] in lost and row["status"] == "started":
            row["status"] = "unknown"
    for row in draft.rows["requirements"]:
        if row["status"] in UNRESOLVED_STATUSES:
            row.update(status="pending" if row["run_id"] in paused else "expired", claimed_by=None)


def _news(draft: Bundled, store: Known) -> tuple[set[str], set[str]]:
    """The runs that the store lacks, and those of which only the bundle knows how they went on."""
    new, ended = set(), set()
    for row in draft.rows["runs"]:
        stored = store.runs.get(row["run_id"])
        if stored is None:
            new.add(row["run_id"])
        elif _has_gone_on(draft, row, stored, store) and _is_untouched(draft, row, store):
            ended.add(row["run_id"])
    return new, ended


def _has_gone_on(draft: Bundled, run: Row, stored: _Run, store: Known) -> bool:
    """Whether the bundle knows more of a run than the store: how it ended, or an answer to its pause."""
    if stored.status == LOST:
        return run["status"] not in (LOST, PAUSED)
    if stored.status != PAUSED:
        return False
    if run["status"] != PAUSED:
        return True
    return any(
        row["run_id"] == run["run_id"]
        and row["status"] not in UNRESOLVED_STATUSES
        and (known_as := store.requirements.get(row["requirement_id"])) is not None
        and known_as.status in UNRESOLVED_STATUSES
        for row in draft.rows["requirements"]
    )


def _is_untouched(draft: Bundled, run: Row, store: Known) -> bool:
    """Whether nothing was done here with a run: no answer, no claim, no message that the bundle has not."""
    run_id = run["run_id"]
    for row in draft.rows["requirements"]:
        stored = store.requirements.get(row["requirement_id"])
        if row["run_id"] != run_id or stored is None:
            continue
        is_answered_here = stored.status == "resolved" and stored.resolved_at != row["resolved_at"]
        if is_answered_here or stored.claimed_by not in (None, row["claimed_by"]):
            return False
    last = store.last_messages.get(run_id)
    if last is None:
        return True
    theirs = (row for row in draft.rows["messages"] if row["run_id"] == run_id)
    return any(_Message(*(row[name] for name in _Message._fields)) == last for row in theirs)


def _scores(draft: Bundled, store: Known) -> list[Row]:
    session_id, made = draft.session_id, []
    is_there = session_id in store.sessions
    for position, row in enumerate(draft.rows["scores"]):
        key = (session_id, row["run_id"], row["name"], row["source"])
        if not (is_there and key in store.scores):
            made.append(row | {"score_id": hash_of(*key, position)})
    return made


def _gone_on(draft: Bundled, there: RowMapping | Row, store: Known) -> Row:
    """The columns of a session that has more runs now: when it changed, and what it is like after the last of them."""
    session, data = draft.session, there["session_data"] or {}
    times = [time for time in (there["updated_at"], session["updated_at"]) if time is not None]
    changed: Row = {"updated_at": max(times, default=None)}
    last = max(row["run_index"] for row in draft.rows["runs"])
    if any(owner == draft.session_id and index > last for owner, index in store.places):
        return changed
    state = (session["session_data"] or {}).get("session_state")
    if state is not None:
        changed["session_data"] = data | {"session_state": state}
    if session["summary"] is not None:
        changed["summary"] = session["summary"]
    return changed
