"""Whole threads: deleting, copying and pruning them, and going on from a branch. Each works in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows
from kern_nb.bridges.langgraph.values import cut_value
from kern_nb.db import checkpoint_tables, reads, session_deletes, session_writes
from kern_nb.db.open_runs import update_session
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
    session = reads.session_row(connection, store.tables, source)
    if session is None:
        return
    latest = rows.get(connection, source, "", None)
    line = latest.line if latest and latest.line else source
    if reads.session_row(connection, store.tables, target) is None:
        fields = {"metadata": (session["metadata"] or {}) | checkpoint_tables.OWN}
        session_writes.branch(
            connection, store, line, after=None, before=None, name=None, new_session_id=target, fields=fields
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


def prune(
    connection: Connection, store: SessionStore, rows: Rows, thread_ids: Sequence[str], *, keep_latest: bool
) -> None:
    """Delete checkpoints of threads; see `KernSaver.prune`."""
    c = rows.tables.checkpoints.c
    for thread_id in thread_ids:
        checkpoints = {row.key: row for row in rows.find(connection, c.session_id == thread_id)}
        kept: set[Key] = set()
        for namespace in {key.namespace for key in checkpoints} if keep_latest else ():
            latest = max(key for key in checkpoints if key.namespace == namespace)
            kept |= _required(checkpoints, latest)
        rows.delete(connection, [key for key in checkpoints if key not in kept])
        session = reads.session_row(connection, store.tables, thread_id)
        if session is not None and session["parent_session_id"] is not None:
            metadata = (session["metadata"] or {}) | checkpoint_tables.OWN
            update_session(connection, store, thread_id, metadata=metadata)


def _required(checkpoints: dict[Key, Checkpoint], key: Key) -> set[Key]:
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


def find(connection: Connection, store: SessionStore, rows: Rows, key: Key) -> Checkpoint | None:
    """A checkpoint of a thread, the latest if the key has no id; of a branch without it, the one it inherits."""
    checkpoint = rows.get(connection, key.session_id, key.namespace, key.checkpoint_id or None)
    if checkpoint is not None:
        return checkpoint
    fork = checkpoint_tables.find_fork(connection, store.tables, key.session_id)
    if fork is None:
        return None
    if key.namespace:  # of a nested graph that the branch goes on with
        inherited = rows.get(connection, fork.thread_id, key.namespace, key.checkpoint_id or None)
    else:
        inherited = rows.get(connection, fork.thread_id, "", key.checkpoint_id or fork.checkpoint_id)
    if inherited is None or (not key.namespace and inherited.key.checkpoint_id > fork.checkpoint_id):
        return None
    return _inherit(connection, rows, inherited, key.session_id, fork)


def _inherit(
    connection: Connection, rows: Rows, checkpoint: Checkpoint, thread_id: str, fork: checkpoint_tables.Fork
) -> Checkpoint:
    """A checkpoint as a branch has it: its run is not the branch's own."""
    is_last = checkpoint.key.checkpoint_id == fork.checkpoint_id
    superseded = is_last and rows.has_later(connection, checkpoint.key, checkpoint.line or fork.thread_id)
    key = checkpoint.key._replace(session_id=thread_id)
    own: dict[str, Any] = {"key": key, "line": thread_id, "run_id": None, "n_messages": 0}
    return replace(checkpoint, **own, thread_id=fork.thread_id, is_superseded=superseded)


def adopt(connection: Connection, store: SessionStore, rows: Rows, key: Key) -> Checkpoint | None:
    """Copy an inherited checkpoint to its branch, where a task is about to write; None if the key has no checkpoint."""
    checkpoint = find(connection, store, rows, key)
    if checkpoint is None or checkpoint.thread_id is None:
        return None
    cache: dict[bytes, bytes] = {}
    data = rows.load_values(connection, checkpoint.thread_id, checkpoint.channels.values(), cache)
    encoded = {name: cut_value(ref[0], data[ref]) for name, ref in checkpoint.channels.items()}
    writes = rows.writes_of(connection, checkpoint)
    adopted = replace(checkpoint, thread_id=None, is_superseded=False)
    rows.put(connection, adopted, encoded)
    rows.put_writes(connection, key, writes, replace=False)
    return adopted


def find_history(connection: Connection, store: SessionStore, rows: Rows, key: Key) -> Iterator[Checkpoint]:
    """The checkpoints that a branch inherits, newest first; those before the id of the key, if it has one."""
    fork = None if key.namespace else checkpoint_tables.find_fork(connection, store.tables, key.session_id)
    checkpoint = None if fork is None else rows.get(connection, fork.thread_id, "", fork.checkpoint_id)
    while fork is not None and checkpoint is not None:
        is_own = rows.has(connection, checkpoint.key._replace(session_id=key.session_id))
        if not is_own and (not key.checkpoint_id or checkpoint.key.checkpoint_id < key.checkpoint_id):
            yield _inherit(connection, rows, checkpoint, key.session_id, fork)
        parent = checkpoint.key._replace(checkpoint_id=checkpoint.parent_id or "")
        checkpoint = rows.get(connection, *parent) if checkpoint.parent_id else None
