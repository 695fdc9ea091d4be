"""Runs written: finished, or as they happen. Each function works in one transaction, given its connection.

An append touches the session's row (which locks it, and checks the owner), inserts the run with the next index, and
inserts its messages and tool calls. It reads nothing of the session's past, so it costs the same at run 1 and at run
10,000.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec, rows
from kern_nb.db.schema import Tables, starts_with
from kern_nb.db.state import merge
from kern_nb.errors import OwnerMismatch, RequirementExists, RunClosed, RunExists, RunNotFound
from kern_nb.extra_keys import ARGS, ASKED_ARGS, DURATION_S, STATE_BEFORE, UNKNOWN
from kern_nb.records import OPEN_STATUSES, UNANSWERED, Message, Requirement, Run, RunStatus, Usage

if TYPE_CHECKING:
    from kern_nb.db.connected import Connected

OWNER_FIELDS = ("session_type", "agent_id", "team_id", "workflow_id", "user_id")


def touch_session(
    connection: Connection, store: Connected, session_id: str, owner: dict[str, Any], now: float
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
        raise not_theirs(session_id, owner.get("user_id"))
    return row


def not_theirs(session_id: str, user_id: str | None) -> OwnerMismatch:
    """The refusal of a write to a session of another user, who is not named."""
    message = f"Session {session_id!r} belongs to another user than {user_id!r}."
    return OwnerMismatch(message, "Use a session_id of that user's own.")


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


def insert_run(connection: Connection, store: Connected, row: rows.Row, floor: int | None) -> int:
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


def append_run(connection: Connection, store: Connected, session_id: str, run: Run, user_id: str | None) -> Run:
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
    _keep_state_before(connection, store, stored, index, (session["session_data"] or {}).get("session_state"))
    return insert_children(connection, store, stored, made, session_id, index)


def insert_children(
    connection: Connection, store: Connected, run: Run, made: rows.RunRows, session_id: str, index: int
) -> Run:
    """Insert the messages and tool calls of a run that has its index; the run as stored."""
    for row in (*made.messages, *made.tool_calls):
        row["run_index"] = index
    store.insert_rows(connection, store.tables.messages, made.messages)
    store.insert_rows(connection, store.tables.tool_calls, made.tool_calls)
    place = {"session_id": session_id, "run_id": run.run_id}
    paused = rows.micros(run.finished_at or run.created_at) or int(time.time() * 1_000_000)
    requirements = insert_requirements(connection, store, run.requirements, place, paused)
    calls = [rows.tool_call_of(row) for row in made.tool_calls]
    messages = [m.model_copy(update={"message_index": i}) for i, m in enumerate(run.messages)]
    for message in messages:
        message.tool_calls = [call for call in calls if call.message_index == message.message_index]
    placed = {"session_id": session_id, "run_index": index, "messages": messages, "tool_calls": calls}
    return run.model_copy(update=placed | {"requirements": requirements})


def insert_requirements(
    connection: Connection, store: Connected, given: Sequence[Requirement], place: dict[str, str], now: int
) -> list[Requirement]:
    """Insert what a run waits for; as stored.

    Raises:
        RequirementExists: an id is taken.
    """
    q = store.tables.requirements
    ids = [requirement.requirement_id for requirement in given]
    taken = (
        connection.execute(sa.select(q.c.requirement_id).where(q.c.requirement_id.in_(ids))).scalars().all()
        if ids
        else []
    )
    if taken or len(set(ids)) < len(ids):
        name = taken[0] if taken else next(i for i in ids if ids.count(i) > 1)
        raise RequirementExists(f"Requirement {name!r} is stored already.", "Give it another id, or none.")
    # A microsecond apart, so that they stay in their order.
    times = [requirement.created_at or rows.moment(now + i) for i, requirement in enumerate(given)]
    placed = [r.model_copy(update=place | {"created_at": t}) for r, t in zip(given, times, strict=True)]
    store.insert_rows(connection, q, [rows.requirement_row(r) for r in placed])
    return placed


def update_state(
    connection: Connection, store: Connected, session_id: str, updates: dict[str, Any], user_id: str | None
) -> dict[str, Any]:
    """See `SessionStore.update_session_state`."""
    owner = {"session_type": "agent", "user_id": user_id}
    session = touch_session(connection, store, session_id, owner, time.time())
    return _merge_state(connection, store, session_id, session["session_data"], {}, updates)


def _merge_state(
    connection: Connection,
    store: Connected,
    session_id: str,
    session_data: dict[str, Any] | None,
    base: dict[str, Any],
    ours: dict[str, Any],
) -> dict[str, Any]:
    """Bring a run's changes of the state into the session's; the session's row is locked by now."""
    data = session_data or {}
    current = data.get("session_state")
    current = current if isinstance(current, dict) else {}  # a foreign record may hold anything there
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


