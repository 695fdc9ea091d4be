"""The tables of the OpenAI Agents SDK: sessions, their items, and the structure of an ``AdvancedSQLiteSession``.

The structure has a row for each item of each branch: branches share items. Of several tables of items in a file, one
has a structure, which its foreign key names. A branch has no record of where it comes from: it begins with the same
items. Reading is by session.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables, select_rows
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import is_number, load_json, to_text

MAIN = "main"

_SESSION_COLUMNS = frozenset({"session_id", "created_at", "updated_at"})
_MESSAGE_COLUMNS = frozenset({"id", "session_id", "message_data", "created_at"})
_STRUCTURE, _USAGE = "message_structure", "turn_usage"
_STRUCTURE_COLUMNS = ("message_id", "branch_id", "sequence_number", "user_turn_number", "created_at")
_USAGE_COLUMNS = (
    "branch_id", "user_turn_number", "requests", "input_tokens", "output_tokens", "total_tokens",
    "input_tokens_details", "output_tokens_details",
)  # fmt: skip


class Layout(NamedTuple):
    """A table of items, that of its sessions, and whether the structure is that of these items."""

    messages: str
    sessions: str | None
    has_structure: bool


class Item(NamedTuple):
    """An item of a session.

    Attributes:
        row_id: The id of its row.
        value: The item, decoded.
        key: What identifies its row in every copy of the file.
        created_at: When it was stored.
        turn: The first row of its turn, in a branch.
    """

    row_id: Any
    value: Any
    key: str
    created_at: datetime | None
    turn: Any = None


@dataclass
class Branch:
    """The items of a branch, in order; ``main`` is the session's own line."""

    name: str
    items: list[Item] = field(default_factory=list)
    created_at: datetime | None = None

    @property
    def is_main(self) -> bool:
        """Whether it is the line that a session is opened with."""
        return self.name == MAIN


