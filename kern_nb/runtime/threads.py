"""Blocking work from async code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from kern_nb.errors import RunFailed

T = TypeVar("T")


def kept_in(work: Callable[[], T]) -> T:
    """Do it; what would leave Python is an error like any other."""
    try:
        return work()
    except (SystemExit, KeyboardInterrupt) as error:
        raise RunFailed(f"{type(error).__name__}: {error}") from error


async def in_thread(work: Callable[[], T]) -> T:
    """Do what may wait for a store, without holding up the loop. When cancelled, however often, it is done first.

    Raises:
        RunFailed: in place of a SystemExit or KeyboardInterrupt, which would end the loop, and every run with it.
    """
    task = asyncio.ensure_future(to_thread.run_sync(lambda: kept_in(work)))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    task.exception()  # looked at, so that asyncio does not complain that nobody did
    raise cancelled
