"""What `continue_run` does with its arguments: it stores answers, and resumes the run or continues it in a branch.

A run that was interrupted, failed or paused is resumed: it is the same row. Anything else (more input after the end, a
new last answer, another way from a message on) is a new run in a branch of the session, which inherits the messages
before it and copies none. The original does not change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kern_nb.db import SessionStore, session_writes
from kern_nb.errors import BadUsage
from kern_nb.extra_keys import CONTINUES
from kern_nb.record_methods.requirements import ToolExecution
from kern_nb.records import RESULT_ROLES, UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.runtime.event_loop import in_thread

if TYPE_CHECKING:
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.session_owner import SessionOwner

ContinueFrom = int | Literal["end", "last_user"]

_NEW_RUN = "Pass input=..., or continue_from an earlier message."


@dataclass(frozen=True)
class Continuation:
    """The arguments of `continue_run`; see `kern_nb.runtime.session_owner.SessionOwner.acontinue_run`."""

    requirements: Sequence[Requirement] = ()
    tools: Sequence[ToolExecution] = ()
    input: Any = None
    continue_from: ContinueFrom = "end"
    fork: bool = False
    regenerate: bool = False

    def __post_init__(self) -> None:
        """Check what does not depend on the run.

        Raises:
            BadUsage: a value is not valid, or two contradict each other.
        """
        place = self.continue_from
        is_index = isinstance(place, int) and not isinstance(place, bool) and place >= 0
        if place not in ("end", "last_user") and not is_index:
            message = f"continue_from must be 'end', 'last_user' or a number of messages, got {place!r}."
            raise BadUsage(message, "continue_from=3 keeps the first three messages of the run.")
        if self.regenerate and (self.fork or place != "end"):
            raise BadUsage("regenerate takes neither fork nor continue_from.", "It keeps all but the last answer.")

    @property
    def is_plain(self) -> bool:
        """Whether the run is only to be resumed."""
        has_answers = any(requirement.approved is not None for requirement in self.requirements) or self.tools
        return not (
            has_answers or self.fork or self.regenerate or self.continue_from != "end" or self.input is not None
        )

    def is_branch(self, run: Run) -> bool:
        """Whether it makes a new run, in a branch, rather than resume the run."""
        if self.fork or self.regenerate or self.continue_from != "end":
            return True
        return self.input is not None and run.status not in ("PAUSED", "RUNNING", "PENDING")


def find_run_id(run: Any, run_response: Any, requirements: Sequence[Requirement]) -> Any:
    """Return what names the run: the first of the arguments that is not None.

    Raises:
        BadUsage: both or none name a run.
    """
    if run is not None and run_response is not None:
        raise BadUsage("continue_run takes run_id or run_response, not both.", "Pass one of them.")
    reference = run if run is not None else run_response
    if reference is None and requirements:
        reference = requirements[0].run_id
    if reference is None:
        raise BadUsage("continue_run needs a run.", "Pass run_id=..., run_response=... or requirements=[...].")
    return reference


def top_level_run(store: SessionStore, run: Run) -> Run:
    """Return the run of the team or workflow that a member's run belongs to."""
    while run.parent_run_id is not None:
        run = store.get_run(run.parent_run_id)
    return run


def store_answers(store: SessionStore, run: Run, continuation: Continuation, user_id: str | None) -> None:
    """Store the answers that are noted in requirements, or in the calls of ``run.tools``: all of them or none.

    Raises:
        AlreadyResolved: one has an answer by now; none is stored.
        BadUsage: one belongs to another run.
    """
    of_tools = (tool.requirement for tool in continuation.tools)
    marked = [*continuation.requirements, *(requirement for requirement in of_tools if requirement is not None)]
    answered = {r.key: r for r in marked if r.status in UNRESOLVED_STATUSES and r.approved is not None}
    if not answered:
        return
    own = {requirement.key for requirement in store.requirements(run_id=run.run_id, status=None)}
    if foreign := [requirement for key, requirement in answered.items() if key not in own]:
        message = f"Requirement {foreign[0].requirement_id} belongs to run {foreign[0].run_id}, not to {run.run_id}."
        raise BadUsage(message, "Pass those of the run: run.requirements.")
    with store.transaction():
        for requirement in answered.values():
            options: dict[str, Any] = {"note": requirement.note, "user_id": user_id}
            if requirement.approved and requirement.kind != "confirmation":
                options["value"] = requirement.answer
            elif requirement.approved and isinstance(requirement.answer, dict):
                options["args"] = requirement.answer
            store.resolve(requirement, approve=requirement.approved, **options)
    for requirement in marked:  # so that another attempt to continue does not answer again
        if requirement.key in answered:
            requirement.status = "resolved"


