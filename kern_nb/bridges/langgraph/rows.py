"""Checkpoints as rows: reading and writing `db.checkpoint_tables`. Each function works in one transaction.

Writing a checkpoint reads no earlier one: it asks which of its parts are stored, by their key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import ormsgpack
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched
from kern_nb.bridges.langgraph import values
from kern_nb.bridges.langgraph.queries import Queries
from kern_nb.bridges.langgraph.values import Encoded, Reference
from kern_nb.db.checkpoint_tables import CheckpointTables, checkpoint_tables
from kern_nb.db.column_types import Text

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

_BATCH = 500  # parameters of one query


class Key(NamedTuple):
    """The address of a checkpoint: its thread, namespace and id."""

    session_id: str
    namespace: str
    checkpoint_id: str


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint, its values as references; the attributes are the columns of the table.

    ``thread_id`` is the thread that stores it, if it is another's: a branch goes on from its parent's. If that went on,
    too, it ``is_superseded``: what was written after it is not the branch's.
    """

    key: Key
    parent_id: str | None
    kind: str
    content: bytes
    channels: dict[str, Reference]
    metadata: dict[str, Any]
    line: str | None = None
    run_id: str | None = None
    n_messages: int = 0
    thread_id: str | None = None
    is_superseded: bool = False

    @property
    def home(self) -> Key:
        """The key under which it is stored, with its writes and values."""
        return self.key if self.thread_id is None else self.key._replace(session_id=self.thread_id)


class Write(NamedTuple):
    """What a task wrote; ``kind`` and ``content`` are as the serializer made them."""

    task_id: str
    task_path: str
    position: int
    channel: str
    kind: str
    content: bytes


