"""`Workflow`: agents, teams and functions as steps: in sequence, in parallel, conditional and in loops.

Each step is a run of the session, with the workflow's run as its ``parent_run_id``: its input, output, status and time
are columns like any other's. A workflow that paused or failed resumes at that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from kern_nb.errors import BadUsage
from kern_nb.runtime.async_methods import async_method
from kern_nb.runtime.parameters import require_count
from kern_nb.runtime.unsupported import refuse_unsupported
from kern_nb.runtime.workflow_nodes import build_steps, first_executor
from kern_nb.workflow.runs import WorkflowRuns

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kern_nb.db import SessionStore
    from kern_nb.records import Run, SessionType
    from kern_nb.runtime.summaries import SessionSummaryManager

__all__ = ["Workflow"]


_EXCHANGE = ("user", "assistant")


class WorkflowExchange(NamedTuple):
    """The input and output of a workflow's run; see `Workflow.get_chat_history`."""

    input: Any
    output: Any


class Workflow(WorkflowRuns):
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
        steps: Agents, teams, functions of a `StepInput`, `Step`, `Parallel`, `Condition`, `Router`, `Loop`, or lists of
            these. Or one function, whose parameters ``workflow``, ``execution_input``, ``session_state`` and
            ``run_context`` are filled in.
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
        model: That of titles and summaries; where None, titles are written by the model of the first agent.
        description: What it is for.
        metadata: Stored as the metadata of its new sessions.
        input_schema: A pydantic model: an input is validated, and steps have an instance of it as ``input``.
        add_workflow_history_to_steps: Tell agents the inputs and outputs of the session's earlier runs.
        num_history_runs: The number of latest runs that they are told.
        cache_session: Keep a session in memory once it was read, until this workflow changes it; changes by others are
            not seen.
        stream: Whether runs return an iterator of events, unless the run says; `print_response` prints them as they
            come.
        stream_events: Whether streams also have the finer events, those of steps among them, unless the run says.
        stream_executor_events: Whether streams have the events of the agents and teams that are steps.
        store_events: Store the events of a run with it: ``run.events``.
        events_to_skip: Events that are not stored: values of `kern_nb.run.workflow.WorkflowRunEvent`; those of an
            answer's parts where None.

    Raises:
        BadUsage: there are no steps, or a parameter is not valid.
    """

    session_type: ClassVar[SessionType] = "workflow"
    _engine_module: ClassVar[str] = "kern_nb.runtime.workflow_engine"
    _members_argument: ClassVar[str] = "stream_executor_events"

    @refuse_unsupported
    def __init__(
        self,
        steps: Any = (),
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
        model: Any = None,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        input_schema: type[BaseModel] | None = None,
        add_workflow_history_to_steps: bool = False,
        num_history_runs: int = 3,
        cache_session: bool = False,
        stream: bool | None = None,
        stream_events: bool | None = None,
        stream_executor_events: bool = True,
        store_events: bool = False,
        events_to_skip: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(locals())
        if not steps:
            raise BadUsage("A workflow needs steps.", "Workflow(steps=[agent, function, ...], ...)")
        self.steps = build_steps(steps)
        self.model = model
        self.description = description
        if input_schema is not None and not hasattr(input_schema, "model_validate"):
            message = f"input_schema must be a pydantic model, got {input_schema!r}."
            raise BadUsage(message, "class Request(BaseModel): ...; Workflow(input_schema=Request)")
        self.input_schema = input_schema
        self.add_workflow_history_to_steps = add_workflow_history_to_steps
        require_count("num_history_runs", num_history_runs)
        self.num_history_runs = num_history_runs
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
        return super()._parameters() | {"steps": self.steps}

    def _configuration(self) -> dict[str, Any]:
        description = {"description": self.description} if self.description else {}
        return {"steps": [step.title for step in self.steps.steps], **description}

    def _title_model(self) -> Any:
        agent = None if self.model is not None else first_executor(self.steps, "model")
        return self.model if agent is None else agent.model

    def _build_prompt(self, input: Any) -> Any:
        return self.load_input(input)

    def load_input(self, input: Any) -> Any:
        """Return an input as its steps have it: with an ``input_schema``, an instance of it.

        Raises:
            BadUsage: it does not fit.
        """
        schema = self.input_schema
        if schema is None or isinstance(input, schema):
            return input
        from pydantic import ValidationError

        try:
            return schema.model_validate_json(input) if isinstance(input, str) else schema.model_validate(input)
        except ValidationError as error:
            message = f"The input does not fit {schema.__name__}: {error}"
            raise BadUsage(message, f"Pass an instance of {schema.__name__}, or a dict with its fields.") from None

    def get_chat_history(
        self,
        session_id: str | None = None,
        last_n_runs: int | None = None,
        *,
        last_runs: int | None = None,
        user_id: str | None = None,
    ) -> list[WorkflowExchange]:
        """Return the input and output of a session's runs, inherited ones included.

        Args:
            session_id: The session; the own session where None.
            last_n_runs: Only so many of the latest runs.
            last_runs: Another name of ``last_n_runs``.
            user_id: The owner of the session.

        Raises:
            SessionNotFound: there is no such session of the user.
        """
        messages = self.store.chat_history(
            self._require_session_id(session_id),
            last_runs=last_runs if last_n_runs is None else last_n_runs,
            user_id=self._user(user_id),
        )
        exchanges = (pair for pair in pairwise(messages) if tuple(message.role for message in pair) == _EXCHANGE)
        return [WorkflowExchange(a.content, b.content) for a, b in exchanges if a.content and b.content]

    aget_chat_history = async_method(get_chat_history)

    def steps_of(self, run_id: str) -> list[Run]:
        """Return the runs of the steps of a run, in order; ``extra["step"]`` is the step's name."""
        return self.store.member_runs(self._find_run(run_id, None, self.user_id).run_id)
