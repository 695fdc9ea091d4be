"""`Workflow`: agents, teams and functions as steps: in sequence, in parallel, conditional and in loops.

Each step is a run of the session, with the workflow's run as its ``parent_run_id``: its input, output, status and time
are columns like any other's. A workflow that paused or failed resumes at that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.unsupported import refuse_unsupported
from kern_nb.runtime.workflow_nodes import build_steps, node_title

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Requirement, Run, SessionType
    from kern_nb.runtime.summaries import SessionSummaryManager

__all__ = ["Workflow"]


class Workflow(SessionOwner):
    """A sequence of steps whose runs are stored in a session.

    Example:
        >>> from kern_nb import Agent, InMemoryDb, Workflow
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> writer = Agent(ScriptedModel(["A poem."]), name="Writer")
        >>> workflow = Workflow([lambda step: f"Write about {step.input}.", writer], db=InMemoryDb())
        >>> run = workflow.run("roses")
        >>> run.output
        'A poem.'
        >>> [(step.input, step.output) for step in workflow.steps_of(run.run_id)]
        [('roses', 'Write about roses.'), ('Write about roses.', 'A poem.')]

    The ``output`` of its run is that of the last step.

    Args:
        steps: Agents, teams, functions of a `StepInput`, `Step`, `Parallel`, `Condition`, `Loop`, or lists of these.
        db: The store, or its path or URL; where None, the attached store, else one in memory.
        session_id: The default session; where None, the first run creates one.
        user_id: The default owner of its sessions.
        session_state: The state of a new session, shared by all steps.
        name: A display name.
        id: The workflow_id of its sessions; derived from the name where None.
        overwrite_db_session_state: Let the state passed to a run replace the stored one.
        timeout_s: The maximum duration of a run in seconds.
        enable_session_summaries: Update a summary of the session after each run, without a delay of the output.
        session_summary_manager: Writes the summaries, with its own model and prompt; it also enables them.

    Raises:
        BadUsage: there are no steps, an item is not a step, or two parallel steps have the same name.
    """

    session_type: ClassVar[SessionType] = "workflow"
    _engine_module: ClassVar[str] = "kern_nb.runtime.workflow_engine"

    @refuse_unsupported
    def __init__(
        self,
        steps: Sequence[Any] = (),
        *,
        db: SessionStore | str | Path | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        name: str | None = None,
        id: str | None = None,
        overwrite_db_session_state: bool = False,
        timeout_s: float | None = None,
        enable_session_summaries: bool = False,
        session_summary_manager: SessionSummaryManager | None = None,
    ) -> None:
        super().__init__(locals())
        if not steps:
            raise BadUsage("A workflow needs steps.", "Workflow(steps=[agent, function, ...], ...)")
        self.steps = build_steps(steps)
        self._keeps_summaries = enable_session_summaries or session_summary_manager is not None

    _reinitialize: ClassVar[Callable[..., None]] = __init__

    def variant(self, **changes: Any) -> Self:
        """Create a copy with some parameters changed: ``workflow.variant(steps=[...], timeout_s=60)``.

        Raises:
            BadUsage: a parameter is unknown. Models, instructions and tools belong to the steps.
        """
        if of_steps := [name for name in ("model", "instructions", "tools") if name in changes]:
            hint = "Change the agents among its steps: workflow.variant(steps=[agent.variant(...), ...])"
            raise BadUsage(f"A workflow has no {of_steps[0]} of its own.", hint)
        return super().variant(**changes)

    def _parameters(self) -> dict[str, Any]:
        return super()._parameters() | {"steps": list(self.steps.steps)}

    def _configuration(self) -> dict[str, Any]:
        return {"steps": [node_title(step) for step in self.steps.steps]}

    def continue_run(  # type: ignore[override] # a workflow is not continued in a branch
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        step_requirements: Sequence[Requirement] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
    ) -> Run:
        """Continue a run synchronously; see `acontinue_run`."""
        answers = {"requirements": [*(requirements or ()), *(step_requirements or ())]}
        options = {"rerun_interrupted": rerun_interrupted}
        return self._run_sync(self._prepare_continuation(run_id, run_response, session_id, user_id, answers, **options))

    async def acontinue_run(  # type: ignore[override] # as above
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        step_requirements: Sequence[Requirement] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
    ) -> Run:
        """Continue a run at the step where it paused, failed or was interrupted; completed steps do not run again.

        The steps must be those of its start: a completed step whose name has changed is refused.

        Args:
            run_id: The run, or its id; or ``chat/2``; or, with ``session_id``, its index or a unique prefix of its id.
            run_response: The run, as a workflow returned it.
            requirements: Requirements with answers to store first: all of them, or none if one has an answer by now.
                Those of a run that is passed as an object are among them.
            step_requirements: Another name of ``requirements``.
            session_id: Its session.
            user_id: The owner of the session; the workflow's own user where None.
            rerun_interrupted: Whether a function that was interrupted, and may have taken effect, runs again.

        Raises:
            StillWaiting: requirements are pending.
            AlreadyResolved: a requirement has an answer already; none is stored.
            AlreadyClaimed: another caller continues it.
            RunClosed: it has ended.
            RunFailed: it ended with an error.
        """
        answers = {"requirements": [*(requirements or ()), *(step_requirements or ())]}
        options = {"rerun_interrupted": rerun_interrupted}
        return await self._run_async(
            self._prepare_continuation(run_id, run_response, session_id, user_id, answers, **options)
        )

    def steps_of(self, run_id: str) -> list[Run]:
        """Return the runs of the steps of a run, in order; ``extra["step"]`` is the step's name."""
        return self.store.member_runs(self._find_run(run_id, None, self.user_id).run_id)
