"""Resuming a paused run of Agno: once, by whoever claims it first.

Agno resumes a run as often as it is asked to, and its tools run each time. Before `continue_run` of an attached agent,
the answers are stored and the run is claimed, each by a compare-and-set; the second of two callers gets an error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from kern_nb.db.store import SessionStore
from kern_nb.errors import AlreadyClaimed, RunNotFound
from kern_nb.interop.agno import answer_of, answers_of_step
from kern_nb.operations.attachments import require_answers
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.runtime import event_loop

_METHODS = ("continue_run", "acontinue_run")


def owner_names(agent: Any) -> Sequence[str | None]:
    """The id and the name of an agent, team or workflow."""
    return (agent.id, agent.name)


def resume(agent: Any, store: SessionStore, run: Run, **options: Any) -> Run:
    """Resume a paused run with the answers in the store, and return it as it is stored then.

    Args:
        agent: The agent, team or workflow.
        store: The store of the run.
        run: The run.
        options: Arguments of Agno's ``acontinue_run``, such as ``dependencies``.

    Raises:
        StillWaiting: A requirement is pending.
        AlreadyClaimed: Another caller resumes the run; no tool has run.
        RunClosed: The run has ended; no tool has run.
    """
    require_answers(store, run)
    if "user_id" in inspect.signature(agent.acontinue_run).parameters:
        options = {"user_id": run.user_id} | options

    async def work() -> Any:
        return await agent.acontinue_run(run_id=run.run_id, session_id=run.session_id, stream=False, **options)

    event_loop.run(work)
    return store.get_run(run.run_id)


def guard_resumes(agent: Any, store: SessionStore) -> Callable[[], None]:
    """Claim paused runs before an agent, team or workflow resumes them; returns what undoes it."""
    before = {name: vars(agent).get(name) for name in _METHODS}
    for name in _METHODS:
        setattr(agent, name, _guarded(getattr(agent, name), store))

    def undo() -> None:
        for name, method in before.items():
            if method is None:
                vars(agent).pop(name, None)
            else:
                setattr(agent, name, method)

    return undo


def _guarded(method: Callable[..., Any], store: SessionStore) -> Callable[..., Any]:
    @functools.wraps(method)
    def resume(run_response: Any = None, *args: Any, **kwargs: Any) -> Any:
        claimed = None if kwargs.get("fork") or kwargs.get("regenerate") else _claim(store, run_response, kwargs)
        if claimed is None:
            return method(run_response, *args, **kwargs)
        try:
            result = method(run_response, *args, **kwargs)
        except BaseException:
            _release(store, claimed)
            raise
        if inspect.isawaitable(result):
            return _awaited(result, store, claimed)
        if isinstance(result, AsyncIterator):
            return _aiterated(result, store, claimed)
        if isinstance(result, Iterator):
            return _iterated(result, store, claimed)
        _release(store, claimed)
        return result

    return resume


async def _awaited(result: Awaitable[Any], store: SessionStore, claimed: Run) -> Any:
    try:
        return await result
    finally:
        _release(store, claimed)


async def _aiterated(events: AsyncIterator[Any], store: SessionStore, claimed: Run) -> AsyncIterator[Any]:
    try:
        async for event in events:
            yield event
    finally:
        _release(store, claimed)


def _iterated(events: Iterator[Any], store: SessionStore, claimed: Run) -> Iterator[Any]:
    try:
        yield from events
    finally:
        _release(store, claimed)


def _release(store: SessionStore, claimed: Run) -> None:
    """Release a run that was not saved after it was claimed; does nothing to one that was."""
    store.release_run(claimed)


def _claim(store: SessionStore, run_response: Any, kwargs: dict[str, Any]) -> Run | None:
    """Store the answers of the caller and claim the run; the run before, or None if it is not paused.

    Raises:
        AlreadyClaimed: It was paused when the caller got it, and was resumed since.
        AlreadyResolved: A requirement has another answer.
        StillWaiting: A requirement has no answer.
    """
    run_id = kwargs.get("run_id") if run_response is None else run_response.run_id
    try:
        run = store.get_run(str(run_id))
    except RunNotFound:
        return None  # Agno says so
    lists = [
        kwargs.get(name) or getattr(run_response, name, None) or () for name in ("requirements", "step_requirements")
    ]
    if run.status != "PAUSED":
        if lists[0] or lists[1] or (run_response is not None and run_response.is_paused):
            message = f"Run {run.session_id}/{run.run_index} was resumed before: it is {run.status}."
            raise AlreadyClaimed(message, "Load the run again; nothing was changed, and no tool was called.")
        return None
    stored = {r.requirement_id: r for r in store.requirements(run_id=run.run_id, status=None)}
    for requirement in lists[0]:
        data = requirement if isinstance(requirement, dict) else requirement.to_dict()
        _store_answer(store, stored.get(data.get("id", "")), answer_of(data))
    for requirement in lists[1]:
        data = requirement if isinstance(requirement, dict) else requirement.to_dict()
        for requirement_id, answer in answers_of_step(data).items():
            _store_answer(store, stored.get(requirement_id), answer)
    store.claim_run(run.run_id)
    return run


def _store_answer(store: SessionStore, requirement: Requirement | None, answer: dict[str, Any] | None) -> None:
    """Resolve a requirement with an answer of Agno's; an equal one that is stored stays."""
    if requirement is None or answer is None:
        return
    if requirement.status not in UNRESOLVED_STATUSES and requirement.approved == answer.get("approve", True):
        return
    store.resolve(requirement, **answer)
