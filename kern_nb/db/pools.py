"""SQLAlchemy's pools and transactions with Ctrl-C: every connection is closed, and the interrupt is what is raised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy.pool import Pool, QueuePool


@contextlib.contextmanager
def raise_interrupt() -> Iterator[None]:
    """Raise the KeyboardInterrupt in place of SQLAlchemy's assertion about a transaction that it interrupted."""
    try:
        yield
    except AssertionError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


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
        close = self._dialect.do_terminate if terminate else self._dialect.do_close
        for connection in list(self._to_close):
            try:  # SQLAlchemy's own function prints the traceback of an interrupt
                close(connection)
            except Exception:
                self.logger.exception("Cannot close connection %r", connection)
            with contextlib.suppress(ValueError):  # another thread closed it as well
                self._to_close.remove(connection)

    def dispose(self) -> None:
        """Close the idle connections."""
        self._close_pending()
        super().dispose()


class InterruptSafeQueuePool(InterruptSafePool, QueuePool):
    """SQLAlchemy's default pool, with closes that survive Ctrl-C."""
