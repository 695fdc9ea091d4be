"""The end of a run of the SDK, or its pause; and the resuming of a paused run, once for each pause.

An interruption of the SDK, a tool call that requires approval, is a requirement. It can be answered with the SDK
(``state.approve(...)``) or in the store (``store.resolve(...)``, ``%kern approve``); the first answer counts. The SDK
resumes a state as often as it is asked to. Here the run is claimed by compare-and-set before any tool starts.

A state has no id of the run that it belongs to: it is recognized by its pending calls and by what was said before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from agents.run_state import RunState

from kern_nb import store_registry
from kern_nb.bridges import run_options
from kern_nb.bridges.openai_agents.options import describe_options, select_options
from kern_nb.bridges.openai_agents.recorder import Recording
from kern_nb.db import codec, mapping, reads, requirements, run_claims
from kern_nb.db.open_runs import set_internal
from kern_nb.errors import BadUsage, RunClosed
from kern_nb.extra_keys import FIXED_ARGS, PAUSE, RESUMED
from kern_nb.ingest.parsing.values import to_args
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.runtime.event_loop import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents import Agent
    from agents.items import ToolApprovalItem
    from sqlalchemy.engine import Connection

    from kern_nb.db import SessionStore

_RESOLVED_BY = "OpenAI Agents SDK"
_FIXED = "The OpenAI Agents SDK runs a call with the model's arguments only"
RESUMABLE = ("PAUSED", "ERROR", "CANCELLED")


def end(recording: Recording, result: Any) -> None:
    """Store how a run ended: with its output, or paused for its interruptions."""
    if result.interruptions:
        _pause(recording, result)
        return
    output = result.final_output
    is_cancelled = output is None and getattr(result, "_cancel_mode", "none") != "none"
    recording.complete(output, result.new_items, status="CANCELLED" if is_cancelled else "COMPLETED")


def _pause(recording: Recording, result: Any) -> None:
    store, run_id = recording.store, recording.run_id
    recording.flush(result.new_items)
    state = result.to_state()
    pause = _describe_state(state) | describe_options(recording.options)

    def write(connection: Connection) -> None:
        pending = _tree_requirements(connection, store, run_id)
        unanswered = {row["tool_call_id"] for row in pending if row["status"] in UNRESOLVED_STATUSES}
        new = [
            _to_requirement(interruption)
            for interruption in result.interruptions
            if interruption.call_id not in unanswered
        ]
        run_claims.pause_run(connection, store, run_id, new, usage=recording.usage)
        set_internal(connection, store, run_id, {PAUSE: pause})

    store.write(write)
    recording.has_ended = True
    run_options.remember(run_id, select_options(recording.options) | {"state": state})


def _to_requirement(interruption: ToolApprovalItem) -> Requirement:
    args, extra = to_args(interruption.arguments)
    return Requirement(
        kind="confirmation",
        tool_call_id=interruption.call_id,
        tool_name=interruption.name,
        args=args,
        extra=extra | {"agent": interruption.agent.name, FIXED_ARGS: _FIXED},
    )


def _describe_state(state: RunState[Any]) -> dict[str, Any]:
    """The state as JSON, without a context that only its program can restore, and its key.

    The SDK refuses to serialize some states, such as those of agents of one name: they can be resumed by their own
    process only, and are recognized by their pending calls.
    """
    try:
        data = state.to_json(context_serializer=lambda _: {})
    except Exception:  # noqa: BLE001 - see above; the SDK raises errors of several kinds
        return {"key": _hash([(item.call_id, item.name, item.arguments) for item in state.get_interruptions()])}
    return {"key": _key_of(data), "state": data}


def _key_of(data: dict[str, Any]) -> str:
    """The key of a serialized state: of what was said before, whose order of keys changes as the SDK loads it."""
    said: list[Any] = [data.get("original_input"), data.get("trace")]
    said += [(r.get("response_id"), r.get("output")) for r in data.get("model_responses") or ()]
    said += [(item.get("type"), item.get("raw_item")) for item in data.get("generated_items") or ()]
    return _hash(said)


def _hash(value: Any) -> str:
    return hashlib.sha256(codec.dumps(_sorted(value)).encode()).hexdigest()[:32]


def _sorted(value: Any) -> Any:
    """A value with the keys of its dicts in order, at every depth."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tree_requirements(connection: Connection, store: SessionStore, run_id: str) -> Sequence[sa.RowMapping]:
    """The requirements of a run and of the runs that its tools started, newest first."""
    q = store.tables.requirements
    run_ids = reads.run_tree_ids(connection, store.tables, run_id)
    query = sa.select(q).where(q.c.run_id.in_(run_ids)).order_by(q.c.created_at.desc())
    return connection.execute(query).mappings().all()


