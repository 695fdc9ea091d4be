"""The stored sessions that drafts are compared with, each as its line of runs: inherited ones first.

Rows are loaded for a batch at once; what the batch adds is appended, so that a later draft is compared with it. The
keys of a run's messages (`run_splitter.SourceMessage`) are loaded only if the hash of the run differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched
from kern_nb.db.column_types import StoredRow
from kern_nb.db.mapping import Row
from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import MESSAGE_KEYS, REWOUND_FROM
from kern_nb.ingest.importer import run_id_for

_IDS_PER_QUERY = 500
_RUN_COLUMNS = ("session_id", "run_index", "run_id", "parent_run_id", "source_hash", "created_at")


@dataclass
class StoredRun:
    """A top-level run of a line.

    Attributes:
        session_id: The session that has its row.
        cut: The first messages of it, which the session inherits from another run; None if it has all of them.
        source_hash: The hash of its record, of all messages; None for a run that no import wrote.
        keys: The keys of its own messages; None if they are not loaded.
    """

    session_id: str
    run_index: int
    run_id: str
    source_hash: str | None
    created_at: int | None = None
    cut: InheritedMessages | None = None
    keys: list[str] | None = None
    has_loaded_keys: bool = False

    @property
    def is_inherited_part(self) -> bool:
        """Whether the session has nothing of the run but inherited messages: the run has no row of its own."""
        return self.cut is not None and self.has_loaded_keys and self.keys == []


@dataclass
class InheritedMessages:
    """The first ``count`` messages of a run."""

    run: StoredRun
    count: int


@dataclass
class StoredLine:
    """The runs of a session in order, those of its ancestors first.

    Attributes:
        session: The session's row; of a new session, the row to insert.
        runs: Its top-level runs.
        n_inherited: The number of runs that it inherits as a whole.
        last_index: The index of its last run, a nested agent's included.
    """

    session: StoredRow | Row
    runs: list[StoredRun]
    n_inherited: int
    last_index: int

    @property
    def next_index(self) -> int:
        """The index of its next run."""
        deleted = self.session.get("last_deleted_run_index")
        return max(self.last_index, -1 if deleted is None else deleted) + 1

    @property
    def session_id(self) -> str:
        """The session's id."""
        return str(self.session["session_id"])

    def add_inherited(self, cut: InheritedMessages) -> None:
        """Append a run of which the session has inherited messages only: a longer copy of it adds its own."""
        run_id = run_id_for(self.session_id, len(self.runs))
        self.runs.append(StoredRun(self.session_id, self.next_index, run_id, None, None, cut, [], has_loaded_keys=True))
        self.last_index = self.next_index


