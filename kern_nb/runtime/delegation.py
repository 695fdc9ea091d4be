"""How the leader of a team gives tasks to members: its tool, what a member is told, and members' runs after a pause.

A member's run belongs to the leader's call that made it (``internal["tool_call_id"]``): the results of a call that
paused are built from the members' runs, in any process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_ai.exceptions import CallDeferred, ToolFailed

from kern_nb.errors import BadUsage, KernError, RunFailed, did_you_mean
from kern_nb.extra_keys import TOOL_CALL_ID
from kern_nb.interop.media import as_text
from kern_nb.records import Run
from kern_nb.runtime import resume
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.history import past_exchanges
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.tools import Tool

TO_MEMBER = "delegate_task_to_member"
TO_ALL = "delegate_task_to_members"

TASK = "task"
"""The key in ``extra`` of a member's run: the leader's task, where the member was told more than that."""


@dataclass(frozen=True)
class DelegationOptions:
    """How a team delegates; see `kern_nb.team.Team` for each.

    Attributes:
        to_all: One call gives the task to all members, not to one of them.
        responds: The member's answer ends the leader's run, as its output.
        passes_input: Members are told the input of the leader's run, not the leader's task.
        history_runs: The number of the team's earlier runs that members are told; None for none.
        shares_interactions: Members are told what others were asked and answered in this run.
    """

    to_all: bool = False
    responds: bool = False
    passes_input: bool = False
    history_runs: int | None = None
    shares_interactions: bool = False


class Delegation:
    """The members of a team, as its leader uses them."""

    def __init__(self, team: SessionOwner, members: Mapping[str, SessionOwner], options: DelegationOptions) -> None:
        self._team = team
        self._members = members
        self._options = options

    def tools(self) -> list[Tool]:
        """Return the leader's tool; none for a team without members."""
        if not self._members:
            return []

        async def to_member(run_context: RunContext, member_id: str, task: str) -> Any:
            member = self._member(member_id)
            results = await self._delegate(run_context, {member_id: member}, task)
            return self._respond(run_context, results[member_id])

        async def to_all(run_context: RunContext, task: str) -> Any:
            return self._respond(run_context, await self._delegate(run_context, self._members, task))

        if self._options.to_all:
            text = (
                "Give all members of the team the same task, with all they need to know; the result is their answers."
            )
            return [Tool(to_all, name=TO_ALL, description=text)]
        text = "Give a member of the team a task, with all it needs to know; the result is its answer."
        return [Tool(to_member, name=TO_MEMBER, description=text)]

    def instructions(self) -> str | None:
        """Return what the leader is told of its team; None for a team without members."""
        if not self._members:
            return None
        texts = {key: getattr(member, "role", None) or member.name for key, member in self._members.items()}
        lines = [f"- {key}: {text or 'an agent'}" for key, text in texts.items()]
        task = "Delegate to its members what they are good for:"
        if self._options.responds:
            task = "Delegate the request to the member that fits best: its answer is the team's. The members:"
        elif self._options.to_all:
            task = "Delegate the request to all members at once, and then answer from what they say. The members:"
        return f"You lead a team. {task}\n" + "\n".join(lines)

    def _member(self, member_id: str) -> SessionOwner:
        if member_id not in self._members:
            hint = did_you_mean(member_id, self._members, f"The members are {', '.join(self._members)}.")
            raise BadUsage(f"There is no member {member_id!r}.", hint)
        return self._members[member_id]

    async def _delegate(
        self, run_context: RunContext, members: Mapping[str, SessionOwner], task: str
    ) -> dict[str, Any]:
        """Run members with a task, several concurrently, and return their results by id.

        Raises:
            CallDeferred: a member's run is paused, and so is the leader's.
            RunFailed: the only member failed; of several, the result of a failed one is its error.
        """
        prompt = await in_thread(partial(self._prompt, run_context, task))
        extra = {TOOL_CALL_ID: run_context.tool_call_id} | ({} if prompt == task else {TASK: task})
        emit = run_context.recorder.events.members()

        async def run(member: SessionOwner) -> Run | KernError:
            work = member._prepare_run(  # noqa: SLF001 - a team runs its members
                prompt, run_context.session_id, run_context.user_id, extra, parent=run_context
            )
            try:
                return await work(emit)
            except KernError as error:
                if len(members) == 1:
                    raise
                return error

        runs = dict(zip(members, await _gather([partial(run, member) for member in members.values()]), strict=True))
        paused = [run.run_id for run in runs.values() if isinstance(run, Run) and run.status == "PAUSED"]
        if paused:
            raise CallDeferred(metadata={resume.MEMBER_RUN: paused[0]})
        return {key: run.output if isinstance(run, Run) else _error(run) for key, run in runs.items()}

    def _respond(self, run_context: RunContext, result: Any) -> Any:
        """Return the result of a call; in a team that responds with it, it also is the output of the run."""
        if self._options.responds:
            run_context.recorder.end_with(result)
        return result

    def _prompt(self, run_context: RunContext, task: str) -> str:
        """Return what a member is told: the context that the team shares, and the task."""
        options, store = self._options, run_context.store
        texts: list[str] = []
        if options.shares_interactions:
            runs = store.member_runs(run_context.run_id)
            texts += _interactions(self._members, [run for run in runs if run.status == "COMPLETED"])
        if options.history_runs:
            texts += _team_history(past_exchanges(run_context, options.history_runs))
        own = run_context.recorder.run.input if options.passes_input else task
        return "\n\n".join([*texts, own if isinstance(own, str) else as_text(own)])

    async def load_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """Resume the members' runs of pending calls, and return the results by call; None if one is paused again."""
        member_runs = await in_thread(lambda: context.store.member_runs(run.run_id))
        results: dict[str, Any] = {}
        for call in resume.pending_calls(run):
            runs = [member for member in member_runs if member.internal.get(TOOL_CALL_ID) == call.tool_call_id]
            if call.tool_name not in (TO_MEMBER, TO_ALL) or not runs:
                continue
            ended = [await self._resume_member(member_run, context) for member_run in runs]
            if any(member_run.status == "PAUSED" for member_run in ended):
                return None
            by_member = {member_run.agent_id or member_run.team_id or "": member_run for member_run in ended}
            if call.tool_name == TO_ALL:
                result: Any = {key: _result(member_run) for key, member_run in by_member.items()}
            elif ended[-1].status == "COMPLETED":
                result = ended[-1].output
            else:
                result = ToolFailed(str(_result(ended[-1])))
            results[call.tool_call_id or ""] = result
            if not isinstance(result, ToolFailed):
                self._respond(context, result)
        return results

    async def _resume_member(self, member_run: Run, context: RunContext) -> Run:
        """Resume a member's run unless it has ended, and return it as stored then."""
        if member_run.status in ("COMPLETED", "ERROR"):
            return member_run
        member_id = member_run.agent_id or member_run.team_id or ""
        if member_id not in self._members:
            message = f"Run {member_run.run_id} belongs to {member_id!r}, which is not a member of {self._team!r}."
            raise BadUsage(message, "Pass the team the members that it had.")
        try:
            return await self._members[member_id]._resume_run(  # noqa: SLF001 - a team runs its members
                member_run.run_id, None, context.recorder.events.members(), context
            )
        except RunFailed:
            stored = await in_thread(partial(context.store.get_run, member_run.run_id))
            if stored.status == "PAUSED":  # released unchanged, so the leader's run stays paused
                raise
            return stored


