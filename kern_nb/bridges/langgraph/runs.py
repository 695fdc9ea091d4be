"""`RunWriter`: a run of a thread as its checkpoints are written, from its input to its end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import channels, edits, pauses
from kern_nb.bridges.langgraph.channels import Fields
from kern_nb.bridges.langgraph.rows import Checkpoint, Rows, Write
from kern_nb.bridges.langgraph.steps import Step
from kern_nb.db import message_writes, run_writes
from kern_nb.db.checkpoint_tables import THREAD
from kern_nb.db.open_runs import merge_session_state, update_run
from kern_nb.db.process_identity import current_process
from kern_nb.extra_keys import FRAMEWORK
from kern_nb.ingest.importer import RECORD_ERRORS
from kern_nb.ingest.importers.langchain.messages import parse_message, provider_of
from kern_nb.ingest.importers.langgraph.states import ERROR, INTERRUPT, RESUME
from kern_nb.ingest.parsing.values import to_id
from kern_nb.records import OPEN_STATUSES, Message, Run

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

_UNKNOWN_ERROR = "The invocation ended with an error that LangGraph does not store, or without one."
_FAILED = ("ERROR", "INTERRUPTED", "CANCELLED")


@dataclass(frozen=True)
class Target:
    """The run that a checkpoint belongs to.

    Attributes:
        n_messages: How many messages it has before the checkpoint.
    """

    session_id: str
    run_id: str
    status: str = "RUNNING"
    n_messages: int = 0


class RunWriter:
    """Writes runs in the transactions that write checkpoints."""

    def __init__(self, store: SessionStore, rows: Rows, agent_id: str) -> None:
        self.store = store
        self.rows = rows
        self.agent_id = agent_id

    def find(self, connection: Connection, run_id: str | None) -> sa.RowMapping | None:
        """The row of a run."""
        if run_id is None:
            return None
        return connection.execute(self.rows.queries.run, {"run_id": run_id}).mappings().first()

    def starts_run(self, step: Step, run: sa.RowMapping | None) -> bool:
        """Whether a checkpoint starts a run; ``run`` is that of its parent."""
        if step.source == "input":
            return True
        if run is None:
            return step.is_pending or bool(step.fresh) or step.source == "loop"
        is_human = bool(step.fresh) and step.fresh[0]["type"] in ("human", "user")
        if run["status"] in OPEN_STATUSES:
            return step.source == "loop" and step.skips_steps and is_human
        if run["status"] in _FAILED:  # without another prompt, it is tried again
            return is_human and (step.source == "update" or step.skips_steps)
        if step.source == "loop":
            return step.skips_steps
        return bool(step.fresh) or step.is_pending

    def start(self, connection: Connection, step: Step, session_id: str, parent_run_id: str | None = None) -> str:
        """Start the run of a checkpoint; returns its id."""
        key = step.checkpoint.key
        value = channels.input_of(step.values, step.messages)
        if value is None:
            texts = (fields.get("content") for fields in step.fresh if fields["type"] in ("human", "user"))
            value = next(texts, None)
        run = Run(
            run_id=str(uuid5(NAMESPACE_OID, "\0".join(key))),
            parent_run_id=parent_run_id,
            agent_id=self.agent_id if not key.namespace else key.namespace.rpartition("|")[2].partition(":")[0],
            user_id=to_id(step.checkpoint.metadata.get("user_id")),
            input=value,
            status="RUNNING",
            extra={THREAD: key.session_id, "checkpoint_id": key.checkpoint_id}
            | ({"checkpoint_ns": key.namespace} if key.namespace else {}),
            internal={FRAMEWORK: "langgraph"},
        )
        if self.find(connection, run.run_id) is not None:  # of a thread that was deleted and written again
            run = run.model_copy(update={"run_id": Run().run_id})
        return run_writes.start_run(connection, self.store, session_id, run).run_id

    def extend(self, connection: Connection, step: Step, target: Target) -> Checkpoint:
        """Append what a checkpoint adds to its run, and end the run if nothing is left to do."""
        store, run_id = self.store, target.run_id
        status = self._reopen(connection, step, target)
        messages = [self._parse(fields, step.time) for fields in step.fresh]
        if messages:
            edits.take_over(connection, store, run_id, messages)
            message_writes.append_messages(connection, store, run_id, messages)
        for fields in step.edited:
            edits.replace_message(connection, store, run_id, self._parse(fields, step.time))
        n_messages = target.n_messages + len(messages)
        recorded = replace(step.checkpoint, line=target.session_id, run_id=run_id, n_messages=n_messages)
        is_running = step.is_pending or step.source == "input"
        if status in OPEN_STATUSES and not is_running:
            self._finish(connection, step, run_id)
        elif status == "RUNNING" and step.source == "update":  # nobody runs it yet
            update_run(connection, store, run_id, status="PENDING")
        elif step.source == "update" and not step.checkpoint.key.namespace:
            self.touch(connection, step, target.session_id)
        early = self.rows.writes(connection, step.checkpoint.key)
        if any(write.position < 0 for write in early):  # they were saved at once with the checkpoint, and were faster
            self.apply_writes(connection, recorded, early)
        return recorded

    def supersede(self, connection: Connection, run: sa.RowMapping) -> None:
        """End a run that is open although its thread has another input: an invocation of it left it behind."""
        if run["status"] == "RUNNING":
            run_writes.finish_run(connection, self.store, run["run_id"], status="ERROR", error=_UNKNOWN_ERROR)
        else:
            run_writes.finish_run(connection, self.store, run["run_id"], status="CANCELLED")

    def _reopen(self, connection: Connection, step: Step, target: Target) -> str:
        """Let a run go on that has ended, is paused, or waits to be run; returns its status."""
        store, run_id, status = self.store, target.run_id, target.status
        if status not in OPEN_STATUSES and (step.fresh or step.edited or step.is_pending):
            edits.reopen(connection, store, run_id)
            return "RUNNING"
        if status == "PAUSED" and step.source == "loop":  # a step ends when all of its interrupts are answered
            pauses.resolve_rest(connection, store, run_id)
        if status in ("PAUSED", "PENDING") and step.source == "loop":
            update_run(connection, store, run_id, status="RUNNING", process=current_process())
            return "RUNNING"
        return status

    def _parse(self, fields: Fields, time: Any) -> Message:
        try:
            return parse_message(fields, time)
        except RECORD_ERRORS:
            return Message(role="user", content=fields.get("content"), created_at=time, extra={"fields": fields})

    def _finish(self, connection: Connection, step: Step, run_id: str) -> None:
        state = channels.state_of(step.values, step.messages)
        output, provider, model = None, None, None
        for item in reversed(step.items):
            fields = channels.message_fields(item) or {}
            if fields.get("type") in ("ai", "assistant"):
                answer = self._parse(fields, None)
                output, provider, model = answer.content, provider_of(answer), answer.model
                break
            if fields.get("type") in ("human", "user"):
                break
        if output is None:
            output = channels.output_of(step.values)
        if step.messages is None and output is None:
            output = state or None
        values: dict[str, Any] = {"model": model, "model_provider": provider}
        if not step.checkpoint.key.namespace:
            values["session_state"] = state
        run_writes.finish_run(connection, self.store, run_id, status="COMPLETED", output=output, **values)
        if step.checkpoint.key.namespace:  # a nested graph's state is not the session's
            update_run(connection, self.store, run_id, session_state=state)

    def touch(self, connection: Connection, step: Step, session_id: str) -> None:
        """Store the state of a session outside a run; a new thread gets its session."""
        owner: dict[str, Any] = {"session_type": "agent", "agent_id": self.agent_id}
        owner["user_id"] = to_id(step.checkpoint.metadata.get("user_id"))
        session = run_writes.upsert_session(connection, self.store, session_id, owner, _seconds(step.time))
        state = channels.state_of(step.values, step.messages)
        merge_session_state(connection, self.store, session_id, session["session_data"], {}, state)

    def apply_writes(
        self, connection: Connection, checkpoint: Checkpoint, writes: list[Write], *, is_new: bool = False
    ) -> None:
        """Write what errors, interrupts and answers of a step change of its run."""
        run = self.find(connection, checkpoint.run_id)
        if run is None:
            return
        answered = {w.task_id: pauses.count_answers(w) for w in writes if w.channel == RESUME}
        done = {write.task_id for write in writes if write.position >= 0}
        writes = sorted(writes, key=lambda write: write.channel != RESUME)  # a node may go on, and interrupt once more
        is_handled = any(write.channel == "__error_source_node__" for write in writes)
        for write in writes:
            if write.channel == RESUME:
                pauses.resume(connection, self.store, run, write)
            elif write.channel == INTERRUPT and write.task_id not in done:
                ordinal = answered.get(write.task_id, 0)
                pauses.pause(connection, self.store, run, checkpoint.key, write, ordinal, is_new=is_new)
            elif write.channel == ERROR and not is_handled and run["status"] in OPEN_STATUSES:
                text = _error_text(write)
                run_writes.finish_run(connection, self.store, run["run_id"], status="ERROR", error=text)
            run = self.find(connection, checkpoint.run_id) or run


def _error_text(write: Write) -> str:
    try:
        value = channels.decode(write.kind, write.content)
    except RECORD_ERRORS:
        return "The error is encrypted."
    return value if isinstance(value, str) else repr(value)


def _seconds(time: Any) -> float:
    from datetime import UTC, datetime

    return (time or datetime.now(UTC)).timestamp()
