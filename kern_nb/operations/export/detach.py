"""Make a branch independent of its parent, and a run of its session: with rows and ids of their own.

The new ids are derived from what they copy, so that exporting again gives the same. ``session_data["source"]`` states
the origin, as it does for imported sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db.lineage import CUT_RUN, UNSEEN_RESULT, Lineage, find_run, load_lineage
from kern_nb.db.mapping import Row
from kern_nb.db.reads import STATUSES_WITHOUT_HISTORY, require_session, run_tree_ids, session_row
from kern_nb.db.references import Reference
from kern_nb.db.schema import Tables
from kern_nb.ingest.bundle_schema import RUN_TABLES, TABLES, Rows
from kern_nb.ingest.importer import hash_record
from kern_nb.records import RESULT_ROLES

SOURCE = "source"

_NO_FORK = dict.fromkeys(("parent_session_id", "fork_run_index", "fork_message_index"))


def copied_id(session_id: str, original: str) -> str:
    """Return the id of a copy that belongs to a session: the same whenever it is made."""
    return str(UUID(hash_record(session_id, original), version=5))


def detach_branch(connection: Connection, tables: Tables, session_id: str) -> Rows | None:
    """Return a branch with its own copy of what it inherits; None if it no longer exists."""
    row = session_row(connection, tables, session_id)
    if row is None:
        return None
    session = dict(row)
    visible = load_lineage(connection, tables, session)
    r = tables.runs
    runs = connection.execute(sa.select(r).where(visible.runs(r)).order_by(r.c.run_index)).mappings().all()
    rows = _read(connection, tables, visible, runs)
    inherited = {run["run_id"] for run in runs if run["session_id"] != session_id}
    for run_row in rows["runs"]:
        if run_row["run_id"] in inherited:
            run_row.update(copied_from=run_row["run_id"], source_hash=None)
    rows = _replace_ids(rows, session_id, inherited)
    rows["scores"] = _scores(connection, tables, session_id)
    fork = {name: session[name] for name in _NO_FORK if session[name] is not None}
    source = {"branch_of": fork.pop("parent_session_id"), **fork}
    rows["sessions"] = [session | _NO_FORK | {"session_data": _with_source(session["session_data"], source)}]
    return rows


def extract_run(connection: Connection, tables: Tables, reference: Reference) -> Rows:
    """Return a run, with its members' runs, as a session of its own, whose runs are numbered from 0.

    Raises:
        SessionNotFound: The session no longer exists.
        RunNotFound: The run no longer exists.
    """
    session = dict(require_session(connection, tables, reference.session_id))
    visible = load_lineage(connection, tables, session)
    run = find_run(connection, tables, visible, reference.run_index or 0)
    r = tables.runs
    run_ids = run_tree_ids(connection, tables, run["run_id"])
    query = sa.select(r).where(visible.runs(r), r.c.run_id.in_(run_ids)).order_by(r.c.run_index)
    rows = _read(connection, tables, visible, connection.execute(query).mappings().all())
    session_id = f"{reference.session_id}-run-{reference.run_index}"
    rows["scores"] = _scores(connection, tables, reference.session_id, run_ids)
    for index, row in enumerate(rows["runs"]):
        row.update(run_index=index, source_hash=None)
    rows["runs"][0]["parent_run_id"] = None
    rows = _replace_ids(rows, session_id, set(run_ids))
    first = rows["runs"][0]
    data: Row = {} if first["session_state"] is None else {"session_state": first["session_state"]}
    source = {"run_of": reference.session_id, "run_index": reference.run_index, "run_id": run["run_id"]}
    own: Row = _NO_FORK | {
        "session_id": session_id,
        "session_type": first["run_type"],
        "session_data": _with_source(data, source),
        "summary": None,
        "duration_s": None,
    }
    own |= {name: first[name] for name in ("agent_id", "team_id", "workflow_id", "user_id") if first[name] is not None}
    times = {"created_at": first["created_at"], "updated_at": first["finished_at"] or first["created_at"]}
    own |= {name: None if time is None else time // 1_000_000 for name, time in times.items()}
    rows["sessions"] = [session | own]
    return rows


def _scores(connection: Connection, tables: Tables, session_id: str, run_ids: Iterable[str] | None = None) -> list[Row]:
    """Return the scores of a session, or only of some of its runs."""
    c = tables.scores
    query = sa.select(c).where(c.c.session_id == session_id).order_by(c.c.created_at, c.c.score_id)
    if run_ids is not None:
        query = query.where(c.c.run_id.in_(run_ids))
    return [dict(row) for row in connection.execute(query).mappings()]


def _read(connection: Connection, tables: Tables, visible: Lineage, runs: Sequence[RowMapping]) -> Rows:
    """Return runs as a session sees them, with the rows that belong to them."""
    rows: Rows = {name: [] for name in TABLES}
    rows["runs"] = [dict(row) for row in runs]
    ids = {row["run_id"] for row in runs}
    cut = {row["run_id"] for row in runs if visible.cut(row) is not None}
    m, t, q = tables.messages, tables.tool_calls, tables.requirements
    owners = {row["session_id"] for row in runs}
    queries: dict[str, sa.Select[Any]] = {
        "messages": sa.select(m).where(visible.inside(m)).order_by(m.c.run_index, m.c.message_index),
        "tool_calls": sa.select(t).where(visible.inside(t)).order_by(t.c.run_index, t.c.call_index),
        "requirements": sa.select(q).where(q.c.session_id.in_(owners)).order_by(q.c.created_at, q.c.requirement_id),
    }
    for name, query in queries.items():
        rows[name] = [dict(row) for row in connection.execute(query).mappings() if row["run_id"] in ids]
    for row in rows["runs"]:
        if row["run_id"] in cut:
            row.update(CUT_RUN)
            # How the whole run ended says nothing about a part, which is history for a model.
            row["status"] = "COMPLETED" if row["status"] in STATUSES_WITHOUT_HISTORY else row["status"]
    answers = {(row["run_id"], row["tool_call_id"]) for row in rows["messages"] if row["role"] in RESULT_ROLES}
    for row in rows["tool_calls"]:
        if row["run_id"] in cut and (row["run_id"], row["tool_call_id"]) not in answers:
            row.update(UNSEEN_RESULT)
    rows["requirements"] = [row for row in rows["requirements"] if row["run_id"] not in cut]
    return rows


def _replace_ids(rows: Rows, session_id: str, copied: set[str]) -> Rows:
    """Return the rows with new ids for the copied runs, and for what belongs to them."""
    new_ids = {run_id: copied_id(session_id, run_id) for run_id in copied}
    for row in rows["runs"]:
        row["parent_run_id"] = new_ids.get(row["parent_run_id"], row["parent_run_id"])
    for row in rows["requirements"]:
        if row["run_id"] in copied:
            row["requirement_id"] = copied_id(session_id, row["requirement_id"])
    for name in ("runs", *RUN_TABLES, "scores"):
        for row in rows[name]:
            row["run_id"] = new_ids.get(row["run_id"], row["run_id"])
    return rows


def _with_source(session_data: Row | None, source: Row) -> Row:
    return (session_data or {}) | {SOURCE: {"format": "bundle", **source}}
