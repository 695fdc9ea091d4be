"""Runs written: finished, or as they happen. Each function works in one transaction, given its connection.

An append touches the session's row (which locks it, and checks the owner), inserts the run with the next index, and
inserts its messages and tool calls. It reads nothing of the session's past, so it costs the same at run 1 and at run
10,000.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec, mapping
from kern_nb.db.process_identity import this_process
from kern_nb.db.schema import starts_with
from kern_nb.db.state_merge import merge
from kern_nb.errors import OwnerMismatch, RequirementExists, RunClosed, RunExists, RunNotFound
from kern_nb.extra_keys import ARGS, ASKED_ARGS, DURATION_S, STATE_BEFORE, UNKNOWN
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES, Message, Requirement, Run, RunStatus, ToolCall, Usage

if TYPE_CHECKING:
    from kern_nb.db.database import Database

OWNER_FIELDS = ("session_type", "agent_id", "team_id", "workflow_id", "user_id")


def touch_session(
    connection: Connection, store: Database, session_id: str, owner: dict[str, Any], now: float
) -> dict[str, Any]:
    """Make the session or note that it changed; locks its row until the transaction ends.

    Raises:
        OwnerMismatch: it belongs to another user.
    """
    s = store.tables.sessions
    given = owner | {"session_id": mapping.key(session_id), "created_at": int(now), "updated_at": int(now)}
    touch = {f"new_{name}": given.get(name) for name in store.statements.TOUCHED}
    # Most sessions are there already. Else a query and an INSERT cost DuckDB a third of an upsert.
    row = connection.execute(store.statements.touch_session, touch).mappings().first()
    if row is not None:
        return dict(row)
    if connection.execute(sa.select(s.c.session_id).where(s.c.session_id == session_id)).first() is None:
        connection.execute(s.insert().values(**given))  # where another process was faster, this fails and is run again
        return {"session_data": None, "fork_run_index": None}
    row = connection.execute(store.statements.touch_session, touch).mappings().first()  # it may have come just now
    if row is None:
        raise not_theirs(session_id, owner.get("user_id"))
    return dict(row)


def not_theirs(session_id: str, user_id: str | None) -> OwnerMismatch:
    """The refusal of a write to a session of another user, who is not named."""
    message = f"Session {session_id!r} belongs to another user than {user_id!r}."
    return OwnerMismatch(message, "Use a session_id of that user's own.")


def insert_run(connection: Connection, store: Database, row: mapping.Row, floor: int | None) -> int:
    """Insert a run with the session's next index, or the one after ``floor`` where it is the first; the index."""
    full = dict.fromkeys(store.tables.runs.columns.keys()) | row | {"floor": -1 if floor is None else floor}
    del full["run_index"]
    try:
        return int(connection.execute(store.statements.insert_run, full).scalar_one())
    except sa.exc.IntegrityError as error:
        if "run_id" not in str(error.orig):  # the index: another run was faster, and the transaction is run again
            raise
        message = f"Run {row['run_id']!r} is stored already."
        raise RunExists(message, "Give the run another run_id, or none: one is made up.") from error


def append_run(connection: Connection, store: Database, session_id: str, run: Run, user_id: str | None) -> Run:
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
    made = mapping.run_rows(stored, session_id)
    index = insert_run(connection, store, made.run, session["fork_run_index"])
    stored = _keep_state_before(connection, store, stored, index, (session["session_data"] or {}).get("session_state"))
    return insert_children(connection, store, stored, made, session_id, index)


def insert_children(
    connection: Connection, store: Database, run: Run, made: mapping.RunRows, session_id: str, index: int
) -> Run:
    """Insert the messages and tool calls of a run that has its index; the run as stored."""
    for row in (*made.messages, *made.tool_calls):
        row["run_index"] = index
    store.insert_rows(connection, store.tables.messages, made.messages)
    store.insert_rows(connection, store.tables.tool_calls, made.tool_calls)
    place = {"session_id": session_id, "run_id": run.run_id}
    paused = mapping.to_micros(run.finished_at or run.created_at) or int(time.time() * 1_000_000)
    requirements = insert_requirements(connection, store, run.requirements, place, paused)
    calls = [mapping.tool_call_of(row) for row in made.tool_calls]
    messages = [m.model_copy(update={"message_index": i}) for i, m in enumerate(run.messages)]
    by_message: dict[int | None, list[ToolCall]] = {}
    for call in calls:
        by_message.setdefault(call.message_index, []).append(call)
    for message in messages:
        message.tool_calls = by_message.get(message.message_index, [])
    placed = {"session_id": session_id, "run_index": index, "messages": messages, "tool_calls": calls}
    return run.model_copy(update=placed | {"requirements": requirements})


