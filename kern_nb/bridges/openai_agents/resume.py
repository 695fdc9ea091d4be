"""`resume`: a paused run of an attached agent, resumed with the answers in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agents import Runner

from kern_nb.bridges import run_options
from kern_nb.bridges.openai_agents.pauses import RESUMABLE, load_state
from kern_nb.bridges.openai_agents.session import KernSession
from kern_nb.extra_keys import PAUSE
from kern_nb.operations.attachments import require_answers
from kern_nb.runtime import event_loop

if TYPE_CHECKING:
    from agents import Agent

    from kern_nb.db import SessionStore
    from kern_nb.records import Run

_CALL = "kern_nb.bridges.openai_agents.resume(agent, store, run, {options})"


def owner_names(agent: Agent[Any]) -> Sequence[str | None]:
    """The name of the agent, which its runs have."""
    return (agent.name,)


def resume(agent: Agent[Any], store: SessionStore, run: Run, **options: Any) -> Run:
    """Resume a paused run with the answers in the store, and return it as it is stored then.

    Args:
        agent: The agent that the run started with.
        store: The store of the run.
        run: The run.
        options: Arguments of ``Runner.run``, such as ``context``; those that the run had in this process are the
            default.

    Raises:
        StillWaiting: A requirement is pending.
        AlreadyClaimed: Another caller resumes the run; no tool has run.
        RunClosed: The run has ended; no tool has run.
        BadUsage: The run had an argument that is not stored.
    """
    require_answers(store, run, RESUMABLE)
    stored = run.internal.get(PAUSE)
    pause = stored if isinstance(stored, dict) else {}
    arguments = run_options.recall(run, pause.get("options") or (), options, call=_CALL)
    state = arguments.pop("state", None)  # the SDK cannot serialize some states
    if pause.get("session") and "session" not in arguments:
        arguments["session"] = KernSession(run.session_id or "", store, user_id=run.user_id)

    async def work() -> Any:
        is_stored = "state" in pause or state is None
        return await Runner.run(agent, await load_state(agent, run, store) if is_stored else state, **arguments)

    event_loop.run(work)
    return store.get_run(run.run_id)
