"""`rerun`: branch before a run, run its input again with changes, compare with the original. One call, one branch.

`planning` selects the inputs and makes the agent and the branch, `result` runs the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern_nb import models
from kern_nb.agent.agent import Agent, Instructions
from kern_nb.db import SessionStore
from kern_nb.operations.rerun.planning import RerunRequest, prepare
from kern_nb.operations.rerun.result import Rerun, run_inputs
from kern_nb.records import Run, Session
from kern_nb.runtime import event_loop
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.provenance import current_cell
from kern_nb.runtime.session_owner import SessionOwner

__all__ = ["Rerun", "arerun", "rerun"]


def rerun(
    reference: str | Session | Run,
    agent: SessionOwner | None = None,
    *,
    message: Any = None,
    model: Any = None,
    instructions: Instructions = None,
    tools: Sequence[Any] | None = None,
    name: str | None = None,
    onward: bool = False,
    store: str | SessionStore | None = None,
) -> Rerun:
    """Run a part of a session again, in a branch before it; the original does not change.

    The agent uses its own instructions and receives the whole inherited conversation, whatever its number of history
    runs; ``num_history_messages`` and ``history_token_budget`` apply. As always, failed runs and calls without their
    results are left out of the history. The session state is that of the branch point: within a run, the state before
    the run.

    Args:
        reference: What to run again. ``chat/2``: that run, with its input. ``chat``: every run, in an empty session.
            ``chat/2.5``: run 2 from that message on, with ``message`` in its place; without ``message``, it must be a
            user's message and is sent again. Or a session or run as a store or an agent returned it.
        agent: The agent, team or workflow that runs; it does not change. By default an agent made from the record (its
            instructions) and from ``model`` and ``tools``.
        message: The first input, instead of the recorded one. With text alone, recorded files are kept; a list of texts
            and files replaces everything.
        model: A model instead of the agent's; see `SessionOwner.variant`.
        instructions: Instructions instead of the agent's.
        tools: Tools instead of the agent's; an empty list for none.
        name: The id of the new session; by default a generated one.
        onward: Also run the inputs of all later runs, in order.
        store: A store or its name; by default the agent's db, else the one in use.

    Returns:
        The branch with its new runs, and the comparison. It includes a failed or paused run; later inputs are run with
        `Rerun.continue_run`.

    Raises:
        SessionNotFound: The reference names no session.
        RunNotFound: It names no run.
        MessageNotFound: It names no message.
        AmbiguousReference: It names several.
        SessionExists: The new session's id is in use. As with all errors but RunFailed, nothing was written.
        ReadOnlyStore: The store is read-only.
        OwnerMismatch: The agent belongs to another user.
        BadUsage: There is no input or no agent, or the agent uses another store.
        RunFailed: A run could not be stored; the hint names the branch, which remains.

    Example:
        >>> from kern_nb import Agent, rerun
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> clerk = Agent(model=ScriptedModel(["Hello"]), db=InMemoryDb(), session_id="chat")
        >>> run = clerk.run("Hi")
        >>> result = rerun("chat/0", clerk, model=ScriptedModel(["Good morning"]), name="what-if")
        >>> (result.session_id, result.status, result.output)
        ('what-if', 'COMPLETED', 'Good morning')
    """
    request = RerunRequest(reference, agent, message, model, instructions, tools, name, onward, store)
    provenance = current_cell()
    return event_loop.run(lambda: _rerun(request, provenance))


async def arerun(
    reference: str | Session | Run,
    agent: SessionOwner | None = None,
    *,
    message: Any = None,
    model: Any = None,
    instructions: Instructions = None,
    tools: Sequence[Any] | None = None,
    name: str | None = None,
    onward: bool = False,
    store: str | SessionStore | None = None,
) -> Rerun:
    """Await `rerun`: the same arguments, value and errors.

    Example:
        >>> import asyncio
        >>> from kern_nb import Agent, arerun
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> clerk = Agent(model=ScriptedModel(["Hello", "Hello again"]), db=InMemoryDb(), session_id="chat")
        >>> run = clerk.run("Hi")
        >>> asyncio.run(arerun("chat/0", clerk)).output
        'Hello again'
    """
    request = RerunRequest(reference, agent, message, model, instructions, tools, name, onward, store)
    return await _rerun(request, current_cell())


async def _rerun(request: RerunRequest, provenance: dict[str, Any] | None) -> Rerun:
    rerun, create_branch = await in_thread(lambda: prepare(request))
    if isinstance(rerun.agent, Agent):  # an unusable tool or model is refused before the branch exists
        rerun.agent._settings()  # noqa: SLF001 - creates the tools
        async with models.open_model(rerun.agent.model):
            pass
    await in_thread(create_branch)
    return await run_inputs(rerun, provenance)
