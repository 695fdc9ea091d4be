"""`attach`: record each run of a pydantic-ai agent, however it is started.

All of ``run``, ``run_sync``, ``run_stream`` and ``run_stream_events`` start a run with the agent's ``iter``. The
attached agent's ``iter`` adds a capability to each run, which has hooks for its steps; see `recording`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_ai.agent import AbstractAgent

from kern_nb.bridges.pydantic_ai.recording import RunRecording
from kern_nb.bridges.pydantic_ai.resume import select_options
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage


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
            options = select_options(kwargs)
            capabilities = [*capabilities, RunRecording(store, kwargs.get("deferred_tool_results"), options)]
        return start(*args, **kwargs | {"capabilities": capabilities})

    return start_recorded
