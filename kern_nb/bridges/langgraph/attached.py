"""`attach`: a compiled graph that writes to a store; how its invocations begin and end is known from callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, CallbackManager
from langgraph.pregel import Pregel
from langgraph.types import Command

from kern_nb.bridges.langgraph.saver import AGENT, KernSaver
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage


class _Invocations(BaseCallbackHandler):
    """What checkpoints do not say: that a paused run is answered, an invocation failed, or a breakpoint stopped it."""

    raise_error = True  # a second answer is refused before the graph runs
    run_inline = True

    def __init__(self, saver: KernSaver) -> None:
        self.saver = saver
        self._threads: dict[UUID, str] = {}
        self._lock = threading.Lock()

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Claim the paused run that an input answers."""
        thread_id = (metadata or {}).get("thread_id")
        if thread_id is None:
            return
        if isinstance(inputs, Command) and inputs.resume is not None:
            self.saver.claim(str(thread_id))
        with self._lock:
            self._threads[run_id] = str(thread_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """Close what the invocation left open."""
        self._end(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Close what the invocation left open, with its error."""
        self._end(run_id, error)

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        with self._lock:
            thread_id = self._threads.pop(run_id, None)
        if thread_id is not None:
            self.saver.end_invocation(thread_id, error)


def attach(graph: Any, store: SessionStore) -> Callable[[], None]:
    """Let a compiled graph write to a store; returns what undoes it.

    Its checkpointer is replaced: threads of the old one are not continued, and are there again afterwards.

    Raises:
        BadUsage: It is not a compiled graph, or it takes its checkpointer from a graph around it.
    """
    if not isinstance(graph, Pregel):
        raise BadUsage(f"{type(graph).__name__} is not a compiled graph.", "Attach what builder.compile() returns.")
    if graph.checkpointer is True or graph.checkpointer is False:
        hint = "Attach the graph around it, or compile it without checkpointer=."
        raise BadUsage(f"The graph was compiled with checkpointer={graph.checkpointer}.", hint)
    name = graph.get_name()
    checkpointer, config = graph.checkpointer, graph.config
    saver = KernSaver(store, agent_id=AGENT if name == "LangGraph" else name)
    # Not inheritable: nodes and nested graphs are not invocations of this graph.
    handler = _Invocations(saver)
    callbacks = (config or {}).get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.add_handler(handler, inherit=False)
    else:
        manager = CallbackManager(handlers=[*(callbacks or []), handler], inheritable_handlers=[*(callbacks or [])])
    graph.checkpointer = saver
    graph.config = {**(config or {}), "callbacks": manager}

    def undo() -> None:
        graph.checkpointer, graph.config = checkpointer, config

    return undo
