"""Engines that share their compiled statements.

A process has an engine per store, and SQLAlchemy needs several times as long to compile a statement as to execute it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import LRUCache

_CAPACITY = 1000  # a store that is in full use has about 200 statements


class StatementCache(LRUCache[Any, Any]):
    """Compiled statements of all engines; SQLAlchemy's own cache is per engine, and its keys per dialect object."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a compiled statement; it may be another engine's."""
        dialect, *statement = key
        return super().get((shared_dialect(dialect), *statement), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        dialect, *statement = key
        super().__setitem__((shared_dialect(dialect), *statement), compiled)


_cache = StatementCache(_CAPACITY)
_dialects: dict[tuple[Any, ...], sa.Dialect] = {}


def shared_dialect(dialect: sa.Dialect) -> sa.Dialect:
    """Return the first dialect that writes the same SQL: PostgreSQL's depends on the server's version and settings."""
    escapes = getattr(dialect, "_backslash_escapes", None)
    key = (type(dialect), getattr(dialect, "server_version_info", None), escapes)
    return _dialects.setdefault(key, dialect)


def create_engine(url: str | sa.URL, **options: Any) -> sa.Engine:
    """Create an engine, with SQLAlchemy's options, that shares its compiled statements."""
    return sa.create_engine(url, execution_options={"compiled_cache": _cache}, **options)
