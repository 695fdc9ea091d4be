"""`open_store`: open the store at a path or URL with the engine that fits."""

from __future__ import annotations

from pathlib import Path

from kern_nb.db import file_descriptors
from kern_nb.db.schema import SESSION_TABLE
from kern_nb.db.store import SessionStore
from kern_nb.db.urls import is_connection_string, mask, postgres_url
from kern_nb.errors import ForeignLayout, NotAStore, StoreNotFound

_ENGINES = {".duckdb": "duckdb", ".ddb": "duckdb", ".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite"}


def open_store(
    target: str | Path | SessionStore, *, session_table: str = SESSION_TABLE, read_only: bool = False
) -> SessionStore:
    """Open the store at a path or URL. Nothing is written: a new path becomes a file at the first write.

    A database that has tables, but none of kern_nb's, belongs to another program, and neither its file nor anything
    beside it changes, including time stamps. If an importer recognizes its tables, its sessions are read in place:
    the store has the same frames, and refuses writes. Otherwise it is refused.

    Args:
        target: A path (``.duckdb``; ``.db``, ``.sqlite``), an SQLAlchemy URL, ``:memory:``, or a store, which is
            returned as it is.
        session_table: The name of the session table. Any but the default also permits creating kern_nb's tables in a
            database with other programs' tables, at the first write.
        read_only: Refuse writes; the file must exist.

    Returns:
        The store.

    Raises:
        StoreNotFound: the folder, or a file to read, does not exist.
        NotAStore: the target is something else.
        ForeignLayout: the database belongs to a program whose sessions cannot be read.
        SchemaTooNew: a newer kern_nb wrote the store.
        StoreBusy: another process holds the file.
        StoreUnavailable: the store cannot be opened now.

    Example:
        >>> open_store(":memory:")
        <InMemoryDb duckdb:///:memory:>
    """
    if isinstance(target, SessionStore):
        return target
    text = str(target)
    scheme, _, location = text.partition("://")
    dialect = scheme.partition("+")[0]
    if (url := postgres_url(text)) is not None:
        from kern_nb.db.postgres import PostgresDb

        store: SessionStore = PostgresDb(url, session_table=session_table, read_only=read_only)
    elif text in (":memory:", "duckdb:///:memory:", "duckdb://"):
        from kern_nb.db.memory import InMemoryDb

        store = InMemoryDb(session_table=session_table)
    elif location and dialect in ("duckdb", "sqlite"):
        store = _open_file(_url_path(location, dialect), dialect, session_table, read_only=read_only)
    elif "://" in text:
        raise NotAStore(
            f"Unsupported database URL: {mask(text)!r}.",
            "Use a .duckdb or .db path, sqlite:///…, or postgresql+psycopg://….",
        )
    elif is_connection_string(text) and not Path(text).exists():
        raise NotAStore(
            "A connection string of libpq is not supported.",
            "Write it as a URL: postgresql+psycopg://user@host/database.",
        )
    else:
        store = _open_file(Path(text).expanduser(), None, session_table, read_only=read_only)
    try:
        return _recognize(store)
    except BaseException:
        store.close()
        raise


def _recognize(store: SessionStore) -> SessionStore:
    """The store itself, or the sessions of another program in its database."""
    try:
        is_ours = store.exists()
    except ForeignLayout:
        in_place = _open_in_place(store)
        if in_place is None:
            raise
        return in_place
    # In PostgreSQL, the tables of another program may be in a schema of their own.
    may_be_foreign = store.tables.name == SESSION_TABLE and store.url.startswith("postgresql")
    return (None if is_ours or not may_be_foreign else _open_in_place(store)) or store


def _open_in_place(store: SessionStore) -> SessionStore | None:
    from kern_nb.foreign import open_in_place

    return open_in_place(store)


def _url_path(location: str, engine: str) -> Path:
    """The path in a URL, after three slashes; after four if it is absolute."""
    path = Path(location[1:])
    if not location.startswith("/") or ("?" in location and not path.exists()):
        raise NotAStore(
            f"{mask(f'{engine}://{location}')!r} is not the URL of a file.",
            f"Write {engine}:///relative/path or {engine}:////absolute/path, without options.",
        )
    return path


def _open_file(path: Path, engine: str | None, session_table: str, *, read_only: bool) -> SessionStore:
    """Open a file; its content takes precedence over ``engine``, and that over its suffix."""
    detected = _detect_engine(path)
    if detected is None and read_only:
        raise StoreNotFound(
            f"The file {mask(str(path))} does not exist.",
            "Check the path, or attach it without --read-only to create it.",
        )
    if detected is None and not path.absolute().parent.is_dir():
        raise StoreNotFound(f"The folder of {mask(str(path))} does not exist.", "Create the folder, or check the path.")
    engine = detected or engine or _ENGINES.get(path.suffix)
    if engine is None:
        raise NotAStore(
            f"{mask(str(path))} does not exist, and its suffix does not name an engine.",
            "Use the suffix .duckdb, or .db for SQLite.",
        )
    if engine == "duckdb":
        from kern_nb.db.duckdb import DuckDb

        return DuckDb(path, session_table=session_table, read_only=read_only)
    from kern_nb.db.sqlite import SqliteDb

    return SqliteDb(path, session_table=session_table, read_only=read_only)


def _detect_engine(path: Path) -> str | None:
    """The engine of a file by its first bytes, whatever its name; None if it does not exist."""
    if path.is_dir():
        raise NotAStore(f"{path} is a folder.", "Name a file in it, for example sessions.duckdb.")
    try:
        header = file_descriptors.read_header(path, len(file_descriptors.SQLITE_MAGIC))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotAStore(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if engine := file_descriptors.database_engine(header):
        return engine
    if not header and _ENGINES.get(path.suffix) == "sqlite":
        return "sqlite"
    raise NotAStore(
        f"{path} is neither a DuckDB nor a SQLite file.",
        "Attach a store; import recorded sessions with %kern import.",
    )
