"""The runs of a thread, written as its checkpoints are: a thread is a session, an input of it a run.

The run of a checkpoint is the run of its parent, unless an input starts another. What a checkpoint adds to the list of
messages is appended to the run. A checkpoint whose parent has another child starts a branch: a session that inherits
what the thread said up to there. A nested graph's run is a member of the run that calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import channels, pauses, threads
from kern_nb.bridges.langgraph.channels import Fields
from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows, Write
from kern_nb.bridges.langgraph.runs import RunWriter, Target
from kern_nb.bridges.langgraph.steps import Step, StepReader
from kern_nb.bridges.langgraph.values import Encoded, cut_value
from kern_nb.db import run_writes, session_writes
from kern_nb.db.open_runs import update_run
from kern_nb.errors import SessionExists
from kern_nb.ingest.importers.langgraph.states import ERROR, INTERRUPT, RESUME
from kern_nb.records import OPEN_STATUSES

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore


class Recorder:
    """Writes the runs of a store's threads. Each method works in the transaction that writes the checkpoint."""

    def __init__(self, store: SessionStore, rows: Rows, agent_id: str) -> None:
        self.store = store
        self.rows = rows
        self._steps = StepReader(rows)
        self.agent_id = agent_id
        self._runs = RunWriter(store, rows, agent_id)
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
        step = self._steps.read(connection, checkpoint, parent, encoded, dict(data), state)
        if key.namespace:
            return self._record_nested(connection, step)
        line = parent.line if parent and parent.line else key.session_id
        if parent is not None and self.rows.has_later(connection, parent.key, line):
            return self._record_fork(connection, step, line)
        run = self._runs.find(connection, parent.run_id if parent else None)
        if self._runs.starts_run(step, run):
            if run is not None and run["status"] in OPEN_STATUSES:
                self._runs.supersede(connection, run)
            run_id = self._runs.start(connection, step, line)
            return self._runs.extend(connection, step, Target(line, run_id))
        if run is None:
            self._runs.touch(connection, step, line)
            return replace(checkpoint, line=line)
        n_messages = parent.n_messages if parent else 0
        return self._runs.extend(connection, step, Target(line, run["run_id"], run["status"], n_messages))

    # Branches -------------------------------------------------------------------------------------------------------

    def _record_fork(self, connection: Connection, step: Step, line: str) -> Checkpoint:
        """Record the first checkpoint of a fork in a new branch of the session that has its parent."""
        parent, key = step.parent, step.checkpoint.key
        run = self._runs.find(connection, parent.run_id if parent else None)
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
            self._runs.touch(connection, step, branch_id)
            return replace(step.checkpoint, line=branch_id)
        if step.edited:  # the thread keeps what it said; the branch says it as it is now
            step = step.with_edits_as_new()
        run_id = self._runs.start(connection, step, branch_id)
        if state:
            update_run(connection, self.store, run_id, session_state=state)
            self._runs.touch(connection, step, branch_id)
        return self._runs.extend(connection, step, Target(branch_id, run_id))

    def _fork_point(self, connection: Connection, step: Step, parent: Checkpoint, run: sa.RowMapping) -> dict[str, Any]:
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

    def _record_nested(self, connection: Connection, step: Step) -> Checkpoint:
        parent, key = step.parent, step.checkpoint.key
        calling = self._calling(connection, step)
        if calling is not None:
            known = b"".join(self._steps.items(connection, calling, step.messages or "messages"))
            step.fresh = [f for f in step.fresh if not _is_known(f, known)]  # the caller's messages are said already
        run = self._runs.find(connection, parent.run_id if parent else None)
        if run is not None and step.source != "input":
            n_messages = parent.n_messages if parent else 0
            return self._runs.extend(
                connection, step, Target(run["session_id"], run["run_id"], run["status"], n_messages)
            )
        caller = self._runs.find(connection, calling.run_id if calling else None)
        is_first = step.source == "input" or parent is None or parent.run_id is not None
        if caller is None or not is_first:
            self._unlinked.setdefault(key.session_id, {})[key] = None
            return replace(step.checkpoint, line=key.session_id)
        run_id = self._runs.start(connection, step, caller["session_id"], caller["run_id"])
        return self._runs.extend(connection, step, Target(caller["session_id"], run_id))

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

    def _calling(self, connection: Connection, step: Step) -> Checkpoint | None:
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
            self._runs.apply_writes(connection, checkpoint, writes, is_new=is_new)

    def adopt(self, connection: Connection, key: Key) -> None:
        """Before a task writes to a checkpoint that a branch inherits: copy it, and start the branch's run."""
        if self.rows.has(connection, key):
            return
        adopted = threads.adopt(connection, self.store, self.rows, key)
        if adopted is None or key.namespace:
            return
        data = self.rows.load_values(connection, key.session_id, adopted.channels.values(), {})
        values = {name: (ref[0], data[ref]) for name, ref in adopted.channels.items()}
        step = Step(adopted, None, None, values, None, [], [], [], set())
        run_id = self._runs.start(connection, step, key.session_id)
        self.rows.set_run(connection, key, run_id)

    # The end of an invocation -----------------------------------------------------------------------------------------

    def end_invocation(self, connection: Connection, thread_id: str, error: BaseException | None) -> None:
        """Close the run of a thread's latest checkpoint that an error, or a breakpoint without one, left open."""
        checkpoint = self.rows.get(connection, thread_id, "", None)
        run = self._runs.find(connection, checkpoint.run_id if checkpoint else None)
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
        run = self._runs.find(connection, checkpoint.run_id if checkpoint else None)
        if run is not None:
            pauses.claim(connection, self.store, run)


def _is_known(fields: Fields, known: bytes) -> bool:
    message_id = channels.id_of(fields)
    return message_id is not None and message_id.encode("utf-8", "surrogatepass") in known