def _result(member_run: Run) -> Any:
    return member_run.output if member_run.status == "COMPLETED" else f"RunFailed: {member_run.error}"


def _error(error: KernError) -> str:
    return f"{type(error).__name__}: {error}"


async def _gather(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Await several works concurrently; if one raises, the others are cancelled."""
    if len(works) == 1:
        return [await works[0]()]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for work in works]
    return [task.result() for task in tasks]


def _interactions(members: Mapping[str, SessionOwner], runs: Iterable[Run]) -> list[str]:
    """Return what members were asked and answered, as a text for another member; no text without such runs."""
    lines: list[str] = []
    for run in runs:
        key = run.agent_id or run.team_id or ""
        name = members[key].name if key in members else None
        task = run.extra.get(TASK, run.input)
        lines += [f"Member: {name or key}", f"Task: {as_text(task)}", f"Response: {as_text(run.output)}", ""]
    if not lines:
        return []
    return ["\n".join(["<member_interaction_context>", *lines, "</member_interaction_context>"])]


def _team_history(exchanges: Iterable[tuple[str, str]]) -> list[str]:
    """Return the inputs and answers of the team's earlier runs, as a text for a member; no text without runs."""
    lines: list[str] = []
    for n, (question, answer) in enumerate(exchanges, 1):
        lines += [f"[run-{n}]", f"input: {question}", f"response: {answer}", ""]
    return ["\n".join(["<team_history_context>", *lines, "</team_history_context>"])] if lines else []
