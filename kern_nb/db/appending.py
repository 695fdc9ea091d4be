"""Runs written: finished, or as they happen. Each function works in one transaction, given its connection.

An append touches the session's row (which locks it, and checks the owner), inserts the run with the next index, and
inserts its messages and tool calls. It reads nothing of the session's past, so it costs the same at run 1 and at run
10,000.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec, rows
from kern_nb.db.schema import Tables, starts_with
from kern_nb.db.state import merge
from kern_nb.errors import OwnerMismatch, RunClosed, RunExists, RunNotFound
from kern_nb.records import OPEN_STATUSES, Message, Run, RunStatus, Usage

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

OWNER_FIELDS = ("session_type", "agent_id", "team_id", "workflow_id", "user_id")


def touch_session(
    connection: Connection, store: SessionStore, session_id: str, owner: dict[str, Any], now: float
) -> RowMapping:
    """Make the session or note that it changed; locks its row until the transaction ends.

    Raises:
        OwnerMismatch: it belongs to another user.
    """
    s = store.tables.sessions
    given = owner | {"session_id": rows.key(session_id), "created_at": int(now), "updated_at": int(now)}
    # Most sessions are there already, and an UPDATE costs DuckDB a third of an upsert.
    row = connection.execute(_touch(store.tables), {f"new_{k}": given.get(k) for k in _TOUCHED}).mappings().first()
    if row is None:
        new = store.insert(s).values(**given)
        upsert = new.on_conflict_do_update(
            index_elements=[s.c.session_id],
            set_={
                "updated_at": new.excluded.updated_at,
                "user_id": sa.func.coalesce(s.c.user_id, new.excluded.user_id),
            },
            where=_mine(s, new.excluded.user_id),
        )
        row = connection.execute(upsert.returning(s.c.session_data, s.c.fork_run_index)).mappings().first()
    if row is None:
        raise OwnerMismatch(
            f"Session {session_id!r} belongs to another user than {owner.get('user_id')!r}.",
            "Use a session_id of that user's own.",
        )
    return row


_TOUCHED = ("session_id", "updated_at", "user_id")


def _mine(sessions: sa.Table, user_id: Any) -> sa.ColumnElement[bool]:
    """Whether a user may write to a session: it is theirs, or one of the two is nobody's."""
    return sa.or_(user_id.is_(None), sessions.c.user_id.is_(None), sessions.c.user_id == user_id)


# Statements of every append are built once: building them costs as much as running them.
@cache
def _touch(tables: Tables) -> sa.UpdateBase:
    s = tables.sessions
    session_id, updated_at, user_id = (sa.bindparam(f"new_{name}", type_=s.c[name].type) for name in _TOUCHED)
    changed = {"updated_at": updated_at, "user_id": sa.func.coalesce(s.c.user_id, user_id)}
    mine = s.update().where(s.c.session_id == session_id, _mine(s, user_id)).values(**changed)
    return mine.returning(s.c.session_data, s.c.fork_run_index)


@cache
def _insert_run(tables: Tables) -> sa.UpdateBase:
    """The next index is computed in the insert itself."""
    r = tables.runs
    names = [c.name for c in r.columns if c.name != "run_index"]
    values = [sa.bindparam(name, type_=r.c[name].type) for name in names]
    following = sa.func.coalesce(sa.func.max(r.c.run_index), sa.bindparam("floor", type_=sa.BigInteger)) + 1
    own = r.c.session_id == sa.bindparam("session_id", type_=r.c.session_id.type)
    return (
        r.insert().from_select([*names, "run_index"], sa.select(*values, following).where(own)).returning(r.c.run_index)
    )


def insert_run(connection: Connection, store: SessionStore, row: rows.Row, floor: int | None) -> int:
    """Insert a run with the session's next index, or the one after ``floor`` where it is the first; the index."""
    full = dict.fromkeys(store.tables.runs.columns.keys()) | row | {"floor": -1 if floor is None else floor}
    del full["run_index"]
    try:
        return int(connection.execute(_insert_run(store.tables), full).scalar_one())
    except sa.exc.IntegrityError as error:
        if "run_id" not in str(error.orig):  # the index: another run was faster, and the transaction is run again
            raise
        message = f"Run {row['run_id']!r} is stored already."
        raise RunExists(message, "Give the run another run_id, or none: one is made up.") from error


