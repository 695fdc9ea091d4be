"""What PostgreSQL, its driver and the pool of connections say when something goes wrong, as errors of ours."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg

from kern_nb.db.disk_space import full
from kern_nb.errors import KernError, ReadOnlyStore, StoreBusy, StoreUnavailable, UnstorableValue

# By the first characters of the SQLSTATE: the class of the error, or the whole code.
_SERVER_GONE = ("08", "57P", "25P03", "58", "XX", "F0")
_SERVER_FULL = ("53",)
_LAYOUT = ("42P01", "42703", "42704", "42883", "3F")
_VALUES = ("22", "54")
_NO_STATES = ("-",)

_ANSWERS: list[tuple[tuple[type[psycopg.Error], ...], tuple[str, ...], type[KernError], str]] = [
    (
        (pg.ReadOnlySqlTransaction,),
        _NO_STATES,
        ReadOnlyStore,
        "Connect to the primary server as a user that may write; nothing was written.",
    ),
    (
        (pg.QueryCanceled, pg.SerializationFailure, pg.DeadlockDetected, pg.TooManyConnections),
        _NO_STATES,
        StoreBusy,
        "Try again; if it goes on, look at the server's load and its limits.",
    ),
    (
        (),
        _SERVER_FULL,
        StoreUnavailable,
        "Nothing of this was stored. Free space or memory on the server, then try again.",
    ),
    ((), _LAYOUT, StoreUnavailable, "Its tables were changed while it was open. Attach it again."),
    ((), _VALUES, UnstorableValue, "Nothing was stored."),
    (
        (psycopg.IntegrityError,),
        _NO_STATES,
        StoreBusy,
        "Another writer stored the same at once; nothing was stored. Try again.",
    ),
]
"""By kind, or by the first characters of the SQLSTATE: the error of ours, and what to do."""


def translate(
    error: Exception, url: str, reason_of: Callable[[BaseException], str], blocker: Callable[[], str | None]
) -> KernError | None:
    """The error of ours that says what happened and what to do; None where it is not the driver's.

    Args:
        error: SQLAlchemy's error, or psycopg's.
        url: The store's URL, without the password.
        reason_of: Gives the first line of an error, without the password.
        blocker: Finds who holds the locks that a statement waited for.
    """
    if isinstance(error, sa.exc.TimeoutError):
        return StoreBusy(f"{url}: all connections of this process are in use.", "Wait for its threads to finish.")
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        return None
    reason = f"{url}: {reason_of(cause)}."
    state = cause.sqlstate or ""
    if isinstance(cause, pg.DiskFull):
        return full(url, reason_of(cause))
    if isinstance(cause, pg.LockNotAvailable):
        holder = blocker()
        reason = f"{url}: {holder} holds a lock that was not released in time." if holder else reason
        return StoreBusy(reason, "End that transaction (COMMIT or ROLLBACK there), or try again later.")
    if isinstance(cause, pg.InsufficientPrivilege):
        return _not_permitted(error, reason)
    for kinds, states, kind, hint in _ANSWERS:
        if isinstance(cause, kinds) or state.startswith(states):
            return kind(reason, hint)
    return StoreUnavailable(reason, "Check that it can be reached, then attach it again.")


def is_server_error(error: psycopg.Error) -> bool:
    """Whether a query failed because of the server or the connection, not because of its SQL."""
    gone = not error.sqlstate and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    busy = isinstance(error, (pg.LockNotAvailable, pg.QueryCanceled, pg.SerializationFailure))
    return gone or busy or (error.sqlstate or "").startswith((*_SERVER_GONE, *_SERVER_FULL))


def _not_permitted(error: Exception, reason: str) -> KernError:
    statement = (getattr(error, "statement", None) or "").lstrip().upper()
    if statement.startswith("CREATE"):
        return ReadOnlyStore(reason, "Let the owner GRANT CREATE on the schema, or name one of yours: db_schema=...")
    if statement.startswith(("INSERT", "UPDATE", "DELETE", "ALTER")) or statement.endswith("FOR UPDATE"):
        return ReadOnlyStore(reason, "Let the owner GRANT INSERT, UPDATE, DELETE on its tables; nothing was written.")
    return StoreUnavailable(reason, "Let the owner GRANT SELECT on its tables to this user.")
