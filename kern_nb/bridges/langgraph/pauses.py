"""Interrupts as requirements: a run that an interrupt pauses, and the answers. Each function works in one transaction.

The interrupts of a paused graph are requirements of its run, and ``Command(resume=...)`` is the answer. An interrupt of
a human-in-the-loop middleware that asks about one call is a confirmation of it; any other asks for a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import channels
from kern_nb.bridges.langgraph.rows import Key, Write
from kern_nb.db import integrity, run_claims, run_writes
from kern_nb.db.open_runs import lock_session_of_run, update_run
from kern_nb.db.process_identity import current_process
from kern_nb.errors import AlreadyClaimed
from kern_nb.ingest.importer import RECORD_ERRORS
from kern_nb.records import OPEN_STATUSES, UNRESOLVED_STATUSES, Requirement, text_of

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

TASK, INTERRUPT_ID, ORDINAL, NODES = "task_id", "interrupt_id", "ordinal", "nodes"
"""Keys of a requirement's ``extra``: the task that waits, its interrupt, how many answers the task had before, the
nodes after a breakpoint."""


def count_answers(write: Write) -> int:
    """How many answers a task has used."""
    try:
        value = channels.decode(write.kind, write.content)
    except RECORD_ERRORS:
        return 0
    return len(value) if isinstance(value, list) else 0


def pause(
    connection: Connection,
    store: SessionStore,
    run: sa.RowMapping,
    key: Key,
    write: Write,
    ordinal: int,
    *,
    is_new: bool,
) -> None:
    """Pause a run for the interrupts of a task. Those of a nested graph are requirements of the outermost run.

    A write that ``is_new`` asks once more if its interrupt was answered: a nested graph counts its answers itself.
    """
    lock_session_of_run(connection, store, run["run_id"])
    if run["status"] not in OPEN_STATUSES:
        return
    if key.namespace:
        run_writes.finish_run(connection, store, run["run_id"], status="PAUSED")
        return
    q = store.tables.requirements.c
    known = connection.execute(sa.select(q.requirement_id).where(q.run_id == run["run_id"])).scalars().all()
    try:
        interrupts = channels.decode(write.kind, write.content)
    except RECORD_ERRORS:
        interrupts = [{}]  # encrypted
    requirements = []
    for interrupt in interrupts if isinstance(interrupts, list) else [interrupts]:
        fields = interrupt if isinstance(interrupt, dict) else {"value": interrupt}
        requirement = _requirement(fields, key, write, ordinal)
        base = requirement.requirement_id
        same = [known_id for known_id in known if known_id.startswith(base)]
        if same and is_new and not is_waiting(connection, store, run["run_id"], same):
            requirement = requirement.model_copy(update={"requirement_id": f"{base}-{len(same)}"})
            same = []
        if not same:
            requirements.append(requirement)
    if known and not requirements and not is_waiting(connection, store, run["run_id"]):
        return  # it was answered in the meantime
    run_claims.pause_run(connection, store, run["run_id"], requirements)


def _requirement(interrupt: dict[str, Any], key: Key, write: Write, ordinal: int) -> Requirement:
    value, interrupt_id = interrupt.get("value"), interrupt.get("id")
    extra = {TASK: write.task_id, INTERRUPT_ID: interrupt_id, ORDINAL: ordinal, "value": value}
    extra["checkpoint_id"] = key.checkpoint_id
    fields: dict[str, Any] = {"kind": "external_execution", "prompt": text_of(value) or _question(value)}
    requests = value.get("action_requests") if isinstance(value, dict) else None
    if isinstance(requests, list) and len(requests) == 1 and isinstance(requests[0], dict):
        request = requests[0]
        fields = {"kind": "confirmation", "tool_name": request.get("name") or request.get("action")}
        fields |= {"args": request.get("args"), "prompt": request.get("description")}
    fields = {name: item for name, item in fields.items() if name in ("kind", "args") or isinstance(item, str)}
    name = "\0".join((*key, write.task_id, str(interrupt_id), str(ordinal)))
    return Requirement(requirement_id=str(uuid5(NAMESPACE_OID, name)), extra=extra, **fields)


def _question(value: Any) -> str | None:
    """The question in the value of an interrupt: its only text, or that of a key that usually has it."""
    if not isinstance(value, dict):
        return None if value is None else str(value)
    texts = {name: text for name, text in value.items() if isinstance(text, str)}
    for name in ("question", "prompt", "message", "text", "task", "description"):
        if name in texts:
            return texts[name]
    return next(iter(texts.values())) if len(texts) == 1 else None


def pause_at_breakpoint(
    connection: Connection, store: SessionStore, run: sa.RowMapping, key: Key, nodes: Sequence[str]
) -> None:
    """Pause a run that a breakpoint stopped: whoever invokes the graph without input confirms the next nodes."""
    names = ", ".join(nodes)
    name = "\0".join((*key, "breakpoint"))
    requirement = Requirement(
        requirement_id=str(uuid5(NAMESPACE_OID, name)),
        kind="confirmation",
        tool_name=names or None,
        prompt=f"Continue with {names}?" if names else "Continue?",
        extra={NODES: list(nodes), "checkpoint_id": key.checkpoint_id},
    )
    q = store.tables.requirements.c
    same = (q.requirement_id == requirement.requirement_id) & (q.run_id == run["run_id"])
    is_known = connection.execute(sa.select(q.run_id).where(same)).first()
    run_claims.pause_run(connection, store, run["run_id"], [] if is_known else [requirement])


def claim(connection: Connection, store: SessionStore, run: sa.RowMapping) -> None:
    """Claim a paused run by compare-and-set.

    Raises:
        AlreadyClaimed: The answer of another caller is being worked on; no tool was run.
    """
    r = store.tables.runs
    if run["status"] == "PAUSED":
        is_paused = (r.c.run_id == run["run_id"]) & (r.c.status == "PAUSED")
        claimed = r.update().where(is_paused).values(status="RUNNING", process=current_process())
        if connection.execute(claimed.returning(r.c.run_id)).first() is not None:
            return
    elif run["status"] != "RUNNING" or not _has_answers(connection, store, run["run_id"]):
        return
    elif integrity.process_state(run["process"], run["run_id"])[0] == "gone":  # nobody works on it any more
        update_run(connection, store, run["run_id"], process=current_process())
        return
    raise AlreadyClaimed(
        f"Run {run['session_id']}/{run['run_index']} is resumed by another caller; nothing was run.",
        f"See the answer with %kern show {run['session_id']}/{run['run_index']}.",
    )


def is_waiting(connection: Connection, store: SessionStore, run_id: str, ids: Sequence[str] | None = None) -> bool:
    """Whether a requirement of a run, or one of some of them, is not resolved."""
    q = store.tables.requirements.c
    unresolved = sa.select(q.requirement_id).where(q.run_id == run_id, q.status.in_(UNRESOLVED_STATUSES))
    unresolved = unresolved if ids is None else unresolved.where(q.requirement_id.in_(ids))
    return connection.execute(unresolved.limit(1)).first() is not None


def _has_answers(connection: Connection, store: SessionStore, run_id: str) -> bool:
    q = store.tables.requirements.c
    return connection.execute(sa.select(q.requirement_id).where(q.run_id == run_id).limit(1)).first() is not None


def resume(connection: Connection, store: SessionStore, run: sa.RowMapping, write: Write) -> None:
    """Store the answer to an interrupt, and go on with the run."""
    q = store.tables.requirements
    pending = sa.select(q).where(q.c.run_id == run["run_id"], q.c.status.in_(UNRESOLVED_STATUSES))
    try:
        value = channels.decode(write.kind, write.content)
    except RECORD_ERRORS:
        value = None
    is_for_all = write.task_id.replace("0", "").strip("-") == ""
    for row in connection.execute(pending).mappings().all():
        extra = row["extra"] or {}
        if is_for_all:
            _answer(connection, store, row, value)
        elif extra.get(TASK) == write.task_id and isinstance(value, list) and extra.get(ORDINAL, 0) < len(value):
            _answer(connection, store, row, value[extra.get(ORDINAL, 0)])
    if run["status"] == "PAUSED":
        update_run(connection, store, run["run_id"], status="RUNNING", process=current_process())


def resolve_rest(connection: Connection, store: SessionStore, run_id: str) -> None:
    """Mark the requirements as resolved whose answers were given to the graph only."""
    q = store.tables.requirements
    pending = sa.select(q).where(q.c.run_id == run_id, q.c.status.in_(UNRESOLVED_STATUSES))
    for row in connection.execute(pending).mappings().all():
        _answer(connection, store, row, None)


def _answer(connection: Connection, store: SessionStore, row: sa.RowMapping, value: Any) -> None:
    q = store.tables.requirements
    decisions = value.get("decisions") if isinstance(value, dict) else None
    kinds = {d.get("type") for d in decisions if isinstance(d, dict)} if isinstance(decisions, list) else set()
    values = {"status": "resolved", "approved": "reject" not in kinds, "answer": value}
    values["resolved_at"] = run_claims.current_micros()
    unresolved = (q.c.requirement_id == row["requirement_id"]) & (q.c.run_id == row["run_id"])
    unresolved &= q.c.status.in_(UNRESOLVED_STATUSES)
    connection.execute(q.update().where(unresolved).values(**values))
