"""Whole threads: deleting, copying and pruning them, and going on from a branch. Each works in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows
from kern_nb.db import reads, session_deletes, session_writes
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore


def delete(connection: Connection, store: SessionStore, rows: Rows, thread_id: str) -> None:
    """Delete a thread with its session and the branches that its forks made."""
    c = rows.tables.checkpoints.c
    lines = connection.execute(sa.select(c.line).where(c.session_id == thread_id).distinct()).scalars()
    branches = sorted({line for line in lines if line is not None and line != thread_id}, reverse=True)
    for session_id in (*branches, thread_id):
        if reads.session_row(connection, store.tables, session_id) is not None:
            session_deletes.delete_session(connection, store, session_id, detach_branches=True)
    for table in rows.tables.all:
        connection.execute(table.delete().where(table.c.session_id == thread_id))


def copy(connection: Connection, store: SessionStore, rows: Rows, source: str, target: str) -> None:
    """Copy a thread; see `KernSaver.copy_thread`."""
    if rows.get(connection, target, "", None) is not None:
        raise BadUsage(f"Thread {target!r} exists.", "Copy to another thread id, or delete that thread first.")
    if reads.session_row(connection, store.tables, source) is None:
        return
    latest = rows.get(connection, source, "", None)
    line = latest.line if latest and latest.line else source
    if reads.session_row(connection, store.tables, target) is None:
        session_writes.branch(
            connection, store, line, after=None, before=None, name=None, new_session_id=target, fields={}
        )
    rows.copy(connection, source, target)
    c = rows.tables.checkpoints
    moved = c.update().where(c.c.session_id == target, c.c.line == line).values(line=target)
    connection.execute(moved)


def delete_runs(connection: Connection, rows: Rows, run_ids: Sequence[str]) -> None:
    """Delete the checkpoints whose metadata names one of LangGraph's runs."""
    wanted = {str(run_id) for run_id in run_ids}
    c = rows.tables.checkpoints.c
    keys: list[Key] = []
    for run_id in wanted:
        stated = c.metadata.contains(run_id, autoescape=True)
        keys += [found.key for found in rows.find(connection, stated) if found.metadata.get("run_id") == run_id]
    rows.delete(connection, keys)


def prune(connection: Connection, rows: Rows, thread_ids: Sequence[str], *, keep_latest: bool) -> None:
    """Delete checkpoints of threads; see `KernSaver.prune`."""
    c = rows.tables.checkpoints.c
    for thread_id in thread_ids:
        checkpoints = {row.key: row for row in rows.find(connection, c.session_id == thread_id)}
        kept: set[Key] = set()
        for namespace in {key.namespace for key in checkpoints} if keep_latest else ():
            latest = max(key for key in checkpoints if key.namespace == namespace)
            kept |= _required(checkpoints, latest, rows)
        rows.delete(connection, [key for key in checkpoints if key not in kept])


def _required(checkpoints: dict[Key, Checkpoint], key: Key, rows: Rows) -> set[Key]:
    """A checkpoint, and its ancestors up to those that have the values of its delta channels."""
    kept: set[Key] = set()
    missing: set[str] | None = None
    current: Key | None = key
    while current is not None and current in checkpoints:
        checkpoint = checkpoints[current]
        if missing is None:
            counters = checkpoint.metadata.get("counters_since_delta_snapshot")
            missing = set(counters) if isinstance(counters, dict) else set()
        kept.add(current)
        missing -= set(checkpoint.channels)
        if not missing:
            break
        current = current._replace(checkpoint_id=checkpoint.parent_id) if checkpoint.parent_id else None
    return kept


def find_inherited(
    connection: Connection, store: SessionStore, rows: Rows, thread_id: str, namespace: str, checkpoint_id: str | None
) -> Checkpoint | None:
    """The checkpoint from which a branch goes on that has none of its own: the last one of what it inherits."""
    return None
