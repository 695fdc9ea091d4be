"""Find every damaged value of a store, and repair it.

A repair moves the value to a table of its own, ``<session_table>_damaged``, and puts a safe value in its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec
from kern_nb.db.column_types import Integer, Json, StoredRow, Text
from kern_nb.db.damaged_rows import KEY_COLUMNS, decode, decode_row, describe_row, raw, read_cell
from kern_nb.db.lineage import CYCLE, NO_FORK
from kern_nb.db.schema import Tables, find_problem

if TYPE_CHECKING:
    from kern_nb.db.database import Database

_BATCH = 2_000


# Find -----------------------------------------------------------------------------------------------------------------


class DamagedCell(NamedTuple):
    """A damaged cell: its value as the driver returns it, and what is wrong with it."""

    column: str
    value: Any
    reason: str


@dataclass(frozen=True)
class RowDamage:
    """The damaged cells of one row of a table, which is an attribute of `Tables`.

    Attributes:
        address: The engine's address of the row.
        row: All its columns as stored.
        values: Its readable values; None for the others.
    """

    attribute: str
    address: Any
    row: StoredRow
    values: Mapping[str, Any]
    cells: tuple[DamagedCell, ...]

    def key(self, name: str) -> str | None:
        """An id of the row as text, even if it is damaged itself."""
        if name not in self.row or self.row[name] is None:
            return None
        value = self.values.get(name)
        return value if isinstance(value, str) else codec.short_repr(self.row[name])


def scan(connection: Connection, tables: Tables) -> Iterator[RowDamage]:
    """Every damaged row of a store. Reads all of it, in batches."""
    for attribute in KEY_COLUMNS:
        # Completed before the connection is used again: some engines have one open result at a time.
        yield from list(_scan_table(connection, tables, attribute))


def _select_with_address(connection: Connection, table: sa.Table) -> sa.Select[Any]:
    """All rows as stored, each with the engine's address of it, which identifies it even if its key is damaged."""
    address = "CAST(ctid AS TEXT)" if connection.dialect.name == "postgresql" else "rowid"
    return sa.select(sa.literal_column(address).label("kern_address"), *map(raw, table.columns))


def _scan_table(connection: Connection, tables: Tables, attribute: str) -> Iterator[RowDamage]:
    table: sa.Table = getattr(tables, attribute)
    names = list(table.columns.keys())
    # By column, what is wrong with NULL: quick for the many values that are.
    checks = [(i, column, find_problem(attribute, column, None)) for i, column in enumerate(table.columns, 1)]
    streamed = connection.dialect.name == "postgresql"
    query = _select_with_address(connection, table)
    result = connection.execute(query, execution_options={"stream_results": True} if streamed else {})
    for row in itertools.chain.from_iterable(result.partitions(_BATCH)):
        cells: list[DamagedCell] = []
        for index, column, null_problem in checks:
            value = row[index]
            problem = null_problem if value is None else read_cell(attribute, column, value)[1]
            if problem is not None:
                cells.append(DamagedCell(column.name, value, problem))
        if attribute in ("sessions", "blobs"):
            stored = dict(zip(names, row[1:], strict=True))
            if (cell := _check_row(attribute, stored, {cell.column for cell in cells})) is not None:
                cells.append(cell)
        if cells:
            yield _row_damage(tables, attribute, row, cells)


def _row_damage(tables: Tables, attribute: str, row: sa.Row[Any], cells: Iterable[DamagedCell]) -> RowDamage:
    stored = dict(zip(getattr(tables, attribute).columns.keys(), row[1:], strict=True))
    values = decode_row(tables, attribute, stored)[0] | dict.fromkeys(cell.column for cell in cells)
    return RowDamage(attribute, row[0], stored, values, tuple(cells))


def _check_row(attribute: str, row: StoredRow, damaged: set[str]) -> DamagedCell | None:
    """What is wrong with a row as a whole: a branch without a branch point, bytes that do not match their hash."""
    if attribute == "sessions":
        is_branch = row["parent_session_id"] is not None and "parent_session_id" not in damaged
        return DamagedCell("fork_run_index", None, NO_FORK) if is_branch and row["fork_run_index"] is None else None
    if damaged & {"sha256", "content"}:
        return None
    content = row["content"]
    if not isinstance(content, (bytes, memoryview, bytearray)):
        return DamagedCell("content", content, "not bytes")
    is_match = hashlib.sha256(content).hexdigest() == row["sha256"]
    return None if is_match else DamagedCell("content", bytes(content), "bytes that do not match their hash")


def _has_address(connection: Connection, address: Any) -> sa.ColumnElement[bool]:
    if connection.dialect.name == "postgresql":
        return sa.literal_column("ctid") == sa.text("CAST(:kern_address AS tid)").bindparams(kern_address=address)
    return sa.literal_column("rowid") == sa.literal(address, sa.BigInteger)


