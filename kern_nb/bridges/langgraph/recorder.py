"""The runs of a thread, written as its checkpoints are: a thread is a session, an input of it a run.

The run of a checkpoint is the run of its parent, unless an input starts another. What a checkpoint adds to the list of
messages is appended to the run. A checkpoint whose parent has another child starts a branch: a session that inherits
what the thread said up to there. A nested graph's run is a member of the run that calls it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import channels, edits, pauses, threads
from kern_nb.bridges.langgraph.channels import Fields
from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows, Write
from kern_nb.bridges.langgraph.values import Encoded, cut_value, split
from kern_nb.db import message_writes, run_writes, session_writes
from kern_nb.db.checkpoint_tables import THREAD
from kern_nb.db.open_runs import merge_session_state, update_run
from kern_nb.db.process_identity import current_process
from kern_nb.errors import SessionExists
from kern_nb.extra_keys import FRAMEWORK
from kern_nb.ingest.importer import RECORD_ERRORS
from kern_nb.ingest.importers.langchain.messages import REMOVE, parse_message, provider_of
from kern_nb.ingest.importers.langgraph.states import ERROR, INTERRUPT, RESUME
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import to_id
from kern_nb.records import OPEN_STATUSES, Message, Run

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

_CACHED_LISTS = 64
_FAILED = ("ERROR", "INTERRUPTED", "CANCELLED")


@dataclass
class _Step:
    """A checkpoint that is being recorded.

    Attributes:
        values: The encoding and bytes of each channel.
        messages: The channel with the messages.
        items: The encoded messages of the state.
        fresh: The fields of the messages that the parent's state lacks.
        edited: Those whose id the parent's state has, with other fields.
        removed: The ids that are not in the state any more, or have other fields.
    """

    checkpoint: Checkpoint
    parent: Checkpoint | None
    time: Any
    values: dict[str, tuple[str, bytes]]
    messages: str | None
    items: list[bytes]
    fresh: list[Fields]
    edited: list[Fields]
    removed: set[str]

    @property
    def source(self) -> Any:
        return self.checkpoint.metadata.get("source")

    @property
    def is_pending(self) -> bool:
        return channels.is_pending(self.values)

    @property
    def skips_steps(self) -> bool:
        """Whether steps before it were not saved, as with durability "exit"."""
        step = self.checkpoint.metadata.get("step")
        before = self.parent.metadata.get("step") if self.parent else -2
        return isinstance(step, int) and isinstance(before, int) and step > before + 1


@dataclass(frozen=True)
class _Target:
    """The run that a checkpoint belongs to.

    Attributes:
        n_messages: How many messages it has before the checkpoint.
    """

    session_id: str
    run_id: str
    status: str = "RUNNING"
    n_messages: int = 0


class Recorder:
    """Writes the runs of a store's threads. Each method works in the transaction that writes the checkpoint."""

    def __init__(self, store: SessionStore, rows: Rows, agent_id: str) -> None:
        self.store = store
        self.rows = rows
        self.agent_id = agent_id
        self._lists: OrderedDict[Key, list[bytes]] = OrderedDict()
        self._unlinked: dict[str, dict[Key, None]] = {}  # by thread: nested checkpoints saved before those around them

    # A checkpoint ---------------------------------------------------------------------------------------------------

    def record(
        self,
        connection: Connection,
        checkpoint: Checkpoint,
        encoded: Mapping[str, Encoded],
        data: Mapping[str, tuple[str, bytes]],
        state: Mapping[str, Any],
    ) -> Checkpoint:
        """Write what a new checkpoint adds to its run; the checkpoint with its ``line``, ``run_id`` and ``n_messages``.

        Args:
            connection: The transaction.
            checkpoint: The new checkpoint.
            encoded: The values of its channels.
            data: The encoding and bytes of each.
            state: The checkpoint without the values of its channels.
        """
        key = checkpoint.key
        parent = None
        if checkpoint.parent_id is not None:
            parent = threads.find(connection, self.store, self.rows, key._replace(checkpoint_id=checkpoint.parent_id))
        step = self._step(connection, checkpoint, parent, encoded, dict(data), state)
        if key.namespace:
            return self._record_nested(connection, step)
        line = parent.line if parent and parent.line else key.session_id
        if parent is not None and self.rows.has_later(connection, parent.key, line):
            return self._record_fork(connection, step, line)
        run = self._find_run(connection, parent.run_id if parent else None)
        if self._starts_run(step, run):
            if run is not None and run["status"] in OPEN_STATUSES:
                run_writes.finish_run(connection, self.store, run["run_id"], status="CANCELLED")
            run_id = self._start(connection, step, line)
            return self._continue(connection, step, _Target(line, run_id))
        if run is None:
            self._touch(connection, step, line)
            return replace(checkpoint, line=line)
        n_messages = parent.n_messages if parent else 0
        return self._continue(connection, step, _Target(line, run["run_id"], run["status"], n_messages))

    def _step(
        self,
        connection: Connection,
        checkpoint: Checkpoint,
        parent: Checkpoint | None,
        encoded: Mapping[str, Encoded],
        data: dict[str, tuple[str, bytes]],
        state: Mapping[str, Any],
    ) -> _Step:
        versions = state.get("channel_versions") or {}
        lists = {name: value.items for name, value in encoded.items()}
        name = channels.find_messages(lists, versions)
        before = self._items(connection, parent, name) if parent and name else []
        if name is not None and lists.get(name) is not None:
            items = lists[name] or []
        elif name is not None and name not in encoded and name in versions and parent is not None:
            items = before
            if checkpoint.metadata.get("source") != "input":  # an input is taken up by the next step
                written = self.rows.writes_of(connection, parent)
                items = channels.replay(before, [(w.kind, w.content) for w in written if w.channel == name])
        else:
            items = []
        self._remember(checkpoint.key, items)
        added, lost = channels.difference(before, items)
        old = {
            message_id: fields
            for item in lost
            if (message_id := channels.id_of(fields := channels.message_fields(item)))
        }
        fresh, edited = [], []
        for item in added:
            fields = channels.message_fields(item)
            if fields is None or fields["type"] == REMOVE:
                continue
            message_id = channels.id_of(fields)
            if message_id is None or message_id not in old:
                fresh.append(fields)
            elif old.pop(message_id) != fields:
                edited.append(fields)
        removed = set(old) | {message_id for fields in edited if (message_id := channels.id_of(fields))}
        time = parse_time(state.get("ts"))
        return _Step(checkpoint, parent, time, data, name, items, fresh, edited, removed)

    def _items(self, connection: Connection, checkpoint: Checkpoint, name: str) -> list[bytes]:
        """The encoded messages of a stored checkpoint; of a delta channel, from the last one that has its value."""
        path: list[Checkpoint] = []
        current: Checkpoint | None = checkpoint
        items: list[bytes] = []
        while current is not None:
            cached = self._lists.get(current.key)
            if cached is not None:
                items = cached
                break
            if name in current.channels:
                reference = current.channels[name]
                data = self.rows.load_values(connection, current.home.session_id, [reference], {})[reference]
                items = split(reference[0], data)[1] or []
                break
            path.append(current)
            before = current.home._replace(checkpoint_id=current.parent_id or "")
            current = self.rows.get(connection, *before) if current.parent_id else None
        for later in reversed(path):
            if later.parent_id is not None and later.metadata.get("source") != "input":
                written = self.rows.writes(connection, later.home._replace(checkpoint_id=later.parent_id))
                items = channels.replay(items, [(w.kind, w.content) for w in written if w.channel == name])
        self._remember(checkpoint.key, items)
        return items

    def _remember(self, key: Key, items: list[bytes]) -> None:
        self._lists[key] = items
        self._lists.move_to_end(key)
        while len(self._lists) > _CACHED_LISTS:
            self._lists.popitem(last=False)

    # Runs -----------------------------------------------------------------------------------------------------------

    def _find_run(self, connection: Connection, run_id: str | None) -> sa.RowMapping | None:
        if run_id is None:
            return None
        return connection.execute(self.rows.queries.run, {"run_id": run_id}).mappings().first()

    def _starts_run(self, step: _Step, run: sa.RowMapping | None) -> bool:
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

    def _start(self, connection: Connection, step: _Step, session_id: str, parent_run_id: str | None = None) -> str:
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
        if self._find_run(connection, run.run_id) is not None:  # of a thread that was deleted and written again
            run = run.model_copy(update={"run_id": Run().run_id})
        return run_writes.start_run(connection, self.store, session_id, run).run_id

    def _continue(self, connection: Connection, step: _Step, target: _Target) -> Checkpoint:
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
            self._touch(connection, step, target.session_id)
        early = self.rows.writes(connection, step.checkpoint.key)
        if any(write.position < 0 for write in early):  # they were saved at once with the checkpoint, and were faster
            self._apply_writes(connection, recorded, early)
        return recorded

    def _reopen(self, connection: Connection, step: _Step, target: _Target) -> str:
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

    def _finish(self, connection: Connection, step: _Step, run_id: str) -> None:
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

    def _touch(self, connection: Connection, step: _Step, session_id: str) -> None:
        """Store the state of a session outside a run; a new thread gets its session."""
        owner: dict[str, Any] = {"session_type": "agent", "agent_id": self.agent_id}
        owner["user_id"] = to_id(step.checkpoint.metadata.get("user_id"))
        session = run_writes.upsert_session(connection, self.store, session_id, owner, _seconds(step.time))
        state = channels.state_of(step.values, step.messages)
        merge_session_state(connection, self.store, session_id, session["session_data"], {}, state)

    # Branches -------------------------------------------------------------------------------------------------------

    def _record_fork(self, connection: Connection, step: _Step, line: str) -> Checkpoint:
        """Record the first checkpoint of a fork in a new branch of the session that has its parent."""
        parent, key = step.parent, step.checkpoint.key
        run = self._find_run(connection, parent.run_id if parent else None)
        branch_id = f"{key.session_id}@{key.checkpoint_id}"
        if run is not None and parent is not None:
            cut = self._fork_point(connection, step, parent, run)
            fields = {"metadata": {"checkpoint_id": parent.key.checkpoint_id}}
            name = f"fork of {key.session_id}"
            options: dict[str, Any] = {"name": name, "new_session_id": branch_id, "fields": fields}
            with suppress(SessionExists):  # the same checkpoint is saved again
                session_writes.branch(connection, self.store, run["session_id"], **cut, **options)
        state = channels.state_of(step.values, step.messages)
        if not step.is_pending and not step.fresh:
            self._touch(connection, step, branch_id)
            return replace(step.checkpoint, line=branch_id)
        if step.edited:  # the thread keeps what it said; the branch says it as it is now
            step = _with_edits_as_new(step)
        run_id = self._start(connection, step, branch_id)
        if state:
            update_run(connection, self.store, run_id, session_state=state)
            self._touch(connection, step, branch_id)
        return self._continue(connection, step, _Target(branch_id, run_id))

    def _fork_point(
        self, connection: Connection, step: _Step, parent: Checkpoint, run: sa.RowMapping
    ) -> dict[str, Any]:
        """The branch point of a fork: behind the messages that its parent and its own state have."""
        m = self.store.tables.messages.c
        end = parent.n_messages
        if step.removed:
            gone = sa.select(sa.func.min(m.message_index)).where(
                m.session_id == run["session_id"], m.run_index == run["run_index"], m.message_id.in_(step.removed)
            )
            first = connection.execute(gone).scalar()
            end = end if first is None else min(end, first)
        total = connection.execute(
            sa.select(sa.func.count()).where(m.session_id == run["session_id"], m.run_index == run["run_index"])
        ).scalar_one()
        if end <= 0:
            return {"after": None, "before": run["run_index"]}
        if end >= total and run["status"] not in OPEN_STATUSES:
            return {"after": run["run_index"], "before": None}
        return {"after": (run["run_index"], min(end, total) - 1), "before": None}

    # Nested graphs --------------------------------------------------------------------------------------------------

    def _record_nested(self, connection: Connection, step: _Step) -> Checkpoint:
        parent, key = step.parent, step.checkpoint.key
        calling = self._calling(connection, step)
        if calling is not None:
            known = b"".join(self._items(connection, calling, step.messages or "messages"))
            step.fresh = [f for f in step.fresh if not _is_known(f, known)]  # the caller's messages are said already
        run = self._find_run(connection, parent.run_id if parent else None)
        if run is not None and step.source != "input":
            n_messages = parent.n_messages if parent else 0
            return self._continue(
                connection, step, _Target(run["session_id"], run["run_id"], run["status"], n_messages)
            )
        caller = self._find_run(connection, calling.run_id if calling else None)
        is_first = step.source == "input" or parent is None or parent.run_id is not None
        if caller is None or not is_first:
            self._unlinked.setdefault(key.session_id, {})[key] = None
            return replace(step.checkpoint, line=key.session_id)
        run_id = self._start(connection, step, caller["session_id"], caller["run_id"])
        return self._continue(connection, step, _Target(caller["session_id"], run_id))

    def has_unlinked(self, thread_id: str) -> bool:
        """Whether nested checkpoints of a thread were saved before those around them."""
        return bool(self._unlinked.get(thread_id))

    def link_nested(self, connection: Connection, thread_id: str) -> list[Key]:
        """Record the nested checkpoints of a thread that were saved first, if those around them are saved by now."""
        linked = []
        for key in sorted(self._unlinked.get(thread_id, ()), key=lambda key: key.checkpoint_id):
            nested = self.rows.get(connection, *key)
            if nested is None or nested.run_id is not None:
                continue
            data = self.rows.load_values(connection, thread_id, nested.channels.values(), {})
            values = {name: (ref[0], data[ref]) for name, ref in nested.channels.items()}
            encoded = {name: cut_value(*value) for name, value in values.items()}
            state = channels.decode(nested.kind, nested.content) if nested.kind == "msgpack" else {}
            recorded = self.record(connection, nested, encoded, values, state)
            if recorded.run_id is not None:
                self.rows.put(connection, recorded, encoded)
                linked.append(key)
        return linked

    def forget_unlinked(self, thread_id: str, keys: Sequence[Key]) -> None:
        """Forget nested checkpoints that are recorded, once that is committed."""
        waiting = self._unlinked.get(thread_id, {})
        for key in keys:
            waiting.pop(key, None)
        if not waiting:
            self._unlinked.pop(thread_id, None)

    def _calling(self, connection: Connection, step: _Step) -> Checkpoint | None:
        """The checkpoint of the enclosing graph during whose next step this graph runs."""
        stated, key = step.checkpoint.metadata.get("parents"), step.checkpoint.key
        parents: dict[str, Any] = stated if isinstance(stated, dict) else {}
        names = [name for name in parents if name != key.namespace]
        if not names:
            return None
        name = max(names, key=len)
        return threads.find(connection, self.store, self.rows, Key(key.session_id, name, str(parents[name])))

    # Writes ---------------------------------------------------------------------------------------------------------

    def record_writes(self, connection: Connection, key: Key, writes: list[Write], *, is_new: bool) -> None:
        """Write what an error, an interrupt or an answer changes of a run; not ``is_new`` if it was looked up."""
        if all(write.channel not in (ERROR, INTERRUPT, RESUME) for write in writes):
            return
        checkpoint = self.rows.get(connection, *key)
        if checkpoint is not None:  # otherwise it is being saved, and looks for these writes
            self._apply_writes(connection, checkpoint, writes, is_new=is_new)

    def adopt(self, connection: Connection, key: Key) -> None:
        """Before a task writes to a checkpoint that a branch inherits: copy it, and start the branch's run."""
        if self.rows.has(connection, key):
            return
        adopted = threads.adopt(connection, self.store, self.rows, key)
        if adopted is None or key.namespace:
            return
        data = self.rows.load_values(connection, key.session_id, adopted.channels.values(), {})
        values = {name: (ref[0], data[ref]) for name, ref in adopted.channels.items()}
        step = _Step(adopted, None, None, values, None, [], [], [], set())
        run_id = self._start(connection, step, key.session_id)
        self.rows.set_run(connection, key, run_id)

    def _apply_writes(
        self, connection: Connection, checkpoint: Checkpoint, writes: list[Write], *, is_new: bool = False
    ) -> None:
        run = self._find_run(connection, checkpoint.run_id)
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
            run = self._find_run(connection, checkpoint.run_id) or run

    # The end of an invocation -----------------------------------------------------------------------------------------

    def end_invocation(self, connection: Connection, thread_id: str, error: BaseException | None) -> None:
        """Close the run of a thread's latest checkpoint that an error, or a breakpoint without one, left open."""
        checkpoint = self.rows.get(connection, thread_id, "", None)
        run = self._find_run(connection, checkpoint.run_id if checkpoint else None)
        if checkpoint is None or run is None or run["status"] not in ("RUNNING", "PENDING"):
            return
        if pauses.is_waiting(connection, self.store, run["run_id"]):  # the answer was refused, or is one of several
            update_run(connection, self.store, run["run_id"], status="PAUSED", process=None)
            return
        if error is not None:
            is_stop = not isinstance(error, Exception)
            text = None if is_stop else f"{type(error).__name__}: {error}"
            status: Any = "INTERRUPTED" if is_stop else "ERROR"
            run_writes.finish_run(connection, self.store, run["run_id"], status=status, error=text)
            return
        references = checkpoint.channels
        data = self.rows.load_values(connection, thread_id, references.values(), {})
        values = {name: (reference[0], data[reference]) for name, reference in references.items()}
        if channels.is_pending(values):
            pauses.pause_at_breakpoint(connection, self.store, run, checkpoint.key, channels.next_nodes(values))

    def claim(self, connection: Connection, thread_id: str) -> None:
        """Claim the paused run of a thread before its interrupt is answered; see `pauses.claim`."""
        checkpoint = self.rows.get(connection, thread_id, "", None)
        run = self._find_run(connection, checkpoint.run_id if checkpoint else None)
        if run is not None:
            pauses.claim(connection, self.store, run)


def _with_edits_as_new(step: _Step) -> _Step:
    """The step with its edited messages as new ones, in the order of the state."""
    ids = {channels.id_of(fields) for fields in (*step.fresh, *step.edited)}
    ordered = []
    for item in step.items:
        fields = channels.message_fields(item)
        if fields is not None and channels.id_of(fields) in ids:
            ordered.append(fields)
    return replace(step, fresh=ordered or [*step.edited, *step.fresh], edited=[])


def _is_known(fields: Fields, known: bytes) -> bool:
    message_id = channels.id_of(fields)
    return message_id is not None and message_id.encode("utf-8", "surrogatepass") in known


def _error_text(write: Write) -> str:
    try:
        value = channels.decode(write.kind, write.content)
    except RECORD_ERRORS:
        return "The error is encrypted."
    return value if isinstance(value, str) else repr(value)


def _seconds(time: Any) -> float:
    from datetime import UTC, datetime

    return (time or datetime.now(UTC)).timestamp()
