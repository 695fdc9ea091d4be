"""What a run says to its database, counted: statements, the bytes sent with them, rows, and the bytes that came back."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from kern_nb.db import SessionStore

_FRACTION = re.compile(r"\d+\.\d+(e-\d+)?")
_FETCHES = ("_fetchall_impl", "_fetchone_impl", "_fetchmany_impl", "_fetchiter_impl")


def size(value: Any) -> int:
    """The bytes of a value; a number's are the same whatever it is, as 200 has more digits than 2 and 0.25 than 0.5."""
    if isinstance(value, str):
        return len(_FRACTION.sub("0.0", value).encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes | memoryview):
        return len(value)
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    if isinstance(value, list | tuple | sa.Row):
        return sum(map(size, value))
    return 8


@contextlib.contextmanager
def counted(store: SessionStore) -> Iterator[Counter[str]]:
    """Count what a store says to its database and what it hears."""
    count: Counter[str] = Counter()

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        count.update(statements=1, sent=len(statement) + size(parameters))

    result = sa.engine.CursorResult
    kept = {name: getattr(result, name) for name in _FETCHES}

    def counting(name: str) -> Any:
        def fetch(self: Any, *args: Any, **options: Any) -> Any:
            got = kept[name](self, *args, **options)
            rows = list(got) if name in ("_fetchall_impl", "_fetchmany_impl", "_fetchiter_impl") else [got]
            rows = [row for row in rows if row is not None]
            count.update(rows=len(rows), heard=sum(map(size, rows)))
            return iter(rows) if name == "_fetchiter_impl" else got

        return fetch

    sa.event.listen(store.engine, "before_cursor_execute", listen)
    try:
        for name in _FETCHES:
            setattr(result, name, counting(name))
        yield count
    finally:
        for name, original in kept.items():
            setattr(result, name, original)
        sa.event.remove(store.engine, "before_cursor_execute", listen)