@dataclass
class StoredLines:
    """The lines of stored sessions, by session id, and of the sessions that a batch adds."""

    connection: Connection
    store: SessionStore
    lines: dict[str, StoredLine | None] = field(default_factory=dict)
    by_source_key: dict[str, list[str]] = field(default_factory=dict)
    run_rows: dict[str, StoredRow | None] = field(default_factory=dict)

    def load(self, session_ids: Iterable[str], source_keys: Iterable[str] = ()) -> None:
        """Load the lines of these sessions, and of those whose first record has one of these keys."""
        ids = [name for name in dict.fromkeys(session_ids) if name not in self.lines]
        keys = [key for key in dict.fromkeys(source_keys) if key not in self.by_source_key]
        s, r = self.store.tables.sessions, self.store.tables.runs
        rows = {row["session_id"]: row for row in self._select(s, s.c.session_id, ids, lock=True)}
        for row in self._select(s, s.c.source_key, keys):
            rows.setdefault(row["session_id"], row)
        for key in keys:
            self.by_source_key.setdefault(key, [])
        for row in rows.values():
            if row["source_key"] in self.by_source_key:
                self._add_source_key(row)
        parents = rows
        while (
            missing := {row["parent_session_id"] for row in parents.values() if row["parent_session_id"] is not None}
            - rows.keys()
        ):
            parents = {row["session_id"]: row for row in self._select(s, s.c.session_id, missing)}
            rows |= parents
        columns = [r.c[name] for name in _RUN_COLUMNS]
        runs: dict[str, list[Any]] = {}
        for row in self._select(columns, r.c.session_id, rows):
            runs.setdefault(row["session_id"], []).append(row)
        for session_id in rows:
            self._assemble(session_id, rows, runs)
        for name in ids:
            self.lines.setdefault(name, None)

    def _select(self, columns: Any, key: sa.Column[str], values: Iterable[str], *, lock: bool = False) -> list[Any]:
        selected = columns if isinstance(columns, list) else [columns]
        rows: list[Any] = []
        for batch in batched(list(values), _IDS_PER_QUERY):
            query = sa.select(*selected).where(key.in_(batch))
            rows += self.connection.execute(self.store.locked(query) if lock else query).mappings()
        return rows

    def _add_source_key(self, row: StoredRow | Row) -> None:
        names = self.by_source_key.setdefault(row["source_key"], [])
        if row["session_id"] not in names:
            names.append(row["session_id"])

    def _assemble(self, session_id: str, rows: dict[str, Any], runs: dict[str, list[Any]]) -> StoredLine | None:
        """Build the line of a session after those of its ancestors."""
        chain: list[Any] = []
        name: str | None = session_id
        while name is not None and name in rows and self.lines.get(name) is None and rows[name] not in chain:
            chain.append(rows[name])
            name = rows[name]["parent_session_id"]
        for row in reversed(chain):
            parent = self.lines.get(row["parent_session_id"]) if row["parent_session_id"] is not None else None
            own = sorted(runs.get(row["session_id"], ()), key=lambda run: int(run["run_index"]))
            line = _branch(row, parent) if parent is not None else StoredLine(row, [], 0, -1)
            cut = _cut_run(row, parent)
            for run in own:
                line.last_index = max(line.last_index, run["run_index"])
                if run["parent_run_id"] is None:
                    identity = (run["session_id"], run["run_index"], run["run_id"], run["source_hash"])
                    line.runs.append(StoredRun(*identity, run["created_at"], cut))
                    cut = None
            if cut is not None:
                line.add_inherited(cut)
            self.lines[row["session_id"]] = line
        return self.lines.get(session_id)

    def get(self, session_id: str) -> StoredLine | None:
        """The line of a session; None if it is not stored."""
        if session_id not in self.lines:
            self.load([session_id])
        return self.lines[session_id]

    def get_imported(self, session_id: str) -> StoredLine | None:
        """The line of a session as it was imported: if its head was moved back, of the session that has the rest."""
        line = self.get(session_id)
        while line is not None and isinstance(left := (line.session["session_data"] or {}).get(REWOUND_FROM), str):
            line = self.get(left)
        return line

    def add(self, line: StoredLine) -> None:
        """Add the line of a new session."""
        self.lines[line.session_id] = line
        if line.session["source_key"] is not None:
            self._add_source_key(line.session)

    def keys_of(self, run: StoredRun) -> list[str] | None:
        """The keys of all messages of a run, inherited ones first; None for a run that no import wrote."""
        if not run.has_loaded_keys:
            r = self.store.tables.runs
            internal = self.connection.execute(sa.select(r.c.internal).where(r.c.run_id == run.run_id)).scalar()
            keys = internal.get(MESSAGE_KEYS) if isinstance(internal, dict) else None
            run.keys = keys if isinstance(keys, list) else None
            run.has_loaded_keys = True
        if run.keys is None or run.cut is None:
            return run.keys
        inherited = self.keys_of(run.cut.run)
        return None if inherited is None else inherited[: run.cut.count] + run.keys

    def has_content(self, run: StoredRun) -> list[bool]:
        """For each own message of a run whether it has a content."""
        m = self.store.tables.messages
        query = sa.select(m.c.content.is_not(None) | m.c.content_json.is_not(None)).where(m.c.run_id == run.run_id)
        return list(map(bool, self.connection.execute(query.order_by(m.c.message_index)).scalars()))

    def is_cut(self, run: StoredRun) -> bool:
        """Whether a session inherits a part of a run."""
        s = self.store.tables.sessions
        place = {"parent_session_id": run.session_id, "fork_run_index": run.run_index}
        new = [line.session for line in self.lines.values() if line is not None]
        if any(row["fork_message_index"] is not None and place.items() <= dict(row).items() for row in new):
            return True
        conditions = [s.c[name] == value for name, value in place.items()]
        query = sa.select(s.c.session_id).where(*conditions, s.c.fork_message_index.is_not(None)).limit(1)
        return self.connection.execute(query).first() is not None

    def load_runs(self, run_ids: Iterable[str]) -> None:
        """Load the rows of runs that `run_row` returns."""
        ids = [run_id for run_id in dict.fromkeys(run_ids) if run_id not in self.run_rows]
        columns = [self.store.tables.runs.c[name] for name in _RUN_COLUMNS]
        self.run_rows |= dict.fromkeys(ids)
        self.run_rows |= {row["run_id"]: row for row in self._select(columns, self.store.tables.runs.c.run_id, ids)}

    def withdraw(self, run_ids: Collection[str]) -> None:
        """Forget runs that are about to be deleted."""
        for line in self.lines.values() if run_ids else ():
            if line is not None:
                line.runs = [run for run in line.runs if run.run_id not in run_ids]
        self.run_rows |= dict.fromkeys(run_ids)

    def run_row(self, run_id: str) -> StoredRow | None:
        """The row of a run, by its id."""
        self.load_runs([run_id])
        return self.run_rows[run_id]

    def run_of_call(self, line: StoredLine, tool_call_id: str) -> str | None:
        """The id of the run of a session that has a tool call: of its line, or of a nested agent."""
        t = self.store.tables.tool_calls
        run_ids = {run.run_id for run in line.runs}
        query = sa.select(t.c.run_id).where(t.c.session_id == line.session_id, t.c.tool_call_id == tool_call_id)
        candidates = self.connection.execute(query.order_by(t.c.run_index)).scalars().all()
        return next((run_id for run_id in candidates if run_id in run_ids), next(iter(candidates), None))


def _branch(row: StoredRow | Row, parent: StoredLine) -> StoredLine:
    """The line of a branch without runs of its own."""
    last, message = row["fork_run_index"], row["fork_message_index"]
    until = last if message is None else last - 1
    inherited = [run for run in parent.runs if run.run_index <= until]
    return StoredLine(row, inherited, len(inherited), last)


def _cut_run(row: StoredRow | Row, parent: StoredLine | None) -> InheritedMessages | None:
    """What a branch inherits of the run that its branch point cuts."""
    if parent is None or row["fork_message_index"] is None:
        return None
    for last in parent.runs:
        run: StoredRun | None = last
        while run is not None:
            if run.run_index == row["fork_run_index"] and not run.is_inherited_part:
                before = 0 if run.cut is None else run.cut.count
                return InheritedMessages(run, before + row["fork_message_index"] + 1)
            run = None if run.cut is None else run.cut.run
    return None


def common_messages(a: Sequence[str], b: Sequence[str]) -> int:
    """The number of keys that two runs have in common at their start."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
