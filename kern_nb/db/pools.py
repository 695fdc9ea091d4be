"""Connection pools that close every connection, even if Ctrl-C interrupts its close."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy.pool import Pool, QueuePool


class InterruptSafePool(Pool):
    """A pool that closes a connection at its next use if Ctrl-C interrupted the close.

    An open connection may hold the write lock, and the traceback of the interrupt, which IPython keeps, keeps it alive.
    """

    def __init__(self, creator: Any, *args: Any, **options: Any) -> None:
        super().__init__(creator, *args, **options)
        self._to_close: list[Any] = []

    def _do_get(self) -> Any:
        self._close_pending()
        return super()._do_get()

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        self._to_close.append(connection)
        self._close_pending(terminate=terminate)

    def _close_pending(self, *, terminate: bool = False) -> None:
        for connection in list(self._to_close):
            super()._close_connection(connection, terminate=terminate)
            with contextlib.suppress(ValueError):  # another thread closed it as well
                self._to_close.remove(connection)

    def dispose(self) -> None:
        """Close the idle connections."""
        self._close_pending()
        super().dispose()


class InterruptSafeQueuePool(InterruptSafePool, QueuePool):
    """SQLAlchemy's default pool, with closes that survive Ctrl-C."""