@dataclass
class StoredSession:
    """A session as the SDK stores it.

    Attributes:
        branches: Its lines, its own first.
        usage: The usage of turns, by the id of the first row of each turn.
        problems: What of it cannot be read.
    """

    session_id: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    branches: list[Branch] = field(default_factory=list)
    usage: dict[Any, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def find_layouts(tables: Tables, connection: AnyConnection | None = None) -> list[Layout]:
    """The tables of items; without a connection, only whether there are any is certain."""
    messages = [name for name, columns in tables.items() if set(columns) >= _MESSAGE_COLUMNS]
    sessions = [name for name, columns in tables.items() if _is_sessions(columns)]
    if not sessions:
        return []
    owner = _referenced(connection, _STRUCTURE, "message_id") if _has_structure(tables) else None
    layouts = []
    for name in messages:
        parent = _referenced(connection, name, "session_id")
        if parent not in sessions:
            by_name = name.removesuffix("messages") + "sessions"
            parent = by_name if by_name in sessions else sessions[0] if len(messages) == len(sessions) == 1 else None
        has_structure = owner == name or (owner is None and len(messages) == 1 and _has_structure(tables))
        layouts.append(Layout(name, parent, has_structure))
    return layouts


def _is_sessions(columns: Collection[str]) -> bool:
    """Whether a table is one of sessions: those of other programs have their own data in them."""
    names = set(columns)
    return names >= _SESSION_COLUMNS and not names & {"session_type", "message_data", "message_id", "branch_id"}


def _has_structure(tables: Tables) -> bool:
    return {"session_id", *_STRUCTURE_COLUMNS} <= set(tables.get(_STRUCTURE, ()))


def _referenced(connection: AnyConnection | None, table: str, column: str) -> str | None:
    """The table that a column of a table refers to, in SQLite."""
    if not isinstance(connection, sqlite3.Connection):
        return None
    query = 'SELECT "table" FROM pragma_foreign_key_list(?) WHERE "from" = ?'
    row = connection.execute(query, [table, column]).fetchone()
    return None if row is None else str(row[0])


@dataclass
class Reader:
    """Reads the sessions of a layout, one at a time."""

    connection: AnyConnection
    tables: Tables
    layout: Layout
    schema: str | None = None

    def session_rows(self) -> list[dict[str, Any]]:
        """The rows of the sessions, oldest first, and the ids of those that have items only."""
        rows: dict[str, dict[str, Any]] = {}
        if self.layout.sessions is not None:
            columns = sorted(_SESSION_COLUMNS)
            for row in self._select(self.layout.sessions, columns, order=("created_at", "session_id")):
                if to_text(row["session_id"]) is not None:
                    rows.setdefault(row["session_id"], row)
        owners = self._select(self.layout.messages, ["session_id"])
        for name in dict.fromkeys(row["session_id"] for row in owners):
            # Without this table's own sessions, these are all that is known of them.
            if to_text(name) is not None:
                rows.setdefault(name, {"session_id": name})
        return list(rows.values())

    def load(self, row: dict[str, Any]) -> StoredSession:
        """Load a session with its items."""
        session = StoredSession(row["session_id"], _to_time(row.get("created_at")), _to_time(row.get("updated_at")))
        items = self._load_items(session)
        structure = self._load_structure(session.session_id)
        if not structure:
            session.branches = [Branch(MAIN, list(items.values()))]
            return session
        first_rows: dict[tuple[Any, Any], Any] = {}
        branches: dict[str, Branch] = {}
        for entry in structure:
            name, message_id = str(entry["branch_id"]), entry["message_id"]
            turn = first_rows.setdefault((name, entry["user_turn_number"]), message_id)
            branch = branches.setdefault(name, Branch(name, [], _to_time(entry["created_at"])))
            if message_id in items:
                branch.items.append(items[message_id]._replace(turn=turn))
        if (main := branches.get(MAIN)) is not None:
            main.created_at = None  # the session's own time is meant
        session.branches = sorted(branches.values(), key=lambda branch: not branch.is_main)
        for entry in self._load_usage(session.session_id):
            if (turn := first_rows.get((str(entry["branch_id"]), entry["user_turn_number"]))) is not None:
                session.usage[turn] = {name: value for name, value in entry.items() if value is not None}
        unused = items.keys() - {entry["message_id"] for entry in structure}
        if unused:
            session.problems.append(f"{len(unused)} items are in none of its branches, and are not imported")
        return session

    def _load_items(self, session: StoredSession) -> dict[Any, Item]:
        items: dict[Any, Item] = {}
        columns = ["id", "message_data", "created_at"]
        for row in self._select(self.layout.messages, columns, session.session_id, order=("id",)):
            data = row["message_data"]
            try:
                value = json.loads(data) if isinstance(data, (str, bytes)) else data
            except (ValueError, RecursionError) as error:
                session.problems.append(f"item {row['id']} is not valid JSON: {error}")
                continue
            time = _to_time(row["created_at"])
            key = hash_record(session.session_id, row["id"], None if time is None else time.isoformat(), str(data))
            items[row["id"]] = Item(row["id"], value, key, time)
        return items

    def _load_structure(self, session_id: str) -> list[dict[str, Any]]:
        if not self.layout.has_structure:
            return []
        rows = list(self._select(_STRUCTURE, _STRUCTURE_COLUMNS, session_id))
        return sorted(rows, key=lambda row: row["sequence_number"] if is_number(row["sequence_number"]) else 0)

    def _load_usage(self, session_id: str) -> Iterator[dict[str, Any]]:
        columns = self.tables.get(_USAGE, ())
        if not {"session_id", "branch_id", "user_turn_number"} <= set(columns):
            return
        for row in self._select(_USAGE, [name for name in _USAGE_COLUMNS if name in columns], session_id):
            yield {name: load_json(value) if name.endswith("_details") else value for name, value in row.items()}

    def _select(
        self, table: str, columns: Any, session_id: str | None = None, order: tuple[str, ...] = ()
    ) -> Iterator[dict[str, Any]]:
        where = None if session_id is None else {"session_id": session_id}
        return select_rows(self.connection, table, columns, where=where, order=order, schema=self.schema)


def _to_time(value: Any) -> datetime | None:
    """A time, which the databases keep in UTC without a zone."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return parse_time(value)
