"""Rows of another program's tables as dicts, from a SQLite file or, through SQLAlchemy, from a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

AnyConnection: TypeAlias = sqlite3.Connection | Connection
"""What `select_rows` reads from."""

Tables: TypeAlias = Mapping[str, Collection[str]]
"""The columns of each table, as `Source.tables` has them."""

READ_TABLE_ERRORS = (sqlite3.Error, sa.exc.DBAPIError)
"""The errors of a database that cannot be read any further."""


def select_rows(
    connection: AnyConnection,
    table: str,
    columns: Collection[str],
    *,
    where: Mapping[str, Any] | None = None,
    order: Collection[str] = (),
    schema: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield some columns of the rows of a table whose columns have the values of ``where``.

    Values are as the driver returns them: JSON is text in SQLite, and decoded if it is JSONB. Another statement may run
    on the connection meanwhile.

    Example:
        >>> connection = sqlite3.connect(":memory:")
        >>> _ = connection.execute("CREATE TABLE runs (id, state)")
        >>> _ = connection.execute("INSERT INTO runs VALUES (1, 'done'), (2, 'open')")
        >>> list(select_rows(connection, "runs", ["id"], where={"state": "open"}))
        [{'id': 2}]
    """
    names = list(columns)
    if isinstance(connection, sqlite3.Connection):
        quoted = {name: _quote(name) for name in (*names, *(where or ()), *order, table)}
        condition = " AND ".join(f"{quoted[name]} = ?" for name in where or ()) or "1"
        ordering = f" ORDER BY {', '.join(quoted[name] for name in order)}" if order else ""
        selected = ", ".join(quoted[name] for name in names)
        statement = f"SELECT {selected} FROM {quoted[table]} WHERE {condition}{ordering}"  # noqa: S608 - quoted names
        for row in connection.execute(statement, list((where or {}).values())):
            yield dict(zip(names, row, strict=True))
        return
    query: Any = sa.select(*map(sa.column, names)).select_from(sa.table(table, schema=schema))
    query = query.where(*(sa.column(name) == value for name, value in (where or {}).items()))
    for values in connection.execute(query.order_by(*map(sa.column, order))):
        yield dict(zip(names, values, strict=True))


def unused_id(session_id: str, table: str, used: set[str]) -> str:
    """The id of a session, which is added to ``used``; several tables of a database may use the same one.

    Example:
        >>> used: set[str] = set()
        >>> [unused_id("chat", table, used) for table in ("sessions", "archive")]
        ['chat', 'chat~archive']
    """
    name = session_id if session_id not in used else f"{session_id}~{table}"
    used.add(name)
    return name


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