def insert_requirements(
    connection: Connection, store: Database, given: Sequence[Requirement], place: dict[str, str], now: int
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
    times = [requirement.created_at or mapping.moment(now + i) for i, requirement in enumerate(given)]
    placed = [r.model_copy(update=place | {"created_at": t}) for r, t in zip(given, times, strict=True)]
    store.insert_rows(connection, q, [mapping.requirement_row(r) for r in placed])
    return placed


def update_state(
    connection: Connection, store: Database, session_id: str, updates: dict[str, Any], user_id: str | None
) -> dict[str, Any]:
    """See `SessionStore.update_session_state`."""
    owner = {"session_type": "agent", "user_id": user_id}
    session = touch_session(connection, store, session_id, owner, time.time())
    return _merge_state(connection, store, session_id, session["session_data"], {}, updates)


def _merge_state(
    connection: Connection,
    store: Database,
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


def start_run(
    connection: Connection,
    store: Database,
    session_id: str,
    run: Run,
    default_state: dict[str, Any] | None = None,
    owner_data: dict[str, Any] | None = None,
) -> Run:
    """See `SessionStore.start_run`; the messages of ``run`` are its first."""
    now = time.time()
    owner: dict[str, Any] = {"session_type": run.run_type} | {n: getattr(run, n) for n in OWNER_FIELDS[1:]}
    owner[f"{run.run_type}_data"] = owner_data
    session = touch_session(connection, store, session_id, owner, now)
    data = session["session_data"]
    state = (data or {}).get("session_state")
    state = state if isinstance(state, dict) else None  # a foreign record may hold anything there
    if default_state:
        state = _merge_state(connection, store, session_id, data, {}, merge({}, default_state, state or {}))
    begun = datetime.fromtimestamp(now, UTC)
    started = run.model_copy(update={"session_state": state, "created_at": begun})
    started.messages = [m if m.created_at else m.model_copy(update={"created_at": begun}) for m in run.messages]
    row_set = mapping.run_rows(started, session_id)
    index = insert_run(connection, store, row_set.run | {"process": this_process()}, session["fork_run_index"])
    started = _keep_state_before(connection, store, started, index, state)
    _remember_run(store, run.run_id, (session_id, index))
    if not started.messages:
        return started.model_copy(update={"session_id": session_id, "run_index": index})
    return insert_children(connection, store, started, row_set, session_id, index)


def _run_not_found(run_id: str) -> RunNotFound:
    return RunNotFound(f"There is no run {run_id!r}.", "Start one with start_run.")


def _keep_state_before(connection: Connection, store: Database, run: Run, index: int, state: Any) -> Run:
    """Note with a session's first run the state it started from: a branch taken before it has no other run to ask."""
    if index != 0 or not isinstance(state, dict) or not state:
        return run
    r = store.tables.runs
    noted = run.internal | {STATE_BEFORE: state}
    connection.execute(r.update().where(r.c.run_id == run.run_id).values(internal=noted))
    return run.model_copy(update={"internal": noted})


def open_run(connection: Connection, store: Database, run_id: str) -> RowMapping:
    """The row of a run that may still be written to, locked where the engine locks rows.

    Raises:
        RunNotFound, RunClosed: there is none such, or it has ended.
    """
    r = store.tables.runs
    query = sa.select(r.c.session_id, r.c.run_index, r.c.status, r.c.session_state, r.c.created_at)
    row = connection.execute(store.locked(query.where(r.c.run_id == run_id))).mappings().first()
    if row is None:
        raise _run_not_found(run_id)
    if row["status"] not in OPEN_STATUSES:
        raise RunClosed(f"Run {run_id} has ended: {row['status']}.", "Start a new run; what is stored stays as it is.")
    return row


@dataclass(frozen=True)
class RunEnd:
    """What was stored at the end of a run.

    Attributes:
        messages: Its last messages, numbered.
        session_state: The state after it.
        finished_at: When it ended.
    """

    messages: list[Message]
    session_state: Any = None
    finished_at: datetime | None = None


RunKey = tuple[str, int]
"""The session and the index of a run: by these its rows lie together."""

_MOST_RUN_KEYS = 4096


def _remember_run(store: Database, run_id: str, key: RunKey) -> None:
    store.run_keys[run_id] = key
    while len(store.run_keys) > _MOST_RUN_KEYS:
        store.run_keys.popitem(last=False)


def find_run(connection: Connection, store: Database, run_id: str) -> RunKey:
    """Where a run is, remembered from its start: a run that is written step by step is looked up once.

    A run never moves, but it can be deleted: statements that use the key also compare the run_id.

    Raises:
        RunNotFound: there is none.
    """
    key = store.run_keys.get(run_id)
    if key is None:
        row = connection.execute(store.statements.find_run, {"run_id": run_id}).first()
        if row is None:
            raise _run_not_found(run_id)
        key = (row[0], row[1])
        _remember_run(store, run_id, key)
    return key


def _key_params(key: RunKey) -> dict[str, Any]:
    """The parameters by which `Statements` find the rows of a run."""
    return {"of_session": key[0], "of_index": key[1]}


def append_messages(
    connection: Connection,
    store: Database,
    run_id: str,
    messages: Sequence[Message],
    *,
    session_state: dict[str, Any] | None = None,
    store_results: bool = True,
) -> list[Message]:
    """See `SessionStore.append_messages`."""
    if session_state is not None:
        _store_state(connection, store, run_id, session_state)
    now = datetime.now(UTC)
    given = messages
    if not store_results:
        messages = [_without_results(message) for message in messages if message.role not in mapping.ANSWERS]
    stored = [message.model_copy(update={"created_at": message.created_at or now}) for message in messages]
    key, start = _insert_messages(connection, store, run_id, stored)
    made = int(now.timestamp() * 1_000_000)
    if any(message.tool_calls for message in stored):
        _insert_calls(connection, store, run_id, key, stored, made)
    results = [message for message in stored if message.role in mapping.ANSWERS]
    for message in results if store_results else _unstored(given, start):
        _complete_call(connection, store, key, message, made, keep=store_results)
    return stored


def _store_state(connection: Connection, store: Database, run_id: str, session_state: dict[str, Any]) -> None:
    """Bring an open run's state into the session's, and keep it as what the run goes on from."""
    session = lock_session_of(connection, store, run_id)
    run = open_run(connection, store, run_id)
    if session is not None:
        base = run["session_state"] or {}
        _merge_state(connection, store, run["session_id"], session["session_data"], base, session_state)
        # Where the run goes on from: what it holds itself, which may lack what others wrote meanwhile.
        r = store.tables.runs
        connection.execute(r.update().where(r.c.run_id == run_id).values(session_state=session_state))


def _insert_messages(
    connection: Connection, store: Database, run_id: str, messages: list[Message]
) -> tuple[RunKey, int]:
    """Insert messages after those of an open run, and number them; where the run is, and the first one's index.

    The first is inserted on the condition that the run is open, and in one statement with the question for its index.

    Raises:
        RunNotFound, RunClosed: there is no such run, or it has ended.
    """
    m = store.tables.messages
    if not messages:
        run = open_run(connection, store, run_id)
        key = (run["session_id"], run["run_index"])
        following = sa.select(sa.func.coalesce(sa.func.max(m.c.message_index) + 1, 0)).where(_of_run(m, key))
        return key, int(connection.execute(following).scalar_one())
    key = find_run(connection, store, run_id)
    blank = dict.fromkeys(m.columns.keys())
    row = blank | mapping.message_row(messages[0], run_id, key[0], 0)
    start = connection.execute(store.statements.insert_message, row | _key_params(key)).scalar()
    if start is None:
        run = open_run(connection, store, run_id)  # which says why; unless another run was in the place of this one
        _remember_run(store, run_id, (run["session_id"], run["run_index"]))
        return _insert_messages(connection, store, run_id, messages)
    place, rest = {"run_index": key[1]}, []
    for index, message in enumerate(messages, start):
        message.message_index = index
        if index > start:
            rest.append(mapping.message_row(message, run_id, key[0], index) | place)
    store.insert_rows(connection, m, rest)
    return key, int(start)


def _insert_calls(
    connection: Connection, store: Database, run_id: str, key: RunKey, messages: list[Message], now: int
) -> None:
    """Insert the calls of messages that were just stored; the messages have them as they are stored."""
    first = messages[0].message_index or 0

    def call_rows(known: Sequence[str]) -> list[mapping.Row]:
        calls = mapping.tool_call_rows(
            run_id, key[0], messages, [], open_run=True, first_message=first, taken=known, join=False
        )
        return [call | {"run_index": key[1], "created_at": call["created_at"] or now} for call in calls]

    calls = call_rows(())
    index = None
    if len(calls) == 1 and any(call.tool_call_id is not None for message in messages for call in message.tool_calls):
        params = dict.fromkeys(store.tables.tool_calls.columns.keys()) | calls[0] | _key_params(key)
        index = connection.execute(store.statements.insert_call, params).scalar()
    if index is None:  # there are several, or one of this id
        calls = call_rows(connection.execute(store.statements.call_ids, _key_params(key)).scalars().all())
        store.insert_rows(connection, store.tables.tool_calls, calls)
    for message in messages:
        index = message.message_index
        message.tool_calls = [mapping.tool_call_of(call) for call in calls if call["message_index"] == index]


def _unstored(messages: Sequence[Message], start: int) -> Iterator[Message]:
    """Tools' messages that are not stored, each with the index it would have: it answers calls before it only."""
    for message in messages:
        if message.role in mapping.ANSWERS:
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


def _of_run(table: sa.Table, key: RunKey) -> sa.ColumnElement[bool]:
    """The rows of a run, by what rows lie together by: an engine without an index skips most of a large store."""
    return sa.and_(table.c.session_id == key[0], table.c.run_index == key[1])


def _complete_call(
    connection: Connection, store: Database, key: RunKey, message: Message, now: int, *, keep: bool
) -> None:
    """A tool's message ends the call it answers, unless it has ended before.

    One that says that nobody knows how the call ended leaves it as it is.
    """
    if message.internal.get(UNKNOWN) is True:
        return
    text, value = mapping.split_content(message.content, is_result=True) if keep else (None, None)
    took = message.internal.get(DURATION_S)
    took = took if isinstance(took, float) else None
    new_args = message.internal.get(ARGS)
    done = {"status": mapping.result_status(message), "result": text, "result_json": value}
    if message.tool_call_id is not None and not isinstance(new_args, dict):
        params = _key_params(key) | {f"new_{name}": v for name, v in done.items()} | {"new_duration_s": took}
        params |= {"of_call": message.tool_call_id, "before_message": message.message_index, "now": now}
        if connection.execute(store.statements.complete_call, params).rowcount == 1:
            return
    # Its id may have been used again in the run, and stand there as id~2; or nobody knew yet how it ended.
    t = store.tables.tool_calls
    named = (t.c.tool_call_id == message.tool_call_id) | starts_with(t.c.tool_call_id, f"{message.tool_call_id}~")
    waiting = sa.select(t.c.tool_call_id).where(_of_run(t, key), named, t.c.status.in_(("started", "unknown")))
    if message.message_index is not None:
        waiting = waiting.where(t.c.message_index.is_(None) | (t.c.message_index < message.message_index))
    # One of which nobody knows how it ended comes after those that are waited for.
    call = connection.execute(waiting.order_by(t.c.status, t.c.call_index).limit(1)).scalar()
    if call is None:
        return
    this = _of_run(t, key) & (t.c.tool_call_id == call)
    done["duration_s"] = (now - t.c.created_at) / sa.literal(1_000_000.0, sa.Double) if took is None else took
    if isinstance(new_args, dict):
        done |= _ran_with(connection, t, this, new_args)
    connection.execute(t.update().where(this).values(**done))


def lock_session_of(connection: Connection, store: Database, run_id: str) -> RowMapping | None:
    """The session of a run, locked before the run as every writer locks them: two writers never wait for each other."""
    r, s = store.tables.runs, store.tables.sessions
    of_run = sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    locked = store.locked(sa.select(s.c.session_data).where(s.c.session_id == of_run))
    return connection.execute(locked).mappings().first()


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
    **known: Any,
) -> RunEnd:
    """See `SessionStore.finish_run`; ``known`` are further columns of the run, left alone where None.

    ``state_unchanged`` says that the state is still the one that the run's row has.
    """
    values: dict[str, Any] = {"status": status, "error": error, **mapping.usage_row(usage)}
    values["output"], values["output_json"] = mapping.split_content(output)
    values |= {
        name: mapping.normalize_number(v) if name.endswith("_s") else v for name, v in known.items() if v is not None
    }
    states: dict[str, Any] = {"session_state": session_state, "state_unchanged": state_unchanged}
    if status in OPEN_STATUSES:
        stored = append_messages(connection, store, run_id, messages) if messages else []
        return RunEnd(stored, *_set_status(connection, store, run_id, values, **states))
    return _end_run(connection, store, run_id, values, messages, **states)


def _end_run(
    connection: Connection,
    store: Database,
    run_id: str,
    values: dict[str, Any],
    messages: Sequence[Message],
    *,
    session_state: dict[str, Any] | None,
    state_unchanged: bool,
) -> RunEnd:
    """End a running run, in as few statements as that takes."""
    now = time.time()
    key = find_run(connection, store, run_id)
    touch = _key_params(key) | {"new_updated_at": int(now)}
    session = connection.execute(store.statements.touch_session_of_run, touch).mappings().first()
    stored = append_messages(connection, store, run_id, messages) if messages else []
    data = session["session_data"] if session is not None else None
    current = (data or {}).get("session_state")
    if state_unchanged:
        values["session_state"] = current if isinstance(current, dict) else {}
    elif session_state is None:  # what the run says nothing of is as others left it
        values["session_state"] = current
    else:
        base = open_run(connection, store, run_id)["session_state"] or {}
        values["session_state"] = _merge_state(connection, store, key[0], data, base, session_state)
    values["finished_at"] = int(now * 1_000_000)
    ended = connection.execute(store.statements.end_run, _key_params(key) | _end_params(store, run_id, values))
    store.run_keys.pop(run_id, None)
    if ended.rowcount != 1:  # it does not run: it waits, or has ended
        states: dict[str, Any] = {"session_state": session_state, "state_unchanged": state_unchanged}
        return RunEnd(stored, *_set_status(connection, store, run_id, values, **states))
    connection.execute(store.statements.calls_unknown, _key_params(key))
    return RunEnd(stored, values["session_state"], mapping.moment(values["finished_at"]))


def _end_params(store: Database, run_id: str, values: dict[str, Any]) -> dict[str, Any]:
    sql = store.statements
    return {f"new_{name}": values.get(name) for name in (*sql.ENDED, *sql.KNOWN, "duration_s")} | {"of_run": run_id}


def _set_status(
    connection: Connection,
    store: Database,
    run_id: str,
    values: dict[str, Any],
    *,
    session_state: dict[str, Any] | None,
    state_unchanged: bool,
) -> tuple[Any, datetime | None]:
    """Set the status of an open run, whichever it has; its state now, and when it ended."""
    r, s = store.tables.runs, store.tables.sessions
    session = lock_session_of(connection, store, run_id)
    run = open_run(connection, store, run_id)
    key = (run["session_id"], run["run_index"])
    now, status = time.time(), values["status"]
    data = session["session_data"] if session is not None else None
    if status not in OPEN_STATUSES:
        finished = int(now * 1_000_000)
        took = (finished - run["created_at"]) / 1_000_000
        values = {"duration_s": took} | values | {"finished_at": finished, "process": None}
        connection.execute(store.statements.calls_unknown, _key_params(key))
    if session_state is not None and not state_unchanged:
        base = run["session_state"] or {}
        values["session_state"] = _merge_state(connection, store, key[0], data, base, session_state)
    elif state_unchanged or status not in OPEN_STATUSES:  # what the run says nothing of is as others left it
        values["session_state"] = (data or {}).get("session_state")
    if run["status"] == "PAUSED" and status not in OPEN_STATUSES:  # nobody will go on with it
        q = store.tables.requirements
        unanswered = (q.c.run_id == run_id) & q.c.status.in_(UNRESOLVED_STATUSES)
        connection.execute(q.update().where(unanswered).values(status="expired"))
    connection.execute(r.update().where(r.c.run_id == run_id).values(**values))
    connection.execute(s.update().where(s.c.session_id == key[0]).values(updated_at=int(now)))
    return values.get("session_state"), mapping.moment(values.get("finished_at"))