def append_run(connection: Connection, store: SessionStore, session_id: str, run: Run, user_id: str | None) -> Run:
    """See `SessionStore.append_run`."""
    now = time.time()
    user_id = user_id if user_id is not None else run.user_id
    owner = {"session_type": run.run_type} | {n: getattr(run, n) for n in ("agent_id", "team_id", "workflow_id")}
    session = touch_session(connection, store, session_id, owner | {"user_id": user_id}, now)
    stored = run.model_copy(
        update={"user_id": user_id, "created_at": run.created_at or datetime.fromtimestamp(now, UTC)}
    )
    if run.session_state is not None:
        stored.session_state = _merge_state(
            connection, store, session_id, session["session_data"], {}, run.session_state
        )
    made = rows.run_rows(stored, session_id)
    index = insert_run(connection, store, made.run, session["fork_run_index"])
    return insert_children(connection, store, stored, made, session_id, index)


def insert_children(
    connection: Connection, store: SessionStore, run: Run, made: rows.RunRows, session_id: str, index: int
) -> Run:
    """Insert the messages and tool calls of a run that has its index; the run as stored."""
    for row in (*made.messages, *made.tool_calls):
        row["run_index"] = index
    store.insert_rows(connection, store.tables.messages, made.messages)
    store.insert_rows(connection, store.tables.tool_calls, made.tool_calls)
    calls = [rows.tool_call_of(row) for row in made.tool_calls]
    messages = [m.model_copy(update={"message_index": i}) for i, m in enumerate(run.messages)]
    for message in messages:
        message.tool_calls = [call for call in calls if call.message_index == message.message_index]
    placed = {"session_id": session_id, "run_index": index, "messages": messages, "tool_calls": calls}
    return run.model_copy(update=placed)


def _merge_state(
    connection: Connection,
    store: SessionStore,
    session_id: str,
    session_data: dict[str, Any] | None,
    base: dict[str, Any],
    ours: dict[str, Any],
) -> dict[str, Any]:
    """Bring a run's changes of the state into the session's; the session's row is locked by now."""
    data = session_data or {}
    current = data.get("session_state") or {}
    merged = merge(base, current, ours)
    if codec.dumps(merged) != codec.dumps(current):  # where 1 became True, they are equal and not the same
        s = store.tables.sessions
        new = data | {"session_state": merged}
        connection.execute(s.update().where(s.c.session_id == session_id).values(session_data=new))
    return merged


@cache
def _host() -> str:
    return socket.gethostname()


def this_process() -> str:
    """Who writes an open run: host, process id and the process's start, by which a reused id is known."""
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.0f}"


def start_run(connection: Connection, store: SessionStore, session_id: str, run: Run) -> Run:
    """See `SessionStore.start_run`."""
    now = time.time()
    owner: dict[str, Any] = {"session_type": run.run_type} | {n: getattr(run, n) for n in OWNER_FIELDS[1:]}
    session = touch_session(connection, store, session_id, owner, now)
    state = (session["session_data"] or {}).get("session_state")
    started = run.model_copy(update={"session_state": state, "created_at": datetime.fromtimestamp(now, UTC)})
    row = rows.run_rows(started, session_id).run | {"process": this_process()}
    index = insert_run(connection, store, row, session["fork_run_index"])
    return started.model_copy(update={"session_id": session_id, "run_index": index})


def open_run(connection: Connection, store: SessionStore, run_id: str) -> RowMapping:
    """The row of a run that may still be written to, locked where the engine locks rows.

    Raises:
        RunNotFound, RunClosed: there is none such, or it has ended.
    """
    r = store.tables.runs
    query = sa.select(r.c.session_id, r.c.run_index, r.c.status, r.c.session_state, r.c.created_at)
    row = connection.execute(store.locked(query.where(r.c.run_id == run_id))).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "Start one with start_run.")
    if row["status"] not in OPEN_STATUSES:
        raise RunClosed(f"Run {run_id} has ended: {row['status']}.", "Start a new run; what is stored stays as it is.")
    return row