def start_run(
    connection: Connection,
    store: Connected,
    session_id: str,
    run: Run,
    default_state: dict[str, Any] | None = None,
    owner_data: dict[str, Any] | None = None,
) -> Run:
    """See `SessionStore.start_run`."""
    now = time.time()
    owner: dict[str, Any] = {"session_type": run.run_type} | {n: getattr(run, n) for n in OWNER_FIELDS[1:]}
    owner[f"{run.run_type}_data"] = owner_data
    session = touch_session(connection, store, session_id, owner, now)
    data = session["session_data"]
    state = (data or {}).get("session_state")
    state = state if isinstance(state, dict) else None  # a foreign record may hold anything there
    if default_state:
        state = _merge_state(connection, store, session_id, data, {}, merge({}, default_state, state or {}))
    started = run.model_copy(update={"session_state": state, "created_at": datetime.fromtimestamp(now, UTC)})
    row = rows.run_rows(started, session_id).run | {"process": this_process()}
    index = insert_run(connection, store, row, session["fork_run_index"])
    _keep_state_before(connection, store, started, index, state)
    return started.model_copy(update={"session_id": session_id, "run_index": index})


def _keep_state_before(connection: Connection, store: Connected, run: Run, index: int, state: Any) -> None:
    """Note with a session's first run the state it started from: a branch taken before it has no other run to ask."""
    if index == 0 and isinstance(state, dict) and state:
        r = store.tables.runs
        noted = run.internal | {STATE_BEFORE: state}
        connection.execute(r.update().where(r.c.run_id == run.run_id).values(internal=noted))


def open_run(connection: Connection, store: Connected, run_id: str) -> RowMapping:
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
    connection: Connection,
    store: Connected,
    run_id: str,
    messages: Sequence[Message],
    *,
    session_state: dict[str, Any] | None = None,
    store_results: bool = True,
) -> list[Message]:
    """See `SessionStore.append_messages`."""
    if session_state is not None:
        session = lock_session_of(connection, store, run_id)
    run = open_run(connection, store, run_id)
    session_id, t, m = run["session_id"], store.tables.tool_calls, store.tables.messages
    if session_state is not None and session is not None:
        base = run["session_state"] or {}
        _merge_state(connection, store, session_id, session["session_data"], base, session_state)
        # Where the run goes on from: what it holds itself, which may lack what others wrote meanwhile.
        r = store.tables.runs
        connection.execute(r.update().where(r.c.run_id == run_id).values(session_state=session_state))
    given = messages
    if not store_results:
        messages = [_without_results(message) for message in messages if message.role not in rows.ANSWERS]
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
    results = [message for message in stored if message.role in rows.ANSWERS]
    for message in results if store_results else _unstored(given, start):
        _complete_call(connection, store, run, message, made, keep=store_results)
    return stored


def _unstored(messages: Sequence[Message], start: int) -> Iterator[Message]:
    """Tools' messages that are not stored, each with the index it would have: it answers calls before it only."""
    for message in messages:
        if message.role in rows.ANSWERS:
            yield message.model_copy(update={"message_index": start})
        else:
            start += 1


def _ran_with(
    connection: Connection, calls: sa.Table, call: sa.ColumnElement[bool], args: dict[str, Any]
) -> dict[str, Any]:
    """The columns of a call that ran with other arguments than the model gave; those are kept beside."""
    asked = connection.execute(sa.select(calls.c.args, calls.c.internal).where(call)).mappings().one()
    return {"args": args, "internal": (asked["internal"] or {}) | {ASKED_ARGS: asked["args"]}}


def _without_results(message: Message) -> Message:
    """A message whose calls, where they came with a result, say only that they ended."""
    calls = [
        call if call.result is None else call.model_copy(update={"result": None, "status": call.status or "completed"})
        for call in message.tool_calls
    ]
    return message.model_copy(update={"tool_calls": calls})


