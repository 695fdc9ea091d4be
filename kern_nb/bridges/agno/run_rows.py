"""The rows of Agno's table of runs, made of runs of a store; and the runs to store for one of Agno's."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from kern_nb.bridges.agno.writes import runs_inside
from kern_nb.db import codec
from kern_nb.db.column_types import StoredRow
from kern_nb.db.schema import Tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import RunNotFound
from kern_nb.extra_keys import FRAMEWORK
from kern_nb.interop.agno import AGNO, from_agno, has_runs, to_agno
from kern_nb.records import Run, SessionType

JsonObject = dict[str, Any]

SAVED_AT = "saved_at"  # in ``internal``: when Agno saved the run, in microseconds; changes with every save
IS_INSIDE = '"inside": {'  # in the text of ``internal``; see `kern_nb.interop.agno`


def small_columns(tables: Tables) -> list[sa.ColumnElement[Any]]:
    """The columns of runs without those of any size; ``text`` is that of ``internal``."""
    r = tables.runs.c
    owners = (r.agent_id, r.team_id, r.workflow_id, r.user_id)
    identity = (r.session_id, r.run_index, r.run_id, r.parent_run_id, r.run_type)
    return [*identity, *owners, r.status, r.finished_at, sa.type_coerce(r.internal, sa.Text()).label("text")]


def to_row(row: StoredRow, data: JsonObject) -> JsonObject:
    """The row that Agno's database returns of a run."""
    note = codec.loads(row["text"]).get(AGNO, {}) if row["text"] else {}
    created_at = data.get("created_at")
    updated_at = note[SAVED_AT] // 1_000_000 if SAVED_AT in note else created_at
    names = ("run_type", "agent_id", "team_id", "workflow_id", "user_id", "run_index")
    same = {name: data.get(name) for name in ("run_id", "session_id", "parent_run_id", "status")}
    times = {"created_at": created_at, "updated_at": updated_at}
    return {**same, **{name: row[name] for name in names}, "run_data": data, **times}


def to_records(data: JsonObject, kind: SessionType, user_id: str | None) -> list[Run]:
    """The runs to store for a run of Agno's."""
    runs = from_agno(data, kind=kind, user_id=user_id)
    saved_at = time.time_ns() // 1_000
    for run in runs:
        run.internal[AGNO][SAVED_AT] = saved_at
        run.internal[FRAMEWORK] = "agno"
    return runs


def find_runs(
    store: SessionStore, filters: JsonObject, *, sort_by: str | None, ascending: bool, limit: int | None, offset: int
) -> tuple[list[JsonObject], int]:
    """The rows of matching runs of all sessions, own ones each, and the number of all matches."""
    tables = store.tables
    r = tables.runs
    inside = sa.type_coerce(r.c.internal, sa.Text()).contains(IS_INSIDE, autoescape=True)
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
        row = connection.execute(sa.select(*small_columns(store.tables)).where(r.c.run_id == run_id)).mappings().first()
    if row is None:
        return None
    inside = {step.run_id: step for step in runs_inside(store, run_id)} if has_runs(run) else {}
    return to_row(row, to_agno(run, inside=inside))
