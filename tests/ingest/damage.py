"""Damaged versions of recorded files, and what must hold when one is imported. For tests and stress scripts."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kern_nb.db import SqliteDb
from kern_nb.errors import KernError
from kern_nb.ingest.parsing import zip_members
from kern_nb.ingest_report import IngestReport

KEEPING = ("gemini_cli", "otel", "pi", "qwen_code")
"""Formats whose damaged later version of a file takes nothing from what an earlier one had."""

WRONG_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, 10**30, 1.5, 1e308, "", "x", "\x00", "\ud800", "2999-13-45", "user", [], {}, [[]]),
    *([None], ["user"], [{}], {"x": {"y": []}}, {"type": "text"}, [{"type": "text", "text": 5}]),
)
"""Values that replace a part of a record."""


@dataclass
class Damage:
    """A damaged version of a file.

    Attributes:
        kind: What was done to it.
        place: Where: an offset, the number of a record.
        data: Its content.
        intact_before: The content of the file up to the damage, whose records must all be stored; None if unknown.
    """

    kind: str
    place: int
    data: bytes
    intact_before: bytes | None = None


def damages(name: str, data: bytes, n: int, seed: int = 1) -> Iterator[Damage]:
    """Yield ``n`` damaged versions of a file: truncated, torn, with records and cells of wrong types."""
    rng = random.Random(f"{name} {seed}")
    kinds = [_truncated, _torn, _changed_bytes]
    if data.startswith(b"SQLite"):
        kinds += [_mistyped_cell, _mistyped_cell, _mistyped_cell, _without_rows]
    elif data.startswith(b"PK"):
        kinds += [_mistyped_member] * 3
    else:
        kinds += [_mistyped_record] * 3 + [_without_record, _repeated_record]
    for number in range(n):
        damaged = kinds[number % len(kinds)](data, rng)
        if damaged is not None and damaged.data != data:
            yield damaged


def _complete_lines(data: bytes, offset: int) -> bytes | None:
    """The lines before an offset; None if the file is not JSON lines."""
    lines = data[:offset].split(b"\n")[:-1]
    try:
        for line in data.split(b"\n")[:3]:
            if line.strip():
                json.loads(line)
    except ValueError:
        return None
    return b"\n".join(lines) + b"\n" if len(lines) > 1 else None


def _truncated(data: bytes, rng: random.Random) -> Damage:
    offset = rng.randrange(1, len(data))
    return Damage("truncated", offset, data[:offset], _complete_lines(data, offset))


def _torn(data: bytes, rng: random.Random) -> Damage:
    offset = rng.randrange(len(data))
    return Damage("torn", offset, data[:offset] + data[offset + rng.randrange(1, 200) :], _complete_lines(data, offset))


def _changed_bytes(data: bytes, rng: random.Random) -> Damage:
    changed = bytearray(data)
    offset = rng.randrange(len(data))
    if rng.random() < 0.3:  # a block that the disk lost
        end = min(len(data), offset + rng.randrange(1, 600))
        changed[offset:end] = bytes(end - offset)
    else:
        changed[offset] = rng.randrange(256)
    return Damage("changed bytes", offset, bytes(changed), _complete_lines(data, offset))


def records_of(data: bytes) -> tuple[list[Any], bool]:
    """The records of a JSON file, and whether they are lines."""
    text = data.decode()
    try:
        return [json.loads(text)], False
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()], True


def to_data(records: list[Any], *, are_lines: bool) -> bytes:
    """The content of a JSON file."""
    texts = [json.dumps(record, ensure_ascii=i % 2 == 0) for i, record in enumerate(records)]
    return ("\n".join(texts) + "\n" * are_lines).encode("utf-8", "surrogatepass")


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with the key or index of each of its items, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _parts(item)


def mistype(value: Any, rng: random.Random) -> None:
    """Replace or remove one to three random parts of a JSON value."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        parts = list(_parts(value))
        if not parts:
            return
        parent, key = rng.choice(parts)
        kind = rng.random()
        if isinstance(parent, dict) and kind < 0.2:
            del parent[key]
        elif kind < 0.3 and isinstance(parent[key], (list, dict)):
            parent[key] = json.dumps(parent[key])
        elif kind < 0.4:
            parent[key] = [parent[key]]
        elif kind < 0.45:
            parent[key] = {"value": parent[key]}
        else:
            parent[key] = copy.deepcopy(rng.choice(WRONG_VALUES))


