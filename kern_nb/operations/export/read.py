"""Read the rows of an export, a few sessions at a time: as they are stored, or made independent (`detach`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched, group_by_size
from kern_nb.db import SessionStore
from kern_nb.db.lineage import find_run, fork_point, load_lineage
from kern_nb.db.mapping import Row
from kern_nb.db.references import Reference
from kern_nb.errors import RunNotFound, SessionNotFound
from kern_nb.ingest.bundle_merge import InheritedRun
from kern_nb.ingest.bundle_schema import ORDER, RUN_TABLES, TABLES, Rows
from kern_nb.operations.export.detach import copied_id, detach_branch, extract_run

_MAX_SESSIONS = 200
_MAX_CHARACTERS = 4_000_000
"""What is held in memory at once, unless a single session has more."""

_MESSAGE_OVERHEAD = 500
"""The size of a message beside its content, in characters."""


Connect = Callable[[], AbstractContextManager[Connection]]


class SessionRows(NamedTuple):
    """A session's rows, and the last run that it inherits from a parent in the same export."""

    rows: Rows
    inherits: InheritedRun | None = None


class ExportReader:
    """Iterate over the rows of sessions and runs, where parents precede their branches."""

    def __init__(self, store: SessionStore, references: Sequence[Reference]) -> None:
        self._store = store
        self._tables = store.tables
        self._sessions = [reference.session_id for reference in references if reference.run_index is None]
        self._runs = [reference for reference in references if reference.run_index is not None]
        self._selected = set(self._sessions)
        self._parents: dict[str, str | None] = {}
        self._detached: set[str] = set()

    def __iter__(self) -> Iterator[SessionRows]:
        """Yield one session after the other, all from one snapshot, without those deleted in between.

        On DuckDB, whose readers block other processes, each batch is a snapshot of its own.
        """
        if not self._store.readers_share:
            yield from self._read_all(self._store.read_connection)
            return
        with self._store.read_connection() as snapshot:
            yield from self._read_all(lambda: nullcontext(snapshot))

    def _read_all(self, connect: Connect) -> Iterator[SessionRows]:
        for batch in batched(self._sessions, _MAX_SESSIONS):
            yield from self._read_batch(connect, batch)
        for reference in self._runs:
            try:
                with connect() as connection:
                    rows = extract_run(connection, self._tables, reference)
            except (SessionNotFound, RunNotFound):
                continue
            yield SessionRows(rows)

    def _read_batch(self, connect: Connect, ids: Sequence[str]) -> Iterator[SessionRows]:
        s, m = self._tables.sessions, self._tables.messages
        with connect() as connection:
            query = sa.select(s.c.session_id, s.c.parent_session_id).where(s.c.session_id.in_(ids))
            parents = {row.session_id: row.parent_session_id for row in connection.execute(query)}
            lengths = (sa.func.coalesce(sa.func.length(content), 0) for content in (m.c.content, m.c.content_json))
            size = sa.func.sum(sum(lengths, start=sa.literal(_MESSAGE_OVERHEAD)))
            query = sa.select(m.c.session_id, size).where(m.c.session_id.in_(ids)).group_by(m.c.session_id)
            sizes = {session_id: int(characters) for session_id, characters in connection.execute(query)}
        self._parents |= parents
        self._detached |= {branch for branch, parent in parents.items() if parent and parent not in self._selected}
        existing = [session_id for session_id in ids if session_id in parents]
        for part in group_by_size(existing, lambda session_id: sizes.get(session_id, 0), _MAX_CHARACTERS):
            # The connection is released before the file is written: some engines admit one process at a time.
            with connect() as connection:
                sessions = self._read(connection, part)
            yield from sessions

    def _read(self, connection: Connection, ids: Sequence[str]) -> list[SessionRows]:
        sessions = []
        stored = _read_stored(connection, self._store, [i for i in ids if i not in self._detached])
        for session_id in ids:
            if session_id in self._detached:
                copied = detach_branch(connection, self._tables, session_id)
                sessions += [] if copied is None else [SessionRows(copied)]
            elif rows := stored.get(session_id):
                sessions.append(SessionRows(rows, self._inherited(connection, rows["sessions"][0])))
        return sessions

    def _inherited(self, connection: Connection, session: Row) -> InheritedRun | None:
        """Return the last run that a branch inherits, as it is exported."""
        fork = fork_point(session)
        if fork is None or fork.run_index < 0:
            return None
        try:
            run = find_run(connection, self._tables, load_lineage(connection, self._tables, session), fork.run_index)
        except RunNotFound:
            return None
        link = session["parent_session_id"]
        while link != run["session_id"] and link is not None and link not in self._detached:
            link = self._parents.get(link)
        if link is None or link == run["session_id"]:
            return InheritedRun(run["session_id"], run["run_id"], run["run_index"])
        return InheritedRun(link, copied_id(link, run["run_id"]), run["run_index"])


def _read_stored(connection: Connection, store: SessionStore, ids: Sequence[str]) -> dict[str, Rows]:
    """Return the own rows of sessions, as they are stored."""
    sessions: dict[str, Rows] = {}
    if not ids:
        return sessions
    for name in TABLES:
        table: sa.Table = getattr(store.tables, name)
        query = sa.select(table).where(table.c.session_id.in_(ids))
        query = query.order_by(table.c.session_id, *(table.c[column] for column in ORDER[name]))
        for session_id, group in groupby(connection.execute(query).mappings(), key=lambda row: row["session_id"]):
            if name == "sessions":
                sessions[session_id] = {other: [] for other in TABLES}
            if session_id in sessions:
                sessions[session_id][name] = [dict(row) for row in group]
    for rows in sessions.values():
        # A run that started after its session was read is left out, with its rows.
        runs = {row["run_id"] for row in rows["runs"]}
        for name in RUN_TABLES:
            rows[name] = [row for row in rows[name] if row["run_id"] in runs]
        rows["scores"] = [row for row in rows["scores"] if row["run_id"] is None or row["run_id"] in runs]
    return sessions
