"""Resolve what a user's function returns: awaitables are awaited, generators and other iterators run to their end.

A generator function only returns a generator; its body has not run yet. Tools, workflow steps and functions for
instructions need the values, so their results pass through `resolve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any

from anyio import to_thread

_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_CONTAINERS = (list, tuple, dict)


class IterationFailed(Exception):
    """An iterator raised before its end.

    Attributes:
        cause: What it raised; of an iterator within an iterator, what the inner one raised.
        items: The values before that; those of an inner iterator are a list at the end.
    """

    def __init__(self, error: BaseException, items: list[Any]) -> None:
        super().__init__(str(error))
        self.cause: BaseException = error.cause if isinstance(error, IterationFailed) else error
        self.items: list[Any] = [*items, error.items] if isinstance(error, IterationFailed) else items


def is_pending(value: Any) -> bool:
    """Whether a value is an awaitable or an iterator, which `resolve` turns into what it yields."""
    return isinstance(value, (Iterator, AsyncIterable)) or inspect.isawaitable(value)


async def resolve(value: Any, convert: Callable[[Any], Any] = lambda item: item, depth: int = 20) -> Any:
    """Return the value itself, or the result of an awaitable, or the list of what an iterator yields.

    Values within lists, tuples and dicts are resolved, too. When the task is cancelled, a running generator is closed.

    Args:
        value: What a function returned.
        convert: Applied to each value that an iterator yields.
        depth: The maximum nesting depth that is searched: a list that contains itself would never end.

    Raises:
        IterationFailed: an iterator raised; the exception carries what it had yielded.
    """
    while inspect.isawaitable(value):
        value = await value
    if isinstance(value, AsyncIterable):
        return await _from_async(value, convert, depth)
    if isinstance(value, Iterator):
        return await _from_sync(value, convert, depth)
    if depth == 0 or not _contains_pending(value, depth):
        return value
    if isinstance(value, dict):
        return {key: await resolve(item, convert, depth - 1) for key, item in value.items()}
    items = [await resolve(item, convert, depth - 1) for item in value]
    return items if type(value) is list else tuple(items)


def _contains_pending(value: Any, depth: int) -> bool:
    if depth == 0 or type(value) not in _CONTAINERS:
        return False
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return any(
        _contains_pending(item, depth - 1) if type(item) in _CONTAINERS else is_pending(item)
        for item in items
        if type(item) not in _SCALARS
    )


async def _from_async(values: AsyncIterable[Any], convert: Callable[[Any], Any], depth: int) -> list[Any]:
    items: list[Any] = []
    iterator = aiter(values)
    try:
        async for item in iterator:
            items.append(convert(await resolve(item, convert, depth - 1)))
            # A generator that awaits nothing would otherwise hold up the loop, and could not be cancelled.
            await asyncio.sleep(0)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise IterationFailed(error, items) from error
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):  # the values, or the first error, are what counts
                await close()
    return items


async def _from_sync(values: Iterator[Any], convert: Callable[[Any], Any], depth: int) -> list[Any]:
    """Iterate in a thread, because a generator may block. Where the task is cancelled, it stops at the next value."""
    stopped = threading.Event()

    def collect() -> tuple[list[Any], BaseException | None]:
        items: list[Any] = []
        try:
            for item in values:
                items.append(item)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the task, where StopIteration may be raised
            return items, error
        finally:
            close = getattr(values, "close", None)
            if close is not None and inspect.isgenerator(values):
                with contextlib.suppress(Exception):
                    close()
        return items, None

    try:
        items, error = await to_thread.run_sync(collect, abandon_on_cancel=True)
    finally:
        stopped.set()
    items = [convert(item) for item in await resolve(items, convert, depth)]
    if error is not None:
        raise IterationFailed(error, items) from error
    return items
