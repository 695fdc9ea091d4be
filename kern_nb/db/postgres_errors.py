"""Translation of errors of PostgreSQL, its driver and the connection pool."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg

from kern_nb.db.disk_space import disk_full_error
from kern_nb.errors import KernError, ReadOnlyStore, StoreBusy, StoreUnavailable, UnstorableValue

# Prefixes of the SQLSTATE: the class of the error, or the whole code.
_SERVER_GONE = ("08", "57P", "25P03", "58", "XX", "F0")
_SERVER_FULL = ("53",)
_BUSY = ("57014", "40001", "40P01", "53300")  # canceled, serialization failure, deadlock, too many connections
_LAYOUT = ("42P01", "42703", "42704", "42883", "3F")
_INTEGRITY = ("23",)

_TRANSLATIONS: list[tuple[tuple[str, ...], type[KernError], str]] = [
    (("25006",), ReadOnlyStore, "Connect to the primary server as a user that may write; nothing was written."),
    (_BUSY, StoreBusy, "Try again; if the error persists, check the load and the limits of the server."),
    (_SERVER_FULL, StoreUnavailable, "Nothing was stored. Free disk space or memory on the server, then try again."),
    (_LAYOUT, StoreUnavailable, "The tables were changed while the store was open. Attach it again."),
    (("22", "54"), UnstorableValue, "Nothing was stored."),
    (_INTEGRITY, StoreBusy, "Another writer stored the same row at the same time; nothing was stored. Try again."),
]
"""By SQLSTATE, the first that matches: the error to raise and its hint."""


def translate(
    error: Exception, url: str, reason_of: Callable[[BaseException], str], blocker: Callable[[], str | None]
) -> KernError | None:
    """Translate an error of the driver or the pool; None for any other.

    Args:
        error: The error of SQLAlchemy or psycopg.
        url: The URL of the store, without the password.
        reason_of: Returns the first line of an error, without the password.
        blocker: Returns the session that holds the lock a statement waited for.
    """
    if isinstance(error, sa.exc.TimeoutError):
        return StoreBusy(f"{url}: all connections of this process are in use.", "Wait until its threads finish.")
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        return None
    reason = f"{url}: {reason_of(cause)}."
    if isinstance(cause, pg.DiskFull):
        return disk_full_error(url, reason_of(cause))
    if isinstance(cause, pg.LockNotAvailable):
        holder = blocker()
        reason = f"{url}: {holder} holds a lock that was not released in time." if holder else reason
        return StoreBusy(reason, "End that transaction (COMMIT or ROLLBACK), or try again later.")
    if isinstance(cause, pg.InsufficientPrivilege):
        return _privilege_error(error, reason)
    for states, kind, hint in _TRANSLATIONS:
        if (cause.sqlstate or "").startswith(states):
            return kind(reason, hint)
    return StoreUnavailable(reason, "Check that the server is reachable, then attach it again.")


def is_server_error(error: psycopg.Error) -> bool:
    """Whether a query failed because of the server or the connection, not its SQL."""
    gone = not error.sqlstate and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    busy = isinstance(error, (pg.LockNotAvailable, pg.QueryCanceled, pg.SerializationFailure))
    return gone or busy or (error.sqlstate or "").startswith((*_SERVER_GONE, *_SERVER_FULL))


def _privilege_error(error: Exception, reason: str) -> KernError:
    statement = (getattr(error, "statement", None) or "").lstrip().upper()
    if statement.startswith("CREATE"):
        return ReadOnlyStore(reason, "Ask the owner to GRANT CREATE on the schema, or name your own: db_schema=...")
    if statement.startswith(("INSERT", "UPDATE", "DELETE", "ALTER")) or statement.endswith("FOR UPDATE"):
        hint = "Ask the owner to GRANT INSERT, UPDATE, DELETE on its tables; nothing was written."
        return ReadOnlyStore(reason, hint)
    return StoreUnavailable(reason, "Ask the owner to GRANT SELECT on its tables to this user.")
