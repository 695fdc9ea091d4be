"""Damaged rows: a stored value that its column cannot hold, by a disk, another program or a hand.

A reader that meets one raises `DamagedRow`, which names the row. `check` looks for all of them, and its repair moves
each damaged value to a table of its own, ``<session_table>_damaged``, and puts a safe one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.db import codec
from kern_nb.db.schema import Decoded, Tables, UnreadableCell, problem
from kern_nb.errors import DamagedRow

if TYPE_CHECKING:
    from kern_nb.db.connected import Connected

_NAMED = 3
_PORTION = 2_000
_HINT = "store.check(repair=True) sets the value aside, and the rest can be read again."

_KEYS: dict[str, tuple[str, ...]] = {
    "sessions": ("session_id",),
    "runs": ("session_id", "run_index", "run_id"),
    "messages": ("session_id", "run_index", "message_index", "run_id"),
    "tool_calls": ("session_id", "run_index", "tool_call_id", "run_id"),
    "requirements": ("session_id", "requirement_id", "run_id"),
    "scores": ("session_id", "name", "run_id", "score_id"),
    "blobs": ("sha256",),
}
"""What names a row of a table, by attribute of `Tables`."""

_NOUNS = {"session_id": "session", "run_index": "run", "message_index": "message", "tool_call_id": "tool call"}
_NOUNS |= {"requirement_id": "requirement", "name": "score", "sha256": "file"}


def raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column as the driver gives it."""
    return sa.type_coerce(column, sa.types.NullType()).label(column.name)


def decoded(column: sa.Column[Any], value: Any) -> Any:
    """The value of a cell that was read `raw`.

    Raises:
        ValueError: it is damaged.
    """
    kind = column.type
    if value is None or not isinstance(kind, Decoded):
        return value
    return kind.decode(value)


def readable(tables: Tables, attribute: str, row: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A row that was read `raw`, with None in place of damaged values, and the names of their columns."""
    values, damaged, columns = {}, [], getattr(tables, attribute).c
    for name, value in row.items():
        try:
            values[str(name)] = found = decoded(columns[name], value)
            reason = problem(attribute, columns[name], found)
        except ValueError as error:
            reason = str(error)
        if reason is not None:
            values[str(name)] = (
                codec.shown(value) if columns[name].primary_key else None
            )  # a list has to call it something
            damaged.append(str(name))
    return values, tuple(damaged)


# Errors ---------------------------------------------------------------------------------------------------------------


def error_of(store: Connected, cell: UnreadableCell) -> DamagedRow:
    """The error that names the cell and its row, which is looked up where the reader did not have it at hand."""
    tables, column = store.tables, cell.column
    if isinstance(column, tuple):
        column = getattr(tables, column[0]).c[column[1]]
    attribute = None if column is None else _attribute(tables, column.table)
    if column is None or attribute is None:
        return DamagedRow(f"{store.url} is damaged: {cell.reason}.", _HINT)
    if cell.row is not None:
        rows = [describe(attribute, cell.row)]
    else:
        try:
            rows = _rows_with(store, attribute, column, cell.value)
        except Exception:  # noqa: BLE001 - the cell is reported in any case; its row is a help
            rows = []
    where = f" of {' and of '.join(rows)}" if rows else ""
    return DamagedRow(f"{column.table.name}.{column.name}{where} is damaged: {cell.reason}.", _HINT)


def _attribute(tables: Tables, table: Any) -> str | None:
    return next((name for name in _KEYS if getattr(tables, name) is table), None)


def _rows_with(store: Connected, attribute: str, column: sa.Column[Any], value: Any) -> list[str]:
    """The rows that have this very value in the column, some of them."""
    table = column.table
    keys = [raw(table.c[name]) for name in _KEYS[attribute]]
    stored: sa.ColumnElement[Any]
    if isinstance(value, bytes):
        same = sa.cast(sa.type_coerce(column, sa.types.NullType()), sa.LargeBinary) == sa.literal(value, sa.LargeBinary)
    else:
        stored = sa.type_coerce(column, sa.Text() if isinstance(value, str) else sa.types.NullType())
        same = stored == sa.literal(value, sa.Text() if isinstance(value, str) else None)
    with store.connect() as connection:
        found = connection.execute(sa.select(*keys).where(same).limit(_NAMED)).mappings().all()
    return [describe(attribute, row) for row in found]


def describe(attribute: str, row: Mapping[str, Any]) -> str:
    """A row by its keys, in words: ``session 'a', run 0, message 2``."""
    named = [(noun, row[name]) for name, noun in _NOUNS.items() if name in row and name in _KEYS[attribute]]
    return ", ".join(f"{noun} {codec.shown(value)}" for noun, value in named)
