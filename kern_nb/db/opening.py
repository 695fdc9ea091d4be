"""`open_store`: from what a person names (a path, a URL, a store) to a store, or to an error that says what it is."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from kern_nb.db import descriptors
from kern_nb.db.store import SessionStore
from kern_nb.errors import NotAStore, StoreBusy, StoreNotFound

DUCKDB_ENDINGS = (".duckdb", ".ddb")
SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3")
_HEADER = 20


def open_store(
    target: str | Path | SessionStore, *, session_table: str = "agno_sessions", read_only: bool = False
) -> SessionStore:
    """The store at a path or URL. Nothing is written: a new path becomes a file at the first write.

    Args:
        target: A path (``.duckdb``; ``.db``, ``.sqlite``), an SQLAlchemy URL, ``:memory:``, or a store (given back).
        session_table: The name of the sessions' table.
        read_only: Refuse writes; then the file must be there.

    Raises:
        StoreNotFound: the folder, or a file to be read, is not there.
        NotAStore: it is something else.
        ForeignLayout: it is another framework's store.
        SchemaTooNew: a newer kern_nb wrote it.
        StoreBusy, StoreUnavailable: it cannot be opened now.
    """
    if isinstance(target, SessionStore):
        return target
    text = str(target)
    scheme, _, rest = text.partition("://")
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        from kern_nb.db.postgres import PostgresDb

        store: SessionStore = PostgresDb(
            text.replace("postgres://", "postgresql://", 1), session_table=session_table, read_only=read_only
        )
    elif text in (":memory:", "duckdb:///:memory:", "duckdb://"):
        from kern_nb.db.memory import InMemoryDb

        store = InMemoryDb(session_table=session_table)
    elif rest and scheme.partition("+")[0] in ("duckdb", "sqlite"):
        store = _file(Path(rest[1:]), scheme.partition("+")[0], session_table, read_only=read_only)
    elif rest:
        raise NotAStore(
            f"There is no engine for {_masked(text)!r}.",
            "Use a .duckdb or .db path, sqlite:///…, or postgresql+psycopg://….",
        )
    else:
        store = _file(Path(text).expanduser(), None, session_table, read_only=read_only)
    store.exists()
    return store


def _file(path: Path, engine: str | None, session_table: str, *, read_only: bool) -> SessionStore:
    found = _engine_of(path)
    if found is None and read_only:
        raise StoreNotFound(
            f"There is no file {path}.", "Check the path, or attach it without --read-only to make one."
        )
    if found is None and not path.absolute().parent.is_dir():
        raise StoreNotFound(f"There is no folder {path.parent} for {path.name}.", "Make the folder, or check the path.")
    engine = found or engine or _by_ending(path)
    if engine == "duckdb":
        from kern_nb.db.duckdb import DuckDb

        return DuckDb(path, session_table=session_table, read_only=read_only)
    from kern_nb.db.sqlite import SqliteDb

    _require_whole(path, found)
    return SqliteDb(path, session_table=session_table, read_only=read_only)


def _engine_of(path: Path) -> str | None:
    """What a file is by its first bytes, whatever its name; None where it is new or empty."""
    if path.is_dir():
        raise NotAStore(f"{path} is a folder.", "Name a file in it, for example sessions.duckdb.")
    try:
        header = descriptors.read_header(path, _HEADER)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotAStore(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if header.startswith(b"SQLite format 3\x00"):
        return "sqlite"
    if header[8:12] == b"DUCK":
        return "duckdb"
    if not header and path.suffix in (*SQLITE_ENDINGS,):
        return "sqlite"
    raise NotAStore(
        f"{path} is neither a DuckDB nor a SQLite file.",
        "Attach a store; recorded sessions come in with %kern import.",
    )


def _by_ending(path: Path) -> str:
    if path.suffix in DUCKDB_ENDINGS:
        return "duckdb"
    if path.suffix in SQLITE_ENDINGS:
        return "sqlite"
    raise NotAStore(
        f"{path} is not there, and its ending does not say what to make.", "End it in .duckdb, or in .db for SQLite."
    )


def _require_whole(path: Path, found: str | None) -> None:
    """A cut or damaged SQLite file is told at once, not at some later read."""
    if found is None:
        return
    from kern_nb.db.sqlite import BUSY_TIMEOUT_S
    from kern_nb.db.sqlite_connections import explained, open_connection

    try:
        with contextlib.closing(open_connection(path, "ro", BUSY_TIMEOUT_S)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        cause = explained(error, str(path))
        if isinstance(cause, (StoreBusy, KeyboardInterrupt)):
            raise cause from error
        raise NotAStore(f"{path} is damaged: {error}.", "Restore a copy of it.") from error


def _masked(text: str) -> str:
    """A URL without its password."""
    try:
        password = urlsplit(text).password
    except ValueError:
        password = None
    return text.replace(f":{password}@", ":***@") if password else text
