"""`open_store`: from what a person names (a path, a URL, a store) to a store, or to an error that says what it is."""

from __future__ import annotations

from pathlib import Path

from kern_nb.db import file_descriptors
from kern_nb.db.schema import SESSION_TABLE
from kern_nb.db.store import SessionStore
from kern_nb.db.urls import is_connection_string, mask
from kern_nb.errors import NotAStore, StoreNotFound

DUCKDB_SUFFIXES = (".duckdb", ".ddb")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_HEADER = 20


def open_store(
    target: str | Path | SessionStore, *, session_table: str = SESSION_TABLE, read_only: bool = False
) -> SessionStore:
    """The store at a path or URL. Nothing is written: a new path becomes a file at the first write.

    A database that has tables, and none of ours, is another program's. It is refused by name and left as it is, to the
    last byte and time stamp of its file and of what stands beside it.

    Args:
        target: A path (``.duckdb``; ``.db``, ``.sqlite``), an SQLAlchemy URL, ``:memory:``, or a store (given back).
        session_table: The name of the sessions' table. Any but the default also says that tables of ours may be made
            in a database that has other programs' tables, at the first write.
        read_only: Refuse writes; then the file must be there.

    Raises:
        StoreNotFound: the folder, or a file to be read, is not there.
        NotAStore: it is something else.
        ForeignLayout: it is another program's database.
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
            f"postgresql+psycopg://{rest}", session_table=session_table, read_only=read_only
        )
    elif text in (":memory:", "duckdb:///:memory:", "duckdb://"):
        from kern_nb.db.memory import InMemoryDb

        store = InMemoryDb(session_table=session_table)
    elif rest and scheme.partition("+")[0] in ("duckdb", "sqlite"):
        engine = scheme.partition("+")[0]
        store = _file(_path_of(rest, engine), engine, session_table, read_only=read_only)
    elif "://" in text:
        raise NotAStore(
            f"There is no engine for {mask(text)!r}.",
            "Use a .duckdb or .db path, sqlite:///…, or postgresql+psycopg://….",
        )
    elif is_connection_string(text) and not Path(text).exists():
        raise NotAStore(
            "A connection string of libpq is not read here.",
            "Write it as a URL: postgresql+psycopg://user@host/database.",
        )
    else:
        store = _file(Path(text).expanduser(), None, session_table, read_only=read_only)
    try:
        store.exists()
    except BaseException:
        store.close()
        raise
    return store


def _path_of(rest: str, engine: str) -> Path:
    """The path in a URL, which follows three slashes; four where it is absolute."""
    path = Path(rest[1:])
    if not rest.startswith("/") or ("?" in rest and not path.exists()):
        raise NotAStore(
            f"{mask(f'{engine}://{rest}')!r} is not a URL of a file.",
            f"Write {engine}:///relative/path or {engine}:////absolute/path, without options.",
        )
    return path


def _file(path: Path, engine: str | None, session_table: str, *, read_only: bool) -> SessionStore:
    found = _engine_of(path)
    if found is None and read_only:
        raise StoreNotFound(
            f"There is no file {mask(str(path))}.", "Check the path, or attach it without --read-only to make one."
        )
    if found is None and not path.absolute().parent.is_dir():
        raise StoreNotFound(f"There is no folder for {mask(str(path))}.", "Make the folder, or check the path.")
    engine = found or engine or _by_ending(path)
    if engine == "duckdb":
        from kern_nb.db.duckdb import DuckDb

        return DuckDb(path, session_table=session_table, read_only=read_only)
    from kern_nb.db.sqlite import SqliteDb

    return SqliteDb(path, session_table=session_table, read_only=read_only)


def _engine_of(path: Path) -> str | None:
    """What a file is by its first bytes, whatever its name; None where it is new or empty."""
    if path.is_dir():
        raise NotAStore(f"{path} is a folder.", "Name a file in it, for example sessions.duckdb.")
    try:
        header = file_descriptors.read_header(path, _HEADER)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotAStore(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if header.startswith(b"SQLite format 3\x00"):
        return "sqlite"
    if header[8:12] == b"DUCK":
        return "duckdb"
    if not header and path.suffix in (*SQLITE_SUFFIXES,):
        return "sqlite"
    raise NotAStore(
        f"{path} is neither a DuckDB nor a SQLite file.",
        "Attach a store; recorded sessions come in with %kern import.",
    )


def _by_ending(path: Path) -> str:
    if path.suffix in DUCKDB_SUFFIXES:
        return "duckdb"
    if path.suffix in SQLITE_SUFFIXES:
        return "sqlite"
    raise NotAStore(
        f"{mask(str(path))} is not there, and its ending does not say what to make.",
        "End it in .duckdb, or in .db for SQLite.",
    )
