"""The rows of what is exported, a few sessions at a time: as they are stored, or made to stand alone (`alone`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.lineage import find_run, fork_of, segments
from kern_nb.db.mapping import Row
from kern_nb.db.references import Reference
from kern_nb.errors import RunNotFound, SessionNotFound
from kern_nb.ingest.bundle_merge import InheritedRun
from kern_nb.ingest.bundle_schema import RUN_TABLES, TABLES, Rows
from kern_nb.operations.export.detach import detached, one_run, same_id

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_MOST_SESSIONS = 200
_MOST_CHARACTERS = 4_000_000
"""What is held in memory at once, unless a single session has more."""

_PER_MESSAGE = 500
"""What a message takes beside its content, in characters."""


class Found(NamedTuple):
    """A session's rows, and the last run that it inherits from a parent that is exported with it."""

    rows: Rows
    inherits: InheritedRun | None = None


class Gathering:
    """The rows of sessions and runs.

    Args:
        store: The store.
        places: What is exported, parents before their branches.
    """

    def __init__(self, store: SessionStore, places: Sequence[Reference]) -> None:
        self._store = store
        self._tables = store.tables
        self._sessions = [place.session_id for place in places if place.run_index is None]
        self._runs = [place for place in places if place.run_index is not None]
        self._selected = set(self._sessions)
        self._parents: dict[str, str | None] = {}
        self._detached: set[str] = set()
        self._snapshot: Connection | None = None

    def __iter__(self) -> Iterator[Found]:
        """One after the other, as of one moment. On DuckDB, whose readers keep other processes out: as of its turn.

        What was deleted in between is left out.
        """
        if not self._store.readers_share:
            yield from self._all()
            return
        with self._store.reading() as snapshot:
            self._snapshot = snapshot
            try:
                yield from self._all()
            finally:
                self._snapshot = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._snapshot is not None:
            yield self._snapshot
            return
        with self._store.reading() as connection:
            yield connection

    def _all(self) -> Iterator[Found]:
        for start in range(0, len(self._sessions), _MOST_SESSIONS):
            yield from self._some(self._sessions[start : start + _MOST_SESSIONS])
        for place in self._runs:
            try:
                with self._reading() as connection:
                    found = one_run(connection, self._tables, place)
            except (SessionNotFound, RunNotFound):
                continue
            yield Found(found)

    def _some(self, ids: Sequence[str]) -> Iterator[Found]:
        s, m = self._tables.sessions, self._tables.messages
        with self._reading() as connection:
            above = sa.select(s.c.session_id, s.c.parent_session_id).where(s.c.session_id.in_(ids))
            parents = {row.session_id: row.parent_session_id for row in connection.execute(above)}
            lengths = (sa.func.coalesce(sa.func.length(content), 0) for content in (m.c.content, m.c.content_json))
            size = sa.func.sum(sum(lengths, start=sa.literal(_PER_MESSAGE)))
            measured = sa.select(m.c.session_id, size).where(m.c.session_id.in_(ids)).group_by(m.c.session_id)
            sizes = {row[0]: int(row[1]) for row in connection.execute(measured)}
        self._parents |= parents
        self._detached |= {one for one, parent in parents.items() if parent and parent not in self._selected}
        for part in _parts([one for one in ids if one in parents], sizes):
            # Nothing is written while a connection is held: some engines admit one process at a time.
            with self._reading() as connection:
                found = self._read(connection, part)
            yield from found

    def _read(self, connection: Connection, ids: Sequence[str]) -> list[Found]:
        tables, found = self._tables, []
        stored = _stored(connection, self._store, [one for one in ids if one not in self._detached])
        for session_id in ids:
            if session_id in self._detached:
                copied = detached(connection, tables, session_id)
                found += [] if copied is None else [Found(copied)]
            elif rows := stored.get(session_id):
                found.append(Found(rows, self._inherited(connection, rows["sessions"][0])))
        return found

    def _inherited(self, connection: Connection, session: Row) -> InheritedRun | None:
        """The last run that a branch inherits, as it is exported."""
        fork = fork_of(session)
        if fork is None or fork.run_index < 0:
            return None
        try:
            run = find_run(connection, self._tables, segments(connection, self._tables, session), fork.run_index)
        except RunNotFound:
            return None
        link = session["parent_session_id"]
        while link != run["session_id"] and link is not None and link not in self._detached:
            link = self._parents.get(link)
        if link is None or link == run["session_id"]:
            return InheritedRun(run["session_id"], run["run_id"], run["run_index"])
        return InheritedRun(link, same_id(link, run["run_id"]), run["run_index"])


def _parts(ids: Sequence[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    """Sessions that are read together."""
    part: list[str] = []
    characters = 0
    for session_id in ids:
        size = sizes.get(session_id, 0)
        if part and characters + size > _MOST_CHARACTERS:
            yield part
            part, characters = [], 0
        part.append(session_id)
        characters += size
    if part:
        yield part


_ORDER = {
    "runs": ("run_index",),
    "messages": ("run_index", "message_index"),
    "tool_calls": ("run_index", "call_index"),
    "requirements": ("created_at", "requirement_id"),
    "scores": ("created_at", "score_id"),
}


def _stored(connection: Connection, store: SessionStore, ids: Sequence[str]) -> dict[str, Rows]:
    """The own rows of sessions, as they are stored."""
    found: dict[str, Rows] = {}
    if not ids:
        return found
    for name in TABLES:
        table: sa.Table = getattr(store.tables, name)
        query = sa.select(table).where(table.c.session_id.in_(ids))
        query = query.order_by(table.c.session_id, *(table.c[column] for column in _ORDER.get(name, ())))
        for session_id, group in groupby(connection.execute(query).mappings(), key=lambda row: row["session_id"]):
            if name == "sessions":
                found[session_id] = {other: [] for other in TABLES}
            if session_id in found:
                found[session_id][name] = [dict(row) for row in group]
    for rows in found.values():
        # A run that began since its session was read is not in it, and neither is what it says.
        runs = {row["run_id"] for row in rows["runs"]}
        for name in RUN_TABLES:
            rows[name] = [row for row in rows[name] if row["run_id"] in runs]
        rows["scores"] = [row for row in rows["scores"] if row["run_id"] is None or row["run_id"] in runs]
    return found
