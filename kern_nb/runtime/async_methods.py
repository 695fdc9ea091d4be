"""`async_method`: the asynchronous twin of a method, with its types: the method runs in a thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def async_method(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Return a coroutine function that calls the method, as a subclass may have overridden it, in a thread.

    Example:
        >>> import asyncio
        >>> class Sessions:
        ...     def get_name(self, session_id: str) -> str:
        ...         return f"Session {session_id}"
        ...     aget_name = async_method(get_name)
        >>> asyncio.run(Sessions().aget_name("chat"))
        'Session chat'
    """
    name = method.__name__

    @wraps(method)
    async def twin(owner: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        from kern_nb.runtime.event_loop import in_thread

        bound: Callable[..., T] = getattr(owner, name)
        return await in_thread(partial(bound, *args, **kwargs))

    twin.__name__ = f"a{name}"
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.a{name}".lstrip(".")
    twin.__doc__ = f"Do `{name}` asynchronously, in a thread; the same arguments, value and errors."
    return twin
