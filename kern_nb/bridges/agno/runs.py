"""Runs of a store as Agno reads them, with a cache of those that were read before.

An Agno agent reads all runs of its session before each run. The small columns of every run are read each time, the
messages only of those that have changed since.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from agno.db.utils import HISTORY_SKIP_STATUSES, deserialize_history_run
from sqlalchemy.engine import Connection

from kern_nb.bridges.agno.run_rows import IS_INSIDE, small_columns, to_row
from kern_nb.db import codec, mapping, reads
from kern_nb.db.column_types import StoredRow
from kern_nb.db.lineage import Lineage, Segment, load_lineage
from kern_nb.db.schema import Tables
from kern_nb.db.sql_expressions import in_json_array
from kern_nb.db.store import SessionStore
from kern_nb.interop.agno import AGNO, REPLACES, as_copy, inherited_id, to_agno
from kern_nb.records import Run, Session

JsonObject = dict[str, Any]

_MAX_SESSIONS = 64
_MAX_INHERITED = 20_000
_WAITING = ("PAUSED", "RUNNING")  # a run that may have answers since Agno saved it; one that is resumed is running
_REPLACES = f'"{REPLACES}": "'


class _Version(NamedTuple):
    """What changes whenever a run does, and where the branch point cuts it."""

    internal: str | None
    status: str
    finished_at: int | None
    cut: int | None


class Inherited(NamedTuple):
    """An inherited run that Agno has seen under the id that it has in a branch."""

    session_id: str
    run_id: str


class RunCache:
    """The runs that were read last, by session and run id, as text and as Agno's objects.

    Agno's agents do not change the objects of earlier runs, as its own cache requires.
    """

    def __init__(self) -> None:
        self.inherited: dict[str, Inherited] = {}  # by the id in the branch
        self._texts: OrderedDict[str, dict[str, tuple[_Version, str]]] = OrderedDict()
        self._objects: OrderedDict[str, dict[str, tuple[_Version, Any]]] = OrderedDict()

    def texts(self, session_id: str) -> dict[str, tuple[_Version, str]]:
        """The entries of a session by run id, as JSON text."""
        return self._entries(self._texts, session_id)

    def objects(self, session_id: str) -> dict[str, tuple[_Version, Any]]:
        """The entries of a session by run id, as Agno's objects."""
        return self._entries(self._objects, session_id)

    @staticmethod
    def _entries(sessions: OrderedDict[str, dict[str, Any]], session_id: str) -> dict[str, Any]:
        entries = sessions.setdefault(session_id, {})
        sessions.move_to_end(session_id)
        while len(sessions) > _MAX_SESSIONS:
            sessions.popitem(last=False)
        return entries

    def add_inherited(self, run_id: str, inherited: Inherited) -> None:
        """Note the id under which a branch shows an inherited run."""
        self.inherited[run_id] = inherited
        while len(self.inherited) > _MAX_INHERITED:
            del self.inherited[next(iter(self.inherited))]

    def forget(self, session_id: str) -> None:
        """Forget a session."""
        self._texts.pop(session_id, None)
        self._objects.pop(session_id, None)


