"""Forks and nested agents that were imported before their parent: linked to it when it is stored, too.

Until then each is a session of its own. A fork becomes a branch, whose runs are numbered after those it inherits. The
runs of a nested agent become runs of the parent's session, unless a user has branched or annotated the agent's own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.batches import batched
from kern_nb.db import blobs
from kern_nb.db.inheritance import load_heirs
from kern_nb.db.lineage import load_lineage
from kern_nb.db.mapping import Row
from kern_nb.db.open_runs import update_run, update_session
from kern_nb.db.session_search import TAGS
from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import TOOL_CALL_ID
from kern_nb.ingest.branch_points import fork_point
from kern_nb.ingest.importer import Draft, Fork, Membership
from kern_nb.ingest.owners import Owners
from kern_nb.ingest.stored_lines import StoredLines

STATED_LINK = "stated_link"
"""The key in a session's data of what its source states about its missing parent."""


def missing_parent(draft: Draft, row: Row) -> Row:
    """The columns of a new session whose parent is not stored; empty if its source states none, or is read live."""
    stated: dict[str, Any]
    if draft.fork is not None:
        parent_id, stated = draft.fork.session_id, {"before_key": draft.fork.before_key}
    elif draft.membership is not None and draft.earlier is None:
        parent_id = draft.membership.session_id
        stated = {"tool_call_id": draft.membership.tool_call_id, "run_id": draft.membership.run_id}
    else:
        return {}
    return {"missing_parent": parent_id, "session_data": row["session_data"] | {STATED_LINK: stated}}


def link(connection: Connection, store: SessionStore, session_ids: Collection[str]) -> set[str]:
    """Link the sessions that these are missing parents of, and those of these whose parent is stored; returns them."""
    s = store.tables.sessions
    linked: set[str] = set()
    for batch in batched(session_ids):
        is_new = s.c.missing_parent.in_(batch)
        query = sa.select(s).where(is_new | (s.c.session_id.in_(batch) & s.c.missing_parent.is_not(None)))
        for row in connection.execute(query.order_by(s.c.created_at, s.c.session_id)).mappings().all():
            stated = (row["session_data"] or {}).get(STATED_LINK)
            if isinstance(stated, dict) and _link(connection, store, row, stated):
                linked.add(row["session_id"])
    return linked


def _link(connection: Connection, store: SessionStore, row: RowMapping, stated: dict[str, Any]) -> bool:
    lines = StoredLines(connection, store)
    parent_id = row["missing_parent"]
    if "before_key" in stated:
        return _link_fork(connection, store, lines, row, Fork(parent_id, stated["before_key"]))
    membership = Membership(parent_id, stated.get("tool_call_id"), stated.get("run_id"))
    return _link_member(connection, store, lines, row, membership)


def _link_fork(connection: Connection, store: SessionStore, lines: StoredLines, row: RowMapping, fork: Fork) -> bool:
    """Make a session a branch of its parent."""
    session_id = row["session_id"]
    parent = lines.get_imported(fork.session_id)
    if parent is None or row["parent_session_id"] is not None:
        return False
    ancestors = load_lineage(connection, store.tables, parent.session)
    if any(segment.session_id == session_id for segment in ancestors):
        return False
    (run, message), _ = fork_point(lines, parent, fork)
    _shift_runs(connection, store, row, run + 1)
    columns: Row = {"parent_session_id": parent.session_id, "fork_run_index": run, "fork_message_index": message}
    columns |= {"source_key": parent.session["source_key"], "missing_parent": None}
    data = {key: value for key, value in row["session_data"].items() if key != STATED_LINK}
    update_session(connection, store, session_id, **columns, session_data=data or None)
    return True


def _shift_runs(connection: Connection, store: SessionStore, session: RowMapping, by: int) -> None:
    """Add a number to the indexes of a session's own runs, and of those of its branches."""
    if by == 0:
        return
    tables, session_id = store.tables, session["session_id"]
    r = tables.runs
    query = sa.select(r.c.run_index).where(r.c.session_id == session_id).order_by(r.c.run_index.desc())
    indexes = list(connection.execute(query).scalars())
    for table in (tables.runs, tables.messages, tables.tool_calls):
        old, new = sa.bindparam("old", type_=sa.BigInteger), sa.bindparam("new", type_=sa.BigInteger)
        update = table.update().where(table.c.session_id == session_id, table.c.run_index == old).values(run_index=new)
        for index in indexes:  # the last first: no two runs have one index at any time
            connection.execute(update, {"old": index, "new": index + by})
    values: dict[str, Any] = {}
    if session["last_deleted_run_index"] is not None:
        values["last_deleted_run_index"] = session["last_deleted_run_index"] + by
    last_summarized = (session["summary"] or {}).get("last_run_index")
    if isinstance(last_summarized, int):
        values["summary"] = session["summary"] | {"last_run_index": last_summarized + by}
    if values:
        update_session(connection, store, session_id, **values)
    for heir in load_heirs(connection, store, session_id, 0):
        update_session(connection, store, heir.row["session_id"], fork_run_index=heir.fork.run_index + by)
        _shift_runs(connection, store, heir.row, by)  # type: ignore[arg-type]


def _link_member(
    connection: Connection, store: SessionStore, lines: StoredLines, row: RowMapping, membership: Membership
) -> bool:
    """Move the runs of a nested agent to the session of the run that started it."""
    tables, session_id = store.tables, row["session_id"]
    r, s = tables.runs, tables.sessions
    is_annotated = row["summary"] is not None or TAGS in (row["metadata"] or {}) or row["parent_session_id"] is not None
    has_branches = connection.execute(sa.select(s.c.session_id).where(s.c.parent_session_id == session_id)).first()
    runs = connection.execute(sa.select(r).where(r.c.session_id == session_id).order_by(r.c.run_index)).mappings().all()
    is_own = any(run["source_hash"] is None for run in runs)  # a user has continued it
    if not runs or is_annotated or is_own or has_branches is not None:
        return False
    owner = Owners(lines).find(membership, runs[0]["created_at"])
    if owner is None or owner[0].session_id == session_id:
        return False
    line, parent_run_id = owner
    name = (row["session_data"] or {}).get("session_name")
    nested = {"session_id": session_id} | ({} if name is None else {"name": name})
    for index, run in enumerate(runs, start=line.next_index):
        values: dict[str, Any] = {"session_id": line.session_id, "run_index": index}
        if run["parent_run_id"] is None:
            values |= {"parent_run_id": parent_run_id, "agent_id": run["agent_id"] or row["agent_id"]}
            values["extra"] = (run["extra"] or {}) | {"nested_agent": nested}
            if membership.tool_call_id is not None:
                values["internal"] = (run["internal"] or {}) | {TOOL_CALL_ID: membership.tool_call_id}
        update_run(connection, store, run["run_id"], **values)
        for table in (tables.messages, tables.tool_calls):
            of_run = (table.c.session_id == session_id) & (table.c.run_id == run["run_id"])
            connection.execute(table.update().where(of_run).values(session_id=line.session_id, run_index=index))
    scores, referenced = tables.scores, blobs.find_referenced(connection, tables, session_id)
    of_session = (scores.c.session_id == session_id) & scores.c.run_id.is_(None)
    connection.execute(scores.update().where(of_session).values(run_id=runs[0]["run_id"]))
    for table in (tables.requirements, scores):
        connection.execute(table.update().where(table.c.session_id == session_id).values(session_id=line.session_id))
    connection.execute(s.delete().where(s.c.session_id == session_id))
    blobs.delete_unreferenced(connection, tables, referenced)
    return True
