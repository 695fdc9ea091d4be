"""Titles of Codex threads, from files beside the folder of the sessions.

``session_index.jsonl`` has a line for each name that a person gave. Current versions have a table ``threads`` in
``state_<n>.sqlite``: a name, and a title of the program's own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.parsing.sqlite_rows import rows
from kern_nb.ingest.parsing.values import to_id, to_object, to_text
from kern_nb.ingest.source import Source

_INDEX = "session_index.jsonl"
_DATABASES = "state_*.sqlite"
_PROJECTIONS = "thread_history_*.sqlite"  # repeat what the rollouts have


class Titles(NamedTuple):
    """The name that a person gave a thread, and the title that the program did."""

    name: str | None = None
    title: str | None = None


def title_files(rollout: Path) -> list[Path]:
    """The files about all threads, for a rollout in a folder of sessions."""
    home = _home(rollout)
    if home is None:
        return []
    databases = sorted(home.glob(_DATABASES)) + sorted(home.glob(_PROJECTIONS))
    return [file for file in (home / _INDEX, *databases) if file.is_file()]


def read_titles(rollout: Path, thread_id: str) -> Titles:
    """The latest titles of a thread."""
    home = _home(rollout)
    if home is None:
        return Titles()
    result = Titles()
    for file in sorted(home.glob(_DATABASES)):
        with suppress(OSError):
            own = _titles_in(file, *_stamp(file)).get(thread_id, Titles())
            result = Titles(own.name or result.name, own.title or result.title)
    return result._replace(name=_name_in_index(home / _INDEX, thread_id) or result.name)


def _home(rollout: Path) -> Path | None:
    folders = rollout.absolute().parents
    return next((folder.parent for folder in folders if folder.name in ("sessions", "archived_sessions")), None)


def _name_in_index(index: Path, thread_id: str) -> str | None:
    name = None
    with suppress(OSError), open_binary(index) as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                entry = to_object(json.loads(line))
                if entry.get("id") == thread_id:
                    name = to_text(entry.get("thread_name")) or name
    return name


def _stamp(database: Path) -> tuple[int, ...]:
    """What changes when the program writes to a database."""
    log = database.with_name(f"{database.name}-wal")
    return tuple(number for file in (database, log) if file.is_file() for number in _state(file))


def _state(file: Path) -> Iterator[int]:
    state = file.stat()
    yield from (state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _titles_in(database: Path, *_: int) -> dict[str, Titles]:
    """The titles of all threads in a database: it is read once for all rollouts."""
    titles: dict[str, Titles] = {}
    with suppress(OSError, sqlite3.Error), Source(database, database.name).open_sqlite() as connection:
        for row in rows(connection, "threads"):
            if (thread_id := to_id(row.get("id"))) is not None:
                titles[thread_id] = Titles(to_text(row.get("name")), to_text(row.get("title")))
    return titles
