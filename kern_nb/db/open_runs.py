"""Runs that are being written: find, check and lock them, and merge their state into the session's.

The state is merged key by key: another run may have stored its own since this one started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec
from kern_nb.errors import RunClosed, RunNotFound
from kern_nb.extra_keys import STATE_AFTER
from kern_nb.records import OPEN_STATUSES

if TYPE_CHECKING:
    from kern_nb.db.database import Database

RunKey = tuple[str, int]
"""The session id and run index of a run, by which its rows are clustered."""

_MAX_RUN_KEYS = 4096
_UNCOUNTED = {"updated_at", "last_deleted_run_index"}
"""The columns of a session that change with its runs: the revision does not count their changes."""

_MISSING = object()


def update_session(connection: Connection, store: Database, session_id: str, /, **values: Any) -> None:
    """Set columns of a session; its revision increases if they are more than those of `_UNCOUNTED`."""
    s = store.tables.sessions
    if values.keys() - _UNCOUNTED:
        values["revision"] = next_revision(s)
    connection.execute(s.update().where(s.c.session_id == session_id).values(**values))


def next_revision(sessions: sa.Table) -> sa.ColumnElement[int]:
    """The revision of a session after a change of its fields."""
    return sa.func.coalesce(sessions.c.revision, 0) + 1


def update_run(connection: Connection, store: Database, run_id: str, /, **values: Any) -> None:
    """Set columns of a run."""
    r = store.tables.runs
    connection.execute(r.update().where(r.c.run_id == run_id).values(**values))


def set_internal(connection: Connection, store: Database, run_id: str, changes: Mapping[str, Any]) -> None:
    """Set keys of a run's ``internal``; None removes one."""
    r = store.tables.runs
    internal = connection.execute(sa.select(r.c.internal).where(r.c.run_id == run_id)).scalar() or {}
    internal = {key: value for key, value in {**internal, **changes}.items() if value is not None}
    update_run(connection, store, run_id, internal=internal)


def remember_run(store: Database, run_id: str, key: RunKey) -> None:
    """Cache the key of a run that is being written, for `find_run_key`."""
    store.run_keys[run_id] = key
    while len(store.run_keys) > _MAX_RUN_KEYS:
        store.run_keys.popitem(last=False)


def find_run_key(connection: Connection, store: Database, run_id: str) -> RunKey:
    """The key of a run, cached from its start, as a run is written in many steps; raises RunNotFound.

    The key of a run never changes, but the run can be deleted: statements that use the key also compare the run_id.
    """
    key = store.run_keys.get(run_id)
    if key is None:
        row = connection.execute(store.statements.find_run, {"run_id": run_id}).first()
        if row is None:
            raise _run_not_found(run_id)
        key = (row[0], row[1])
        remember_run(store, run_id, key)
    return key


def key_params(key: RunKey) -> dict[str, Any]:
    """The parameters of `Statements` for the rows of a run."""
    return {"of_session": key[0], "of_index": key[1]}


def require_open_run(connection: Connection, store: Database, run_id: str) -> RowMapping:
    """The row of an open run, locked if the engine locks rows; raises RunNotFound, or RunClosed if it has ended."""
    r = store.tables.runs
    query = sa.select(r.c.session_id, r.c.run_index, r.c.status, r.c.session_state, r.c.created_at)
    row = connection.execute(store.locked(query.where(r.c.run_id == run_id))).mappings().first()
    if row is None:
        raise _run_not_found(run_id)
    if row["status"] not in OPEN_STATUSES:
        raise RunClosed(f"Run {run_id} has ended: {row['status']}.", "Start a new run; nothing was changed.")
    return row


def _run_not_found(run_id: str) -> RunNotFound:
    return RunNotFound(f"There is no run {run_id!r}.", "Start one with start_run.")


def lock_session_of_run(connection: Connection, store: Database, run_id: str) -> RowMapping | None:
    """The session of a run, locked. Every writer locks it before the run: two writers never wait for each other."""
    r, s = store.tables.runs, store.tables.sessions
    of_run = sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    locked = store.locked(sa.select(s.c.session_data).where(s.c.session_id == of_run))
    return connection.execute(locked).mappings().first()


def merge(base: dict[str, Any], current: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The current state with the changes from ``base`` to ``new``; keys without a change keep the current value.

    Dicts are merged at every depth; any other value, a list included, is replaced.
    """
    merged = {key: value for key, value in current.items() if key in new or key not in base}
    for key, value in new.items():
        before, now = base.get(key, _MISSING), current.get(key, _MISSING)
        if isinstance(value, dict) and isinstance(now, dict):
            merged[key] = merge(before if isinstance(before, dict) else {}, now, value)
        elif before is _MISSING or codec.dumps(value) != codec.dumps(before):  # 1, 1.0 and True differ
            merged[key] = value
        elif now is _MISSING:  # unchanged here, removed by the other run
            merged.pop(key, None)
    return merged


def set_state_after(
    connection: Connection, store: Database, run_id: str, internal: dict[str, Any] | None, own: Any, current: Any
) -> dict[str, Any] | None:
    """Store the session's state when a run ended with its own, if that differs; returns the ``internal`` as stored."""
    noted = note_state_after(internal or {}, own, current)
    if noted is not None:
        update_run(connection, store, run_id, internal=noted)
    return internal if noted is None else noted


def note_state_after(internal: dict[str, Any], own: Any, current: Any) -> dict[str, Any] | None:
    """``internal`` with the session's state after a run, if concurrent runs changed it; None if nothing changes.

    A run's ``session_state`` is what the run had. A branch after the run starts with the session's.
    """
    rest = {key: value for key, value in internal.items() if key != STATE_AFTER}
    is_same = not isinstance(current, dict) or codec.dumps(current) == codec.dumps(own)
    noted = rest if is_same else rest | {STATE_AFTER: current}
    return None if is_same and len(rest) == len(internal) else noted


def merge_session_state(
    connection: Connection,
    store: Database,
    session_id: str,
    session_data: dict[str, Any] | None,
    base: dict[str, Any],
    new: dict[str, Any],
) -> dict[str, Any]:
    """Merge a run's changes of the state, from ``base`` to ``new``, into its session's; the session's row is locked."""
    data = session_data or {}
    current = data.get("session_state")
    current = current if isinstance(current, dict) else {}  # an imported record may have any value
    merged = merge(base, current, new)
    if codec.dumps(merged) != codec.dumps(current):  # 1 and True are equal but not the same
        update_session(connection, store, session_id, session_data=data | {"session_state": merged})
    return merged
