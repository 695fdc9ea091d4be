"""Searches over all tables and columns of a store."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from kern_nb.db import SessionStore


def columns_with(store: SessionStore, secret: str) -> list[str]:
    """Return every table and column that contains a text: plain, in JSON, in base64 or as bytes."""
    assert len(secret) >= 12, "too short to be unique"
    forms = [secret, *_in_base64(secret.encode())]
    columns = set()
    with store.read_connection() as connection:
        for table in store.tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                columns |= {
                    f"{table.name}.{name}" for name, value in row.items() if any(f in repr(value) for f in forms)
                }
    return sorted(columns)


def _in_base64(secret: bytes) -> list[str]:
    """Return the base64 forms of a secret at each of the three alignments."""
    return [base64.b64encode(b"\0" * lead + secret).decode()[4:-4] for lead in range(3)]


def stored_blobs(store: SessionStore) -> list[tuple[str, int]]:
    """Return hash and size of the stored files."""
    b = store.tables.blobs
    with store.read_connection() as connection:
        return [(row.sha256, row.size) for row in connection.execute(sa.select(b.c.sha256, b.c.size)).all()]
