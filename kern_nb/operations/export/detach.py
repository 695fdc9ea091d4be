"""What is exported without what it belongs to: a branch without its parent, a run without its session.

It gets rows of its own, with ids that follow from what they copy: exported again, they are the same.
``session_data["source"]`` says where they are from, as it does of imported sessions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db.lineage import CUT_RUN, UNSEEN_RESULT, Segments, find_run, segments
from kern_nb.db.mapping import ANSWERS, Row
from kern_nb.db.reads import NOT_IN_HISTORY, require_session, session_row, with_members
from kern_nb.db.references import Reference
from kern_nb.db.schema import Tables
from kern_nb.ingest.bundle_schema import RUN_TABLES, TABLES, Rows
from kern_nb.ingest.importer import hash_record

SOURCE = "source"

_NO_FORK = dict.fromkeys(("parent_session_id", "fork_run_index", "fork_message_index"))


def same_id(session_id: str, copied: str) -> str:
    """The id of a copy that belongs to a session: the same whenever it is made."""
    return str(UUID(hash_record(session_id, copied), version=5))


def detached(connection: Connection, tables: Tables, session_id: str) -> Rows | None:
    """A branch with its own copy of what it inherits; None where it is not there any more."""
    found = session_row(connection, tables, session_id)
    if found is None:
        return None
    session = dict(found)
    seen = segments(connection, tables, session)
    r = tables.runs
    runs = connection.execute(sa.select(r).where(seen.runs(r)).order_by(r.c.run_index)).mappings().all()
    rows = _read(connection, tables, seen, runs)
    inherited = {row["run_id"] for row in runs if row["session_id"] != session_id}
    for row in rows["runs"]:
        if row["run_id"] in inherited:
            row.update(copied_from=row["run_id"], source_hash=None)
    rows = _renamed(rows, session_id, inherited)
    c = tables.scores
    scores = sa.select(c).where(c.c.session_id == session_id).order_by(c.c.created_at, c.c.score_id)
    rows["scores"] = [dict(row) for row in connection.execute(scores).mappings()]
    fork = {name: session[name] for name in _NO_FORK if session[name] is not None}
    rows["sessions"] = [
        session | _NO_FORK | {"session_data": _marked(session, {"branch_of": fork.pop("parent_session_id"), **fork})}
    ]
    return rows


def one_run(connection: Connection, tables: Tables, place: Reference) -> Rows:
    """A run, with those of its members, as a session of that run alone: its runs are numbered from 0.

    Raises:
        SessionNotFound, RunNotFound: it is not there any more.
    """
    session = dict(require_session(connection, tables, place.session_id))
    seen = segments(connection, tables, session)
    top = find_run(connection, tables, seen, place.run_index or 0)
    r = tables.runs
    family = with_members(connection, tables, top["run_id"])
    query = sa.select(r).where(seen.runs(r), r.c.run_id.in_(family)).order_by(r.c.run_index)
    runs = connection.execute(query).mappings().all()
    rows = _read(connection, tables, seen, runs)
    session_id = f"{place.session_id}-run-{place.run_index}"
    c = tables.scores
    scores = sa.select(c).where(c.c.session_id == place.session_id, c.c.run_id.in_(family))
    rows["scores"] = [dict(row) for row in connection.execute(scores.order_by(c.c.created_at, c.c.score_id)).mappings()]
    for index, row in enumerate(rows["runs"]):
        row.update(run_index=index, source_hash=None)
    rows["runs"][0]["parent_run_id"] = None
    rows = _renamed(rows, session_id, set(family))
    first = rows["runs"][0]
    data: Row = {} if first["session_state"] is None else {"session_state": first["session_state"]}
    source = {"run_of": place.session_id, "run_index": place.run_index, "run_id": top["run_id"]}
    own: Row = _NO_FORK | {
        "session_id": session_id,
        "session_type": first["run_type"],
        "session_data": _marked({"session_data": data}, source),
        "summary": None,
        "duration_s": None,
    }
    own |= {name: first[name] for name in ("agent_id", "team_id", "workflow_id", "user_id") if first[name] is not None}
    times = {"created_at": first["created_at"], "updated_at": first["finished_at"] or first["created_at"]}
    own |= {name: None if time is None else time // 1_000_000 for name, time in times.items()}
    rows["sessions"] = [session | own]
    return rows


def _read(connection: Connection, tables: Tables, seen: Segments, runs: Iterable[RowMapping]) -> Rows:
    """Runs as a session sees them, with what belongs to them."""
    runs = list(runs)
    found: Rows = {name: [] for name in TABLES}
    found["runs"] = [dict(row) for row in runs]
    ids = {row["run_id"] for row in runs}
    cut = {row["run_id"] for row in runs if seen.cut(row) is not None}
    m, t, q = tables.messages, tables.tool_calls, tables.requirements
    owners = {row["session_id"] for row in runs}
    queries: dict[str, sa.Select[Any]] = {
        "messages": sa.select(m).where(seen.inside(m)).order_by(m.c.run_index, m.c.message_index),
        "tool_calls": sa.select(t).where(seen.inside(t)).order_by(t.c.run_index, t.c.call_index),
        "requirements": sa.select(q).where(q.c.session_id.in_(owners)).order_by(q.c.created_at, q.c.requirement_id),
    }
    for name, query in queries.items():
        found[name] = [dict(row) for row in connection.execute(query).mappings() if row["run_id"] in ids]
    for row in found["runs"]:
        if row["run_id"] in cut:
            row.update(CUT_RUN)
            # How the whole ended says nothing of a part, which a model is told.
            row["status"] = "COMPLETED" if row["status"] in NOT_IN_HISTORY else row["status"]
    answers = {(row["run_id"], row["tool_call_id"]) for row in found["messages"] if row["role"] in ANSWERS}
    for row in found["tool_calls"]:
        if row["run_id"] in cut and (row["run_id"], row["tool_call_id"]) not in answers:
            row.update(UNSEEN_RESULT)
    found["requirements"] = [row for row in found["requirements"] if row["run_id"] not in cut]
    return found


def _renamed(rows: Rows, session_id: str, copied: set[str]) -> Rows:
    """The rows with other ids for what is copied, and for what belongs to it."""
    names = {run_id: same_id(session_id, run_id) for run_id in copied}
    for row in rows["runs"]:
        row["parent_run_id"] = names.get(row["parent_run_id"], row["parent_run_id"])
    for row in rows["requirements"]:
        if row["run_id"] in copied:
            row["requirement_id"] = same_id(session_id, row["requirement_id"])
    for name in ("runs", *RUN_TABLES, "scores"):
        for row in rows[name]:
            row["run_id"] = names.get(row["run_id"], row["run_id"])
    return rows


def _marked(session: Row, source: Row) -> Row:
    return (session["session_data"] or {}) | {SOURCE: {"format": "bundle", **source}}
