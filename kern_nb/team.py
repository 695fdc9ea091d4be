"""`Team`: an agent that leads others. It delegates tasks to its members, whose runs stand in its session."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kern_nb.agent import Agent
from kern_nb.errors import BadUsage, RunFailed, did_you_mean
from kern_nb.extra_keys import TOOL_CALL_ID

if TYPE_CHECKING:
    from kern_nb.records import Run, SessionType
    from kern_nb.runtime.context import RunContext

__all__ = ["Team"]

_DELEGATE = "delegate_task_to_member"


class Team(Agent):
    """A leader with members.

    The leader is an agent with one more tool, by which it gives a member a task and gets its answer. A member's run has
    the leader's as its ``parent_run_id``, shares its session and its state, and is not part of the history that later
    runs are told. Where a member's run pauses, so does the leader's; its ``requirements`` are the member's.

    Args:
        members: Agents or teams, each with an id of its own.
        model: The leader's model; see `kern_nb.agent.Agent` for this and all else.
        **options: As for `kern_nb.agent.Agent`.

    Raises:
        BadUsage: it has no members, or two have one id.
    """

    session_type: ClassVar[SessionType] = "team"

    def __init__(self, members: Sequence[Agent] = (), model: Any = None, **options: Any) -> None:
        super().__init__(model, **options)
        self._given["members"] = list(members)
        if strangers := [member for member in members if not isinstance(member, Agent)]:
            raise BadUsage(f"{strangers[0]!r} is no member.", "Members are agents and teams.")
        self.members = {member.id: member for member in members}
        if not members:
            raise BadUsage("A team needs members.", "Team(members=[Agent(...), Agent(...)], ...)")
        if len(self.members) < len(members):
            ids = ", ".join(member.id for member in members)
            raise BadUsage(f"Two members have one id: {ids}.", "Give each a name or an id.")

    def _make_anew(self, parameters: dict[str, Any]) -> None:
        Team.__init__(self, **parameters)

    def _every_tool(self) -> list[Any]:
        return [*super()._every_tool(), self._delegate_tool()]

    def _delegate_tool(self) -> Any:
        from kern_nb.runtime.tools import Tool

        async def delegate(run_context: RunContext, member_id: str, task: str) -> Any:
            from kern_nb.runtime.events import ignore  # what members say is not shown; their answers are

            member = self.members.get(member_id)
            if member is None:
                known = ", ".join(self.members)
                raise BadUsage(f"There is no member {member_id!r}.", did_you_mean(member_id, self.members, known))
            place = {"tool_call_id": run_context.tool_call_id}
            work = member._prepared(task, run_context.session_id, run_context.user_id, place, parent=run_context)  # noqa: SLF001 - a team runs its members
            return _result(await work(ignore))

        told = "Give a member of the team a task, with all it needs to know; the result is its answer."
        return Tool(delegate, name=_DELEGATE, description=told)

    async def instructed(self, context: RunContext | None) -> str | None:
        """The leader's instructions, and who its members are."""
        own = await super().instructed(context)
        lines = [f"- {member.id}: {member.role or member.name or 'an agent'}" for member in self.members.values()]
        team = "You lead a team. Delegate to its members what they are good for:\n" + "\n".join(lines)
        return f"{own}\n\n{team}" if own else team

    async def known_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """What members answered whose runs paused or were interrupted; None where one waits again."""
        from pydantic_ai.exceptions import ToolFailed

        from kern_nb.runtime import resume
        from kern_nb.runtime.events import ignore
        from kern_nb.runtime.threads import in_thread

        made = await in_thread(lambda: context.store.member_runs(run.run_id))
        by_call = {one.internal.get(TOOL_CALL_ID): one for one in made}
        known: dict[str, Any] = {}
        for call in resume.pending(run):
            member_run = by_call.get(call.tool_call_id)
            if call.tool_name != _DELEGATE or member_run is None:
                continue
            if member_run.status not in ("COMPLETED", "ERROR"):
                member = self._member_of(member_run)
                try:
                    member_run = await member._proceed(member_run.run_id, None, ignore, context)  # noqa: SLF001 - as above
                except RunFailed:
                    member_run = await in_thread(partial(context.store.get_run, member_run.run_id))
                    if member_run.status == "PAUSED":  # given back: nothing came of it, and the leader waits as before
                        raise
            if member_run.status == "PAUSED":
                return None
            failed = ToolFailed(f"RunFailed: {member_run.error}")
            known[call.tool_call_id or ""] = member_run.output if member_run.status == "COMPLETED" else failed
        return known

    def _member_of(self, run: Run) -> Agent:
        found = self.members.get(run.agent_id or run.team_id or "")
        if found is None:
            raise BadUsage(
                f"Run {run.run_id} is of {run.agent_id or run.team_id!r}, who is no member of {self!r}.",
                "Give the team the members it had.",
            )
        return found


def _result(run: Run) -> Any:
    """A member's answer; where its run waits, the leader's waits with it."""
    if run.status == "PAUSED":
        from pydantic_ai.exceptions import CallDeferred

        from kern_nb.runtime.resume import MEMBER_RUN

        raise CallDeferred(metadata={MEMBER_RUN: run.run_id})
    return run.output
