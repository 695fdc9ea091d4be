"""The tables of LangGraph's checkpointers, of `SqliteSaver` in a file and of `PostgresSaver` on a server.

SQLite has a state in one value. PostgreSQL has it in parts: ``checkpoint`` is JSON with the times, the versions of the
channels and, since version 2.0.22, the short values; the other values are in ``checkpoint_blobs``, one row a version.
`ShallowPostgresSaver` has the same tables without ids of checkpoints and versions: only the latest state of a thread.
What PostgreSQL added later, such as ``task_path``, is optional here.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.importers.langgraph.encoding import JSON, Encoded, State, read_metadata, read_state, to_bytes
from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables

CHECKPOINTS, BLOBS = "checkpoints", "checkpoint_blobs"
_SQLITE_WRITES, _POSTGRES_WRITES = "writes", "checkpoint_writes"

_SHALLOW_COLUMNS = frozenset({"thread_id", "checkpoint_ns", "checkpoint", "type", "metadata"})
_COLUMNS = _SHALLOW_COLUMNS | {"checkpoint_id", "parent_checkpoint_id"}
_BLOB_COLUMNS = frozenset({"thread_id", "checkpoint_ns", "channel", "type", "blob"})
_WRITE_COLUMNS = frozenset({"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "channel", "type"})
_ROWS_PER_FETCH = 50


class Key(NamedTuple):
    """A namespace of a thread."""

    thread_id: str
    namespace: str


class Checkpoint(NamedTuple):
    """A stored checkpoint.

    Attributes:
        state: Reads its state; raises one of RECORD_ERRORS.
    """

    id: str
    parent: str | None
    metadata: dict[str, Any]
    state: Callable[[], State]


class Write(NamedTuple):
    """A value that a task wrote during the step after a checkpoint."""

    checkpoint_id: str
    task_id: str
    channel: str
    value: Encoded


def has_layout(tables: Tables) -> bool:
    """Whether there is a table of checkpoints with threads and namespaces."""
    columns = set(tables.get(CHECKPOINTS, ()))
    return columns >= _COLUMNS or (columns >= _SHALLOW_COLUMNS and set(tables.get(BLOBS, ())) >= _BLOB_COLUMNS)


def open_reader(connection: AnyConnection, tables: Tables, schema: str | None) -> Reader:
    """What reads the tables."""
    if isinstance(connection, sqlite3.Connection):
        return SqliteReader(connection, tables)
    return PostgresReader(connection, tables, schema)


class Reader(ABC):
    """Reads the checkpoints of a database, which other statements may read meanwhile.

    Attributes:
        missing: The tables that the layout has and the database lacks, or the role may not read.
    """

    missing: tuple[str, ...] = ()

    @abstractmethod
    def threads(self) -> dict[str, list[str]]:
        """The namespaces of each thread, oldest first."""

    @abstractmethod
    def checkpoints(
        self, key: Key, *, channel: str | None = None, is_newest_first: bool = False
    ) -> Iterator[Checkpoint]:
        """The checkpoints of a namespace; their states may lack every channel but ``channel``, None for all."""

    @abstractmethod
    def checkpoint(self, key: Key, checkpoint_id: str) -> Checkpoint:
        """A checkpoint with all of its channels."""

    @abstractmethod
    def writes(self, thread_id: str, namespace: str | None = None, channels: Collection[str] = ()) -> Iterator[Write]:
        """The writes of a thread by checkpoint, in order; those of one namespace and of some channels, if stated."""


class SqliteReader(Reader):
    """A file of `SqliteSaver`."""

    _SELECT = "SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"

    def __init__(self, connection: sqlite3.Connection, tables: Tables) -> None:
        self._connection = connection
        self._has_writes = set(tables.get(_SQLITE_WRITES, ())) >= _WRITE_COLUMNS | {"value"}

    def threads(self) -> dict[str, list[str]]:
        """The namespaces of each thread."""
        query = (
            "SELECT thread_id, checkpoint_ns FROM checkpoints GROUP BY thread_id, checkpoint_ns"
            " ORDER BY thread_id, MIN(checkpoint_id), checkpoint_ns"
        )
        return _by_thread(self._connection.execute(query))

    def checkpoints(
        self, key: Key, *, channel: str | None = None, is_newest_first: bool = False
    ) -> Iterator[Checkpoint]:
        """The checkpoints of a namespace."""
        query = f"{self._SELECT} WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id"
        for row in self._connection.execute(query + " DESC" * is_newest_first, key):
            yield self._checkpoint(row)

    def checkpoint(self, key: Key, checkpoint_id: str) -> Checkpoint:
        """A checkpoint."""
        query = f"{self._SELECT} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        return self._checkpoint(self._connection.execute(query, [*key, checkpoint_id]).fetchone())

    def writes(self, thread_id: str, namespace: str | None = None, channels: Collection[str] = ()) -> Iterator[Write]:
        """The writes of a thread."""
        if not self._has_writes:
            return
        query = "SELECT checkpoint_id, task_id, channel, type, value FROM writes WHERE thread_id = ?"
        params = [thread_id]
        if namespace is not None:
            query += " AND checkpoint_ns = ?"
            params.append(namespace)
        if channels:
            query += f" AND channel IN ({', '.join('?' * len(channels))})"
            params += channels
        for row in self._connection.execute(f"{query} ORDER BY checkpoint_id, rowid", params):
            yield _to_write(*row)

    def _checkpoint(self, row: tuple[Any, ...]) -> Checkpoint:
        checkpoint_id, parent, kind, data, metadata = row
        parent = str(parent) if parent else None
        return Checkpoint(str(checkpoint_id), parent, read_metadata(metadata), lambda: read_state(kind, data))


class PostgresReader(Reader):
    """Tables of `PostgresSaver` or `ShallowPostgresSaver` in a schema."""

    def __init__(self, connection: Connection, tables: Tables, schema: str | None) -> None:
        self._connection = connection
        self._checkpoints = sa.table(CHECKPOINTS, *map(sa.column, _COLUMNS - {"checkpoint"}), schema=schema)
        self._checkpoints.append_column(sa.column("checkpoint", JSONB))
        self._blobs = sa.table(BLOBS, *map(sa.column, (*_BLOB_COLUMNS, "version")), schema=schema)
        columns = (*_WRITE_COLUMNS, "idx", "task_path", "blob")
        self._writes = sa.table(_POSTGRES_WRITES, *map(sa.column, columns), schema=schema)
        self._is_shallow = "checkpoint_id" not in tables[CHECKPOINTS]
        required = {BLOBS: _BLOB_COLUMNS, _POSTGRES_WRITES: _WRITE_COLUMNS | {"idx", "blob"}}
        self.missing = tuple(name for name, names in required.items() if not set(tables.get(name, ())) >= names)
        self._has_paths = "task_path" in tables.get(_POSTGRES_WRITES, ())

    def threads(self) -> dict[str, list[str]]:
        """The namespaces of each thread."""
        c = self._checkpoints.c
        first = sa.func.min(_binary(self._id()))
        query = sa.select(c.thread_id, c.checkpoint_ns).group_by(c.thread_id, c.checkpoint_ns)
        return _by_thread(self._stream(query.order_by(_binary(c.thread_id), first, _binary(c.checkpoint_ns))))

    def checkpoints(
        self, key: Key, *, channel: str | None = None, is_newest_first: bool = False
    ) -> Iterator[Checkpoint]:
        """The checkpoints of a namespace."""
        order = _binary(self._id())
        query = self._select(key)
        if channel is None or BLOBS in self.missing:
            for row in self._stream(query.order_by(order.desc() if is_newest_first else order)):
                yield self._checkpoint(key, row)
            return
        c, b = self._checkpoints.c, self._blobs.c
        is_blob = (b.thread_id == c.thread_id) & (b.checkpoint_ns == c.checkpoint_ns) & (b.channel == channel)
        if not self._is_shallow:
            is_blob &= b.version == c.checkpoint["channel_versions"][channel].astext
        query = query.add_columns(b.type.label("kind"), b.blob)
        query = query.select_from(self._checkpoints.outerjoin(self._blobs, is_blob))
        for row in self._stream(query.order_by(order.desc() if is_newest_first else order)):
            blobs = {} if row[4] is None else {channel: _to_encoded(row[4], row[5])}
            yield self._checkpoint(key, row, blobs)

    def checkpoint(self, key: Key, checkpoint_id: str) -> Checkpoint:
        """A checkpoint."""
        query = self._select(key).where(self._id() == checkpoint_id)
        return self._checkpoint(key, self._connection.execute(query).one())

    def writes(self, thread_id: str, namespace: str | None = None, channels: Collection[str] = ()) -> Iterator[Write]:
        """The writes of a thread, those of a step in the order in which LangGraph applies them."""
        if _POSTGRES_WRITES in self.missing:
            return
        w = self._writes.c
        query = sa.select(w.checkpoint_id, w.task_id, w.channel, w.type, w.blob).where(w.thread_id == thread_id)
        if namespace is not None:
            query = query.where(w.checkpoint_ns == namespace)
        if channels:
            query = query.where(w.channel.in_(channels))
        paths = [_binary(w.task_path)] if self._has_paths else []
        for row in self._stream(query.order_by(_binary(w.checkpoint_id), *paths, _binary(w.task_id), w.idx)):
            yield _to_write(*row)

    def _id(self) -> Any:
        c = self._checkpoints.c
        return c.checkpoint["id"].astext if self._is_shallow else c.checkpoint_id

    def _select(self, key: Key) -> sa.Select[Any]:
        c = self._checkpoints.c
        parent = sa.null() if self._is_shallow else c.parent_checkpoint_id
        query = sa.select(self._id().label("id"), parent.label("parent"), c.checkpoint, c.metadata)
        return query.where(c.thread_id == key.thread_id, c.checkpoint_ns == key.namespace)

    def _checkpoint(self, key: Key, row: Any, blobs: dict[str, Encoded] | None = None) -> Checkpoint:
        """A checkpoint, whose values are loaded when its state is read, unless they are passed."""
        checkpoint_id, parent, stored, metadata = row[:4]

        def state() -> State:
            if not isinstance(stored, dict):
                raise MalformedRecord("the state is not an object")
            inline = read_state(JSON, stored | {"channel_values": stored.get("channel_values") or {}})
            values = self._load_blobs(key, stored) if blobs is None else blobs
            channels = inline.channels | {name: value for name, value in values.items() if value.kind != "empty"}
            return replace(inline, channels=dict(sorted(channels.items())))

        return Checkpoint(str(checkpoint_id), str(parent) if parent else None, read_metadata(metadata), state)

    def _load_blobs(self, key: Key, stored: dict[str, Any]) -> dict[str, Encoded]:
        versions = stored.get("channel_versions")
        if BLOBS in self.missing or not isinstance(versions, dict) or not versions:
            return {}
        b = self._blobs.c
        query = sa.select(b.channel, b.type, b.blob)
        query = query.where(b.thread_id == key.thread_id, b.checkpoint_ns == key.namespace)
        if self._is_shallow:
            query = query.where(b.channel.in_(list(versions)))
        else:
            pairs = [(name, str(version)) for name, version in versions.items()]
            query = query.where(sa.tuple_(b.channel, b.version).in_(pairs))
        return {str(name): _to_encoded(kind, data) for name, kind, data in self._connection.execute(query)}

    def _stream(self, query: Any) -> Iterator[Any]:
        """The rows of a query, which are not all in memory at once: each may have a whole list of messages."""
        options = {"stream_results": True, "yield_per": _ROWS_PER_FETCH}
        with self._connection.execute(query, execution_options=options) as result:
            yield from result


def _by_thread(rows: Iterable[Any]) -> dict[str, list[str]]:
    threads: dict[str, list[str]] = {}
    for thread_id, namespace in rows:
        threads.setdefault(str(thread_id), []).append(str(namespace or ""))
    return threads


def _to_write(checkpoint_id: Any, task_id: Any, channel: Any, kind: Any, data: Any) -> Write:
    return Write(str(checkpoint_id), str(task_id), str(channel), _to_encoded(kind, data))


def _to_encoded(kind: Any, data: Any) -> Encoded:
    return Encoded(str(kind), to_bytes(data))


def _binary(column: Any) -> Any:
    """A column in the order of its bytes, as in SQLite, whatever the collation of the database."""
    return sa.collate(column, "C")
