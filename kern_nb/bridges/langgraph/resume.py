"""`resume` and `resume_run`: a graph goes on with the answers that are stored for its paused run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.types import Command

from kern_nb.bridges.langgraph.pauses import INTERRUPT_ID, NODES
from kern_nb.bridges.langgraph.saver import KernSaver
from kern_nb.db.checkpoint_tables import THREAD
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage, StillWaiting
from kern_nb.operations.attachments import require_answers
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.runtime import event_loop


def owner_names(graph: Any) -> Sequence[str | None]:
    """The name of the graph, which its runs have."""
    return (_saver(graph).recorder.agent_id,)


def resume(graph: Any, store: SessionStore, run: Run, **options: Any) -> Run:
    """Resume a paused run with the answers in the store, and return it as it is stored then.

    Args:
        graph: The compiled graph, attached to the store.
        store: The store of the run.
        run: The run.
        options: Arguments of ``graph.ainvoke``: ``config``, ``context`` and others. The values of the thread's latest
            configuration and its context in this process are the default.

    Raises:
        StillWaiting: A requirement is pending.
        AlreadyClaimed: Another caller resumes the run; no tool has run.
        RunClosed: The run has ended; no tool has run.
        BadUsage: The run is not the latest of its thread, was rejected at a breakpoint, or had a context, which is not
            stored.
    """
    require_answers(store, run)
    saver = _saver(graph)
    graph_input, config = _prepare(saver, run.run_id, options.pop("config", None))
    context = saver.invocations.context(str(run.extra.get(THREAD)))
    if context is not None:
        options = {"context": context} | options
    if getattr(graph, "context_schema", None) is not None and "context" not in options:
        raise BadUsage(
            f"The graph of run {run.session_id}/{run.run_index} has a context, which is not stored.",
            "Pass it: kern_nb.bridges.langgraph.resume(graph, store, run, context=...)",
        )
    if graph_input is None:  # at a breakpoint; an answer to an interrupt is claimed when the graph starts
        saver.claim(str(run.extra.get(THREAD)))
    event_loop.run(lambda: graph.ainvoke(graph_input, config, **options))
    return store.get_run(run.run_id)


def resume_run(graph: Any, run_id: str, config: dict[str, Any] | None = None) -> Any:
    """Let a graph go on with a paused run whose requirements are resolved, and return what ``graph.invoke`` returns.

    Args:
        graph: The compiled graph; its checkpointer is a `KernSaver`.
        run_id: The paused run.
        config: Further configuration of the invocation.

    Raises:
        BadUsage: The graph writes elsewhere, or the run is not the latest of its thread, or not paused.
        RunNotFound: There is no such run.
        StillWaiting: A requirement is not resolved.
    """
    graph_input, options = _prepare(_saver(graph), run_id, config)
    return graph.invoke(graph_input, options)


def _saver(graph: Any) -> KernSaver:
    if not isinstance(graph.checkpointer, KernSaver):
        raise BadUsage("The graph has no KernSaver as its checkpointer.", "Attach it with attach_agent(graph, store).")
    return graph.checkpointer


def _prepare(saver: KernSaver, run_id: str, config: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """The input and the configuration that resume a run."""
    run = saver.store.get_run(run_id)
    thread_id = run.extra.get(THREAD)
    requirements = saver.store.requirements(run_id=run_id, status=None)
    if waiting := [r for r in requirements if r.status in UNRESOLVED_STATUSES]:
        names = ", ".join(r.prompt or r.requirement_id for r in waiting)
        raise StillWaiting(f"Run {run_id} has {len(waiting)} pending requirements: {names}.", "Resolve them first.")
    if run.status != "PAUSED" or thread_id is None or saver.latest_run(thread_id) != run_id:
        message = f"Run {run_id} ({run.status}) is not a paused run at the end of its thread."
        raise BadUsage(message, "Invoke the graph with the checkpoint to go on from.")
    answers = {r.extra[INTERRUPT_ID]: _answer(r) for r in requirements if r.extra.get(INTERRUPT_ID)}
    has_breakpoint = any(NODES in r.extra for r in requirements)
    graph_input: Any = Command(resume=answers) if answers and not has_breakpoint else None
    if has_breakpoint and any(r.approved is False for r in requirements):
        raise BadUsage(f"Run {run_id} was rejected at a breakpoint.", "Start another run, or update the state.")
    options = dict(config or {})
    earlier = saver.invocations.configurable(thread_id, saver.latest_metadata(thread_id))
    options["configurable"] = {**earlier, **options.get("configurable", {}), "thread_id": thread_id}
    return graph_input, options


def _answer(requirement: Requirement) -> Any:
    """What ``interrupt`` returns: the value, or the decision that LangChain's human-in-the-loop middleware expects."""
    if requirement.kind != "confirmation":
        return requirement.answer
    if requirement.approved is False:
        decision: dict[str, Any] = {"type": "reject", "message": requirement.note or ""}
    elif isinstance(requirement.answer, dict):
        edited = {"name": requirement.tool_name, "args": requirement.answer}
        decision = {"type": "edit", "edited_action": edited}
    else:
        decision = {"type": "approve"}
    return {"decisions": [decision]}
