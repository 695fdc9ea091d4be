"""Damaged rows: a stored value that its column cannot hold, by a disk, another program or a hand.

A reader that meets one raises `DamagedRow`, which names the row. `check` looks for all of them, and its repair moves
each damaged value to a table of its own, ``<session_table>_damaged``, and puts a safe one in its place.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec
from kern_nb.db.schema import Decoded, Json, StoredRow, Tables, Text, UnreadableCell, Whole, problem
from kern_nb.errors import DamagedRow

if TYPE_CHECKING:
    from kern_nb.db.database import Database

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


def readable(tables: Tables, attribute: str, row: StoredRow) -> tuple[dict[str, Any], tuple[str, ...]]:
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


def require_readable(store: Database, attribute: str, row: StoredRow, *, only: str | None) -> None:
    """A damaged row that a list leaves out: an error where the list is of its session, a warning where it is of all.

    Args:
        store: The store.
        attribute: The table.
        row: The row, read `raw`.
        only: What the list is of; None is all.

    Raises:
        UnreadableCell: it is.
    """
    for name, value in row.items():
        column = getattr(store.tables, attribute).c[name]
        try:
            reason = problem(attribute, column, decoded(column, value))
        except ValueError as error:
            reason = str(error)
        if reason is not None:
            cell = UnreadableCell(column, value, reason, row)
            if only is not None:
                raise cell
            told = error_of(store, cell)
            warnings.warn(f"{told} It is left out. {told.hint}", stacklevel=2)


# Errors ---------------------------------------------------------------------------------------------------------------


def error_of(store: Database, cell: UnreadableCell) -> DamagedRow:
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


def _rows_with(store: Database, attribute: str, column: sa.Column[Any], value: Any) -> list[str]:
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


def describe(attribute: str, row: StoredRow) -> str:
    """A row by its keys, in words: ``session 'a', run 0, message 2``."""
    named = [(noun, row[name]) for name, noun in _NOUNS.items() if name in row and name in _KEYS[attribute]]
    return ", ".join(f"{noun} {codec.shown(value)}" for noun, value in named)


# Looking for all of them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A damaged cell.

    Attributes:
        column: Its column's name.
        value: What is stored, as the driver gives it.
        reason: What is wrong with it.
    """

    column: str
    value: Any
    reason: str


@dataclass(frozen=True)
class DamagedCells:
    """The damaged cells of one row.

    Attributes:
        attribute: The table, by attribute of `Tables`.
        address: Where the row is, as the engine has it.
        row: All its columns as stored.
        values: What can be read of it; None in place of the rest.
        cells: The damaged cells.
    """

    attribute: str
    address: Any
    row: StoredRow
    values: Mapping[str, Any]
    cells: tuple[Cell, ...]

    def key(self, name: str) -> str | None:
        """An id of the row as text, also where it is damaged itself."""
        if name not in self.row or self.row[name] is None:
            return None
        value = self.values.get(name)
        return value if isinstance(value, str) else codec.shown(self.row[name])


def scan(connection: Connection, tables: Tables) -> Iterator[DamagedCells]:
    """Every damaged row of a store. All of it is read, a portion at a time."""
    for attribute in _KEYS:
        # Before anything else is asked of the connection: some engines have one result at a time.
        yield from list(_scan_table(connection, tables, attribute))


def _scan_table(connection: Connection, tables: Tables, attribute: str) -> Iterator[DamagedCells]:
    table: sa.Table = getattr(tables, attribute)
    columns = list(table.columns)
    looks = [(place, column, _look(attribute, column)) for place, column in enumerate(columns, 1)]
    query = sa.select(_address(connection).label("kern_address"), *map(raw, columns))
    streamed = connection.dialect.name == "postgresql"
    result = connection.execute(query, execution_options={"stream_results": True} if streamed else {})
    for portion in result.partitions(_PORTION):
        for row in portion:
            cells: list[Cell] = [
                Cell(column.name, row[place], reason)
                for place, column, look in looks
                if (reason := look(row[place])) is not None
            ]
            stored: dict[str, Any] = {}
            if cells or attribute in _ACROSS:
                stored = {column.name: row[place] for place, column in enumerate(columns, 1)}
            if attribute in _ACROSS:
                cells += _ACROSS[attribute](stored, {cell.column for cell in cells})
            if cells:
                values, _ = readable(tables, attribute, stored)
                values |= dict.fromkeys(cell.column for cell in cells)
                yield DamagedCells(attribute, row[0], stored, values, tuple(cells))


