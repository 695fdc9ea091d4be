"""Runs in the background: in the thread of the event loop, with events as they happen, and a way to stop them."""

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
    from kern_nb.runtime.run_modes import RunFunction
    from kern_nb.runtime.session_owner import SessionOwner

OnEnd = Callable[["Run | None", "BaseException | None"], None]
"""Called once, after everything is stored, with the run, or with the error; with neither after a stop."""


class BackgroundRun:
    """A run in the background, started at once.

    Args:
        work: Makes the run.
        emit: Receives the events, in the thread of the event loop; it must not block.
        on_end: Called at the end, in the same thread.
    """

    def __init__(self, work: RunFunction, emit: Emit, on_end: OnEnd) -> None:
        self._work, self._emit, self._on_end = work, emit, on_end
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._is_stopped = False
        event_loop.start_detached(self._run)

    async def _run(self) -> None:
        run: Run | None = None
        error: BaseException | None = None
        try:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            with self._lock:
                self._cancel = None if task is None else partial(loop.call_soon_threadsafe, task.cancel)
                is_stopped = self._is_stopped
            if not is_stopped:
                run = await self._work(self._emit)
        except asyncio.CancelledError:  # by `stop`, or a library's own: either way nothing more comes
            pass
        except (Exception, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001 - passed to `on_end`
            error = raised
        with self._lock:
            self._cancel = None
        self._on_end(run, error)

    def stop(self) -> None:
        """Cancel the run. It is stored as CANCELLED before ``on_end`` is called; a tool in a thread ends first."""
        with self._lock:
            self._is_stopped = True
            if self._cancel is not None:
                self._cancel()


def prepare_run(owner: SessionOwner, input: Any, *, session_id: str, user_id: str | None = None) -> RunFunction:
    """Prepare a run on an input, like ``owner.run``.

    Args:
        owner: The agent, team or workflow.
        input: The input.
        session_id: The session of the run.
        user_id: The owner of the session.

    Raises:
        BadUsage: the input is empty.
    """
    return owner._start(input, session_id, user_id)  # noqa: SLF001 - of this package


def prepare_resume(owner: SessionOwner, run_id: str, *, session_id: str, user_id: str | None = None) -> RunFunction:
    """Prepare the continuation of a run, like ``owner.continue_run``; arguments as for `prepare_run`."""
    return lambda emit: owner._resume_run(run_id, session_id, emit, user_id=user_id)  # noqa: SLF001 - of this package
