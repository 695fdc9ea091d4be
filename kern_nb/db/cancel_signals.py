"""What cancels the runs that this process makes, by run id. A run registers itself while it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: dict[str, Callable[[], None]] = {}


@contextmanager
def listening(run_id: str, cancel: Callable[[], None]) -> Iterator[None]:
    """Call a function, from any thread, when the run is to be cancelled."""
    _listeners[run_id] = cancel
    try:
        yield
    finally:
        _listeners.pop(run_id, None)


def notify(run_id: str) -> None:
    """Cancel a run that this process makes."""
    cancel = _listeners.get(run_id)
    if cancel is not None:
        cancel()
