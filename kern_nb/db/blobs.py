"""Blobs by their SHA-256: identical content is stored once. Each function works in one transaction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec
from kern_nb.db.column_types import UnreadableCell
from kern_nb.db.database import Database
from kern_nb.db.schema import Tables
from kern_nb.errors import UnstorableValue


class Blob(NamedTuple):
    """Stored bytes and their media type."""

    sha256: str
    media_type: str | None
    content: bytes


def put(connection: Connection, store: Database, content: bytes, media_type: str | None) -> str:
    """See `SessionStore.put_blob`."""
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise UnstorableValue(f"content must be bytes, got {codec.short_repr(content)}.", "Encode text: text.encode()")
    b = store.tables.blobs
    sha256 = hashlib.sha256(content).hexdigest()
    if connection.execute(sa.select(b.c.size).where(b.c.sha256 == sha256)).first() is None:
        insert(connection, store, Blob(sha256, media_type, content))
    return sha256


def insert(connection: Connection, store: Database, blob: Blob) -> None:
    """Store a blob whose hash is known, unless it is stored."""
    insert_all(connection, store, [blob])


def insert_all(connection: Connection, store: Database, blobs: Iterable[Blob]) -> None:
    """Store blobs of different known hashes, unless they are stored."""
    rows = [blob._asdict() | {"size": len(blob.content)} for blob in blobs]
    if rows:
        connection.execute(store.insert(store.tables.blobs).values(rows).on_conflict_do_nothing())


def get(connection: Connection, store: Database, sha256: str) -> Blob | None:
    """See `SessionStore.get_blob`."""
    b = store.tables.blobs
    query = sa.select(b.c.sha256, b.c.media_type, b.c.content).where(b.c.sha256 == sha256)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    content = bytes(row["content"]) if isinstance(row["content"], (bytes, memoryview)) else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UnreadableCell(("blobs", "content"), content, "bytes that do not match their hash", row)
    return Blob(row["sha256"], row["media_type"], content)


_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def find_referenced(
    connection: Connection, tables: Tables, session_id: str, *, run_ids: Collection[str] | None = None
) -> set[str]:
    """Return the hashes of the blobs that the rows of a session, or of some of its runs, reference."""
    hashes = _find_hashes(connection, tables, session_id, run_ids)
    b = tables.blobs
    return set(connection.execute(sa.select(b.c.sha256).where(b.c.sha256.in_(hashes))).scalars()) if hashes else hashes


def delete_unreferenced(connection: Connection, tables: Tables, hashes: set[str]) -> None:
    """Delete the blobs that no row references; none during a run, which stores a blob before the row."""
    r, b = tables.runs, tables.blobs
    running = sa.select(r.c.run_id).where(r.c.status == "RUNNING").limit(1)
    if hashes and connection.execute(running).first() is None:
        connection.execute(b.delete().where(b.c.sha256.in_(hashes - _find_hashes(connection, tables))))


def _find_hashes(
    connection: Connection, tables: Tables, session_id: str | None = None, run_ids: Collection[str] | None = None
) -> set[str]:
    """Return the hashes in the rows of some runs, of a session, or of all sessions; each table is read once."""
    columns_by_table = {
        tables.sessions: ("session_data", "metadata"),
        tables.runs: ("input_json", "output_json", "session_state", "extra", "internal"),
        tables.messages: ("content_json", "extra", "internal"),
        tables.tool_calls: ("result_json",),
    }
    hashes: set[str] = set()
    for table, names in columns_by_table.items():
        if run_ids is not None and table is tables.sessions:
            continue
        columns = [sa.type_coerce(table.c[name], sa.Text()) for name in names]
        query = sa.select(*columns)
        if session_id is not None:
            query = query.where(table.c.session_id == session_id)
        if run_ids is not None:
            query = query.where(table.c.run_id.in_(run_ids))
        if table is not tables.sessions:  # importers reference blobs in metadata in their own format
            query = query.where(sa.or_(*(c.contains("sha256") | c.contains("$blob") for c in columns)))
        for row in connection.execute(query):
            hashes |= {sha256 for text in row if text for sha256 in _HASH.findall(text)}
    return hashes
