"""Write runs, finished or as they happen. Each function works in one transaction.

An append upserts the session's row (which locks it, and checks the user), inserts the run with the next index, and
inserts its messages and tool calls. It reads no earlier run, so it costs the same at run 1 and at run 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import heartbeats, mapping
from kern_nb.db.column_types import StoredRow
from kern_nb.db.message_writes import append_messages
from kern_nb.db.open_runs import (
    find_run_key,
    key_params,
    lock_session_of_run,
    merge,
    merge_session_state,
    note_state_after,
    remember_run,
    require_open_run,
    set_state_after,
    update_run,
    update_session,
)
from kern_nb.db.process_identity import current_process
from kern_nb.errors import OwnerMismatch, RequirementExists, RunExists, SessionHandedOff
from kern_nb.extra_keys import OF_SESSION, STATE_BEFORE
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES, Message, Requirement, Run, RunStatus, Usage

if TYPE_CHECKING:
    from kern_nb.db.database import Database

OWNER_FIELDS = ("session_type", "agent_id", "team_id", "workflow_id", "user_id")


def upsert_session(
    connection: Connection, store: Database, session_id: str, owner: dict[str, Any], now: float
) -> dict[str, Any]:
    """Create a session or update its time, and lock its row; raises OwnerMismatch if it is another user's."""
    s = store.tables.sessions
    values = owner | {"session_id": mapping.require_id(session_id), "created_at": int(now), "updated_at": int(now)}
    touch = {f"new_{name}": values.get(name) for name in store.statements.TOUCH_COLUMNS}
    # Most sessions exist. For a new one, a query and an INSERT cost DuckDB a third of an upsert.
    row = connection.execute(store.statements.touch_session, touch).mappings().first()
    if row is not None:
        return dict(row)
    if connection.execute(sa.select(s.c.session_id).where(s.c.session_id == session_id)).first() is None:
        # Where another process may be faster, this waits for it; a conflict would end an open transaction.
        insert = s.insert() if connection.dialect.name == "duckdb" else store.insert(s).on_conflict_do_nothing()
        if connection.execute(insert.values(**values).returning(s.c.session_id)).first() is not None:
            return dict.fromkeys(("session_data", "fork_run_index", "last_deleted_run_index", "revision"))
    # It may have been created just now.
    row = connection.execute(store.statements.touch_session, touch).mappings().first()
    if row is None:
        raise owner_mismatch(session_id, owner.get("user_id"))
    return dict(row)


def owner_mismatch(session_id: str, user_id: str | None) -> OwnerMismatch:
    """The error of a write to another user's session; does not name the other user."""
    message = f"Session {session_id!r} belongs to another user than {user_id!r}."
    return OwnerMismatch(message, "Use a session_id of that user.")


def index_floor(session: StoredRow) -> int:
    """The index that all new runs of a session follow: of the last run that it inherits, or that was deleted."""
    fork, deleted = session["fork_run_index"], session["last_deleted_run_index"]
    return max(-1 if fork is None else fork, -1 if deleted is None else deleted)


