"""`Team`: an agent that delegates tasks to members, whose runs are stored in its session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kern_nb.agent.agent import Agent
from kern_nb.errors import BadUsage, RunFailed, did_you_mean
from kern_nb.extra_keys import TOOL_CALL_ID
from kern_nb.runtime.unsupported import refuse_unsupported

if TYPE_CHECKING:
    from kern_nb.records import Run, SessionType
    from kern_nb.runtime.context import RunContext

__all__ = ["Team"]

_DELEGATE = "delegate_task_to_member"


class Team(Agent):
    """A leader with members.

    Example:
        >>> from kern_nb import Agent, InMemoryDb, Team
        >>> from kern_nb.models.scripted import ScriptedModel, call
        >>> writer = Agent(ScriptedModel(["A poem."]), name="Writer", role="writes poems")
        >>> task = call("delegate_task_to_member", member_id="writer", task="a poem")
        >>> team = Team([writer], ScriptedModel([task, "Here it is: A poem."]), db=InMemoryDb())
        >>> run = team.run("A poem, please")
        >>> run.output
        'Here it is: A poem.'
        >>> [member_run.output for member_run in team.store.member_runs(run.run_id)]
        ['A poem.']

    The leader is an agent with one more tool, which gives a member a task and returns its answer. A member's run has
    the leader's as its ``parent_run_id``, shares its session and its state, and is not part of the history of later
    runs. If a member's run pauses, so does the leader's; its ``requirements`` are the member's.

    Args:
        members: Agents or teams, each with its own id.
        model: The leader's model.
        stream_member_events: Whether streams have the events of the members.
        **options: As for `kern_nb.agent.Agent`.

    Raises:
        BadUsage: there are no members, or two have the same id.
    """

    session_type: ClassVar[SessionType] = "team"
    _members_argument: ClassVar[str] = "stream_member_events"

    @refuse_unsupported
    def __init__(
        self,
        members: Sequence[Agent] = (),
        model: Any = None,
        *,
        stream_member_events: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self._arguments |= {"members": list(members), "stream_member_events": stream_member_events}
        if invalid := [member for member in members if not isinstance(member, Agent)]:
            raise BadUsage(
                f"A member must be an agent or a team, got {invalid[0]!r}.", "Team(members=[Agent(...), ...])"
            )
        self.members = {member.id: member for member in members}
        if not members:
            raise BadUsage("A team needs members.", "Team(members=[Agent(...), Agent(...)], ...)")
        if len(self.members) < len(members):
            ids = ", ".join(member.id for member in members)
            raise BadUsage(f"Two members have the same id: {ids}.", "Pass each a name or an id.")

    _reinitialize: ClassVar[Callable[..., None]] = __init__

    def _all_tools(self) -> list[Any]:
        from pydantic_ai.exceptions import CallDeferred

        from kern_nb.runtime.resume import MEMBER_RUN
        from kern_nb.runtime.tools import Tool

        async def delegate(run_context: RunContext, member_id: str, task: str) -> Any:
            member = self.members.get(member_id)
            if member is None:
                known = ", ".join(self.members)
                raise BadUsage(f"There is no member {member_id!r}.", did_you_mean(member_id, self.members, known))
            extra = {TOOL_CALL_ID: run_context.tool_call_id}
            work = member._prepare_run(task, run_context.session_id, run_context.user_id, extra, parent=run_context)  # noqa: SLF001 - a team runs its members
            run = await work(run_context.recorder.events.members())
            if run.status == "PAUSED":
                raise CallDeferred(metadata={MEMBER_RUN: run.run_id})
            return run.output

        description = "Give a member of the team a task, with all it needs to know; the result is its answer."
        return [*super()._all_tools(), Tool(delegate, name=_DELEGATE, description=description)]

    async def _load_instructions(self, context: RunContext | None) -> str | None:
        own = await super()._load_instructions(context)
        lines = [f"- {member.id}: {member.role or member.name or 'an agent'}" for member in self.members.values()]
        team = "You lead a team. Delegate to its members what they are good for:\n" + "\n".join(lines)
        return f"{own}\n\n{team}" if own else team

    async def _load_member_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """Resume the members' runs of pending calls, and return their results by call; None if one is paused again."""
        from pydantic_ai.exceptions import ToolFailed

        from kern_nb.runtime import resume
        from kern_nb.runtime.event_loop import in_thread

        member_runs = await in_thread(lambda: context.store.member_runs(run.run_id))
        by_call = {member_run.internal.get(TOOL_CALL_ID): member_run for member_run in member_runs}
        emit, results = context.recorder.events.members(), dict[str, Any]()
        for call in resume.pending_calls(run):
            member_run = by_call.get(call.tool_call_id)
            if call.tool_name != _DELEGATE or member_run is None:
                continue
            if member_run.status not in ("COMPLETED", "ERROR"):
                member_id = member_run.agent_id or member_run.team_id or ""
                member = self.members.get(member_id)
                if member is None:
                    message = f"Run {member_run.run_id} belongs to {member_id!r}, which is not a member of {self!r}."
                    raise BadUsage(message, "Pass the team the members that it had.")
                try:
                    member_run = await member._resume_run(member_run.run_id, None, emit, context)  # noqa: SLF001 - as above
                except RunFailed:
                    member_run = await in_thread(partial(context.store.get_run, member_run.run_id))
                    if member_run.status == "PAUSED":  # released unchanged, so the leader's run stays paused
                        raise
            if member_run.status == "PAUSED":
                return None
            failed = ToolFailed(f"RunFailed: {member_run.error}")
            results[call.tool_call_id or ""] = member_run.output if member_run.status == "COMPLETED" else failed
        return results