def append_messages(
    connection: Connection, store: SessionStore, run_id: str, messages: Sequence[Message]
) -> list[Message]:
    """See `SessionStore.append_messages`."""
    run = open_run(connection, store, run_id)
    session_id, t, m = run["session_id"], store.tables.tool_calls, store.tables.messages
    first = sa.select(sa.func.coalesce(sa.func.max(m.c.message_index) + 1, 0)).where(_of_run(m, run))
    start = int(connection.execute(first).scalar_one())
    now = datetime.now(UTC)
    stored = [
        message.model_copy(update={"message_index": i, "created_at": message.created_at or now})
        for i, message in enumerate(messages, start)
    ]
    place = {"run_index": run["run_index"]}
    message_rows = [rows.message_row(m, run_id, session_id, i) | place for i, m in enumerate(stored, start)]
    store.insert_rows(connection, m, message_rows)
    taken = connection.execute(sa.select(t.c.tool_call_id).where(_of_run(t, run))).scalars().all()
    calls = rows.tool_call_rows(
        run_id, session_id, stored, [], open_run=True, first_message=start, taken=taken, join=False
    )
    made = int(now.timestamp() * 1_000_000)
    calls = [call | place | {"created_at": call["created_at"] or made} for call in calls]
    store.insert_rows(connection, t, calls)
    for message in stored:
        if message.role in rows.ANSWERS:
            _complete_call(connection, store, run, message, made)
    return stored


def _of_run(table: sa.Table, run: RowMapping) -> sa.ColumnElement[bool]:
    """The rows of a run, by what rows lie together by: an engine without an index skips most of a large store."""
    return sa.and_(table.c.session_id == run["session_id"], table.c.run_index == run["run_index"])


def _complete_call(connection: Connection, store: SessionStore, run: RowMapping, message: Message, now: int) -> None:
    """A tool's message ends the call it answers, unless it has ended before."""
    t = store.tables.tool_calls
    # An id that was used again in the run stands there as id~2.
    named = (t.c.tool_call_id == message.tool_call_id) | starts_with(t.c.tool_call_id, f"{message.tool_call_id}~")
    earlier = t.c.message_index.is_(None) | (t.c.message_index < message.message_index)
    waiting = sa.select(t.c.tool_call_id).where(_of_run(t, run), named, earlier, t.c.status == "started")
    call = connection.execute(waiting.order_by(t.c.call_index).limit(1)).scalar()
    if call is not None:
        text, value = rows.split(message.content)
        took = (now - t.c.created_at) / sa.literal(1_000_000.0, sa.Double)
        done = {"status": rows.ended(message), "result": text, "result_json": value, "duration_s": took}
        connection.execute(t.update().where(_of_run(t, run), t.c.tool_call_id == call).values(**done))


def finish_run(
    connection: Connection,
    store: SessionStore,
    run_id: str,
    *,
    status: RunStatus,
    output: Any,
    usage: Usage | None,
    session_state: dict[str, Any] | None,
    error: str | None,
) -> None:
    """See `SessionStore.finish_run`."""
    r, t, s = store.tables.runs, store.tables.tool_calls, store.tables.sessions
    # The session's row before the run's, as every writer locks them: two finishers then never wait for each other.
    of_run = sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    locked = store.locked(sa.select(s.c.session_data).where(s.c.session_id == of_run))
    session = connection.execute(locked).mappings().first()
    run = open_run(connection, store, run_id)
    session_id = run["session_id"]
    now = time.time()
    values: dict[str, Any] = {"status": status, "error": error, **rows.usage_row(usage)}
    values["output"], values["output_json"] = rows.split(output)
    if status not in OPEN_STATUSES:
        finished = int(now * 1_000_000)
        values |= {"finished_at": finished, "duration_s": (finished - run["created_at"]) / 1_000_000, "process": None}
        left = _of_run(t, run) & (t.c.status == "started")
        connection.execute(t.update().where(left).values(status="unknown"))
    if session_state is not None and session is not None:
        base = run["session_state"] or {}
        data = session["session_data"]
        values["session_state"] = _merge_state(connection, store, session_id, data, base, session_state)
    connection.execute(r.update().where(r.c.run_id == run_id).values(**values))
    connection.execute(s.update().where(s.c.session_id == session_id).values(updated_at=int(now)))