def _of_run(table: sa.Table, run: RowMapping) -> sa.ColumnElement[bool]:
    """The rows of a run, by what rows lie together by: an engine without an index skips most of a large store."""
    return sa.and_(table.c.session_id == run["session_id"], table.c.run_index == run["run_index"])


def _complete_call(
    connection: Connection, store: Connected, run: RowMapping, message: Message, now: int, *, keep: bool
) -> None:
    """A tool's message ends the call it answers, unless it has ended before.

    One that says that nobody knows how the call ended leaves it as it is.
    """
    if message.internal.get(UNKNOWN) is True:
        return
    t = store.tables.tool_calls
    # An id that was used again in the run stands there as id~2.
    named = (t.c.tool_call_id == message.tool_call_id) | starts_with(t.c.tool_call_id, f"{message.tool_call_id}~")
    waiting = sa.select(t.c.tool_call_id).where(_of_run(t, run), named, t.c.status.in_(("started", "unknown")))
    if message.message_index is not None:
        waiting = waiting.where(t.c.message_index.is_(None) | (t.c.message_index < message.message_index))
    # One of which nobody knows how it ended comes after those that are waited for.
    call = connection.execute(waiting.order_by(t.c.status, t.c.call_index).limit(1)).scalar()
    if call is not None:
        text, value = rows.split(message.content, is_result=True) if keep else (None, None)
        took = message.internal.get(DURATION_S)
        if not isinstance(took, float):
            took = (now - t.c.created_at) / sa.literal(1_000_000.0, sa.Double)
        done = {"status": rows.ended(message), "result": text, "result_json": value, "duration_s": took}
        if isinstance(message.internal.get(ARGS), dict):
            done |= _ran_with(connection, t, _of_run(t, run) & (t.c.tool_call_id == call), message.internal[ARGS])
        connection.execute(t.update().where(_of_run(t, run), t.c.tool_call_id == call).values(**done))


def lock_session_of(connection: Connection, store: Connected, run_id: str) -> RowMapping | None:
    """The session of a run, locked before the run as every writer locks them: two writers never wait for each other."""
    r, s = store.tables.runs, store.tables.sessions
    of_run = sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    locked = store.locked(sa.select(s.c.session_data).where(s.c.session_id == of_run))
    return connection.execute(locked).mappings().first()


def finish_run(
    connection: Connection,
    store: Connected,
    run_id: str,
    *,
    status: RunStatus,
    output: Any = None,
    usage: Usage | None = None,
    session_state: dict[str, Any] | None = None,
    error: str | None = None,
    **known: Any,
) -> None:
    """See `SessionStore.finish_run`; ``known`` are further columns of the run, left alone where None."""
    r, t, s = store.tables.runs, store.tables.tool_calls, store.tables.sessions
    session = lock_session_of(connection, store, run_id)
    run = open_run(connection, store, run_id)
    session_id = run["session_id"]
    now = time.time()
    values: dict[str, Any] = {"status": status, "error": error, **rows.usage_row(usage)}
    values["output"], values["output_json"] = rows.split(output)
    values |= {name: rows.number(v) if name.endswith("_s") else v for name, v in known.items() if v is not None}
    if status not in OPEN_STATUSES:
        finished = int(now * 1_000_000)
        took = (finished - run["created_at"]) / 1_000_000
        values = {"duration_s": took} | values | {"finished_at": finished, "process": None}
        left = _of_run(t, run) & (t.c.status == "started")
        connection.execute(t.update().where(left).values(status="unknown"))
    data = session["session_data"] if session is not None else None
    if session_state is not None:
        base = run["session_state"] or {}
        values["session_state"] = _merge_state(connection, store, session_id, data, base, session_state)
    elif status not in OPEN_STATUSES:  # what the run says nothing of is as others left it
        values["session_state"] = (data or {}).get("session_state")
    if run["status"] == "PAUSED" and status not in OPEN_STATUSES:  # nobody will go on with it
        q = store.tables.requirements
        left = (q.c.run_id == run_id) & q.c.status.in_(UNANSWERED)
        connection.execute(q.update().where(left).values(status="expired"))
    connection.execute(r.update().where(r.c.run_id == run_id).values(**values))
    connection.execute(s.update().where(s.c.session_id == session_id).values(updated_at=int(now)))
