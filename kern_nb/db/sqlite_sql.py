"""Limits of users' SQL in SQLite, and checks of a file's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from kern_nb.db import user_sql
from kern_nb.db.schema_versions import not_a_table_error
from kern_nb.db.sql_functions import SQLITE
from kern_nb.db.views import VIEWS
from kern_nb.errors import KernError, NotAStore

_TABLE_FUNCTIONS = ("json_each", "json_tree")
_STRUCTURE = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)


class Authorizer:
    """Allow SELECT over the store's views and the file's plain tables, with listed functions.

    Args:
        connection: The connection to limit, with the views of the store.

    Attributes:
        denied: The error for the denied access; None if there was none, or if the statement is not a query.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.denied: KernError | None = None
        rows = connection.execute("SELECT name, type, rootpage FROM sqlite_master").fetchall()
        self._tables = {name for name, kind, root in rows if kind == "table" and root}
        self._views = {name for name, kind, _ in rows if kind == "view"}
        self._names = {name.lower() for name, _, _ in rows}
        # The first use of these functions in a connection appears as a write to sqlite_master.
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
        connection.set_authorizer(self._authorize)

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            if second is not None and second.lower() in SQLITE:
                return sqlite3.SQLITE_OK
            self.denied = user_sql.function_error(str(second))
        elif action in _STRUCTURE or action == sqlite3.SQLITE_READ:
            if source in self._views and source not in VIEWS:
                self.denied = user_sql.relation_error(str(source))
            elif action in _STRUCTURE or self._is_readable(str(first), second, database):
                return sqlite3.SQLITE_OK
            else:
                self.denied = user_sql.relation_error(str(first))
        return sqlite3.SQLITE_DENY

    def _is_readable(self, table: str, column: str | None, database: str | None) -> bool:
        if database == "temp":
            return table in VIEWS
        if table in self._tables or table in _TABLE_FUNCTIONS:
            return True
        if database is not None:
            return False
        # Without a column, as for count(*), SQLite names no database; nor for the query's own WITH.
        name = table.lower()
        is_cte = not column and name not in self._names and not name.startswith(("sqlite_", "pragma_"))
        return table in VIEWS or is_cte


def require_plain_tables(connection: sqlite3.Connection, tables: Collection[str], url: str) -> None:
    """Check that a store's tables are plain tables, without side effects.

    Raises:
        NotAStore: one is a view or a virtual table, or has a trigger or computed columns.
    """
    objects = connection.execute("SELECT type, name, tbl_name, rootpage FROM sqlite_master").fetchall()
    own_names = {name.lower() for name in tables}
    if "kern_schema" not in {name.lower() for _, name, _, _ in objects}:
        return
    for kind, name, table, root in objects:
        if table.lower() not in own_names or kind == "index":
            continue
        if kind == "trigger":
            raise NotAStore(
                f"{url}: the file is not opened, as the trigger {name!r} acts on {table!r}.",
                f'If the file is yours: DROP TRIGGER "{name}", then attach it again.',
            )
        if kind == "view" or not root or _has_computed_columns(connection, name):
            raise not_a_table_error(url, name)


def _has_computed_columns(connection: sqlite3.Connection, table: str) -> bool:
    computed = "SELECT 1 FROM pragma_table_xinfo(?) WHERE hidden > 1"
    return connection.execute(computed, [table]).fetchone() is not None