def _mistyped_record(data: bytes, rng: random.Random) -> Damage:
    records, are_lines = records_of(data)
    place = rng.randrange(len(records))
    before = to_data(records[:place], are_lines=True) if are_lines and place > 1 else None
    if rng.random() < 0.1:
        records[place] = copy.deepcopy(rng.choice(WRONG_VALUES))
    else:
        mistype(records[place], rng)
    return Damage("wrong type", place, to_data(records, are_lines=are_lines), before)


def _without_record(data: bytes, rng: random.Random) -> Damage:
    records, are_lines = records_of(data)
    containers = [records] if are_lines else [value for value in _containers(records) if len(value) > 1] or [records]
    container = rng.choice(containers)
    place = rng.randrange(len(container))
    del container[place]
    before = to_data(records[:place], are_lines=True) if are_lines and place > 1 else None
    return Damage("without record", place, to_data(records, are_lines=are_lines), before)


def _repeated_record(data: bytes, rng: random.Random) -> Damage:
    records, are_lines = records_of(data)
    containers = [records] if are_lines else [value for value in _containers(records) if len(value) > 1] or [records]
    container = rng.choice(containers)
    place, target = rng.randrange(len(container)), rng.randrange(len(container))
    container.insert(target, copy.deepcopy(container[place]))
    if rng.random() < 0.3:
        rng.shuffle(container)
    return Damage("repeated record", place, to_data(records, are_lines=are_lines))


def _containers(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list) and value:
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _containers(item)


def _open(data: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data[:18] + b"\1\1" + data[20:])  # not in WAL mode, which needs a file
    return connection


