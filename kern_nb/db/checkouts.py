"""Connections checked out of a `Lease`: the `Cursor` that code uses, and how an abandoned one is recognized."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from kern_nb.db import fork_safety, interrupts
from kern_nb.errors import StoreUnavailable

if TYPE_CHECKING:
    from kern_nb.db.lease import Lease

T = TypeVar("T")

# Modules whose frames stand between a user's function and the lease.
_INTERNAL = (
    "contextlib",
    "sqlalchemy.",
    "duckdb_sqlalchemy",
    "kern_nb.db.checkouts",
    "kern_nb.db.database",
    "kern_nb.db.duckdb",
    "kern_nb.db.lease",
    "kern_nb.db.transactions",
)


@dataclass(slots=True, eq=False)
class Checkout:
    """The lease's record of a checked-out connection."""

    thread: int
    frame: int | None  # the id of the frame that uses it, see `user_frame`
    writes: bool
    probe: bool
    connection: duckdb.DuckDBPyConnection | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)  # held while a call is within DuckDB
    size: int = 0  # bytes sent in the transaction
    inherited: bool = False  # in a forked child: the connection is its parent's


class Cursor:
    """A checked-out connection with DuckDB's methods. Ctrl-C stops what it runs.

    It returns to the lease when it is closed or garbage-collected.
    """

    def __init__(self, lease: Lease, checkout: Checkout) -> None:
        self._lease = lease
        self._checkout = checkout

    @property
    def inherited(self) -> bool:
        """Whether this process was forked during the checkout: the connection would write to the parent's file."""
        return self._checkout.inherited

    def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run calls on DuckDB's connection, which Ctrl-C interrupts together.

        Raises:
            KeyboardInterrupt: the user interrupted the call; the statement was stopped.
            StoreUnavailable: the connection belongs to the parent of this forked process.
        """
        if self._checkout.inherited:
            raise fork_safety.fork_error(self._lease.path)
        try:
            return interrupts.run(lambda: self._enter(work), self._interrupt)
        except duckdb.InterruptException as error:
            if self._checkout.connection is None or interrupts.is_shut_down():
                raise closed_error(self._lease.path) from error
            raise KeyboardInterrupt from error
        except RuntimeError as error:  # DuckDB saw the signal itself
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        except duckdb.Error as error:
            is_fatal = isinstance(error, (duckdb.FatalException, duckdb.InternalException))
            if is_fatal or "has been invalidated" in str(error):  # DuckDB refuses further work on this connection
                self._lease.close()
                raise invalidated_error(self._lease.path, error) from error
            raise

    def execute(self, statement: Any, parameters: Any = None) -> Cursor:
        """Run a statement; the result is fetched from this cursor."""
        if self._checkout.writes:
            self._checkout.size += len(str(statement)) + _estimate_size(parameters)
        self.run(lambda raw: raw.execute(statement, parameters))
        return self

    def executemany(self, statement: Any, parameters: Any = None) -> Cursor:
        """Run a statement for each row of parameters."""
        if self._checkout.writes:
            self._checkout.size += sum(map(_estimate_size, parameters or ()))
        self.run(lambda raw: raw.executemany(statement, parameters))
        return self

    def register(self, name: str, table: Any) -> None:
        """Register an Arrow table under a name."""
        self._checkout.size += int(getattr(table, "nbytes", 0))
        self.run(lambda raw: raw.register(name, table))

    def commit(self) -> None:
        """Reserve disk space for the transaction, then commit.

        Raises:
            StoreFull: the disk has too little space; the transaction is still open.
        """
        if self._checkout.writes:
            self._lease.reserve(self._checkout.size)
        try:
            self.run(lambda raw: raw.commit())
        except duckdb.Error as error:
            if "COMMIT succeeded" not in str(error):  # only the checkpoint of the log failed
                raise
        self._checkout.size = 0

    def close(self) -> None:
        """Return the connection to the lease. Idempotent; does nothing in a forked child."""
        if not self._checkout.inherited:
            self._lease.release(self._checkout)

    def __getattr__(self, name: str) -> Any:
        """Delegate DuckDB's other methods and result attributes."""
        value = getattr(self._checkout.connection, name)
        if not callable(value):
            return value
        return lambda *args, **options: self.run(lambda raw: getattr(raw, name)(*args, **options))

    def __del__(self) -> None:
        """Return a connection that was not closed, in whichever thread the garbage collector runs."""
        self._lease.orphans.append(self._checkout)

    def _enter(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with self._checkout.busy:
            raw = self._checkout.connection
            if raw is None or interrupts.is_exiting():
                raise closed_error(self._lease.path)
            result = work(raw)
            return self if result is raw else result  # type: ignore[return-value]

    def _interrupt(self) -> None:
        raw = self._checkout.connection
        if raw is not None:
            raw.interrupt()


def user_frame() -> int | None:
    """The id of the frame that `find_user_frame` returns."""
    frame = find_user_frame()
    return None if frame is None else id(frame)


def find_user_frame() -> FrameType | None:
    """The frame of the function that acquires a connection.

    An interrupt may keep a function from closing its connection, and the traceback, which IPython stores, from dropping
    it. The function's frame is then no longer on the stack of its thread, and because the traceback references it, no
    other frame has its id. None where the end of a function proves nothing: a generator may resume elsewhere. Each
    thread inspects its own stack only: walking that of a running thread is not safe.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - this module's are skipped
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_INTERNAL):
        frame = frame.f_back
    suspendable = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    switched = "greenlet" in sys.modules and getattr(sys.modules["greenlet"].getcurrent(), "parent", None)
    return None if frame.f_code.co_flags & suspendable or switched else frame


def is_running(frame_id: int, code: CodeType) -> bool:
    """Whether a frame is on the stack of this thread: by its id, which another frame may get later, and its code."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and not (id(frame) == frame_id and frame.f_code is code):
        frame = frame.f_back
    return frame is not None


def running_frames() -> frozenset[int]:
    """The ids of the frames on the stack of this thread."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    ids = []
    while frame is not None:
        ids.append(id(frame))
        frame = frame.f_back
    return frozenset(ids)


def invalidated_error(path: str, error: duckdb.Error) -> StoreUnavailable:
    """The error for a connection on which DuckDB refuses further work."""
    reason = str(error).splitlines()[0]
    return StoreUnavailable(
        f"{path}: DuckDB stopped after an internal error: {reason}.",
        "Try again: the file is reopened. If it happens again, run %kern check.",
    )


def closed_error(path: str) -> StoreUnavailable:
    """The error for a connection that was closed during a call."""
    return StoreUnavailable(
        f"{path}: the connection was closed while it was in use.",
        "Python is exiting, or the call was interrupted; open a new connection block.",
    )


def _estimate_size(parameters: Any) -> int:
    """Roughly how many bytes the parameters of a statement take in the log."""
    if isinstance(parameters, dict):
        parameters = parameters.values()
    return sum(16 + (len(value) if isinstance(value, (str, bytes)) else 0) for value in parameters or ())