def resume(
    store: SessionStore, state: RunState[Any], *, session_id: str | None, parent: Recording | None, has_memory: bool
) -> Recording | None:
    """Claim the run that a state belongs to, before the SDK resumes it; None if no recorded run does.

    Raises:
        RunClosed: The state was resumed before.
        AlreadyResolved: A requirement was answered otherwise before.
        BadUsage: A person changed the arguments of a call, which the SDK cannot pass on.
    """
    interruptions = state.get_interruptions()
    if not interruptions:
        return None
    call_ids = {interruption.call_id for interruption in interruptions}
    key = _describe_state(state)["key"]

    def write(connection: Connection) -> tuple[Run, Run, Sequence[sa.RowMapping]] | None:
        run_id = _find_run(connection, store, key, call_ids, session_id, parent)
        if run_id is None:
            return None
        before = reads.get_run(connection, store.tables, run_id)
        for interruption in interruptions:
            _answer(connection, store, run_id, state, interruption)
        rows = _tree_requirements(connection, store, run_id)
        run = run_claims.claim_run(connection, store, run_id, partly=True)
        resumed = [*before.internal.get(RESUMED, ()), key]
        set_internal(connection, store, run_id, {PAUSE: None, RESUMED: resumed})
        return before, run, rows

    claimed = store.write(write)
    if claimed is None:
        return None
    before, run, rows = claimed
    _apply_answers(state, interruptions, rows)
    recording = Recording(store, run, has_memory=has_memory)
    recording.before = before
    recording.state = state
    return recording


def fail(recording: Recording, error: BaseException) -> None:
    """Store that a run ended with an exception.

    A resumed run waits again if nothing has happened. If tools have returned, the SDK has noted their results in the
    state: with that, the run can go on without them, so the state is stored as that of a pause.
    """
    if _release(recording):
        return
    recording.fail(error)
    if recording.state is None or not recording.state.get_interruptions():
        return
    pause = _describe_state(recording.state)
    store, run_id = recording.store, recording.run_id

    def write(connection: Connection) -> None:
        r = store.tables.runs
        internal = connection.execute(sa.select(r.c.internal).where(r.c.run_id == run_id)).scalar() or {}
        if pause["key"] not in internal.get(RESUMED, ()):
            set_internal(connection, store, run_id, {PAUSE: pause})

    store.write(write)


def _release(recording: Recording) -> bool:
    """Let a claimed run wait again, if the SDK has refused to resume it before anything happened."""
    before = recording.before
    if before is None or not recording.is_untouched:
        return False
    recording.store.release_run(before)
    values = {PAUSE: before.internal.get(PAUSE), RESUMED: before.internal.get(RESUMED)}
    recording.store.write(lambda c: set_internal(c, recording.store, recording.run_id, values))
    recording.has_ended = True
    return True


def _decision(state: RunState[Any], interruption: ToolApprovalItem) -> tuple[bool | None, str | None]:
    """The answer to an interruption in a state, and the message of a rejection; a nested run's state has its own."""
    context = getattr(state, "_context", None)  # the SDK has no other way to read what approve() has set
    name, call_id = interruption.name, interruption.call_id
    if context is None or name is None or call_id is None:
        return None, None
    options = {"tool_namespace": interruption.tool_namespace, "existing_pending": interruption}
    approved = context.get_approval_status(name, call_id, **options)
    return approved, context.get_rejection_message(name, call_id, **options) if approved is False else None