def _mistyped_cell(data: bytes, rng: random.Random) -> Damage | None:
    connection = _open(data)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    tables = [name for name in tables if "fts" not in name and not name.startswith("sqlite_")]
    filled = [name for name in tables if connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]]
    table = rng.choice(filled)
    column = rng.choice([row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')])
    [(rowid, old)] = rng.sample(connection.execute(f'SELECT rowid, "{column}" FROM "{table}"').fetchall(), 1)
    new = rng.choice((None, "", "x", -1, 2**62, 1.5e300, b"\x00\xff", "{}", "[]", "null", b"\x81\xa1", "[[", "\x00"))
    if isinstance(old, str) and old[:1] in ("{", "[") and rng.random() < 0.8:
        value = json.loads(old)
        mistype(value, rng)
        new = json.dumps(value)
    elif isinstance(old, (bytes, str)) and old and rng.random() < 0.5:
        new = old[: rng.randrange(len(old))]
    try:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (new, rowid))
        connection.commit()
    except sqlite3.Error:
        return None
    return Damage(f"wrong type in {table}.{column}", rowid, connection.serialize())


def _without_rows(data: bytes, rng: random.Random) -> Damage | None:
    connection = _open(data)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    table = rng.choice([name for name in tables if "fts" not in name and not name.startswith("sqlite_")])
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    kind = rng.random()
    try:
        if kind < 0.3:
            connection.execute(f'DROP TABLE "{table}"')
        elif kind < 0.6:
            connection.execute(f'ALTER TABLE "{table}" DROP COLUMN "{rng.choice(columns)}"')
        else:
            connection.execute(f'DELETE FROM "{table}" WHERE rowid % 2')
        connection.commit()
    except sqlite3.Error:
        return None
    return Damage(f"without rows of {table}", 0, connection.serialize())


def _mistyped_member(data: bytes, rng: random.Random) -> Damage:
    """A zip archive, deflated, with a damaged member."""
    with tempfile.NamedTemporaryFile() as file:  # `zipfile` cannot read all of them
        file.write(data)
        file.flush()
        path = Path(file.name)
        members = {member.name: zip_members.read_member(path, member) for member in zip_members.list_members(path)}
    name = rng.choice(list(members))
    kind = rng.random()
    if kind < 0.2:
        del members[name]
    elif kind < 0.4:
        members[name] = members[name][: rng.randrange(len(members[name]))]
    else:
        value = json.loads(members[name])
        mistype(value, rng)
        members[name] = json.dumps(value).encode("utf-8", "surrogatepass")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return Damage(f"member {name}", 0, target.getvalue())


# What must hold ---------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """The messages of the damaged file and of the intact one, for a report about what a damage costs."""

    damaged: int
    intact: int
    is_refused: bool


class Inspector:
    """Imports damaged versions of a file and looks for what must not be.

    Attributes:
        folder: A folder for the file and the store.
        name: The name of the file.
        intact: Its content.
    """

    def __init__(self, folder: Path, name: str, intact: bytes) -> None:
        self.folder, self.name, self.intact = folder, name, intact
        self.contents = self._contents_of(intact)
        self.figures = Figures(0, len(self.contents), is_refused=False)

    def inspect(self, damage: Damage) -> list[str]:
        """Import the damaged file, again, then the intact file; return what does not hold."""
        faults: list[str] = []
        with self._new_store() as store:
            is_refused = self._ingest(store, damage.data) is None
            faults += _check(store, "damaged")
            before = _rows_of(store)
            self.figures = Figures(len(_contents_of(store)), len(self.contents), is_refused)
            if not is_refused:
                again = self._ingest(store, damage.data)
                assert again is not None
                if again.sessions or again.runs or again.messages or again.tool_calls or again.branches:
                    faults.append(f"again: {again.sessions} sessions, {again.runs} runs, {again.messages} messages")
                if _rows_of(store) != before:
                    faults.append("again: rows have changed")
            imported = _contents_of(store)
            self._ingest(store, self.intact)
            faults += _check(store, "intact after damaged")
            if missing := self.contents - _contents_of(store):
                faults.append(f"intact after damaged: {len(missing)} of {len(self.contents)} messages are missing")
            if self._ingest(store, self.intact).runs:
                faults.append("intact after damaged, again: runs are new")
        faults += self._inspect_later(damage)
        if damage.intact_before is not None:
            expected = self._contents_of(damage.intact_before)
            # A message that the cut ends is not compared: it may consist of several records.
            if missing := (expected & self.contents) - imported:
                faults.append(f"{len(missing)} of {len(expected)} messages before the damage are missing")
        return faults

    def _inspect_later(self, damage: Damage) -> list[str]:
        """Import the intact file, then the damaged one; return what is lost, of a format that guards against that."""
        if not self.name.startswith(KEEPING):
            return []
        with self._new_store() as store:
            self._ingest(store, self.intact)
            self._ingest(store, damage.data)
            missing = self.contents - _contents_of(store)
            faults = _check(store, "damaged after intact")
        return faults + ([f"damaged after intact: {len(missing)} messages are missing"] if missing else [])

    def _new_store(self) -> SqliteDb:
        for file in self.folder.glob("store.db*"):
            file.unlink()
        return SqliteDb(self.folder / "store.db")

    def _ingest(self, store: SqliteDb, data: bytes) -> IngestReport | None:
        """Import a version of the file; return None if it is refused. Other exceptions are faults."""
        path = self.folder / self.name
        path.write_bytes(data)
        try:
            return store.ingest(path, progress=False)
        except KernError:
            return None

    def _contents_of(self, data: bytes) -> set[str]:
        with self._new_store() as store:
            self._ingest(store, data)
            return _contents_of(store)


def _check(store: SqliteDb, when: str) -> list[str]:
    return [f"{when}: {p.kind} {p.session_id}: {p.detail}" for p in store.check().problems]


def _rows_of(store: SqliteDb) -> list[list[str]]:
    """All rows of a store."""
    tables = [store.tables.sessions, store.tables.runs, store.tables.messages, store.tables.tool_calls]
    queries = [f"SELECT * FROM {table.name}" for table in (*tables, store.tables.scores)]
    return [sorted(map(repr, _select(store, query))) for query in queries]


def _contents_of(store: SqliteDb) -> set[str]:
    """What is said in a store: the role, text and calls of each message."""
    name = store.tables.messages.name
    return set(map(repr, _select(store, f"SELECT role, content, content_json, tool_call_id FROM {name}")))


def _select(store: SqliteDb, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(store.db_file)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # nothing has been written
            return []