class SessionRuns:
    """Reads the runs of one session, inherited ones included.

    Args:
        store: The store.
        session_id: The session.
        cache: What was read before.
    """

    def __init__(self, store: SessionStore, session_id: str, cache: RunCache) -> None:
        self._store, self._session_id, self._cache = store, session_id, cache

    def dicts(self, limit: int | None = None) -> list[JsonObject]:
        """The runs as Agno's dicts, in order; with a ``limit``, the last that are in the context of an agent."""
        return [codec.loads(text) for _, text in self._texts(limit)]

    def rows(self) -> list[JsonObject]:
        """The rows that Agno's database returns of the runs, in order."""
        return [to_row(row, codec.loads(text)) for row, text in self._texts(None)]

    def objects(self) -> list[Any]:
        """The runs of an agent's session as Agno's objects, in order."""
        entries = self._cache.objects(self._session_id)
        runs = (entry for _, entry in self._read(None, entries, deserialize_history_run))
        return [run for run in runs if run is not None]

    def _texts(self, limit: int | None) -> list[tuple[StoredRow, str]]:
        return self._read(limit, self._cache.texts(self._session_id), codec.dumps)

    def _read(
        self, limit: int | None, entries: dict[str, tuple[_Version, Any]], encode: Callable[[JsonObject], Any]
    ) -> list[tuple[StoredRow, Any]]:
        """The columns of each run, and its entry."""
        tables = self._store.tables
        with self._store.read_connection() as connection:
            session = reads.session_row(connection, tables, self._session_id)
            if session is None:
                return []
            lineage = load_lineage(connection, tables, session)
            rows = _small_rows(connection, tables, lineage)
            selection = _Selection(rows, lineage, entries, limit)
            runs = _load(connection, tables, lineage, _with_inside(rows, selection.missing))
        for run_id in selection.missing:
            if runs[run_id].status in _WAITING:
                runs[run_id].requirements = self._store.requirements(run_id=run_id, status=None)
        return self.update(selection, runs, encode)

    def update(
        self, selection: _Selection, runs: dict[str, Run], encode: Callable[[JsonObject], Any]
    ) -> list[tuple[StoredRow, Any]]:
        """Make the missing entries of a selection of loaded runs; returns the columns of each run, and its entry."""
        shown, entries = selection.shown, selection.entries
        ids = {
            row["run_id"]: inherited_id(self._session_id, row["run_id"])
            for row in shown
            if row["session_id"] != self._session_id
        }
        for run_id in selection.missing:
            data = to_agno(runs[run_id], inside=runs)
            if run_id in ids:
                data = as_copy(data, self._session_id, ids)
                self._cache.add_inherited(ids[run_id], Inherited(self._session_id, run_id))
            entries[run_id] = (selection.versions[run_id], encode(data))
        if selection.is_whole:  # a deleted run stays no longer
            for run_id in entries.keys() - {row["run_id"] for row in shown}:
                del entries[run_id]
        return [(row, entries[row["run_id"]][1]) for row in shown]


class _Selection:
    """The runs of a session that Agno sees, and which of them have no entry of their version."""

    def __init__(
        self,
        rows: Sequence[StoredRow],
        lineage: Lineage,
        entries: dict[str, tuple[_Version, Any]],
        limit: int | None = None,
    ) -> None:
        self.entries, self.is_whole = entries, limit is None
        self.versions = {
            row["run_id"]: _Version(row["text"], row["status"], row["finished_at"], lineage.cut(row)) for row in rows
        }
        self.shown = _in_agnos_order([row for row in rows if IS_INSIDE not in (row["text"] or "")])
        if limit is not None:
            in_context = [
                r for r in self.shown if r["parent_run_id"] is None and r["status"] not in HISTORY_SKIP_STATUSES
            ]
            self.shown = in_context[max(0, len(in_context) - limit) :]
        self.missing = [
            row["run_id"]
            for row in self.shown
            if row["status"] in _WAITING or entries.get(row["run_id"], (None,))[0] != self.versions[row["run_id"]]
        ]


def read_sessions(store: SessionStore, sessions: Iterable[Session], cache: RunCache) -> dict[str, list[JsonObject]]:
    """The runs of several sessions as Agno's dicts, in order, by session.

    The number of queries does not depend on the number of sessions; branches, which have other lineages, are read one
    by one.
    """
    sessions = list(sessions)
    result = {s.session_id: SessionRuns(store, s.session_id, cache).dicts() for s in sessions if s.parent_session_id}
    roots = [session.session_id for session in sessions if not session.parent_session_id]
    if not roots:
        return result
    tables = store.tables
    rows: dict[str, list[StoredRow]] = {session_id: [] for session_id in roots}
    with store.read_connection() as connection:
        for row in _small_rows(connection, tables, Lineage(map(Segment, roots))):
            rows[row["session_id"]].append(row)
        selections = {
            session_id: _Selection(own, Lineage([Segment(session_id)]), cache.texts(session_id))
            for session_id, own in rows.items()
        }
        runs: dict[str, Run] = {}
        unread = {session_id: selection for session_id, selection in selections.items() if selection.missing}
        if unread:
            missing = [run_id for selection in unread.values() for run_id in selection.missing]
            every_row = [row for session_id in unread for row in rows[session_id]]
            runs = _load(connection, tables, Lineage(map(Segment, unread)), _with_inside(every_row, missing))
            _add_requirements(connection, tables, [runs[run_id] for run_id in missing], every_row)
    for session_id, selection in selections.items():
        entries = SessionRuns(store, session_id, cache).update(selection, runs, codec.dumps)
        result[session_id] = [codec.loads(text) for _, text in entries]
    return result


