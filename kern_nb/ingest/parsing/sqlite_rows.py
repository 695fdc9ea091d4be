"""Rows of SQLite tables as dicts, whatever columns the version of the program has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any


def rows(
    connection: sqlite3.Connection, table: str, rest: str = "", values: Sequence[Any] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table; ``rest`` is what follows the table in the statement."""
    cursor = connection.execute(f'SELECT * FROM "{table}" {rest}', values)  # noqa: S608 - our own names
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))
