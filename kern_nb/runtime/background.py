"""A run that nobody waits for: it goes on in the runs' own thread, is told of as it happens, and can be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kern_nb.runtime import event_loop

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.session_owner import SessionOwner, Work

OnEnd = Callable[["Run | None", "BaseException | None"], None]
"""Told once, when all is stored: the run, or what went wrong; neither where it was stopped."""


class Live:
    """A run under way.

    Args:
        work: What makes the run.
        emit: Told what happens, in the runs' thread; it must not wait for anything.
        ended: Told of the end, in the same thread.
    """

    def __init__(self, work: Work, emit: Emit, ended: OnEnd) -> None:
        self._work, self._emit, self._ended = work, emit, ended
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._is_stopped = False
        event_loop.begin(self._watched)

    async def _watched(self) -> None:
        run: Run | None = None
        failed: BaseException | None = None
        try:
            if self._may_begin():
                run = await self._work(self._emit)
        except asyncio.CancelledError:  # by `stop`, or a library's own: either way nothing more comes
            pass
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - told to whoever watches
            failed = error
        with self._lock:
            self._cancel = None
        self._ended(run, failed)

    def _may_begin(self) -> bool:
        task, here = asyncio.current_task(), asyncio.get_running_loop()
        with self._lock:
            self._cancel = None if task is None else partial(here.call_soon_threadsafe, task.cancel)
            return not self._is_stopped

    def stop(self) -> None:
        """Cancel it. It is stored as CANCELLED, and ``ended`` is told then; a tool at work in a thread ends first."""
        with self._lock:
            self._is_stopped = True
            if self._cancel is not None:
                self._cancel()


def begin(owner: SessionOwner, input: Any, *, session_id: str, user_id: str | None = None) -> Work:
    """What makes a run on an input, as ``owner.run`` does.

    Raises:
        BadUsage: the input is none.
    """
    return owner._begin(input, session_id, user_id, {})  # noqa: SLF001 - it is one of us


def proceed(owner: SessionOwner, run_id: str, *, session_id: str, user_id: str | None = None) -> Work:
    """What goes on with a run, as ``owner.continue_run`` does."""
    return lambda emit: owner._proceed(run_id, session_id, emit, user_id=user_id)  # noqa: SLF001 - it is one of us