def parent_link(connection: Connection, tables: Tables, session_id: str) -> RowDamage:
    """A branch's link to its parent in a cycle, as damage."""
    s = tables.sessions
    row = connection.execute(_select_with_address(connection, s).where(s.c.session_id == session_id)).one()
    cell = DamagedCell("parent_session_id", row.parent_session_id, CYCLE)
    return _row_damage(tables, "sessions", row, [cell])


# Repair ---------------------------------------------------------------------------------------------------------------


class DamagedValue(NamedTuple):
    """A damaged value that a repair moved out of its row.

    Attributes:
        damage_id: Its id.
        table: The table it was in.
        column: Its column; None if the whole row was moved, which is then the value, by column.
        session_id: The session of the row, if known.
        run_id: The run of the row, if known.
        row: The keys of the row.
        value: The value as it was stored.
        reason: What is wrong with it.
        at: When it was moved.
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


def _damaged_table(tables: Tables) -> sa.Table:
    """The table of damaged values, created by the first repair that needs it."""
    return sa.Table(
        f"{tables.name}_damaged",
        sa.MetaData(schema=tables.metadata.schema),
        sa.Column("damage_id", Text, primary_key=True),
        sa.Column("table_name", Text, nullable=False),
        *(sa.Column(name, Text) for name in ("column_name", "session_id", "run_id")),
        sa.Column("row_name", Text, nullable=False),
        sa.Column("value", Json(any_value=True)),
        sa.Column("reason", Text, nullable=False),
        sa.Column("set_aside_at", Integer, nullable=False),
    )


def load_damaged_values(connection: Connection, tables: Tables) -> list[DamagedValue]:
    """See `SessionStore.damaged_values`."""
    table = _damaged_table(tables)
    if not sa.inspect(connection).has_table(table.name, schema=table.schema):
        return []
    rows = connection.execute(sa.select(table).order_by(table.c.set_aside_at, table.c.damage_id)).all()
    return [DamagedValue._make((*row[:-1], datetime.fromtimestamp(row[-1] / 1_000_000, UTC))) for row in rows]


def delete_damaged_values(
    connection: Connection, tables: Tables, session_id: str, *, run_ids: Collection[str] | None = None
) -> None:
    """Delete the damaged values of a session, or of some of its runs."""
    table = _damaged_table(tables)
    if sa.inspect(connection).has_table(table.name, schema=table.schema):
        of_runs = sa.true() if run_ids is None else table.c.run_id.in_(run_ids)
        connection.execute(table.delete().where(table.c.session_id == session_id, of_runs))


def repair(connection: Connection, store: Database, damage: RowDamage) -> str:
    """Move the damaged cells of a row out of it and put safe values in their place; says where they are now."""
    tables = store.tables
    damaged_table = _damaged_table(tables)
    damaged_table.create(connection, checkfirst=True)
    table: sa.Table = getattr(tables, damage.attribute)
    safe = _SafeValues(connection, tables, damage).compute()
    is_row = _has_address(connection, damage.address)
    moved: list[tuple[str | None, Any, str]]
    if safe is None:
        whole_row = {name: _to_bytes(value) for name, value in damage.row.items() if value is not None}
        moved = [(None, whole_row, "; ".join(f"{cell.column}: {cell.reason}" for cell in damage.cells))]
        connection.execute(table.delete().where(is_row))
    else:
        moved = [*damage.cells]
        cleared = [name for name in safe if name not in {cell.column for cell in damage.cells}]
        reason = "it has no meaning without the damaged value"
        moved += [(name, damage.row[name], reason) for name in cleared if damage.row[name] is not None]
        connection.execute(table.update().where(is_row).values(**safe))
    rows = [
        {
            "damage_id": uuid4().hex[:12],
            "table_name": table.name,
            "column_name": column,
            "session_id": damage.key("session_id"),
            "run_id": damage.key("run_id"),
            "row_name": describe_row(damage.attribute, damage.row) or damage.attribute,
            "value": _to_bytes(value),
            "reason": reason,
            "set_aside_at": int(time.time() * 1_000_000),
        }
        for column, value, reason in moved
    ]
    store.insert_rows(connection, damaged_table, rows)
    subject = "the row is" if safe is None else "the value is"
    return f"{subject} in {damaged_table.name} now, damage_id {', '.join(row['damage_id'] for row in rows)}"


def _to_bytes(value: Any) -> Any:
    return bytes(value) if isinstance(value, (memoryview, bytes, bytearray)) else value


_SAFE_WORDS = {
    "session_type": "agent", "run_type": "agent", "kind": "confirmation", "role": "unknown", "caller": "assistant",
    "name": "unknown",
}  # fmt: skip
_SAFE_STATUSES = {"runs": "INTERRUPTED", "tool_calls": "unknown", "requirements": "expired"}
_FORK_COLUMNS = ("parent_session_id", "fork_run_index", "fork_message_index")


class _UnknownKey(Exception):
    """A key that no other row of the store has."""


class _SafeValues:
    """Replacements for the damaged cells of a row: NULL, a word, or a key that other rows have."""

    def __init__(self, connection: Connection, tables: Tables, damage: RowDamage) -> None:
        self.connection, self.tables, self.damage = connection, tables, damage
        self.values = dict(damage.values)

    def compute(self) -> dict[str, Any] | None:
        """The replacements by column; None if the row cannot stay, because its key is unknown."""
        attribute = self.damage.attribute
        table: sa.Table = getattr(self.tables, attribute)
        safe: dict[str, Any] = {}
        try:
            for cell in self.damage.cells:
                column = table.c[cell.column]
                if cell.column == "status":
                    safe[cell.column] = _SAFE_STATUSES[attribute]
                elif cell.column in _SAFE_WORDS:
                    safe[cell.column] = _SAFE_WORDS[cell.column]
                elif cell.column in _FORK_COLUMNS[:2]:
                    safe |= dict.fromkeys(_FORK_COLUMNS)  # the branch point is unknown: it inherits nothing
                elif cell.column == "fork_message_index":
                    safe.setdefault(cell.column, -1)  # NULL would be all of the run
                elif column.nullable:
                    safe[cell.column] = None
                else:
                    safe[cell.column] = self.values[cell.column] = self._find_key(cell.column)
        except _UnknownKey:
            return None
        return safe

    def _find_key(self, name: str) -> Any:
        """A key of the row, from the rows that belong to it, or a new one if it may be any."""
        attribute, t = self.damage.attribute, self.tables
        if attribute == "blobs":
            content = self.damage.row["content"]
            if name == "size" and isinstance(content, (bytes, memoryview)):
                return len(content)
            raise _UnknownKey
        if attribute == "sessions":
            return self._orphans_session()
        if attribute == "runs" and name == "run_index":
            return self._free_run_index()
        if attribute == "runs":
            by = "run_id" if name == "session_id" else "session_id"
            return self._only_value(name, by, t.messages, t.tool_calls, or_new=name == "run_id")
        if name in ("session_id", "run_index"):
            return self._only_value(name, "run_id", t.runs)
        if name == "run_id":
            return self._only_value(name, "session_id", t.runs)
        if name in ("message_index", "call_index"):
            return self._first_free(t.messages if name == "message_index" else t.tool_calls, name)
        return f"damaged-{uuid4().hex[:8]}"

    def _only_value(self, name: str, by: str, *tables: sa.Table, or_new: bool = False) -> Any:
        """The only value of a column in the rows of other tables that share this row's key ``by``."""
        values: set[Any] = set()
        for table in tables:
            where = [table.c[by] == self.values[by]]
            if by == "session_id":
                if self.values.get("run_index") is None:
                    raise _UnknownKey
                where.append(table.c.run_index == self.values["run_index"])
            if self.values.get(by) is None:
                break
            query = sa.select(raw(table.c[name])).where(*where).distinct().limit(2)
            for value in self.connection.execute(query).scalars():
                with contextlib.suppress(ValueError):
                    values.add(decode(table.c[name], value))
        if name == "run_id" and self.damage.attribute == "runs":
            run_id = self.tables.runs.c.run_id
            values -= set(self.connection.execute(sa.select(run_id).where(run_id.in_(values))).scalars())
        if len(values) != 1 and not or_new:
            raise _UnknownKey
        return values.pop() if len(values) == 1 else str(uuid4())

    def _orphans_session(self) -> str:
        """The only session id that runs have and no session has, or a new one."""
        s, r = self.tables.sessions, self.tables.runs
        query = sa.select(raw(r.c.session_id)).where(r.c.session_id.not_in(sa.select(s.c.session_id))).distinct()
        orphans = [id_ for id_ in self.connection.execute(query.limit(2)).scalars() if isinstance(id_, str)]
        return codec.decode_text(orphans[0]) if len(orphans) == 1 else f"damaged-{uuid4().hex[:8]}"

    def _free_run_index(self) -> int:
        """The index that the run's messages have, if it is free; otherwise the next one."""
        r, m = self.tables.runs, self.tables.messages
        if self.values.get("session_id") is None:
            raise _UnknownKey
        query = sa.select(raw(r.c.run_index)).where(r.c.session_id == self.values["session_id"])
        used = {index for index in self.connection.execute(query).scalars() if isinstance(index, int)}
        if self.values.get("run_id") is not None:
            query = sa.select(raw(m.c.run_index)).where(m.c.run_id == self.values["run_id"]).distinct()
            for index in self.connection.execute(query).scalars():
                if isinstance(index, int) and index >= 0 and index not in used:
                    return index
        return max(used, default=-1) + 1

    def _first_free(self, table: sa.Table, name: str) -> int:
        """The first number from 0 that no row of the run has."""
        if self.values.get("run_id") is None:
            raise _UnknownKey
        query = sa.select(raw(table.c[name])).where(table.c.run_id == self.values["run_id"])
        used = set(self.connection.execute(query).scalars())
        return next(n for n in itertools.count() if n not in used)