def _add_requirements(connection: Connection, tables: Tables, runs: Sequence[Run], rows: Sequence[StoredRow]) -> None:
    """Set the requirements of runs that wait: their own, and those of their members' runs."""
    waiting = [run for run in runs if run.status in _WAITING]
    if not waiting:
        return
    q = tables.requirements
    owners = json.dumps([codec.encode_text(session_id) for run in waiting if (session_id := run.session_id)])
    query = sa.select(q).where(in_json_array(sa.type_coerce(q.c.session_id, sa.Text()), owners))
    stored = connection.execute(query.order_by(q.c.created_at, q.c.requirement_id)).mappings()
    requirements = [mapping.requirement_from_row(row) for row in stored]
    members: dict[str | None, list[str]] = {}
    for row in rows:
        members.setdefault(row["parent_run_id"], []).append(row["run_id"])
    for run in waiting:
        tree = [run.run_id]
        for run_id in tree:  # grows
            tree += [member for member in members.get(run_id, ()) if member not in tree]
        run.requirements = [requirement for requirement in requirements if requirement.run_id in tree]


def _small_rows(connection: Connection, tables: Tables, lineage: Lineage) -> Sequence[StoredRow]:
    """The small columns of the runs of a lineage, in order."""
    r = tables.runs
    query = sa.select(*small_columns(tables)).where(lineage.runs(r)).order_by(r.c.run_index)
    return connection.execute(query).mappings().all()


def _in_agnos_order(rows: Sequence[StoredRow]) -> list[StoredRow]:
    """Rows of runs in order; one that continues an inherited run is in the position of that."""
    replacing = {}
    for row in rows:
        if _REPLACES in (row["text"] or ""):
            replacing[codec.loads(row["text"])[AGNO][REPLACES]] = row
    if not replacing:
        return list(rows)
    moved = {row["run_id"] for row in replacing.values()}
    return [replacing.get(row["run_id"], row) for row in rows if row["run_id"] not in moved]


def _with_inside(rows: Sequence[Any], run_ids: Iterable[str]) -> list[str]:
    """Run ids, and those of the runs inside them, at every depth."""
    result = list(run_ids)
    by_parent: dict[str, list[str]] = {}
    for row in rows:
        if IS_INSIDE in (row["text"] or ""):
            by_parent.setdefault(row["parent_run_id"], []).append(row["run_id"])
    for run_id in result:  # grows
        result += by_parent.get(run_id, ())
    return result


def _load(connection: Connection, tables: Tables, lineage: Lineage, run_ids: list[str]) -> dict[str, Run]:
    """Runs by id."""
    if not run_ids:
        return {}
    r, m = tables.runs, tables.messages
    is_listed = in_json_array(sa.type_coerce(r.c.run_id, sa.Text()), json.dumps([*map(codec.encode_text, run_ids)]))
    query = sa.select(r).where(lineage.runs(r), is_listed).order_by(r.c.run_index)
    rows = connection.execute(query).mappings().all()
    runs = reads.load_runs(connection, tables, lineage, rows)
    for row in rows:
        # A branch after an open run is cut after its last message: Agno has it whole as long as none follows.
        if (cut := lineage.cut(row)) is not None:
            last = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == row["run_id"])
            if (connection.execute(last).scalar() or 0) <= cut:
                runs += reads.load_runs(connection, tables, Lineage([Segment(row["session_id"])]), [row])
    return {run.run_id: run for run in runs}