def _look(attribute: str, column: sa.Column[Any]) -> Callable[[Any], str | None]:
    """What says why a value as stored is damaged, None where it is sound."""
    missing = problem(attribute, column, None)

    def look(value: Any) -> str | None:
        if value is None:
            return missing
        try:
            return problem(attribute, column, decoded(column, value))
        except ValueError as error:
            return str(error)

    return look


def _session_across(row: StoredRow, damaged: set[str]) -> list[Cell]:
    """A branch says from where on it goes its own way."""
    if row["parent_session_id"] is None or row["fork_run_index"] is not None or "parent_session_id" in damaged:
        return []
    return [Cell("fork_run_index", None, "NULL where a branch says what it inherits")]


def _blob_across(row: StoredRow, damaged: set[str]) -> list[Cell]:
    """Bytes are stored under their hash."""
    if damaged & {"sha256", "content"}:
        return []
    content = row["content"]
    if not isinstance(content, (bytes, memoryview, bytearray)):
        return [Cell("content", content, "something else where bytes belong")]
    if hashlib.sha256(content).hexdigest() == row["sha256"]:
        return []
    return [Cell("content", bytes(content), "bytes that do not match their hash")]


_ACROSS: dict[str, Callable[[Mapping[str, Any], set[str]], list[Cell]]] = {
    "sessions": _session_across,
    "blobs": _blob_across,
}


def _address(connection: Connection) -> sa.ColumnElement[Any]:
    """Where a row is: it can be named even where its key is damaged."""
    return sa.literal_column("CAST(ctid AS TEXT)" if connection.dialect.name == "postgresql" else "rowid")


def _at(connection: Connection, address: Any) -> sa.ColumnElement[bool]:
    if connection.dialect.name == "postgresql":
        return sa.literal_column("ctid") == sa.text("CAST(:kern_address AS tid)").bindparams(kern_address=address)
    return sa.literal_column("rowid") == sa.literal(address, sa.BigInteger)


def link_of(connection: Connection, tables: Tables, session_id: str) -> DamagedCells:
    """The link of a branch to its parent as damaged cells."""
    s = tables.sessions
    query = sa.select(_address(connection).label("kern_address"), *map(raw, s.columns))
    row = connection.execute(query.where(s.c.session_id == session_id)).one()
    stored = {column.name: row[place] for place, column in enumerate(s.columns, 1)}
    cell = Cell("parent_session_id", stored["parent_session_id"], "its parents form a cycle")
    return DamagedCells("sessions", row[0], stored, readable(tables, "sessions", stored)[0], (cell,))


# Setting aside --------------------------------------------------------------------------------------------------------


class SetAside(NamedTuple):
    """A damaged value that a repair took out of its row.

    Attributes:
        damage_id: Its id.
        table: The table it was in.
        column: Its column; None where the whole row was taken out, which is then the value, by column.
        session_id: The session of the row, where that is known.
        run_id: The run, likewise.
        row: What named the row.
        value: The value as it was stored.
        reason: What was wrong with it.
        at: When it was set aside.
    """

    damage_id: str
    table: str
    column: str | None
    session_id: str | None
    run_id: str | None
    row: str
    value: Any
    reason: str
    at: datetime


def _aside(tables: Tables) -> sa.Table:
    """The table of values that were set aside; it is made by the first repair that needs it."""
    metadata = sa.MetaData(schema=tables.metadata.schema)
    return sa.Table(
        f"{tables.name}_damaged",
        metadata,
        sa.Column("damage_id", Text, primary_key=True),
        sa.Column("table_name", Text, nullable=False),
        sa.Column("column_name", Text),
        sa.Column("session_id", Text),
        sa.Column("run_id", Text),
        sa.Column("row_name", Text, nullable=False),
        sa.Column("value", Json(any_value=True)),
        sa.Column("reason", Text, nullable=False),
        sa.Column("set_aside_at", Whole, nullable=False),
    )


