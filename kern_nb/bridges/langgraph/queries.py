"""The statements that every step of a graph runs, built once: SQLAlchemy needs as long to build one as to execute it.

The parameters have the names of the columns.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.db.checkpoint_tables import CheckpointTables

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

KEY = ("session_id", "namespace", "checkpoint_id")
"""The columns of the key of a checkpoint."""


class Queries:
    """The statements of one store."""

    def __init__(self, store: SessionStore, tables: CheckpointTables) -> None:
        self._store, self._tables = store, tables
        self._runs = store.tables.runs

    def _of_checkpoint(self, table: sa.Table, *names: str) -> sa.ColumnElement[bool]:
        return sa.and_(*(table.c[name] == sa.bindparam(name, type_=table.c[name].type) for name in names))

    @cached_property
    def get(self) -> sa.Select[Any]:
        """A checkpoint by its key."""
        table = self._tables.checkpoints
        return sa.select(table).where(self._of_checkpoint(table, *KEY))

    @cached_property
    def has(self) -> sa.Select[Any]:
        """The id of a checkpoint, if it is stored."""
        table = self._tables.checkpoints
        return sa.select(table.c.checkpoint_id).where(self._of_checkpoint(table, *KEY))

    @cached_property
    def latest(self) -> sa.Select[Any]:
        """The latest checkpoint of a namespace."""
        table = self._tables.checkpoints
        query = sa.select(table).where(self._of_checkpoint(table, *KEY[:2]))
        return query.order_by(table.c.checkpoint_id.desc()).limit(1)

    @cached_property
    def later(self) -> sa.Select[Any]:
        """A checkpoint of a line after another."""
        table = self._tables.checkpoints
        after = table.c.checkpoint_id > sa.bindparam("checkpoint_id", type_=table.c.checkpoint_id.type)
        query = sa.select(table.c.checkpoint_id).where(self._of_checkpoint(table, *KEY[:2], "line"), after)
        return query.limit(1)

    @cached_property
    def writes(self) -> sa.Select[Any]:
        """The writes of a checkpoint."""
        table = self._tables.writes
        names = ("task_id", "task_path", "position", "channel", "kind", "content")
        return sa.select(*(table.c[name] for name in names)).where(self._of_checkpoint(table, *KEY))

    @cached_property
    def put(self) -> Any:
        """Insert or replace a checkpoint."""
        table = self._tables.checkpoints
        insert = self._store.insert(table)
        changed = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in KEY}
        return insert.on_conflict_do_update(index_elements=[*KEY], set_=changed)

    @cached_property
    def put_part(self) -> Any:
        """Insert a part of a value, unless it is stored."""
        return self._store.insert(self._tables.values).on_conflict_do_nothing()

    @cached_property
    def run(self) -> sa.Select[Any]:
        """A run by its id, without its contents."""
        r = self._runs.c
        query = sa.select(r.run_id, r.session_id, r.run_index, r.status, r.process)
        return query.where(r.run_id == sa.bindparam("run_id", type_=r.run_id.type))