def _answer(
    connection: Connection, store: SessionStore, run_id: str, state: RunState[Any], interruption: ToolApprovalItem
) -> None:
    """Store the answer that a state has to a requirement, or check that it is the one that is stored."""
    rows = [r for r in _tree_requirements(connection, store, run_id) if r["tool_call_id"] == interruption.call_id]
    if not rows:
        return
    row = rows[0]
    if row["status"] == "resolved" and row["answer"] is not None:
        raise BadUsage(
            f"Requirement {row['requirement_id']} has other arguments than the call of {row['tool_name']}.",
            f"{_FIXED}: reject it with a note instead.",
        )
    approved, note = _decision(state, interruption)
    if approved is None or row["run_id"] != run_id:
        return
    if row["status"] == "resolved":
        if row["approved"] is not approved:
            raise requirements.resolved_error(mapping.requirement_from_row(row))
        return
    answer: dict[str, Any] = {"approve": approved, "args": None, "value": None, "note": note, "user_id": None}
    resolved = requirements.resolve(connection, store, (run_id, row["requirement_id"]), by=_RESOLVED_BY, **answer)
    if resolved.status == "expired":
        raise requirements.resolved_error(resolved)


def _apply_answers(
    state: RunState[Any], interruptions: Sequence[ToolApprovalItem], rows: Sequence[sa.RowMapping]
) -> None:
    """Pass the answers that are stored on to the SDK."""
    for interruption in interruptions:
        row = next((row for row in rows if row["tool_call_id"] == interruption.call_id), None)
        if row is None or _decision(state, interruption)[0] is not None:
            continue
        if row["status"] == "resolved" and row["approved"]:
            state.approve(interruption)
        elif row["status"] in ("resolved", "expired"):
            note = row["note"] or ("The request for approval expired." if row["status"] == "expired" else None)
            state.reject(interruption, rejection_message=note)


async def load_state(agent: Agent[Any], run: str | Run, store: str | SessionStore | None = None) -> RunState[Any]:
    """Load the state of a paused run, with which any process can resume it.

    ``await Runner.run(agent, await load_state(agent, run_id))`` goes on with the answers that are in the store.

    A context that is not a mapping is not stored: pass
    ``context=`` to ``Runner.run``. A state contains what tools were called with: load those of your own stores only.

    Args:
        agent: The agent that the run started with.
        run: The run or its id.
        store: The store, or the name of an attached one; None for the one in use.

    Raises:
        RunNotFound: There is no such run.
        RunClosed: It is not paused.
    """
    target = store_registry.find(store)
    run_id = run if isinstance(run, str) else run.run_id
    stored = await in_thread(lambda: target.get_run(run_id))
    pause = stored.internal.get(PAUSE)
    if stored.status not in RESUMABLE or not isinstance(pause, dict) or "state" not in pause:
        raise RunClosed(
            f"Run {run_id} is {stored.status}, and has no state of the OpenAI Agents SDK.", "See %kern inbox."
        )
    return await RunState.from_json(agent, pause["state"])


def _find_run(
    connection: Connection,
    store: SessionStore,
    key: str,
    call_ids: set[str | None],
    session_id: str | None,
    parent: Recording | None,
) -> str | None:
    """The paused run of a state; raises RunClosed if the run was resumed with it before."""
    q, r = store.tables.requirements, store.tables.runs
    query = sa.select(q.c.run_id, q.c.extra).where(q.c.tool_call_id.in_(call_ids))
    if session_id is not None:
        query = query.where(q.c.session_id == session_id)
    rows = connection.execute(query.order_by(q.c.created_at.desc())).all()
    closed: Any = None
    for run_id in dict.fromkeys(row.run_id for row in rows):
        current: str | None = run_id
        while current is not None:
            run = connection.execute(sa.select(r).where(r.c.run_id == current)).mappings().first()
            if run is None:
                break
            pause = (run["internal"] or {}).get(PAUSE) or {}
            is_member = parent is not None and run["parent_run_id"] == parent.run_id
            stored = _key_of(pause["state"]) if isinstance(pause.get("state"), dict) else pause.get("key")
            if run["status"] in RESUMABLE and stored == key:
                return current
            if run["status"] == "PAUSED" and is_member:
                return current
            keys = (run["internal"] or {}).get(RESUMED, ())
            closed = run if key in keys else closed
            current = run["parent_run_id"]
    if closed is not None:
        raise RunClosed(
            f"Run {closed['session_id']}/{closed['run_index']} was resumed with this state before: {closed['status']}.",
            "No tool was run. Resume the state of its latest pause, or start a new run.",
        )
    return None
