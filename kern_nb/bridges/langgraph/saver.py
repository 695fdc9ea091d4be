"""`KernSaver`: a checkpointer of LangGraph whose threads are sessions of a store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

import sqlalchemy as sa
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import Checkpoint as GraphCheckpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.errors import GraphRecursionError
from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import threads
from kern_nb.bridges.langgraph.invocations import Invocations
from kern_nb.bridges.langgraph.recorder import Recorder
from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows, Write
from kern_nb.bridges.langgraph.values import cut_value
from kern_nb.db import checkpoint_tables
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage, UnstorableValue

T = TypeVar("T")

AGENT = "langgraph"

_BEFORE_INPUT = -2  # the step before the first input of a thread
_NOTED_THREADS = 1000


class KernSaver(BaseCheckpointSaver[Any]):
    """Checkpoints of LangGraph in a store of kern_nb, and the threads as sessions: runs, messages, calls, branches.

    A value is read back as its serializer wrote it; consecutive checkpoints share what they have in common. A
    serializer that falls back to pickle is refused, since reading a pickle can run code. Encrypted states are stored
    and resumed; their runs show neither messages nor state.

    Args:
        store: The store.
        serde: The serializer; None for LangGraph's, which writes msgpack.
        agent_id: The agent of the runs.

    Example:
        >>> from kern_nb.bridges.langgraph import KernSaver  # doctest: +SKIP
        >>> from kern_nb.db import SqliteDb
        >>> graph = builder.compile(checkpointer=KernSaver(SqliteDb(db_file="agent.db")))  # doctest: +SKIP
    """

    def __init__(self, store: SessionStore, *, serde: SerializerProtocol | None = None, agent_id: str = AGENT) -> None:
        super().__init__(serde=serde)
        _refuse_pickle(self.serde)
        self.store = store
        self.rows = Rows(store)
        self.recorder = Recorder(store, self.rows, agent_id)
        self._lock = threading.Lock()
        self._entry_steps: dict[str, int] = {}  # shared with the copies, too
        self._has_tables = [False]  # shared with the copies that LangGraph makes of a saver
        self.invocations = Invocations()  # shared, too

    # Reading --------------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint of a config, or the latest of its thread and namespace. A branch goes on from its parent's."""
        thread_id, namespace = _thread(config), _namespace(config)
        checkpoint_id = get_checkpoint_id(config)

        def read(connection: Connection) -> CheckpointTuple | None:
            key = Key(thread_id, namespace, checkpoint_id or "")
            checkpoint = threads.find(connection, self.store, self.rows, key)
            return (
                None
                if checkpoint is None
                else self._tuple(connection, checkpoint, {}, config if checkpoint_id else None)
            )

        found = self._read(read, None)
        if not namespace:  # an invocation begins with this
            self._note_entry(thread_id, found)
        return found

    def _note_entry(self, thread_id: str, found: CheckpointTuple | None) -> None:
        step = found.metadata.get("step") if found is not None else _BEFORE_INPUT
        self._entry_steps.pop(thread_id, None)
        if isinstance(step, int):
            self._entry_steps[thread_id] = step
        while len(self._entry_steps) > _NOTED_THREADS:
            with suppress(StopIteration, RuntimeError, KeyError):  # another thread does the same
                del self._entry_steps[next(iter(self._entry_steps))]

    def _recursion_error(self, key: Key, config: RunnableConfig, metadata: CheckpointMetadata) -> Exception | None:
        """The error that LangGraph raises after the last step that a limit permits, if nodes are left to run."""
        limit, step, entry = config.get("recursion_limit"), metadata.get("step"), self._entry_steps.get(key.session_id)
        if key.namespace or limit is None or step is None or entry is None or step < entry + limit + 2:
            return None
        return GraphRecursionError(f"Recursion limit of {limit} reached.")

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, newest first; those whose metadata has the values of a filter."""

        def read(connection: Connection) -> Sequence[CheckpointTuple]:
            c = self.rows.tables.checkpoints.c
            condition: sa.ColumnElement[bool] = sa.true()
            if config is not None:
                condition = c.session_id == _thread(config)
                if (namespace := config["configurable"].get("checkpoint_ns")) is not None:
                    condition &= c.namespace == namespace
                if (checkpoint_id := get_checkpoint_id(config)) is not None:
                    condition &= c.checkpoint_id == checkpoint_id
            if before is not None and (last := get_checkpoint_id(before)) is not None:
                condition &= c.checkpoint_id < last
            tuples: MutableSequence[CheckpointTuple] = []
            cache: dict[bytes, bytes] = {}
            rows: Iterable[Checkpoint] = self.rows.find(connection, condition, None if filter else limit)
            if config is not None:
                key = Key(_thread(config), _namespace(config), get_checkpoint_id(before or {"configurable": {}}) or "")
                rows = chain(rows, threads.find_history(connection, self.store, self.rows, key))
            for checkpoint in rows:
                if limit is not None and len(tuples) >= limit:
                    break
                if all(_same(_find(checkpoint.metadata, name), value) for name, value in (filter or {}).items()):
                    tuples.append(self._tuple(connection, checkpoint, cache))
            return tuples

        nothing: Sequence[CheckpointTuple] = ()
        yield from self._read(read, nothing)

    def _tuple(
        self,
        connection: Connection,
        checkpoint: Checkpoint,
        cache: dict[bytes, bytes],
        config: RunnableConfig | None = None,
    ) -> CheckpointTuple:
        key = checkpoint.key
        references = checkpoint.channels
        data = self.rows.load_values(connection, checkpoint.home.session_id, references.values(), cache)
        state = self.serde.loads_typed((checkpoint.kind, checkpoint.content))
        state["channel_values"] = {
            name: self.serde.loads_typed((reference[0], data[reference])) for name, reference in references.items()
        }
        writes = self.rows.writes_of(connection, checkpoint)
        parent = key._replace(checkpoint_id=checkpoint.parent_id) if checkpoint.parent_id else None
        return CheckpointTuple(
            config if config is not None else _config(key),
            state,
            checkpoint.metadata,  # type: ignore[arg-type]
            _config(parent) if parent else None,
            [(w.task_id, w.channel, self.serde.loads_typed((w.kind, w.content))) for w in writes],
        )

    def _read(self, work: Callable[[Connection], T], empty: T) -> T:
        is_known = self._has_tables[0]  # before the connection, which may be to an empty store
        with self.store.read_connection() as connection:
            if not is_known and not checkpoint_tables.exist(connection, self.store.tables):
                return empty
            return work(connection)

    # Writing --------------------------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: GraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and what it adds to its run, in one transaction."""
        key = Key(_thread(config), _namespace(config), checkpoint["id"])
        if not key.namespace:
            self.invocations.remember(key.session_id, config["configurable"])
        data = {name: self._dump(value, name) for name, value in checkpoint["channel_values"].items()}
        encoded = {name: cut_value(kind, content) for name, (kind, content) in data.items()}
        state = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        kind, content = self._dump(state, "checkpoint")
        described = get_checkpoint_metadata(config, metadata)
        stored = Checkpoint(
            key,
            config["configurable"].get("checkpoint_id"),
            kind,
            content,
            {name: value.reference for name, value in encoded.items()},
            json.loads(json.dumps(described)),
        )

        def write(connection: Connection) -> None:
            recorded = self.recorder.record(connection, stored, encoded, data, state)
            self.rows.put(connection, recorded, encoded)
            if (error := self._recursion_error(key, config, metadata)) is not None:
                self.recorder.end_invocation(connection, key.session_id, error)

        self._write(write)
        self._apply_concurrent(key)
        self._link_nested(key.session_id)
        return _config(key)

    def _link_nested(self, thread_id: str) -> None:
        """Record the checkpoints of nested graphs that were saved before the graph around them."""
        linked: Sequence[Key] = ()

        def link(connection: Connection) -> None:
            nonlocal linked
            linked = self.recorder.link_nested(connection, thread_id)

        with self._lock:
            if self.recorder.has_unlinked(thread_id):
                self._write(link)
                self.recorder.forget_unlinked(thread_id, linked)
        for key in linked:
            self._apply_concurrent(key)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote; an error, an interrupt or an answer changes the status of the run."""
        key = Key(_thread(config), _namespace(config), str(config["configurable"]["checkpoint_id"]))
        stored = [
            Write(task_id, task_path, WRITES_IDX_MAP.get(channel, index), channel, *self._dump(value, channel))
            for index, (channel, value) in enumerate(writes)
        ]
        is_special = all(channel in WRITES_IDX_MAP for channel, _ in writes)

        def write(connection: Connection) -> None:
            self.recorder.adopt(connection, key)
            self.rows.put_writes(connection, key, stored, replace=is_special)
            self.recorder.record_writes(connection, key, stored, is_new=True)

        self._write(write)
        if is_special:
            self._apply_concurrent(key)

    def _apply_concurrent(self, key: Key) -> None:
        """Look again for a checkpoint and its errors and interrupts that were committed at once.

        LangGraph saves them in several threads, and on an engine with concurrent writers neither sees the other.
        """
        query = sa.select(self.store.tables.sessions.c.session_id)
        if self.store.locked(query) is query:  # one writer at a time
            return
        empty: Sequence[Write] = ()
        writes = self._read(lambda connection: self.rows.writes(connection, key), empty)
        if any(write.position < 0 for write in writes):
            self._write(lambda connection: self.recorder.record_writes(connection, key, [*writes], is_new=False))

    def _dump(self, value: Any, name: str) -> tuple[str, bytes]:
        kind, content = self.serde.dumps_typed(value)
        if "pickle" in kind:
            raise UnstorableValue(
                f"{name} has a {type(value).__name__}, which the serializer writes as a pickle.",
                "Reading a pickle can run code: keep plain values, messages or pydantic models in the state.",
            )
        return kind, content

    def _write(self, work: Callable[[Connection], None]) -> None:
        if not self._has_tables[0]:
            self.store.write(lambda connection: checkpoint_tables.create(connection, self.store))
            self._has_tables[0] = True
        self.store.write(work)

    def latest_metadata(self, thread_id: str) -> dict[str, Any]:
        """The metadata of the latest checkpoint of a thread."""
        nothing: dict[str, Any] = {}

        def read(connection: Connection) -> dict[str, Any]:
            latest = self.rows.get(connection, thread_id, "", None)
            return nothing if latest is None else dict(latest.metadata)

        return self._read(read, nothing)

    def latest_run(self, thread_id: str) -> str | None:
        """The run of the latest checkpoint of a thread."""

        def read(connection: Connection) -> str | None:
            latest = self.rows.get(connection, thread_id, "", None)
            return latest.run_id if latest is not None else None

        return self._read(read, None)

    def claim(self, thread_id: str) -> None:
        """Claim the paused run of a thread before an answer to it is worked on; the second caller is refused.

        Raises:
            AlreadyClaimed: Another caller works on an answer.
        """
        self._write(lambda connection: self.recorder.claim(connection, thread_id))

    def end_invocation(self, thread_id: str, error: BaseException | None = None) -> None:
        """Close the run that an invocation left open: with its error, or paused at a breakpoint."""
        self._write(lambda connection: self.recorder.end_invocation(connection, thread_id, error))

    # Threads --------------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints, and its session with the branches that forks made.

        A branch that a person made keeps a copy of what it inherits.
        """
        self._write(lambda connection: threads.delete(connection, self.store, self.rows, str(thread_id)))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy the checkpoints of a thread to another, whose session is a branch at the end of the first.

        Raises:
            BadUsage: The other thread exists.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        self._write(lambda connection: threads.copy(connection, self.store, self.rows, source, target))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata has one of these ``run_id``; the sessions keep what was said."""
        self._write(lambda connection: threads.delete_runs(connection, self.rows, run_ids))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints of threads, all ("delete") or but the latest; the sessions keep what was said.

        What the latest one requires to rebuild a delta channel is kept, too.

        Raises:
            BadUsage: There is no such strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise BadUsage(f"There is no strategy {strategy!r}.", 'Use "keep_latest" or "delete".')
        keep, ids = strategy == "keep_latest", [*map(str, thread_ids)]
        self._write(lambda connection: threads.prune(connection, self.store, self.rows, ids, keep_latest=keep))

    # Async: the store's calls block, and run in threads -------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        tuples = await asyncio.to_thread(lambda: [*self.list(config, filter=filter, before=before, limit=limit)])
        for checkpoint in tuples:
            yield checkpoint

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: GraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await asyncio.to_thread(lambda: self.prune(thread_ids, strategy=strategy))

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The next version of a channel: a number, also in a thread whose versions another saver wrote as text."""
        if isinstance(current, str):
            number = int(current.split(".", 1)[0]) + 1
            return f"{number:0{len(current.split('.', 1)[0])}}"
        return 1 if current is None else current + 1


