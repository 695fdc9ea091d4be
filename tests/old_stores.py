"""Stores as an older version of kern_nb wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from kern_nb.db import SessionStore


REQUIREMENT_KEY_VERSION = 6


def _restore_requirement_key(connection: sa.Connection, table: sa.Table) -> None:
    """Give the requirements the primary key of versions 1 to 5, their id."""
    columns = {column["name"] for column in sa.inspect(connection).get_columns(table.name, schema=table.schema)}
    old = sa.Table(table.name, sa.MetaData(schema=table.schema))
    for column in table.columns:
        if column.name in columns:
            is_key = column.name == "requirement_id"
            old.append_column(sa.Column(column.name, column.type, primary_key=is_key, nullable=column.nullable))
    rows = [dict(row) for row in connection.execute(sa.select(old)).mappings()]
    connection.execute(sa.schema.DropTable(table))
    connection.execute(sa.schema.CreateTable(old))
    for index in table.indexes:
        connection.execute(sa.schema.CreateIndex(index))
    if rows:
        connection.execute(old.insert(), rows)


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
        if version < REQUIREMENT_KEY_VERSION:
            _restore_requirement_key(connection, store.tables.requirements)
        connection.execute(store.tables.schema.update().values(version=version))

    store.write(work)
