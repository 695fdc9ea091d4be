"""`OpenTransaction`: the transaction that several calls of one thread share; see `Database.transaction`.

It belongs to the thread, the asyncio task and the process that began it. One that is left behind, because Ctrl-C kept
its block from ending it, is recognized like a connection in `checkouts`: the function with the block no longer runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import fork_safety
from kern_nb.db.checkouts import find_user_frame, is_running
from kern_nb.errors import BadUsage, TransactionFailed


class OpenTransaction:
    """A transaction in which the calls of one thread run.

    Args:
        url: The URL of the store, for errors.
        connection: The connection, in a write transaction.
    """

    def __init__(self, url: str, connection: Connection) -> None:
        self._url = url
        self._connection = connection
        frame = find_user_frame()  # not kept: it refers to the block, which would not end when it is dropped
        self._frame = None if frame is None else (id(frame), frame.f_code)
        self._task = _current_task()
        self._process = os.getpid()
        self._failure: BaseException | None = None
        self._has_ended = False

    def is_current(self) -> bool:
        """Whether calls of this thread run in it. One that was left behind is rolled back now."""
        if self._has_ended or self._process != os.getpid():  # a forked child has its own connections
            return False
        if self._frame is not None and not is_running(*self._frame):
            self._abandon()
            return False
        return True

    @contextmanager
    def connection(self, *, write: bool) -> Iterator[Connection]:
        """The connection, for one call. If a write fails, or the engine refuses a statement, all of it fails."""
        self._require_usable()
        try:
            yield self._connection
        except BaseException as error:
            if write or not isinstance(error, Exception) or isinstance(error, sa.exc.DBAPIError):
                self._failure = self._failure or error
            raise

    @contextmanager
    def nested(self) -> Iterator[None]:
        """A block within it. An exception that leaves the block makes all of it fail: no part can be rolled back."""
        self._require_usable()
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or error
            raise

    def end(self) -> None:
        """From now on, calls do not run in it."""
        self._has_ended = True
        self._failure = None  # its traceback refers to this object, and to cursors that SQLite would wait for

    def require_intact(self) -> None:
        """Check, before the commit, that all calls succeeded.

        Raises:
            TransactionFailed: One failed, or the transaction was left behind and is rolled back.
            StoreUnavailable: It belongs to the parent of this forked process.
        """
        if self._process != os.getpid():
            raise fork_safety.fork_error(self._url)
        if self._failure is not None:
            raise self._failed_error() from self._failure

    def _require_usable(self) -> None:
        if self._task is not None and self._task is not _current_task():
            raise BadUsage(
                f"Another task of this thread has a transaction open on {self._url}.",
                "Do not await within `with store.transaction()`.",
            )
        if self._failure is not None:
            raise self._failed_error() from self._failure

    def _failed_error(self) -> TransactionFailed:
        reason = f"{type(self._failure).__name__}: {self._failure}".rstrip(".: ")
        return TransactionFailed(
            f"A call in a transaction on {self._url} failed: {reason}.",
            "Nothing of the transaction is stored. Leave its `with` block, then run the whole block again.",
        )

    def _abandon(self) -> None:
        self._has_ended = True
        self._failure = RuntimeError("the function that began it has returned without ending it")
        with contextlib.suppress(Exception):  # the connection may have been taken back
            self._connection.close()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
