"""`Workflow`: steps in an order that is written down. Agents, teams and functions; in sequence, at once, if, and again.

Each step that runs is a run of the session, with the pipeline's run as its ``parent_run_id``: its input, output, status
and time are columns like any other's. A workflow that paused or failed goes on at the step where it stood.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner, require_state
from kern_nb.runtime.workflow_nodes import Condition, Loop, Parallel, Step, StepInput, Steps, normal

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run, SessionSummary, SessionType
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.session_owner import Work
    from kern_nb.runtime.summaries import SessionSummaryManager

__all__ = ["Condition", "Loop", "Parallel", "Step", "StepInput", "Steps", "Workflow"]


class Workflow(SessionOwner):
    """A pipeline whose runs are kept in a session.

    ``run`` takes the input and ``session_id``, ``user_id`` and ``session_state``; the run's ``output`` is what the last
    step gave. ``steps_of(run_id)`` gives what each step did.

    Args:
        steps: Agents, teams, functions of a `StepInput`, `Step`, `Parallel`, `Condition`, `Loop`, or lists of these.
        db: The store, or a path or URL of one; the attached one where None, else one in memory.
        session_id: The session it goes on in; where None, the first run makes one.
        user_id: Whose sessions they are.
        session_state: The state of a new session, shared by all steps.
        name: A name for people.
        id: The workflow_id of its sessions; made of the name where None.
        overwrite_db_session_state: Let the state that is given replace what is stored.
        timeout_s: The most seconds a run may take.
        enable_session_summaries: Keep a summary of each session, made after a run without delaying its output.
        session_summary_manager: Who makes the summaries, with which model and prompt; by itself it enables them.

    Raises:
        BadUsage: it has no steps, something is none, or two steps side by side have one name.
    """

    session_type: ClassVar[SessionType] = "workflow"

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
        self._given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(db=db, session_id=session_id, user_id=user_id, name=name, id=id)
        if not steps:
            raise BadUsage("A workflow needs steps.", "Workflow(steps=[agent, function, ...], ...)")
        self.steps = normal(steps)
        self.default_state = require_state(session_state)
        self.overwrite_db_session_state = overwrite_db_session_state
        self.timeout_s = timeout_s
        if session_summary_manager is not None and not hasattr(session_summary_manager, "covering"):
            hint = "SessionSummaryManager(model=...) makes one, from kern_nb.agent."
            raise BadUsage(f"{session_summary_manager!r} makes no summaries.", hint)
        self._summaries = session_summary_manager
        self._keeps_summaries = enable_session_summaries or session_summary_manager is not None

    def variant(self, **changes: Any) -> Self:
        """A new one that is like this one but for what is given: ``workflow.variant(steps=[...], timeout_s=60)``.

        Raises:
            BadUsage: there is no such parameter. Models, instructions and tools are those of its steps.
        """
        if of_steps := [name for name in ("model", "instructions", "tools") if name in changes]:
            hint = "Vary the agents among its steps: workflow.variant(steps=[agent.variant(...), ...])"
            raise BadUsage(f"A workflow has no {of_steps[0]} of its own.", hint)
        return super().variant(**changes)

    def _parameters(self) -> dict[str, Any]:
        own = {"steps": list(self.steps.steps), "session_state": copy.deepcopy(self.default_state)}
        return super()._parameters() | own

    def _make_anew(self, parameters: dict[str, Any]) -> None:
        Workflow.__init__(self, **parameters)

    def configuration(self) -> dict[str, Any]:
        """What is kept of it with a new session."""
        return {"steps": [getattr(step, "title", None) or step.name for step in self.steps.steps]}

    def start_summary(self, store: SessionStore, run: Run) -> None:
        """Bring the session's summary up to date after a run, where summaries are kept. It delays nobody.

        A workflow has no model: the summaries are made by the manager's, or by that of the environment.
        """
        if self._keeps_summaries and run.status == "COMPLETED" and run.parent_run_id is None:
            from kern_nb.runtime.summaries import SessionSummaryManager

            with self._lock:
                self._summaries = self._summaries or SessionSummaryManager()
            try:
                self._summaries.start(store, run.session_id or "", None)
            except Exception as error:  # noqa: BLE001 - the run is completed, and its output is there
                logging.getLogger("kern_nb").warning("Session %s has no new summary: %s", run.session_id, error)

    def get_session_summary(self, session_id: str | None = None, **options: Any) -> SessionSummary | None:
        """The summary of a session, None where none was made; one that is being made is waited for."""
        if self._summaries is not None:
            self._summaries.wait(self.store, self._known(session_id))
        return super().get_session_summary(session_id, **options)

    def _prepared(  # type: ignore[override] # which options a run takes is the business of each kind
        self,
        input: Any,
        session_id: str,
        user_id: str | None,
        extra: dict[str, Any],
        session_state: dict[str, Any] | None = None,
        parent: RunContext | None = None,
    ) -> Work:
        from kern_nb.runtime import engine, workflow_engine

        store = parent.store if parent else self.store
        request = engine.Request(input, session_id, user_id, require_state(session_state), parent, extra)

        async def work(emit: Emit) -> Run:
            return await workflow_engine.begin(self, store, request, emit)

        return work

    async def _proceed(
        self,
        run_id: str | int | Run,
        session_id: str | None,
        emit: Emit,
        parent: RunContext | None = None,
        *,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
    ) -> Run:
        from kern_nb.runtime import workflow_engine
        from kern_nb.runtime.threads import in_thread

        store = parent.store if parent else self.store
        # What a leader or a workflow goes on with is known by its id, in its store.
        user_id = None if parent else self._user(user_id)
        find = partial(store.get_run, str(run_id)) if parent else partial(self._found, run_id, session_id, user_id)
        before = await in_thread(find)
        options: dict[str, Any] = {"rerun_interrupted": rerun_interrupted, "user_id": user_id}
        return await workflow_engine.proceed(self, store, before, emit, parent, **options)

    def continue_run(
        self,
        run_id: str | int | Run,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
    ) -> Run:
        """As `acontinue_run`, from sync code."""
        options: dict[str, Any] = {"user_id": user_id, "rerun_interrupted": rerun_interrupted}
        return self._wait(lambda emit: self._proceed(run_id, session_id, emit, **options))

    async def acontinue_run(
        self,
        run_id: str | int | Run,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
    ) -> Run:
        """Go on with a run at the step where it paused, failed or was interrupted; finished steps do not run again.

        The steps must be those that it began with: one of another name in a finished one's place is refused.

        A function that was interrupted may have taken effect. It is run again only with ``rerun_interrupted``.

        Raises:
            StillWaiting: answers are missing.
            AlreadyClaimed, RunClosed: another one goes on with it, or it was completed.
            RunFailed: it ended with an error.
        """
        from kern_nb.runtime.events import ignore

        options: dict[str, Any] = {"user_id": user_id, "rerun_interrupted": rerun_interrupted}
        return await self._proceed(run_id, session_id, ignore, **options)

    def steps_of(self, run_id: str) -> list[Run]:
        """The runs of the steps of a run, in order; ``extra["step"]`` is the step's name."""
        return self.store.member_runs(self._found(run_id, None, self.user_id).run_id)
