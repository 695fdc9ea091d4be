"""What the runs of agents, teams and workflows share: how they are stored at first, claimed to be resumed, and ended.

`engine` and `workflow_engine` do the work in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from kern_nb import extra_keys
from kern_nb.db import SessionStore, codec
from kern_nb.errors import AlreadyClaimed, KernError, RunFailed, RunNotFound, StillWaiting, StoreBusy
from kern_nb.records import Run
from kern_nb.runtime import cancellation
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Emit, EventSource
from kern_nb.runtime.settings import AgentSettings, OwnerSettings, Request


async def store_request(settings: OwnerSettings, store: SessionStore, request: Request, **fields: Any) -> Run:
    """Store the start of a requested run; if it is cancelled meanwhile, store that.

    A value that cannot be stored is refused before that.
    """
    codec.dumps([settings.default_state, request.session_state])
    run_id = str(uuid4())
    fields |= settings.owner_fields | {
        "run_id": run_id,
        "user_id": request.user_id,
        "parent_run_id": request.parent.run_id if request.parent else None,
        # Set before the run, so that it is not a change by the run.
        "default_state": {} if settings.overwrite_state else settings.default_state,
        "metadata": None if request.parent else settings.metadata,
        "extra": request.extra | ({"metadata": settings.metadata} if settings.metadata else {}),
        "internal": extra_keys.run_internal(request.extra, copy.deepcopy(request.session_state)),
    }
    try:
        return await in_thread(lambda: store.start_run(request.session_id, **fields))
    except asyncio.CancelledError:
        with contextlib.suppress(RunNotFound):  # the start may not have been stored
            await in_thread(lambda: store.finish_run(run_id, status="CANCELLED", error="cancelled"))
        raise


async def load_owner(store: SessionStore, run: Run, parent: RunContext | None) -> str | None:
    """Return the user whose history and sessions a resumed run may read: the owner of its session."""
    if parent is not None:
        return parent.user_id
    session = await in_thread(lambda: store.get_session(run.session_id or "", runs=False))
    return session.user_id if session else None


async def claim(store: SessionStore, before: Run, user_id: str | None = None) -> Run:
    """Claim a run; release it if this is cancelled meanwhile."""
    claimed: list[Run] = []
    try:
        await in_thread(lambda: claimed.append(store.claim_run(before.run_id, user_id=user_id)))
    except asyncio.CancelledError:
        if claimed:  # by this task, not by another one of this process
            await in_thread(lambda: store.release_run(before))
        raise
    return claimed[0]


async def finish(
    settings: OwnerSettings, context: RunContext, work: Callable[[], Awaitable[None]], *, before: Run | None = None
) -> Run:
    """Do the work of a run; however it ends, the run is stored with its status, its error and its state.

    Args:
        settings: The settings with the time limit.
        context: The run.
        work: Does the work.
        before: A resumed run as it was. If it fails before anything is written, it is released as it was: its answers
            are kept, and it can be resumed again.

    Raises:
        RunFailed: the run failed, and is stored with the error.
    """
    recorder, store = context.recorder, context.store
    with cancellation.cancellable(store, recorder.run) as request:
        try:
            async with asyncio.timeout(settings.timeout_s) as limit:
                await work()
        except BaseException as error:
            expired = isinstance(error, TimeoutError) and limit.expired()
            reason = f"no answer within {settings.timeout_s:g} s" if expired else str(error) or "no reason given"
            try:
                await _fail(context, error, None if cancellation.is_requested() else before, reason)
            finally:
                is_request_alone = request.end()
            if not (isinstance(error, asyncio.CancelledError) and is_request_alone):
                raise
        finally:
            if recorder.folder.is_open:
                await in_thread(recorder.folder.close)
        request.end()
    run = recorder.stored_run
    if run is None:
        run = await in_thread(lambda: store.get_run(context.run_id))
    if isinstance(settings, AgentSettings) and settings.output is not None and run.output is not None:
        run.output = settings.output.from_json(run.output)
    recorder.events.ended(run)
    return run


def event_source(settings: OwnerSettings, run: Run, emit: Emit) -> EventSource:
    """Create the source of a run's events."""
    has_results = not isinstance(settings, AgentSettings) or settings.storage.tool_messages
    return EventSource(run, settings.owner, emit, settings.events, with_results=has_results)


async def _fail(context: RunContext, error: BaseException, before: Run | None, reason: str) -> None:
    """Store the end of a run that was cancelled, or failed: then raise RunFailed."""
    recorder, store = context.recorder, context.store
    is_released = before is not None and before.status != "RUNNING" and not recorder.has_written
    task = asyncio.current_task()
    # A library's own CancelledError looks the same, but then nobody has cancelled this task.
    is_cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    name = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
    text = "cancelled" if is_cancelled else f"{name}{reason}"
    with contextlib.suppress(StoreBusy):  # the first error is the one to report
        if is_released and before is not None:
            await in_thread(lambda: store.release_run(before))
        else:
            await recorder.fail(text, "CANCELLED" if is_cancelled else "ERROR")
    if is_released and isinstance(error, (AlreadyClaimed, StillWaiting)):
        raise error  # from a member's run; nothing failed
    if is_cancelled:
        recorder.events.cancelled(text)
    else:
        recorder.events.failed(error, text)
        ref = f"{context.session_id}/{recorder.run.run_index}"
        stored = "The run is unchanged: continue it again." if is_released else f"It is stored: %kern show {ref}"
        hint = error.hint if isinstance(error, KernError) and error.hint else stored
        raise RunFailed(f"Run {ref} failed: {text}", hint) from error
