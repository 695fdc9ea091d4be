"""`RowStore`: a store whose driver returns rows, unlike DuckDB's, which returns columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import user_sql
from kern_nb.db.store import SessionStore


class RowStore(SessionStore):
    """The part that SQLite and PostgreSQL have in common."""

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows with one prepared statement."""
        if rows:
            connection.execute(table.insert(), list(rows))

    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """Convert the rows to Arrow columns of their values' types."""
        with self.connect() as connection:
            result = connection.execute(query)
            return user_sql.rows_to_arrow(list(result.keys()), result.all())