def _kept_messages(run: Run, continuation: Continuation) -> int:
    """Return the number of the run's first messages that a branch keeps."""
    messages = run.messages
    place = continuation.continue_from
    if continuation.regenerate:
        last = messages[-1] if messages else None
        if last is None or last.role != "assistant" or last.tool_calls:
            raise BadUsage(f"Run {run.run_id} has no last answer to regenerate.", "Resume it: continue_run(run_id)")
        return len(messages) - 1
    if isinstance(place, int):
        return min(place, len(messages))
    if place == "end":
        return len(messages)
    users = [index for index, message in enumerate(messages) if message.role == "user" and not message.from_history]
    if not users:
        raise BadUsage(f"Run {run.run_id} has no message of a user.", "Pass continue_from as a number of messages.")
    return users[-1] + 1


def create_branch(store: SessionStore, run: Run, continuation: Continuation, user_id: str | None) -> str:
    """Create the branch that a new run continues in, and return its id.

    Raises:
        BadUsage: there is nothing to answer.
    """
    if run.parent_run_id is not None or run.run_type == "workflow":
        kind = "step of a workflow" if run.run_type == "workflow" else "member or a step"
        kind = "workflow" if run.run_type == "workflow" and run.parent_run_id is None else kind
        hint = "Start a new run, or repeat it: kern_nb.rerun(run, agent)"
        raise BadUsage(f"Run {run.run_id} of a {kind} cannot be continued in a branch.", hint)
    if run.status in ("RUNNING", "PENDING"):
        raise BadUsage(f"Run {run.run_id} is {run.status}.", "Wait for its end, or cancel it: cancel_run(run_id)")
    n = _kept_messages(run, continuation)
    kept, rest = run.messages[:n], run.messages[n:]
    conversation = [message for message in kept if message.role not in ("system", "developer")]
    if continuation.input is None:
        last = conversation[-1] if conversation else None
        if last is None or (last.role == "assistant" and not last.tool_calls):
            message = f"The {n} messages of run {run.run_id} that are kept leave nothing to answer."
            raise BadUsage(message, _NEW_RUN)
    options: dict[str, Any] = {"after": None, "before": None, "name": None, "new_session_id": None, "user_id": user_id}
    if not conversation:
        options["before"] = run.run_index
    elif rest or run.status != "COMPLETED":
        options["after"] = (run.run_index, kept[-1].message_index)
    else:
        options["after"] = run.run_index
    session_id = run.session_id or ""
    branch = store.write(lambda connection: session_writes.branch(connection, store, session_id, **options))
    has_all_results = conversation and not any(message.role in RESULT_ROLES for message in rest)
    if rest and has_all_results and run.session_state is not None:
        # A branch within a run has the state before it, but here all its tools are kept, and so is what they changed.
        branch.session_data = (branch.session_data or {}) | {"session_state": run.session_state}
        store.save_session(branch)
    return branch.session_id


async def continue_run(
    owner: SessionOwner,
    reference: str | int | Run,
    continuation: Continuation,
    session_id: str | None,
    user_id: str | None,
    emit: Emit,
    **options: Any,
) -> Run:
    """Store the answers, then resume the run or continue it in a branch.

    Args:
        owner: The agent, team or workflow.
        reference: The run.
        continuation: The arguments of `continue_run`.
        session_id: Its session.
        user_id: The owner of the session; the default user where None.
        emit: Receives the events.
        **options: Passed on to the resumed run.
    """
    if not continuation.is_plain:
        store, user = owner.store, owner._user(user_id)  # noqa: SLF001 - of this package, as below
        run = await in_thread(lambda: owner._find_run(reference, session_id, user))  # noqa: SLF001
        if run.parent_run_id is not None and not continuation.is_branch(run):  # a member's requirement
            run = await in_thread(lambda: top_level_run(store, run))
        owner._require_kind(run)  # noqa: SLF001
        await in_thread(lambda: store_answers(store, run, continuation, user))
        if continuation.is_branch(run):
            try:
                return await _continue_in_branch(owner, store, run, continuation, user, emit)
            finally:
                owner._forget(store)  # noqa: SLF001
        if continuation.input is not None:
            message = f"Run {run.run_id} is {run.status}, and takes no further input."
            raise BadUsage(message, "Resolve its requirements, or continue it in a branch: fork=True")
        reference = run.run_id
    return await owner._resume_run(reference, session_id, emit, user_id=user_id, **options)  # noqa: SLF001


async def _continue_in_branch(
    owner: SessionOwner, store: SessionStore, run: Run, continuation: Continuation, user_id: str | None, emit: Emit
) -> Run:
    """Make a new run in a branch. A branch without a run, as nothing could be started, is removed."""
    session_id = await in_thread(lambda: create_branch(store, run, continuation, user_id))
    origin = {"session_id": run.session_id, "run_id": run.run_id, "run_index": run.run_index}
    try:
        work = owner._prepare_run(continuation.input, session_id, user_id, {CONTINUES: origin})  # noqa: SLF001 - as above
        return await work(emit)
    except BaseException:
        await in_thread(lambda: _remove_empty(store, session_id))
        raise


def _remove_empty(store: SessionStore, session_id: str) -> None:
    with contextlib.suppress(Exception):  # the first error is the one to report
        session = store.get_session(session_id)
        if session is not None and all(run.session_id != session_id for run in session.runs or ()):
            store.delete_session(session_id)