def set_aside_values(connection: Connection, tables: Tables) -> list[SetAside]:
    """See `SessionStore.damaged_values`."""
    aside = _aside(tables)
    if not sa.inspect(connection).has_table(aside.name, schema=aside.schema):
        return []
    query = sa.select(aside).order_by(aside.c.set_aside_at, aside.c.damage_id)
    found = connection.execute(query).all()
    return [SetAside._make((*row[:-1], datetime.fromtimestamp(row[-1] / 1_000_000, UTC))) for row in found]


def forget(connection: Connection, tables: Tables, session_id: str) -> None:
    """Delete what was set aside of a session."""
    aside = _aside(tables)
    if sa.inspect(connection).has_table(aside.name, schema=aside.schema):
        connection.execute(aside.delete().where(aside.c.session_id == session_id))


def repair(connection: Connection, store: Database, damaged: DamagedCells) -> str:
    """Set the damaged cells of a row aside and put safe values in their place; where they are now, in words."""
    tables = store.tables
    aside = _aside(tables)
    aside.create(connection, checkfirst=True)
    table: sa.Table = getattr(tables, damaged.attribute)
    safe = _Safe(connection, tables, damaged).values()
    here = _at(connection, damaged.address)
    if safe is None:
        reason = "; ".join(f"{cell.column}: {cell.reason}" for cell in damaged.cells)
        whole_row = {name: _plain(value) for name, value in damaged.row.items() if value is not None}
        rows = [_aside_row(table, damaged, None, whole_row, reason)]
        connection.execute(table.delete().where(here))
    else:
        rows = [_aside_row(table, damaged, cell.column, _plain(cell.value), cell.reason) for cell in damaged.cells]
        also = [name for name in safe if name not in {cell.column for cell in damaged.cells}]
        rows += [
            _aside_row(table, damaged, name, _plain(damaged.row[name]), "it says nothing without the value beside it")
            for name in also
            if damaged.row[name] is not None
        ]
        connection.execute(table.update().where(here).values(**safe))
    store.insert_rows(connection, aside, rows)
    what = "the row is" if safe is None else "the value is"
    return f"{what} in {aside.name} now, damage_id {', '.join(row['damage_id'] for row in rows)}"


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, (memoryview, bytes, bytearray)) else value


def _aside_row(table: sa.Table, damaged: DamagedCells, column: str | None, value: Any, reason: str) -> dict[str, Any]:
    return {
        "damage_id": uuid4().hex[:12],
        "table_name": table.name,
        "column_name": column,
        "session_id": damaged.key("session_id"),
        "run_id": damaged.key("run_id"),
        "row_name": describe(damaged.attribute, damaged.row) or damaged.attribute,
        "value": value,
        "reason": reason,
        "set_aside_at": int(time.time() * 1_000_000),
    }


_WORD_INSTEAD = {
    "session_type": "agent", "run_type": "agent", "kind": "confirmation", "role": "unknown", "caller": "assistant",
    "name": "unknown",
}  # fmt: skip
_STATUS_INSTEAD = {"runs": "INTERRUPTED", "tool_calls": "unknown", "requirements": "expired"}
_FORK = ("parent_session_id", "fork_run_index", "fork_message_index")


class _Unknown(Exception):
    """A key that nothing else in the store tells."""


