"""Stores as an older version of kern_nb wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from kern_nb.db import SessionStore


def downgrade(store: SessionStore, version: int) -> None:
    """Drop the columns and indexes that later versions of the schema added."""
    from kern_nb.db import schema_versions

    def work(connection: sa.Connection) -> None:
        for added in (columns for step, columns in schema_versions.MIGRATIONS.items() if step > version):
            for attribute, column in added:
                table = getattr(store.tables, attribute)
                for index in table.indexes:
                    if column in index.columns:
                        connection.execute(sa.schema.DropIndex(index, if_exists=True))
                connection.exec_driver_sql(f"ALTER TABLE {table.name} DROP COLUMN {column}")
        connection.execute(store.tables.schema.update().values(version=version))

    store.write(work)