class Rows:
    """The rows of one store, with statements that are built once."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self._queries: tuple[CheckpointTables, Queries] | None = None

    @property
    def tables(self) -> CheckpointTables:
        """The tables; their schema may be found at the first use of the store."""
        return checkpoint_tables(self.store.tables)

    @property
    def queries(self) -> Queries:
        """The statements for the tables."""
        tables = self.tables
        if self._queries is None or self._queries[0] is not tables:
            self._queries = tables, Queries(self.store, tables)
        return self._queries[1]

    def put(self, connection: Connection, checkpoint: Checkpoint, encoded: Mapping[str, Encoded]) -> None:
        """Insert or replace a checkpoint, and the parts of its values that are not stored."""
        parts: dict[bytes, bytes] = {}
        for value in encoded.values():
            parts |= value.parts
        self._put_parts(connection, checkpoint.key.session_id, parts)
        row = checkpoint.key._asdict() | {
            "parent_id": checkpoint.parent_id,
            "kind": checkpoint.kind,
            "content": checkpoint.content,
            "channels": ormsgpack.packb(checkpoint.channels),
            "metadata": json.dumps(checkpoint.metadata),
            "line": checkpoint.line,
            "run_id": checkpoint.run_id,
            "n_messages": checkpoint.n_messages,
        }
        connection.execute(self.queries.put, row)

    def _put_parts(self, connection: Connection, session_id: str, parts: Mapping[bytes, bytes]) -> None:
        v = self.tables.values
        missing = dict(parts)
        for digests in batched(parts, _BATCH):
            stored = sa.select(v.c.sha256).where(v.c.session_id == session_id, v.c.sha256.in_(digests))
            for digest in connection.execute(stored).scalars():
                missing.pop(bytes(digest), None)
        for items in batched(missing.items(), _BATCH):
            new = [{"session_id": session_id, "sha256": digest, "content": part} for digest, part in items]
            connection.execute(self.queries.put_part, new)

    def put_writes(self, connection: Connection, key: Key, writes: Iterable[Write], *, replace: bool) -> None:
        """Insert writes; those that exist are replaced, or kept."""
        w = self.tables.writes
        rows = [key._asdict() | write._asdict() for write in writes]
        insert = self.store.insert(w)
        if replace:
            names = ("task_path", "channel", "kind", "content")
            changed = {name: insert.excluded[name] for name in names}
            insert = insert.on_conflict_do_update(index_elements=[*Key._fields, "task_id", "position"], set_=changed)
        else:
            insert = insert.on_conflict_do_nothing()
        if rows:
            connection.execute(insert, rows)

    def has(self, connection: Connection, key: Key) -> bool:
        """Whether a checkpoint is stored."""
        return connection.execute(self.queries.has, key._asdict()).first() is not None

    def set_run(self, connection: Connection, key: Key, run_id: str) -> None:
        """Set the run of a checkpoint."""
        c = self.tables.checkpoints
        is_row = (c.c.session_id == key.session_id) & (c.c.namespace == key.namespace)
        connection.execute(c.update().where(is_row, c.c.checkpoint_id == key.checkpoint_id).values(run_id=run_id))

    def get(
        self, connection: Connection, session_id: str, namespace: str, checkpoint_id: str | None
    ) -> Checkpoint | None:
        """A checkpoint by its id; None as id is the latest."""
        query = self.queries.latest if checkpoint_id is None else self.queries.get
        params = {"session_id": session_id, "namespace": namespace}
        params |= {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
        row = connection.execute(query, params).mappings().first()
        return None if row is None else _from_row(row)

    def find(
        self, connection: Connection, condition: sa.ColumnElement[bool], limit: int | None = None
    ) -> Iterator[Checkpoint]:
        """Checkpoints by a condition on their columns, newest first."""
        c = self.tables.checkpoints
        query = sa.select(c).where(condition).order_by(c.c.checkpoint_id.desc(), c.c.session_id, c.c.namespace)
        query = query if limit is None else query.limit(limit)
        yield from map(_from_row, connection.execute(query).mappings().all())

    def writes(self, connection: Connection, key: Key) -> list[Write]:
        """The writes of a checkpoint in the order in which they are applied."""
        query = self.queries.writes
        rows = [
            Write(row[0], row[1], row[2], row[3], row[4], bytes(row[5]))
            for row in connection.execute(query, key._asdict())
        ]
        return sorted(rows, key=lambda write: (write.task_path, write.task_id, write.position))

    def writes_of(self, connection: Connection, checkpoint: Checkpoint) -> list[Write]:
        """The writes of a checkpoint, as its thread sees them."""
        return [] if checkpoint.is_superseded else self.writes(connection, checkpoint.home)

    def has_later(self, connection: Connection, key: Key, line: str) -> bool:
        """Whether a line goes on after a checkpoint."""
        return connection.execute(self.queries.later, key._asdict() | {"line": line}).first() is not None

    def load_parts(self, connection: Connection, session_id: str, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The stored parts of these digests."""
        v = self.tables.values.c
        parts: dict[bytes, bytes] = {}
        for some in batched(dict.fromkeys(digests), _BATCH):
            query = sa.select(v.sha256, v.content).where(v.session_id == session_id, v.sha256.in_(some))
            parts |= {bytes(digest): bytes(content) for digest, content in connection.execute(query)}
        return parts

    def load_values(
        self, connection: Connection, session_id: str, references: Iterable[Reference], cache: dict[bytes, bytes]
    ) -> dict[Reference, bytes]:
        """The bytes of values; ``cache`` has the parts that are loaded already, and gets those that are."""

        def load(digests: list[bytes]) -> Mapping[bytes, bytes]:
            cache.update(self.load_parts(connection, session_id, [d for d in digests if d not in cache]))
            return cache

        return values.join_values(references, load)

    def delete(self, connection: Connection, keys: Iterable[Key]) -> None:
        """Delete checkpoints with their writes, and the parts that no other checkpoint of their threads refers to."""
        threads = set()
        for key in keys:
            threads.add(key.session_id)
            for table in (self.tables.checkpoints, self.tables.writes):
                c = table.c
                is_row = (c.session_id == key.session_id) & (c.namespace == key.namespace)
                connection.execute(table.delete().where(is_row, c.checkpoint_id == key.checkpoint_id))
        for session_id in threads:
            self._sweep(connection, session_id)

    def _sweep(self, connection: Connection, session_id: str) -> None:
        c, v = self.tables.checkpoints.c, self.tables.values
        used: set[bytes] = set()
        nodes: set[bytes] = set()
        for checkpoint in self.find(connection, c.session_id == session_id):
            for _, how, content in checkpoint.channels.values():
                if how != values.INLINE:
                    used.add(content)
                    nodes |= {content} if how == values.CUT else set()
        for node in self.load_parts(connection, session_id, list(nodes)).values():
            used.update(values.part_digests(node))
        stored = connection.execute(sa.select(v.c.sha256).where(v.c.session_id == session_id)).scalars()
        unused = {bytes(digest) for digest in stored} - used
        for digests in batched(unused, _BATCH):
            connection.execute(v.delete().where(v.c.session_id == session_id, v.c.sha256.in_(digests)))

    def copy(self, connection: Connection, source: str, target: str) -> None:
        """Copy the checkpoints of a thread, with their writes and values, to another thread."""
        for table in self.tables.all:
            names = [column.name for column in table.columns if column.name != "session_id"]
            rows = sa.select(sa.literal(target, Text()), *(table.c[name] for name in names))
            insert = self.store.insert(table).from_select(
                ["session_id", *names], rows.where(table.c.session_id == source)
            )
            connection.execute(insert.on_conflict_do_nothing())


def _from_row(row: sa.RowMapping) -> Checkpoint:
    references = ormsgpack.unpackb(bytes(row["channels"]))
    return Checkpoint(
        key=Key(row["session_id"], row["namespace"], row["checkpoint_id"]),
        parent_id=row["parent_id"],
        kind=row["kind"],
        content=bytes(row["content"]),
        channels={name: (kind, how, content) for name, (kind, how, content) in references.items()},
        metadata=json.loads(row["metadata"]),
        line=row["line"],
        run_id=row["run_id"],
        n_messages=row["n_messages"] or 0,
    )
