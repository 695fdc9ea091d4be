"""`attach`: record each run of a pydantic-ai agent, however it is started.

All of ``run``, ``run_sync``, ``run_stream`` and ``run_stream_events`` start a run with the agent's ``iter``. The
attached agent's ``iter`` adds a capability to each run, which has hooks for its steps; see `recording`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.tools import DeferredToolResults

from kern_nb.bridges.pydantic_ai.recording import RunRecording
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage
from kern_nb.runtime import resume


def attach(agent: AbstractAgent[Any, Any], store: SessionStore) -> Callable[[], None]:
    """Record each run of an agent in a store as it happens; returns what undoes it.

    The session is the run's ``conversation_id``; ``agent_id`` is the agent's name. The run is stored before the model
    is called, each message and each tool's result as it comes. Runs of attached agents within a tool of a recorded run
    are its members' runs. A run that ends with `DeferredToolRequests` is paused, with a requirement for each call;
    passing ``deferred_tool_results`` resumes it. Realtime sessions cannot be recorded, and are refused.

    Args:
        agent: An agent, or a wrapper of one.
        store: The store.

    Raises:
        AlreadyClaimed: in a run that resumes another: somebody else has resumed it; no tool has run.
        RunClosed: in a run that resumes another: that one has been resumed, and has ended; no tool has run.
    """
    own = vars(agent)
    new = {"iter": _recorded(agent.iter, store), "realtime": _refuse_realtime}
    before = {name: own.get(name) for name in new}
    own.update(new)

    def undo() -> None:
        for name, method in before.items():
            if method is None:
                own.pop(name, None)
            else:
                own[name] = method

    return undo


def _refuse_realtime(*_args: Any, **_kwargs: Any) -> Any:
    raise BadUsage("Realtime sessions of an attached agent cannot be recorded.", "Detach it: detach_agent(agent).")


def _recorded(start: Callable[..., Any], store: SessionStore) -> Callable[..., Any]:
    """Wrap a method that starts a run: the run gets a capability that records it."""

    def start_recorded(*args: Any, **kwargs: Any) -> Any:
        capabilities = kwargs.get("capabilities") or ()
        if not any(isinstance(capability, RunRecording) for capability in capabilities):  # a wrapper's run has one
            capabilities = [*capabilities, RunRecording(store, kwargs.get("deferred_tool_results"))]
        return start(*args, **kwargs | {"capabilities": capabilities})

    return start_recorded


def deferred_tool_results(store: SessionStore, run_id: str) -> DeferredToolResults:
    """The answers to a paused run's requirements, which resume it: ``agent.run(deferred_tool_results=...)``.

    Args:
        store: The store of the run.
        run_id: The paused run.

    Raises:
        RunNotFound: There is no such run.
        BadUsage: A requirement is not resolved, or the run waits for none.

    Example:
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.records import Message, Requirement, ToolCall
        >>> store = InMemoryDb()
        >>> run = store.start_run("chat", input="Delete a.txt")
        >>> call = ToolCall(tool_call_id="call_1", tool_name="delete", args={"path": "a.txt"})
        >>> _ = store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
        >>> [ask] = store.pause_run(run.run_id, [Requirement(kind="confirmation", tool_call_id="call_1")])
        >>> _ = store.resolve(ask.requirement_id, approve=True)
        >>> deferred_tool_results(store, run.run_id).approvals
        {'call_1': ToolApproved()}
    """
    run = store.get_run(run_id)
    if pending := [requirement for requirement in run.requirements if requirement.status in ("pending", "claimed")]:
        message = f"Requirement {pending[0].requirement_id} ({pending[0].tool_name}) of run {run_id} is not resolved."
        raise BadUsage(message, "Resolve it: store.resolve(...), or %kern approve, reject, answer.")
    results = resume.build_results(run, {}, {}, has_toolsets=True)
    if results is None:
        raise BadUsage(f"Run {run_id} has no pending tool calls.", "Start a new run in its conversation.")
    return results
