"""The optional tables of checkpoints: states of programs that resume from them, as the bridge of LangGraph stores them.

The first checkpoint creates them. A checkpoint belongs to a session and a namespace; its values are content-addressed
within the session, so that consecutive states share what did not change. Deleting a session deletes its checkpoints.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.column_types import Integer, Text
from kern_nb.db.schema import Tables

if TYPE_CHECKING:
    from kern_nb.db.database import Database


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

        def key(name: str, kind: type[sa.types.TypeEngine[object]]) -> sa.Column[object]:
            return sa.Column(name, kind, primary_key=True, autoincrement=False, nullable=False)

        def address() -> list[sa.Column[object]]:
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


def create(connection: Connection, store: Database) -> None:
    """Create the tables, unless they exist."""
    store.lock_imports(connection)  # of two processes that create a table at once, PostgreSQL refuses one
    for table in checkpoint_tables(store.tables).all:
        table.create(connection, checkfirst=True)


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
