"""Damaged rows: a stored value that its column cannot hold, written by a failing disk, another program or a person.

Reading one raises `DamagedRow`, which names the row; a list of many rows leaves it out. `damage_repair` finds and
repairs all of them.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.db import codec
from kern_nb.db.column_types import StoredRow, UnreadableCell, ValidatedType
from kern_nb.db.schema import Tables, find_problem
from kern_nb.errors import DamagedRow

if TYPE_CHECKING:
    from kern_nb.db.database import Database

_MAX_ROWS = 3
HINT = "store.check(repair=True) moves the value out of the table; then the rest can be read."

KEY_COLUMNS: dict[str, tuple[str, ...]] = {
    "sessions": ("session_id",),
    "runs": ("session_id", "run_index", "run_id"),
    "messages": ("session_id", "run_index", "message_index", "run_id"),
    "tool_calls": ("session_id", "run_index", "tool_call_id", "run_id"),
    "requirements": ("session_id", "requirement_id", "run_id"),
    "scores": ("session_id", "name", "run_id", "score_id"),
    "blobs": ("sha256",),
}
"""The columns that identify a row, by attribute of `Tables`."""

_NOUNS = {"session_id": "session", "run_index": "run", "message_index": "message", "tool_call_id": "tool call"}
_NOUNS |= {"requirement_id": "requirement", "name": "score", "sha256": "file"}


def raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column as the driver returns it."""
    return sa.type_coerce(column, sa.types.NullType()).label(column.name)


def decode(column: sa.Column[Any], value: Any) -> Any:
    """The value of a cell that was selected `raw`.

    Raises:
        ValueError: It is damaged.
    """
    return value if value is None or not isinstance(column.type, ValidatedType) else column.type.decode(value)


def read_cell(attribute: str, column: sa.Column[Any], value: Any) -> tuple[Any, str | None]:
    """The value of a cell that was selected `raw`, and what is wrong with it, if it is damaged."""
    if value is None and column.nullable:  # most cells of a list
        return None, None
    try:
        decoded = decode(column, value)
    except ValueError as error:
        return None, str(error)
    return decoded, find_problem(attribute, column, decoded)


def decode_row(tables: Tables, attribute: str, row: StoredRow) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A row that was selected `raw`, with None for damaged values, and the names of their columns.

    A damaged primary key is its repr, as a list has to name the row.
    """
    values, damaged, columns = {}, [], getattr(tables, attribute).c
    for name, value in row.items():
        column = columns[name]
        decoded, problem = read_cell(attribute, column, value)
        if problem is not None:
            decoded = codec.short_repr(value) if column.primary_key else None
            damaged.append(str(name))
        values[str(name)] = decoded
    return values, tuple(damaged)


def report_damage(store: Database, attribute: str, row: StoredRow, *, only: str | None) -> None:
    """Warn of a damaged row, selected `raw`, that a list of all sessions leaves out.

    Raises:
        UnreadableCell: Only one session or run is listed, named by ``only``.
    """
    for name, value in row.items():
        column = getattr(store.tables, attribute).c[name]
        _, reason = read_cell(attribute, column, value)
        if reason is not None:
            cell = UnreadableCell(column, value, reason, row)
            if only is not None:
                raise cell
            error = damaged_row_error(store, cell)
            warnings.warn(f"{error} It is left out. {error.hint}", stacklevel=2)


def damaged_row_error(store: Database, cell: UnreadableCell) -> DamagedRow:
    """The error that names the cell and its row, which is looked up if the reader does not have it."""
    tables, column = store.tables, cell.column
    if isinstance(column, tuple):
        column = getattr(tables, column[0]).c[column[1]]
    owners = [] if column is None else [name for name in KEY_COLUMNS if getattr(tables, name) is column.table]
    if column is None or not owners:
        return DamagedRow(f"{store.url} is damaged: {cell.reason}.", HINT)
    rows = []
    if cell.row is not None:
        rows = [describe_row(owners[0], cell.row)]
    else:
        with contextlib.suppress(Exception):  # the cell is reported in any case; its row is a help
            rows = _find_rows(store, owners[0], column, cell.value)
    suffix = f" of {' and of '.join(rows)}" if rows else ""
    return DamagedRow(f"{column.table.name}.{column.name}{suffix} is damaged: {cell.reason}.", HINT)


def _find_rows(store: Database, attribute: str, column: sa.Column[Any], value: Any) -> list[str]:
    """Some of the rows that have this exact value in the column."""
    keys = [raw(column.table.c[name]) for name in KEY_COLUMNS[attribute]]
    stored: sa.ColumnElement[Any] = sa.type_coerce(column, sa.Text() if isinstance(value, str) else sa.types.NullType())
    same = stored == sa.literal(value, sa.Text() if isinstance(value, str) else None)
    if isinstance(value, bytes):
        same = sa.cast(stored, sa.LargeBinary) == sa.literal(value, sa.LargeBinary)
    with store.connect() as connection:
        rows = connection.execute(sa.select(*keys).where(same).limit(_MAX_ROWS)).mappings().all()
    return [describe_row(attribute, row) for row in rows]


def describe_row(attribute: str, row: StoredRow) -> str:
    """A row by its keys: ``session 'a', run 0, message 2``."""
    keys = [(noun, row[name]) for name, noun in _NOUNS.items() if name in row and name in KEY_COLUMNS[attribute]]
    return ", ".join(f"{noun} {codec.short_repr(value)}" for noun, value in keys)
