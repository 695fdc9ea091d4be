"""What a forked child inherits of its parent's connections, and must never use."""

from __future__ import annotations

import ctypes

from kern_nb.errors import StoreUnavailable

WAIT_S = 2.0
"""So long a fork waits for transactions of other threads to end: none is open in the child then."""


def leak(value: object) -> None:
    """Keep an object until the process ends, even when Python clears its modules.

    Database libraries write to the file or the socket when a connection is deallocated. An inherited one is the
    parent's.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def fork_error(place: object) -> StoreUnavailable:
    """The error for a file or database that was in use at the fork."""
    return StoreUnavailable(
        f"{place} was in use when this process was forked.",
        "Start processes by spawn: multiprocessing.get_context('spawn').",
    )
