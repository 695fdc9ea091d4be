"""`rerun`: branch where it went wrong, run on from there otherwise, compare with the original. One call, one branch.

`planning` finds which inputs are given again, `preparing` who is given them and what is kept of that, `result` gives
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern_nb import models
from kern_nb.agent import Agent, Instructions
from kern_nb.db import SessionStore
from kern_nb.operations.rerun.preparation import Wish, prepare
from kern_nb.operations.rerun.result import Rerun, give
from kern_nb.records import Run, Session
from kern_nb.runtime import event_loop
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.provenance import current_cell
from kern_nb.runtime.session_owner import SessionOwner, check_tools

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
    """Run a part of a session again, in a branch that is taken before it; what was recorded stays as it is.

    The agent has its own instructions, and is told the whole conversation that the branch inherits, however many runs
    it is told otherwise; ``num_history_messages`` and ``history_token_budget`` hold. As ever, runs that did not end
    well are left out, and so are calls whose results lie behind the branch point. The session's state is what it was
    at the branch: within a run, that before the run.

    Args:
        reference: What is run again. ``chat/2``: that run, on its input. ``chat``: every run, from an empty session.
            ``chat/2.5``: from that message of run 2 on, in place of which ``message`` is said; without one, it must be
            a user's, and is said again. Or a session or run as a store or an agent gave it.
        agent: Who runs: an agent, a team or a workflow, which itself stays as it is. Where None, an agent is made of
            what is recorded (its instructions) and of ``model`` and ``tools``.
        message: What is said in place of the first input. Files stay beside another text; a list of texts and files
            replaces all.
        model: Another model than the agent's; see `SessionOwner.variant`.
        instructions: Other instructions.
        tools: Other tools; an empty list for none.
        name: The id of the new session; made up where None.
        onward: Give the inputs of all later runs too, in turn.
        store: Where it is, a store or the name of one; where None the agent's db, else the one in use.

    Returns:
        The branch with its new runs, and the comparison. A run that failed is in it, as is one that waits; inputs after
        it were not given, and are with `Rerun.continue_run`.

    Raises:
        SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: it names nothing, or several things.
        SessionExists: the new session's id is taken. As with all but RunFailed, nothing was written.
        ReadOnlyStore, OwnerMismatch: the store takes no runs, or the agent is another user's.
        BadUsage: there is nothing to give, no agent, or one that keeps its runs in another store.
        RunFailed: a run could not even be stored; the hint names the branch, which remains.
    """
    wish = Wish(reference, agent, message, model, instructions, tools, name, onward, store)
    made_by = current_cell()
    return event_loop.run(lambda: _made(wish, made_by))


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
    """As `rerun`, to be awaited."""
    return await _made(Wish(reference, agent, message, model, instructions, tools, name, onward, store), current_cell())


async def _made(wish: Wish, made_by: dict[str, Any] | None) -> Rerun:
    prepared, branch = await in_thread(lambda: prepare(wish))
    if isinstance(prepared.agent, Agent):  # a model that cannot be used is refused before the branch is there
        check_tools(prepared.agent)
        async with models.open_model(prepared.agent.model):
            pass
    await in_thread(branch)
    return await give(prepared, made_by)