class _Safe:
    """What takes the place of the damaged cells of a row: NULL, a word, or a key that other rows tell."""

    def __init__(self, connection: Connection, tables: Tables, damaged: DamagedCells) -> None:
        self.connection, self.tables, self.damaged = connection, tables, damaged
        self.known = dict(damaged.values)

    def values(self) -> dict[str, Any] | None:
        """The values by column; None where the row cannot stay, as its key cannot be told."""
        attribute = self.damaged.attribute
        table: sa.Table = getattr(self.tables, attribute)
        safe: dict[str, Any] = {}
        try:
            for cell in self.damaged.cells:
                column = table.c[cell.column]
                if cell.column == "status":
                    safe[cell.column] = _STATUS_INSTEAD[attribute]
                elif cell.column in _WORD_INSTEAD and not (attribute == "sessions" and cell.column == "name"):
                    safe[cell.column] = _WORD_INSTEAD[cell.column]
                elif attribute == "blobs":
                    safe[cell.column] = self._of_blob(cell.column)
                elif attribute == "sessions" and cell.column in _FORK[:2]:
                    safe |= dict.fromkeys(_FORK)  # where a branch begins is not known: it inherits nothing
                elif cell.column == "fork_message_index":
                    safe.setdefault(cell.column, -1)  # NULL would be all of the run
                elif column.nullable:
                    safe[cell.column] = None
                else:
                    safe[cell.column] = self.known[cell.column] = self._key(cell.column)
        except _Unknown:
            return None
        if safe.get("parent_session_id", "") is None:
            safe |= dict.fromkeys(_FORK)
        return safe

    def _of_blob(self, name: str) -> Any:
        content = self.damaged.row["content"]
        if name == "media_type":
            return None
        if name == "size" and isinstance(content, (bytes, memoryview)):
            return len(content)
        raise _Unknown

    def _key(self, name: str) -> Any:
        """A key of the row, as the rows that belong to it tell it, or a new one where it may be any."""
        attribute, t = self.damaged.attribute, self.tables
        if attribute == "sessions":
            return self._session_of_orphans()
        if attribute == "runs":
            if name == "run_index":
                return self._free_run_index()
            by = "run_id" if name == "session_id" else "session_id"
            return self._one(
                name, by, *(table for table in (t.messages, t.tool_calls) if by in table.c), fresh=name == "run_id"
            )
        if name in ("session_id", "run_index"):
            return self._one(name, "run_id", t.runs)
        if name == "run_id":
            return self._one(name, "session_id", t.runs)
        if name == "message_index":
            return self._first_free(t.messages, name)
        if name == "call_index":
            return self._first_free(t.tool_calls, name)
        return f"damaged-{uuid4().hex[:8]}"

    def _one(self, name: str, by: str, *tables: sa.Table, fresh: bool = False) -> Any:
        """The one value of a column in the rows of other tables that share what is known of this row."""
        found: set[Any] = set()
        for table in tables:
            where = [table.c[by] == self.known[by]]
            if by == "session_id" and "run_index" in table.c:
                if self.known.get("run_index") is None:
                    raise _Unknown
                where.append(table.c.run_index == self.known["run_index"])
            if self.known.get(by) is None:
                break
            query = sa.select(raw(table.c[name])).where(*where).distinct().limit(2)
            for value in self.connection.execute(query).scalars():
                try:
                    found.add(decoded(table.c[name], value))
                except ValueError:
                    continue
        if name == "run_id" and self.damaged.attribute == "runs":
            taken = self.tables.runs.c.run_id
            found = {
                one for one in found if self.connection.execute(sa.select(taken).where(taken == one)).first() is None
            }
        if len(found) == 1:
            return found.pop()
        if fresh:
            return str(uuid4())
        raise _Unknown

    def _session_of_orphans(self) -> str:
        s, r = self.tables.sessions, self.tables.runs
        orphans = sa.select(raw(r.c.session_id)).where(r.c.session_id.not_in(sa.select(s.c.session_id))).distinct()
        found = [one for one in self.connection.execute(orphans.limit(2)).scalars() if isinstance(one, str)]
        return codec.decode_text(found[0]) if len(found) == 1 else f"damaged-{uuid4().hex[:8]}"

    def _free_run_index(self) -> int:
        """The index that the run's messages know, where it is free; else the next one."""
        r, m = self.tables.runs, self.tables.messages
        if self.known.get("session_id") is None:
            raise _Unknown
        own = sa.select(raw(r.c.run_index)).where(r.c.session_id == self.known["session_id"])
        taken = {one for one in self.connection.execute(own).scalars() if isinstance(one, int)}
        if self.known.get("run_id") is not None:
            told = sa.select(raw(m.c.run_index)).where(m.c.run_id == self.known["run_id"]).distinct()
            for one in self.connection.execute(told).scalars():
                if isinstance(one, int) and one >= 0 and one not in taken:
                    return one
        return max(taken, default=-1) + 1

    def _first_free(self, table: sa.Table, name: str) -> int:
        """The first number from 0 that no row of the run has."""
        if self.known.get("run_id") is None:
            raise _Unknown
        query = sa.select(raw(table.c[name])).where(table.c.run_id == self.known["run_id"])
        taken = set(self.connection.execute(query).scalars())
        return next(n for n in itertools.count() if n not in taken)
