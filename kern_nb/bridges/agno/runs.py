"""Runs of a store as Agno reads them, with a cache of those that were read before.

An Agno agent reads all runs of its session before each run. The small columns of every run are read each time, the
messages only of those that have changed since.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from agno.db.utils import HISTORY_SKIP_STATUSES, deserialize_history_run
from sqlalchemy.engine import Connection

from kern_nb.bridges.agno.writes import runs_inside
from kern_nb.db import codec, reads
from kern_nb.db.column_types import StoredRow
from kern_nb.db.lineage import Lineage, Segment, load_lineage
from kern_nb.db.schema import Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import RunNotFound
from kern_nb.extra_keys import FRAMEWORK
from kern_nb.interop.agno import AGNO, REPLACES, as_copy, from_agno, has_runs, inherited_id, to_agno
from kern_nb.records import Run, SessionType

JsonObject = dict[str, Any]

_MAX_SESSIONS = 64
_MAX_INHERITED = 20_000
_SAVED_AT = "saved_at"  # in ``internal``: when Agno saved the run, in microseconds; changes with every save
_WAITING = ("PAUSED", "RUNNING")  # a run that may have answers since Agno saved it; one that is resumed is running
_REPLACES = f'"{REPLACES}": "'
_IS_INSIDE = '"inside": {'  # in the text of ``internal``; see `kern_nb.interop.agno`


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
        return [_row(row, codec.loads(text)) for row, text in self._texts(None)]

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
            r = tables.runs
            query = sa.select(*_small_columns(tables)).where(lineage.runs(r)).order_by(r.c.run_index)
            rows = connection.execute(query).mappings().all()
            versions = {
                row["run_id"]: _Version(row["text"], row["status"], row["finished_at"], lineage.cut(row))
                for row in rows
            }
            shown = _in_agnos_order([row for row in rows if _IS_INSIDE not in (row["text"] or "")])
            if limit is not None:
                in_context = (
                    r for r in shown if r["parent_run_id"] is None and r["status"] not in HISTORY_SKIP_STATUSES
                )
                shown = list(in_context)
                shown = shown[max(0, len(shown) - limit) :]
            missing = [
                row["run_id"]
                for row in shown
                if row["status"] in _WAITING or entries.get(row["run_id"], (None,))[0] != versions[row["run_id"]]
            ]
            runs = _load(connection, tables, lineage, _with_inside(rows, missing))
        ids = {
            row["run_id"]: inherited_id(self._session_id, row["run_id"])
            for row in shown
            if row["session_id"] != self._session_id
        }
        for run_id in missing:
            run = runs[run_id]
            if run.status in _WAITING:
                run.requirements = self._store.requirements(run_id=run_id, status=None)
            data = to_agno(run, inside=runs)
            if run_id in ids:
                data = as_copy(data, self._session_id, ids)
                self._cache.add_inherited(ids[run_id], Inherited(self._session_id, run_id))
            entries[run_id] = (versions[run_id], encode(data))
        if limit is None:  # a deleted run stays no longer
            for run_id in entries.keys() - {row["run_id"] for row in shown}:
                del entries[run_id]
        return [(row, entries[row["run_id"]][1]) for row in shown]


def _small_columns(tables: Tables) -> list[sa.ColumnElement[Any]]:
    """The columns of runs without those of any size; ``text`` is that of ``internal``."""
    r = tables.runs.c
    owners = (r.agent_id, r.team_id, r.workflow_id, r.user_id)
    identity = (r.session_id, r.run_index, r.run_id, r.parent_run_id, r.run_type)
    return [*identity, *owners, r.status, r.finished_at, sa.type_coerce(r.internal, sa.Text()).label("text")]


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
        if _IS_INSIDE in (row["text"] or ""):
            by_parent.setdefault(row["parent_run_id"], []).append(row["run_id"])
    for run_id in result:  # grows
        result += by_parent.get(run_id, ())
    return result


def _load(connection: Connection, tables: Tables, lineage: Lineage, run_ids: list[str]) -> dict[str, Run]:
    """Runs by id."""
    if not run_ids:
        return {}
    r, m = tables.runs, tables.messages
    query = sa.select(r).where(lineage.runs(r), r.c.run_id.in_(run_ids)).order_by(r.c.run_index)
    rows = connection.execute(query).mappings().all()
    runs = reads.load_runs(connection, tables, lineage, rows)
    for row in rows:
        # A branch after an open run is cut after its last message: Agno has it whole as long as none follows.
        if (cut := lineage.cut(row)) is not None:
            last = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == row["run_id"])
            if (connection.execute(last).scalar() or 0) <= cut:
                runs += reads.load_runs(connection, tables, Lineage([Segment(row["session_id"])]), [row])
    return {run.run_id: run for run in runs}


def _row(row: StoredRow, data: JsonObject) -> JsonObject:
    """The row that Agno's database returns of a run."""
    note = codec.loads(row["text"]).get(AGNO, {}) if row["text"] else {}
    created_at = data.get("created_at")
    updated_at = note[_SAVED_AT] // 1_000_000 if _SAVED_AT in note else created_at
    names = ("run_type", "agent_id", "team_id", "workflow_id", "user_id", "run_index")
    same = {name: data.get(name) for name in ("run_id", "session_id", "parent_run_id", "status")}
    times = {"created_at": created_at, "updated_at": updated_at}
    return {**same, **{name: row[name] for name in names}, "run_data": data, **times}


def to_records(data: JsonObject, kind: SessionType, user_id: str | None) -> list[Run]:
    """The runs to store for a run of Agno's."""
    runs = from_agno(data, kind=kind, user_id=user_id)
    saved_at = time.time_ns() // 1_000
    for run in runs:
        run.internal[AGNO][_SAVED_AT] = saved_at
        run.internal[FRAMEWORK] = "agno"
    return runs


def find_runs(
    store: SessionStore, filters: JsonObject, *, sort_by: str | None, ascending: bool, limit: int | None, offset: int
) -> tuple[list[JsonObject], int]:
    """The rows of matching runs of all sessions, own ones each, and the number of all matches."""
    tables = store.tables
    r = tables.runs
    inside = sa.type_coerce(r.c.internal, sa.Text()).contains(_IS_INSIDE, autoescape=True)
    where = [sa.or_(r.c.internal.is_(None), sa.not_(inside))]
    where += [r.c[name] == value for name, value in filters.items()]
    query = sa.select(r.c.run_id).where(*where)
    column = "created_at" if sort_by == "updated_at" else sort_by
    if column is not None and column in r.c.keys():  # noqa: SIM118 - a column collection
        query = query.order_by(r.c[column].asc() if ascending else r.c[column].desc())
    query = query.order_by(r.c.run_index, r.c.created_at, r.c.run_id)
    if limit is not None:
        query = query.limit(limit).offset(offset)
    with store.read_connection() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(r).where(*where)).scalar_one()
        run_ids = connection.execute(query).scalars().all()
    return [row for run_id in run_ids if (row := find_run(store, run_id)) is not None], total


def find_run(store: SessionStore, run_id: str) -> JsonObject | None:
    """The row of a run; None if there is none."""
    r = store.tables.runs
    try:
        run = store.get_run(run_id)
    except RunNotFound:
        return None
    with store.read_connection() as connection:
        row = (
            connection.execute(sa.select(*_small_columns(store.tables)).where(r.c.run_id == run_id)).mappings().first()
        )
    if row is None:
        return None
    inside = {step.run_id: step for step in runs_inside(store, run_id)} if has_runs(run) else {}
    return _row(row, to_agno(run, inside=inside))