def _thread(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


def _namespace(config: RunnableConfig) -> str:
    return str(config["configurable"].get("checkpoint_ns") or "")


def _config(key: Key) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": key.session_id,
            "checkpoint_ns": key.namespace,
            "checkpoint_id": key.checkpoint_id,
        }
    }


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value of metadata is the wanted one; metadata is JSON, which has lists in place of tuples."""
    return json.dumps(value, sort_keys=True) == json.dumps(wanted, sort_keys=True, default=str)


def _find(metadata: Any, path: str) -> Any:
    """The value of a key; one with dots is a path as well, as in LangGraph's SqliteSaver."""
    if not isinstance(metadata, dict):
        return None
    name, _, rest = path.partition(".")
    return metadata.get(path) if path in metadata or not rest else _find(metadata.get(name), rest)


def _refuse_pickle(serde: Any) -> None:
    """Refuse a serializer that falls back to pickle, also if it is inside an encrypting one."""
    inner = serde
    while inner is not None:
        if getattr(inner, "pickle_fallback", False):
            raise BadUsage(
                f"{type(inner).__name__}(pickle_fallback=True) writes pickles, and reading one can run code.",
                "Pass a serializer without pickle_fallback; msgpack holds messages, pydantic models and dataclasses.",
            )
        following = getattr(inner, "serde", None)
        inner = following if following is not inner else None