def insert_run(
    connection: Connection,
    store: Database,
    session_id: str,
    run: Run,
    floor: int,
    *,
    state: Any = None,
    process: str | None = None,
) -> Run:
    """Insert a run with the session's next index, and its parts; the run as stored. ``floor`` is `index_floor`.

    With a session's first run, the ``state`` it started from is stored, for branches before that run. ``process`` is
    the one that writes an open run.
    """
    rows = mapping.run_rows(run, session_id)
    full = dict.fromkeys(store.tables.runs.columns.keys()) | rows.run
    full |= {"process": process, "floor": floor}
    full["heartbeat_at"] = int(time.time() * 1_000_000)  # of an open run, if the server has no time of its own
    del full["run_index"]
    try:
        index = int(connection.execute(store.statements.insert_run, full).scalar_one())
    except sa.exc.IntegrityError as error:
        if "run_id" not in str(error.orig):  # the index: another run was faster, and the transaction is run again
            if connection.dialect.name == "sqlite":  # not here, where a writer is alone: an index is damaged
                r = store.tables.runs
                connection.execute(sa.select(r.c.run_index).where(r.c.session_id == session_id)).all()  # names it
            raise
        message = f"Run {run.run_id!r} exists."
        raise RunExists(message, "Use another run_id, or none: then one is generated.") from error
    if index == floor + 1 and isinstance(state, dict) and state:
        run = run.model_copy(update={"internal": run.internal | {STATE_BEFORE: state}})
        update_run(connection, store, run.run_id, internal=run.internal)
    if process is not None:
        remember_run(store, run.run_id, (session_id, index))
        heartbeats.add(store, run.run_id)
    for row in (*rows.messages, *rows.tool_calls):
        row["run_index"] = index
    store.insert_rows(connection, store.tables.messages, rows.messages)
    store.insert_rows(connection, store.tables.tool_calls, rows.tool_calls)
    owner = {"session_id": session_id, "run_id": run.run_id}
    paused_at = mapping.to_micros(run.finished_at or run.created_at) or int(time.time() * 1_000_000)
    requirements = insert_requirements(connection, store, run.requirements, owner, paused_at)
    calls = [mapping.tool_call_from_row(row) for row in rows.tool_calls]
    messages = [m.model_copy(update={"message_index": i}) for i, m in enumerate(run.messages)]
    mapping.attach_calls(messages, calls)
    stored = {"session_id": session_id, "run_index": index, "messages": messages, "tool_calls": calls}
    return run.model_copy(update=stored | {"requirements": requirements})


def append_run(connection: Connection, store: Database, session_id: str, run: Run, user_id: str | None) -> Run:
    """See `SessionStore.append_run`."""
    now = time.time()
    user_id = user_id if user_id is not None else run.user_id
    owner = {"session_type": run.run_type} | {n: getattr(run, n) for n in ("agent_id", "team_id", "workflow_id")}
    session = upsert_session(connection, store, session_id, owner | {"user_id": user_id}, now)
    data = session["session_data"]
    created_at = run.created_at or datetime.fromtimestamp(now, UTC)
    stored = run.model_copy(update={"user_id": user_id, "created_at": created_at})
    if run.session_state is not None:
        merged = merge_session_state(connection, store, session_id, data, {}, run.session_state)
        noted = note_state_after(run.internal, run.session_state, merged)
        stored.internal = run.internal if noted is None else noted
    state = (data or {}).get("session_state")
    return insert_run(connection, store, session_id, stored, index_floor(session), state=state)


