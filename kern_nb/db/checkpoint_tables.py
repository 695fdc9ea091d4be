"""The optional tables of checkpoints: states of programs that resume from them, as the bridge of LangGraph stores them.

The first checkpoint creates them. A checkpoint belongs to a session and a namespace; its values are content-addressed
within the session, so that consecutive states share what did not change. Deleting a session deletes its checkpoints.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import reads
from kern_nb.db.column_types import Integer, Text
from kern_nb.db.lineage import load_lineage
from kern_nb.db.schema import Tables

if TYPE_CHECKING:
    from kern_nb.db.database import Database


THREAD = "thread_id"
"""In a run's ``extra``: the session that stores its checkpoints, which is another one after a fork."""


OWN = {"checkpoints": "own"}
"""In the metadata of a branch whose checkpoints were copied or pruned: it inherits none."""


class Fork(NamedTuple):
    """The checkpoint from which a branch goes on."""

    thread_id: str
    checkpoint_id: str


class CheckpointTables:
    """The three tables of one workload.

    Attributes:
        checkpoints: A state, without the values of its channels: ``content`` in the encoding ``kind``, ``channels``
            with the references to the values, the metadata as JSON. ``line`` is the session that shows the run, a
            branch after a fork, ``run_id`` the run, and ``n_messages`` how many messages the run has so far.
        writes: What the tasks of the step after a checkpoint wrote.
        values: Parts of values by their SHA-256.
    """

    def __init__(self, session_table: str, db_schema: str | None) -> None:
        metadata = sa.MetaData(schema=db_schema)

        def key(name: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
            return sa.Column(name, kind, primary_key=True, autoincrement=False, nullable=False)

        def address() -> list[sa.Column[Any]]:
            return [key("session_id", Text), key("namespace", Text), key("checkpoint_id", Text)]

        self.checkpoints = sa.Table(
            f"{session_table}_checkpoints",
            metadata,
            *address(),
            sa.Column("parent_id", Text),
            sa.Column("kind", Text, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
            sa.Column("channels", sa.LargeBinary, nullable=False),
            sa.Column("metadata", Text, nullable=False),
            sa.Column("line", Text),
            sa.Column("run_id", Text),
            sa.Column("n_messages", Integer),
        )
        self.writes = sa.Table(
            f"{session_table}_checkpoint_writes",
            metadata,
            *address(),
            key("task_id", Text),
            key("position", Integer),
            sa.Column("task_path", Text, nullable=False),
            sa.Column("channel", Text, nullable=False),
            sa.Column("kind", Text, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )
        self.values = sa.Table(
            f"{session_table}_checkpoint_values",
            metadata,
            key("session_id", Text),
            key("sha256", sa.LargeBinary),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )

    @property
    def all(self) -> tuple[sa.Table, ...]:
        """The three tables."""
        return self.checkpoints, self.writes, self.values


@lru_cache(maxsize=32)
def _shared_tables(session_table: str, db_schema: str | None) -> CheckpointTables:
    return CheckpointTables(session_table, db_schema)


def checkpoint_tables(tables: Tables) -> CheckpointTables:
    """The tables of checkpoints beside those of a store."""
    return _shared_tables(tables.name, tables.metadata.schema)


def exist(connection: Connection, tables: Tables) -> bool:
    """Whether the tables exist."""
    table = checkpoint_tables(tables).values
    return sa.inspect(connection).has_table(table.name, schema=table.schema)


def has_checkpoints(connection: Connection, tables: Tables, session_id: str) -> bool:
    """Whether a session has checkpoints."""
    c = checkpoint_tables(tables).checkpoints.c
    query = sa.select(c.checkpoint_id).where(c.session_id == session_id).limit(1)
    return exist(connection, tables) and connection.execute(query).first() is not None


def create(connection: Connection, store: Database) -> None:
    """Create the tables, unless they exist."""
    store.lock_imports(connection)  # of two processes that create a table at once, PostgreSQL refuses one
    for table in checkpoint_tables(store.tables).all:
        table.create(connection, checkfirst=True)


def find_fork(connection: Connection, tables: Tables, session_id: str) -> Fork | None:
    """The last checkpoint of what a branch inherits; None for a session that is no branch, or inherits none."""
    session = reads.session_row(connection, tables, session_id)
    if session is None or session["parent_session_id"] is None or OWN.items() <= (session["metadata"] or {}).items():
        return None
    r, c = tables.runs.c, checkpoint_tables(tables).checkpoints.c
    lineage = load_lineage(connection, tables, session)
    until = [segment for segment in lineage[:-1] if segment.until is not None and segment.until.run_index >= 0]
    for segment in reversed(until):
        query = sa.select(r.run_id, r.run_index, r.extra).where(segment.runs(tables.runs), r.parent_run_id.is_(None))
        run = connection.execute(query.order_by(r.run_index.desc()).limit(1)).mappings().first()
        thread_id = (run["extra"] or {}).get(THREAD) if run is not None else None
        if run is None or not isinstance(thread_id, str):
            continue
        of_run = (c.session_id == thread_id) & (c.namespace == "") & (c.run_id == run["run_id"])
        cut = lineage.cut({"session_id": segment.session_id, "run_index": run["run_index"]})
        if cut is not None:
            of_run &= c.n_messages <= cut + 1
        found: Any = sa.select(c.checkpoint_id).where(of_run).order_by(c.checkpoint_id.desc()).limit(1)
        checkpoint_id = connection.execute(found).scalar()
        return None if checkpoint_id is None else Fork(thread_id, checkpoint_id)
    return None


def hand_down(connection: Connection, store: Database, session_id: str) -> None:
    """Copy the checkpoints that a branch inherits to it, before the session that has them is deleted."""
    if not exist(connection, store.tables):
        return
    fork = find_fork(connection, store.tables, session_id)
    if fork is None:
        return
    own = checkpoint_tables(store.tables)
    for table in own.all:
        names = [column.name for column in table.columns if column.name not in ("session_id", "line", "run_id")]
        rows = sa.select(sa.literal(session_id, Text()), *(table.c[name] for name in names))
        rows = rows.where(table.c.session_id == fork.thread_id)
        if table is not own.values:
            rows = rows.where(table.c.checkpoint_id <= fork.checkpoint_id)
        insert = store.insert(table).from_select(["session_id", *names], rows)
        connection.execute(insert.on_conflict_do_nothing())
    c = own.checkpoints
    connection.execute(c.update().where(c.c.session_id == session_id, c.c.line.is_(None)).values(line=session_id))


def delete_checkpoints(connection: Connection, tables: Tables, session_id: str) -> None:
    """Delete the checkpoints of a session, or those of a branch that a fork of a thread made."""
    if not exist(connection, tables):
        return
    own = checkpoint_tables(tables)
    c, w = own.checkpoints.c, own.writes.c
    forked = sa.select(c.session_id, c.namespace, c.checkpoint_id)
    forked = forked.where(c.line == session_id, c.session_id != session_id)
    for row in connection.execute(forked).all():
        is_row = (w.session_id == row[0]) & (w.namespace == row[1]) & (w.checkpoint_id == row[2])
        connection.execute(own.writes.delete().where(is_row))
    connection.execute(own.checkpoints.delete().where(c.line == session_id, c.session_id != session_id))
    for table in own.all:
        connection.execute(table.delete().where(table.c.session_id == session_id))
