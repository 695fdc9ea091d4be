"""`resume`: a paused run of an attached agent, resumed with the answers in the store.

When a run pauses, its messages are stored with it as pydantic-ai has them: they are the history that resumes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_ai.tools import DeferredToolResults

from kern_nb.bridges import run_options
from kern_nb.bridges.pydantic_ai.questions import framework_answer
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage
from kern_nb.extra_keys import PAUSE
from kern_nb.interop import media
from kern_nb.operations.attachments import require_answers
from kern_nb.records import UNRESOLVED_STATUSES, Run
from kern_nb.runtime import event_loop
from kern_nb.runtime.resume import build_results

_REQUIRED = ("output_type", "model", "instructions", "deps", "model_settings", "toolsets", "capabilities", "spec")
_OPTIONS = (*_REQUIRED, "workspace", "usage_limits", "usage", "metadata", "retries")
_CALL = "kern_nb.bridges.pydantic_ai.resume(agent, store, run, {options})"


def owner_names(agent: AbstractAgent[Any, Any]) -> Sequence[str | None]:
    """The name of the agent, which its runs have."""
    return (agent.name,)


def select_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a run that one that resumes it requires, too."""
    return {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}


def describe_pause(messages: Sequence[ModelMessage], options: Mapping[str, Any], store: SessionStore) -> dict[str, Any]:
    """What is stored with a paused run: its messages, and the names of the arguments that must be passed again."""
    dump = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    required = [name for name in _REQUIRED if name in options]
    return {"messages": media.store_parts(dump, store.put_blob), "options": required}


def resume(agent: AbstractAgent[Any, Any], store: SessionStore, run: Run, **options: Any) -> Run:
    """Resume a paused run with the answers in the store, and return it as it is stored then.

    Args:
        agent: The agent.
        store: The store of the run.
        run: The run.
        options: Arguments of ``agent.run``, such as ``deps``; those that the run had in this process are the default.

    Raises:
        StillWaiting: A requirement is pending.
        AlreadyClaimed: Another caller resumes the run; no tool has run.
        RunClosed: The run has ended; no tool has run.
        BadUsage: The run had an argument that is not stored, or its messages were not stored.
    """
    require_answers(store, run)
    pause = run.internal.get(PAUSE)
    if not isinstance(pause, dict):
        hint = "Pass them: agent.run(message_history=..., deferred_tool_results=deferred_tool_results(store, run_id))"
        raise BadUsage(f"The messages of run {run.session_id}/{run.run_index} were not stored at its pause.", hint)
    arguments = run_options.recall(run, pause.get("options") or (), options, call=_CALL)
    history = ModelMessagesTypeAdapter.validate_python(media.load_parts(pause["messages"], store))
    arguments |= {"message_history": history, "deferred_tool_results": deferred_tool_results(store, run.run_id)}
    event_loop.run(lambda: agent.run(conversation_id=run.session_id, **arguments))
    return store.get_run(run.run_id)


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
    if pending := [requirement for requirement in run.requirements if requirement.status in UNRESOLVED_STATUSES]:
        message = f"Requirement {pending[0].requirement_id} ({pending[0].tool_name}) of run {run_id} is not resolved."
        raise BadUsage(message, "Resolve it: store.resolve(...), or %kern approve, reject, answer.")
    # The answer to a question is the result of its call, as that of an external one is.
    run.requirements = [
        r
        if r.kind == "confirmation"
        else r.model_copy(update={"kind": "external_execution", "answer": framework_answer(r)})
        for r in run.requirements
    ]
    results = build_results(run, {}, {}, has_toolsets=True)
    if results is None:
        raise BadUsage(f"Run {run_id} has no pending tool calls.", "Start a new run in its conversation.")
    return results
