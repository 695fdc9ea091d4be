"""Connections that a forked child inherits from its parent and must never use."""

from __future__ import annotations

import ctypes

from kern_nb.errors import StoreUnavailable

WAIT_S = 2.0
"""How long a fork waits for the transactions of other threads to end, so that none is open in the child."""


def leak(value: object) -> None:
    """Keep an object until the process ends, even when Python clears its modules.

    Database libraries write to the file or the socket when a connection is deallocated. An inherited connection is the
    parent's.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def fork_error(target: object) -> StoreUnavailable:
    """The error for a file or database that was in use at the fork."""
    return StoreUnavailable(
        f"{target} was in use when this process was forked.",
        "Start processes by spawn: multiprocessing.get_context('spawn').",
    )
