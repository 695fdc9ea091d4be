"""What a store holds, whatever table and column it stands in."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from kern_nb.db import SessionStore


def columns_with(store: SessionStore, secret: str) -> list[str]:
    """Every table and column of the store that holds a text, as it is, within JSON, in base64 or as bytes."""
    assert len(secret) >= 12, "too short to be told from other text"
    forms = [secret, *_in_base64(secret.encode())]
    found = []
    with store.reading() as connection:
        for table in store.tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                found += [f"{table.name}.{name}" for name, value in row.items() if any(f in repr(value) for f in forms)]
    return sorted(set(found))


def _in_base64(secret: bytes) -> list[str]:
    """What is the same in base64 wherever the secret begins in the coded bytes."""
    return [base64.b64encode(b"\0" * lead + secret).decode()[4:-4] for lead in range(3)]


def stored_blobs(store: SessionStore) -> list[tuple[str, int]]:
    """The kept files: hash and size."""
    b = store.tables.blobs
    with store.reading() as connection:
        return [(row.sha256, row.size) for row in connection.execute(sa.select(b.c.sha256, b.c.size)).all()]
