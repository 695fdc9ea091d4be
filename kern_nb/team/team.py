"""`Team`: an agent that delegates tasks to members, whose runs are stored in its session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kern_nb.agent.agent import Agent
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.runtime.parameters import require_count
from kern_nb.runtime.unsupported import refuse_unsupported
from kern_nb.team.mode import TeamMode

if TYPE_CHECKING:
    from kern_nb.records import Run, SessionType
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.delegation import Delegation
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.run_modes import RunFunction

__all__ = ["Team"]


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
        members: Agents or teams. One without a name and an id gets the id ``agent``, ``agent-2`` and so on; without
            members, the leader answers alone.
        model: The leader's model, and that of members without one.
        mode: ``"coordinate"``: the leader gives tasks to members and answers from what they say; ``"route"``: it
            selects a member, whose answer is the team's; ``"broadcast"``: one call gives the same task to all members,
            which run concurrently. Or a `TeamMode`.
        respond_directly: End the run with a member's answer, as in the mode ``"route"``.
        delegate_to_all_members: Give each task to all members, as in the mode ``"broadcast"``.
        determine_input_for_members: Whether members get the task that the leader writes, or the input of its run.
        add_team_history_to_members: Tell members the inputs and answers of the team's earlier runs.
        num_team_history_runs: The number of these runs.
        share_member_interactions: Tell members what others were asked and answered in the same run.
        store_member_responses: Return runs with ``member_responses``: the members' runs, which are stored anyway.
        stream_member_events: Whether streams have the events of the members.
        **options: As for `kern_nb.agent.Agent`.

    Raises:
        BadUsage: two members have the same id, or a parameter is not valid.
    """

    session_type: ClassVar[SessionType] = "team"
    _members_argument: ClassVar[str] = "stream_member_events"

    @refuse_unsupported
    def __init__(
        self,
        members: Sequence[Agent] = (),
        model: Any = None,
        *,
        mode: TeamMode | str | None = None,
        respond_directly: bool = False,
        delegate_to_all_members: bool = False,
        determine_input_for_members: bool = True,
        add_team_history_to_members: bool = False,
        num_team_history_runs: int = 3,
        share_member_interactions: bool = False,
        store_member_responses: bool = False,
        stream_member_events: bool = True,
        **options: Any,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "options", "__class__")}
        super().__init__(model, **options)
        self._arguments |= arguments | {"members": list(members)}
        self.members = _by_id(members)
        self.mode = _load_mode(mode, respond_directly=respond_directly, to_all=delegate_to_all_members)
        require_count("num_team_history_runs", num_team_history_runs)

    _reinitialize: ClassVar[Callable[..., None]] = __init__

    def _delegation(self) -> Delegation:
        from kern_nb.runtime.delegation import Delegation, DelegationOptions

        arguments = self._arguments
        options = DelegationOptions(
            to_all=self.mode is TeamMode.broadcast,
            responds=self.mode is TeamMode.route or arguments["respond_directly"],
            passes_input=not arguments["determine_input_for_members"],
            history_runs=arguments["num_team_history_runs"] if arguments["add_team_history_to_members"] else None,
            shares_interactions=arguments["share_member_interactions"],
        )
        return Delegation(self, self.members, options)

    def _all_tools(self) -> list[Any]:
        return [*super()._all_tools(), *self._delegation().tools()]

    def _prepare_run(self, *args: Any, **options: Any) -> RunFunction:
        work = super()._prepare_run(*args, **options)

        async def run(emit: Emit) -> Run:
            return await self._with_responses(await work(emit), options.get("parent"))

        return run

    async def _resume_run(
        self,
        run_id: str | int | Run,
        session_id: str | None,
        emit: Emit,
        parent: RunContext | None = None,
        **options: Any,
    ) -> Run:
        return await self._with_responses(
            await super()._resume_run(run_id, session_id, emit, parent, **options), parent
        )

    async def _with_responses(self, run: Run, parent: RunContext | None) -> Run:
        """Add the members' runs to a run, if the team returns them."""
        if self._arguments["store_member_responses"]:
            from kern_nb.runtime.event_loop import in_thread

            store = parent.store if parent else self.store
            run.member_responses = await in_thread(lambda: store.member_runs(run.run_id))
        return run

    async def _load_instructions(self, context: RunContext | None) -> str | None:
        texts = (await super()._load_instructions(context), self._delegation().instructions())
        return "\n\n".join(text for text in texts if text) or None

    async def _load_member_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """Resume the members' runs of pending calls, and return their results by call; None if one is paused again."""
        return await self._delegation().load_results(run, context)


def _by_id(members: Sequence[Agent]) -> dict[str, Agent]:
    """Return members by id; those without a name and an id get different ones."""
    if invalid := [member for member in members if not isinstance(member, Agent)]:
        raise BadUsage(f"A member must be an agent or a team, got {invalid[0]!r}.", "Team(members=[Agent(...), ...])")
    by_id: dict[str, Agent] = {}
    for member in members:
        is_anonymous = member.name is None and member.id == member.session_type
        n = 2
        while is_anonymous and member.id in by_id:
            member.id = f"{member.session_type}-{n}"
            n += 1
        by_id[member.id] = member
    if len(by_id) < len(members):
        ids = ", ".join(member.id for member in members)
        raise BadUsage(f"Two members have the same id: {ids}.", "Pass each a name or an id.")
    return by_id


def _load_mode(mode: Any, *, respond_directly: bool, to_all: bool) -> TeamMode:
    """Return the mode of a team from its parameters."""
    if mode is None:
        return TeamMode.broadcast if to_all else TeamMode.route if respond_directly else TeamMode.coordinate
    names = [item.value for item in TeamMode]
    value = getattr(mode, "value", mode)
    if value not in names:
        message = f"mode must be one of {', '.join(names)}, got {value!r}."
        raise BadUsage(message, did_you_mean(str(value), names, "A shared task list is not a part of kern_nb."))
    return TeamMode(value)