def start_run(
    connection: Connection,
    store: Database,
    session_id: str,
    run: Run,
    default_state: dict[str, Any] | None = None,
    owner_data: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Run:
    """See `SessionStore.start_run`."""
    now = time.time()
    owner: dict[str, Any] = {"session_type": run.run_type} | {n: getattr(run, n) for n in OWNER_FIELDS[1:]}
    owner |= {f"{run.run_type}_data": owner_data, "metadata": metadata or None}
    session = upsert_session(connection, store, session_id, owner, now)
    if run.parent_run_id is None:
        require_not_handed_off(connection, store, session_id)
    if metadata:
        _add_metadata(connection, store, session_id, metadata)
    data = session["session_data"]
    state = (data or {}).get("session_state")
    state = state if isinstance(state, dict) else None  # an imported record may have any value
    if default_state:
        state = merge_session_state(connection, store, session_id, data, {}, merge({}, default_state, state or {}))
    created_at = datetime.fromtimestamp(now, UTC)
    started = run.model_copy(update={"session_state": state, "created_at": created_at})
    started.messages = [m if m.created_at else m.model_copy(update={"created_at": created_at}) for m in run.messages]
    process = current_process()
    return insert_run(connection, store, session_id, started, index_floor(session), state=state, process=process)


def require_not_handed_off(connection: Connection, store: Database, session_id: str) -> None:
    """Raise SessionHandedOff for a session, whose row is locked, that waits for a person."""
    q = store.tables.requirements
    of_session = sa.select(q).where(q.c.session_id == session_id, q.c.status.in_(UNRESOLVED_STATUSES))
    now = int(time.time() * 1_000_000)
    for row in connection.execute(of_session).mappings():
        if is_session_handoff(row) and (row["expires_at"] is None or row["expires_at"] > now):
            person = row["claimed_by"] or row["assignee"] or "a person"
            message = f"Session {session_id!r} is handed off to {person}; no agent runs in it until it is handed back."
            hint = f'Hand it back: %kern answer {row["requirement_id"]} "..."; or run in a branch of the session.'
            raise SessionHandedOff(message, hint)


def is_session_handoff(row: Mapping[Any, Any]) -> bool:
    """Whether the session of an unresolved requirement is handed off to its assignee."""
    return row["kind"] == "handoff" or OF_SESSION in (row["extra"] or {})


def _add_metadata(connection: Connection, store: Database, session_id: str, metadata: dict[str, Any]) -> None:
    """Add the keys that the metadata of a session, whose row is locked, does not have."""
    s = store.tables.sessions
    stored = connection.execute(sa.select(s.c.metadata).where(s.c.session_id == session_id)).scalar_one()
    if (merged := metadata | (stored or {})) != stored:
        update_session(connection, store, session_id, metadata=merged)


def insert_requirements(
    connection: Connection, store: Database, requirements: Sequence[Requirement], owner: dict[str, str], now: int
) -> list[Requirement]:
    """Insert the requirements of a run; returns them as stored, and raises RequirementExists if it has one of an id."""
    q = store.tables.requirements
    ids = [requirement.requirement_id for requirement in requirements]
    used = [id_ for id_ in ids if ids.count(id_) > 1]
    if ids:
        query = sa.select(q.c.requirement_id).where(q.c.requirement_id.in_(ids), q.c.run_id == owner["run_id"])
        used = list(connection.execute(query).scalars()) or used
    if used:
        message = f"Requirement {used[0]!r} of run {owner['run_id']} exists."
        raise RequirementExists(message, "Use another id, or none.")
    # A microsecond apart, to keep their order.
    times = [requirement.created_at or mapping.from_micros(now + i) for i, requirement in enumerate(requirements)]
    stored = [r.model_copy(update=owner | {"created_at": t}) for r, t in zip(requirements, times, strict=True)]
    store.insert_rows(connection, q, [mapping.requirement_row(r) for r in stored])
    return stored


@dataclass(frozen=True)
class RunEnd:
    """What `SessionStore.finish_run` stored.

    Attributes:
        messages: The run's last messages, numbered.
        session_state: The state that the run has at its end.
        finished_at: When it ended.
        internal: The run's ``internal``; None if it is not known.
    """

    messages: list[Message]
    session_state: Any = None
    finished_at: datetime | None = None
    internal: dict[str, Any] | None = None


def finish_run(
    connection: Connection,
    store: Database,
    run_id: str,
    *,
    status: RunStatus,
    output: Any = None,
    usage: Usage | None = None,
    session_state: dict[str, Any] | None = None,
    error: str | None = None,
    messages: Sequence[Message] = (),
    state_unchanged: bool = False,
    internal: dict[str, Any] | None = None,
    **columns: Any,
) -> RunEnd:
    """See `SessionStore.finish_run`; ``columns`` are further columns of the run, not changed if None."""
    values: dict[str, Any] = {"status": status, "error": error, **mapping.usage_row(usage)}
    values["output"], values["output_json"] = mapping.split_content(output)
    columns = {name: value for name, value in columns.items() if value is not None}
    values |= {name: mapping.normalize_number(v) if name.endswith("_s") else v for name, v in columns.items()}
    states: dict[str, Any] = {"session_state": session_state, "state_unchanged": state_unchanged}
    if internal:
        _add_internal(connection, store, run_id, internal)
    if status in OPEN_STATUSES:
        stored = append_messages(connection, store, run_id, messages) if messages else []
        return RunEnd(stored, *_set_status(connection, store, run_id, values, **states))
    # A running run ends in few statements.
    now = time.time()
    key = find_run_key(connection, store, run_id)
    touch = key_params(key) | {"new_updated_at": int(now)}
    session = connection.execute(store.statements.touch_session_of_run, touch).mappings().first()
    stored = append_messages(connection, store, run_id, messages) if messages else []
    data = session["session_data"] if session is not None else None
    current = (data or {}).get("session_state")
    if session_state is not None and not state_unchanged:
        base = require_open_run(connection, store, run_id)["session_state"] or {}
        values["session_state"] = session_state
        current = merge_session_state(connection, store, key[0], data, base, session_state)
    values["finished_at"] = int(now * 1_000_000)
    sql = store.statements
    params = {f"new_{name}": values.get(name) for name in (*sql.END_COLUMNS, *sql.OPTIONAL_COLUMNS, "duration_s")}
    params |= key_params(key) | {"of_run": run_id, "no_state": {} if isinstance(current, dict) else None}
    ended = connection.execute(sql.end_run, params).mappings().first()
    store.run_keys.pop(run_id, None)
    if ended is None:  # it is paused, or has ended
        return RunEnd(stored, *_set_status(connection, store, run_id, values, **states))
    connection.execute(sql.calls_unknown, key_params(key))
    state = ended["session_state"]
    internal = set_state_after(connection, store, run_id, ended["internal"], state, current)
    return RunEnd(stored, state, mapping.from_micros(values["finished_at"]), internal or {})


def _add_internal(connection: Connection, store: Database, run_id: str, values: dict[str, Any]) -> None:
    """Set keys in the ``internal`` of an open run."""
    lock_session_of_run(connection, store, run_id)
    require_open_run(connection, store, run_id)
    column = store.tables.runs.c.internal
    stored = connection.execute(sa.select(column).where(store.tables.runs.c.run_id == run_id)).scalar() or {}
    update_run(connection, store, run_id, internal=stored | values)


def _set_status(
    connection: Connection,
    store: Database,
    run_id: str,
    values: dict[str, Any],
    *,
    session_state: dict[str, Any] | None,
    state_unchanged: bool,
) -> tuple[Any, datetime | None]:
    """Set the status of an open run; returns its state, and when it ended."""
    session = lock_session_of_run(connection, store, run_id)
    run = require_open_run(connection, store, run_id)
    key = (run["session_id"], run["run_index"])
    now, status = time.time(), values["status"]
    data = session["session_data"] if session is not None else None
    current = (data or {}).get("session_state")
    if status not in OPEN_STATUSES:
        finished = int(now * 1_000_000)
        duration_s = (finished - run["created_at"]) / 1_000_000
        values = {"duration_s": duration_s} | values | {"finished_at": finished, "process": None}
        connection.execute(store.statements.calls_unknown, key_params(key))
    state = run["session_state"]
    if session_state is not None and not state_unchanged:
        current = merge_session_state(connection, store, key[0], data, state or {}, session_state)
        state = session_state
    elif state is None and isinstance(current, dict):
        state = {}
    values["session_state"] = state
    if run["status"] == "PAUSED" and status not in OPEN_STATUSES:  # its requirements cannot be resolved any more
        q = store.tables.requirements
        unresolved = (q.c.run_id == run_id) & q.c.status.in_(UNRESOLVED_STATUSES)
        connection.execute(q.update().where(unresolved).values(status="expired"))
    update_run(connection, store, run_id, **values)
    if status not in OPEN_STATUSES:
        internal = sa.select(store.tables.runs.c.internal).where(store.tables.runs.c.run_id == run_id)
        set_state_after(connection, store, run_id, connection.execute(internal).scalar(), state, current)
    update_session(connection, store, key[0], updated_at=int(now))
    return state, mapping.from_micros(values.get("finished_at"))
