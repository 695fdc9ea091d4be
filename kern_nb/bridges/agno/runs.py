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
from kern_nb.db.lineage import Lineage, load_lineage
from kern_nb.db.schema import Tables
from kern_nb.db.store import SessionStore
from kern_nb.interop.agno import AGNO, from_agno, has_runs, to_agno
from kern_nb.records import Run, Session, SessionType

JsonObject = dict[str, Any]

_MAX_SESSIONS = 64
_SAVED_AT = "saved_at"  # in ``internal``: when Agno saved the run, in microseconds; changes with every save
_WAITING = ("PAUSED", "RUNNING")  # a run that may have answers since Agno saved it; one that is resumed is running
_IS_INSIDE = '"inside": {'  # in the text of ``internal``; see `kern_nb.interop.agno`


class _Version(NamedTuple):
    """What changes whenever a run does, and where the branch point cuts it."""

    internal: str | None
    status: str
    finished_at: int | None
    cut: int | None


class RunCache:
    """The runs that were read last, by session and run id, as text and as Agno's objects.

    Agno's agents do not change the objects of earlier runs, as its own cache requires. Teams and workflows get new ones.
    """

    def __init__(self) -> None:
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

    def forget(self, session_id: str) -> None:
        """Forget a session."""
        self._texts.pop(session_id, None)
        self._objects.pop(session_id, None)


def read_session(store: SessionStore, session_id: str, user_id: str | None) -> Session | None:
    """A session without its runs."""
    return store.get_session(session_id, user_id=user_id, runs=False)


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
        return self._read(limit, self._cache.texts(self._session_id), codec.dumps, codec.loads)

    def objects(self) -> list[Any]:
        """The runs of an agent's session as Agno's objects, in order."""
        entries = self._cache.objects(self._session_id)
        runs = self._read(None, entries, deserialize_history_run, lambda run: run)
        return [run for run in runs if run is not None]

    def _read(
        self, limit: int | None, entries: dict[str, tuple[_Version, Any]], encode: Callable[[JsonObject], Any], decode: Callable[[Any], Any]
    ) -> list[Any]:
        tables = self._store.tables
        with self._store.read_connection() as connection:
            row = reads.session_row(connection, tables, self._session_id)
            if row is None:
                return []
            lineage = load_lineage(connection, tables, row)
            r = tables.runs
            internal = sa.type_coerce(r.c.internal, sa.Text()).label("text")
            columns = (r.c.session_id, r.c.run_index, r.c.run_id, r.c.parent_run_id, r.c.status, r.c.finished_at, internal)
            rows = connection.execute(sa.select(*columns).where(lineage.runs(r)).order_by(r.c.run_index)).mappings().all()
            versions = {
                row["run_id"]: _Version(row["text"], row["status"], row["finished_at"], lineage.cut(row)) for row in rows
            }
            shown = [row for row in rows if _IS_INSIDE not in (row["text"] or "")]
            if limit is not None:
                shown = [row for row in shown if row["parent_run_id"] is None and row["status"] not in HISTORY_SKIP_STATUSES]
                shown = shown[max(0, len(shown) - limit) :]
            missing = [
                row["run_id"]
                for row in shown
                if row["status"] in _WAITING or entries.get(row["run_id"], (None,))[0] != versions[row["run_id"]]
            ]
            runs = _load(connection, tables, lineage, _with_inside(rows, missing))
        for run_id in missing:
            run = runs[run_id]
            if run.status in _WAITING:
                run.requirements = self._store.requirements(run_id=run_id, status=None)
            entries[run_id] = (versions[run_id], encode(to_agno(run, session_id=self._session_id, inside=runs)))
        if limit is None:  # a deleted run stays no longer
            for run_id in entries.keys() - {row["run_id"] for row in shown}:
                del entries[run_id]
        return [decode(entries[row["run_id"]][1]) for row in shown]


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
    r = tables.runs
    query = sa.select(r).where(lineage.runs(r), r.c.run_id.in_(run_ids)).order_by(r.c.run_index)
    return {run.run_id: run for run in reads.load_runs(connection, tables, lineage, connection.execute(query).mappings().all())}


def run_row(run: Run, data: JsonObject) -> JsonObject:
    """The row that Agno's database returns of a run."""
    saved_at = run.internal.get(AGNO, {}).get(_SAVED_AT)
    created_at = data.get("created_at")
    return {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "run_type": run.run_type,
        **{name: getattr(run, name) for name in ("agent_id", "team_id", "workflow_id", "user_id")},
        "parent_run_id": run.parent_run_id,
        "status": data.get("status"),
        "run_index": run.run_index,
        "run_data": data,
        "created_at": created_at,
        "updated_at": created_at if saved_at is None else saved_at // 1_000_000,
    }


def to_records(data: JsonObject, kind: SessionType, user_id: str | None) -> list[Run]:
    """The runs to store for a run of Agno's."""
    runs = from_agno(data, kind=kind, user_id=user_id)
    saved_at = time.time_ns() // 1_000
    for run in runs:
        run.internal[AGNO][_SAVED_AT] = saved_at
    return runs


def find_runs(
    store: SessionStore, filters: JsonObject, *, sort_by: str | None, ascending: bool, limit: int | None, offset: int
) -> tuple[list[JsonObject], int]:
    """The rows of matching runs, and the number of all matches."""
    tables = store.tables
    r = tables.runs
    with store.read_connection() as connection:
        inside = sa.type_coerce(r.c.internal, sa.Text()).contains(_IS_INSIDE, autoescape=True)
        where = [sa.or_(r.c.internal.is_(None), sa.not_(inside))]
        session_id = filters.pop("session_id", None)
        if session_id is not None:
            row = reads.session_row(connection, tables, session_id)
            where.append(sa.false() if row is None else load_lineage(connection, tables, row).runs(r))
        where += [r.c[name] == value for name, value in filters.items() if value is not None]
        total = connection.execute(sa.select(sa.func.count()).select_from(r).where(*where)).scalar_one()
        query = sa.select(r.c.run_id).where(*where)
        by = r.c.created_at if sort_by in {"created_at", "updated_at"} else r.c.get(sort_by) if sort_by else None
        if by is not None:
            query = query.order_by(by.asc() if ascending else by.desc())
        query = query.order_by(r.c.run_index, r.c.created_at, r.c.run_id)
        if limit is not None:
            query = query.limit(limit).offset(offset)
        run_ids = connection.execute(query).scalars().all()
    return [row for run_id in run_ids if (row := find_run(store, run_id)) is not None], total


def find_run(store: SessionStore, run_id: str) -> JsonObject | None:
    """The row of a run; None if there is none."""
    try:
        run = store.get_run(run_id)
    except KeyError:
        return None
    inside = {step.run_id: step for step in runs_inside(store, run_id)} if has_runs(run) else {}
    return run_row(run, to_agno(run, inside=inside))

