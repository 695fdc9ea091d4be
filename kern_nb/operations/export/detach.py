"""Make a branch independent of its parent, and a run of its session: with rows and ids of their own.

The new ids are derived from what they copy, so that exporting again gives the same. ``session_data["source"]`` states
the origin, as it does for imported sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.lineage import Lineage, find_run, load_lineage
from kern_nb.db.mapping import Row
from kern_nb.db.reads import STATUSES_WITHOUT_HISTORY, require_session, run_tree_ids, session_row
from kern_nb.db.references import Reference
from kern_nb.db.schema import Tables
from kern_nb.db.session_deletes import load_visible
from kern_nb.ingest.bundle_schema import ORDER, RUN_TABLES, TABLES, Rows
from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.origins import ORIGIN

_NO_FORK = dict.fromkeys(("parent_session_id", "fork_run_index", "fork_message_index"))
_NO_LINKS = _NO_FORK | {
    "source_key": None,
    "missing_parent": None,
}  # nor is it what copies of an imported session branch from


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
    rows = _read(connection, tables, visible, lambda _: sa.true())
    inherited = {run["run_id"] for run in rows["runs"] if run["session_id"] != session_id}
    for run in rows["runs"]:
        if run["run_id"] in inherited:
            run.update(copied_from=run["run_id"], source_hash=None)
    rows = _replace_ids(rows, session_id, inherited)
    rows["scores"] = list(_select(connection, tables, "scores", tables.scores.c.session_id == session_id))
    fork = {name: session[name] for name in _NO_FORK if session[name] is not None}
    origin = {"format": "bundle", "branch_of": fork.pop("parent_session_id"), **fork}
    rows["sessions"] = [session | _NO_LINKS | {"session_data": (session["session_data"] or {}) | {ORIGIN: origin}}]
    return rows


def extract_run(connection: Connection, tables: Tables, reference: Reference) -> Rows:
    """Return a run, with its members' runs, as a session of its own, whose runs are numbered from 0.

    Raises SessionNotFound or RunNotFound if it no longer exists.
    """
    session = dict(require_session(connection, tables, reference.session_id))
    visible = load_lineage(connection, tables, session)
    run = find_run(connection, tables, visible, reference.run_index or 0)
    c = tables.scores
    run_ids = run_tree_ids(connection, tables, run["run_id"])
    rows = _read(connection, tables, visible, lambda table: table.c.run_id.in_(run_ids))
    is_of_run = (c.c.session_id == reference.session_id) & c.c.run_id.in_(run_ids)
    rows["scores"] = list(_select(connection, tables, "scores", is_of_run))
    for index, row in enumerate(rows["runs"]):
        row.update(run_index=index, source_hash=None)
    rows["runs"][0]["parent_run_id"] = None
    session_id = f"{reference.session_id}-run-{reference.run_index}"
    rows = _replace_ids(rows, session_id, set(run_ids))
    first = rows["runs"][0]
    data: Row = {} if first["session_state"] is None else {"session_state": first["session_state"]}
    origin = {"run_of": reference.session_id, "run_index": reference.run_index, "run_id": run["run_id"]}
    own: Row = _NO_LINKS | {
        "session_id": session_id,
        "session_type": first["run_type"],
        "session_data": data | {ORIGIN: {"format": "bundle", **origin}},
        "summary": None,
        "duration_s": None,
    }
    own |= {name: first[name] for name in ("agent_id", "team_id", "workflow_id", "user_id") if first[name] is not None}
    times = {"created_at": first["created_at"], "updated_at": first["finished_at"] or first["created_at"]}
    own |= {name: None if time is None else time // 1_000_000 for name, time in times.items()}
    rows["sessions"] = [session | own]
    return rows


def _select(connection: Connection, tables: Tables, name: str, condition: sa.ColumnElement[bool]) -> Iterator[Row]:
    table: sa.Table = getattr(tables, name)
    query = sa.select(table).where(condition).order_by(*(table.c[column] for column in ORDER[name]))
    return map(dict, connection.execute(query).mappings())


def _read(
    connection: Connection, tables: Tables, visible: Lineage, is_selected: Callable[[sa.Table], sa.ColumnElement[bool]]
) -> Rows:
    """Return the runs that fit a condition as a session sees them, with the rows that belong to them."""
    rows: Rows = {name: [] for name in TABLES} | load_visible(connection, tables, visible, is_selected)
    whole = {row["run_id"] for row in rows["runs"] if visible.cut(row) is None}
    for row in rows["runs"]:
        # How the whole run ended says nothing about a part, which is history for a model.
        if row["run_id"] not in whole and row["status"] in STATUSES_WITHOUT_HISTORY:
            row["status"] = "COMPLETED"
    of_owners = tables.requirements.c.session_id.in_({row["session_id"] for row in rows["runs"]})
    requirements = _select(connection, tables, "requirements", of_owners)
    rows["requirements"] = [row for row in requirements if row["run_id"] in whole]
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
