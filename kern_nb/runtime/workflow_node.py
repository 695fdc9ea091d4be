"""`Node`: what the nodes of a workflow have in common; and `Step`, the node that runs an agent or a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.workflow_types import HumanReview, build_review

CONFIRMATION = ("requires_confirmation",)
REVIEWS_OF_OUTPUT = ("requires_confirmation", "requires_user_input", "requires_output_review")


class Node:
    """What the nodes of a workflow have in common.

    Attributes:
        name: The name of its output.
        description: What it is for.
        human_review: How a person reviews it.
    """

    kind: ClassVar[str]
    reviews: ClassVar[Sequence[str]] = CONFIRMATION
    on_reject: ClassVar[str] = "cancel"
    """What follows a rejection, if neither ``human_review`` nor ``on_reject`` says so."""

    def __init__(
        self, name: str, description: str | None, human_review: HumanReview | None, options: dict[str, Any]
    ) -> None:
        self.name: str | None = name
        self.description = description
        self.human_review = build_review(self.kind, self.reviews, human_review, options, self.on_reject)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.title}>"

    @property
    def title(self) -> str:
        """The name of its output."""
        return str(self.name)


class Step(Node):
    """One step: an agent, a team, a workflow, or a function of a `StepInput`.

    A function may be async or a generator. It returns a JSON value or a `StepOutput`. Parameters named ``run_context``,
    ``session_state``, ``workflow`` and ``execution_input`` are filled in.

    Example:
        >>> from kern_nb import InMemoryDb, Workflow
        >>> from kern_nb.workflow import Step
        >>> workflow = Workflow([Step(lambda step: step.input.upper(), name="shout")], db=InMemoryDb())
        >>> run = workflow.run("roses")
        >>> [(step.extra["step"], step.output) for step in workflow.steps_of(run.run_id)]
        [('shout', 'ROSES')]

    Args:
        executor: What runs. An agent's input is the previous step's output; for the first step, the workflow's input.
        name: Its name; that of the agent or function where None.
        prompt: The question before it runs; ``confirmation_message``.
        agent: The same as ``executor``; so are ``team`` and ``workflow``.
        team: A team.
        workflow: A workflow.
        step_id: Not used: a step is identified by its position and its name.
        description: What it is for.
        max_retries: The maximum number of further attempts after an error.
        skip_on_failure: Continue with the next step after an error.
        strict_input_validation: Fail without an input.
        add_workflow_history: Tell an agent the earlier runs of the session; where None, as the workflow says.
        num_history_runs: The number of latest runs; where None, the workflow's.
        human_review: How a person reviews it; or its fields as ``review``.
        **review: Fields of `HumanReview`: ``requires_confirmation=True``. A rejection then ends the workflow, unless
            ``on_reject`` says otherwise.

    Raises:
        BadUsage: nothing or more than one thing runs, or a parameter is not valid.
    """

    kind: ClassVar[str] = "Step"
    reviews: ClassVar[Sequence[str]] = REVIEWS_OF_OUTPUT

    def __init__(
        self,
        executor: Any = None,
        name: str | None = None,
        *,
        prompt: str | None = None,
        agent: Any = None,
        team: Any = None,
        workflow: Any = None,
        step_id: str | None = None,
        description: str | None = None,
        max_retries: int = 0,
        skip_on_failure: bool = False,
        strict_input_validation: bool = False,
        add_workflow_history: bool | None = None,
        num_history_runs: int | None = None,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        candidates = {"executor": executor, "agent": agent, "team": team, "workflow": workflow}
        executors = {key: value for key, value in candidates.items() if value is not None}
        if len(executors) > 1 and isinstance(executor, str) and name is None:  # Step("name", agent=...)
            name = executors.pop("executor")
        if len(executors) != 1:
            message = f"A step runs one thing, got {', '.join(executors) or 'nothing'}."
            raise BadUsage(message, "Pass agent=, team=, workflow= or executor= (a function).")
        self.executor = next(iter(executors.values()))
        if not isinstance(self.executor, SessionOwner) and (
            not callable(self.executor) or isinstance(self.executor, type)
        ):
            hint = "Pass an agent, a team, a function, Step, Parallel, Condition, Router or Loop."
            raise BadUsage(f"A step must be an agent, a team or a function, got {self.executor!r}.", hint)
        if max_retries < 0:
            raise BadUsage(f"max_retries must be at least 0, got {max_retries!r}.", "For example: max_retries=3")
        marked = getattr(self.executor, PAUSE_OPTIONS, {}) if human_review is None and not review else {}
        review |= {key: value for key, value in marked.items() if key != "name"}
        review |= {} if prompt is None else {"confirmation_message": prompt}
        super().__init__(name or marked.get("name") or "", description, human_review, review)
        self.name = self.name or None
        self.step_id = step_id
        self.max_retries = max_retries
        self.skip_on_failure = skip_on_failure
        self.strict_input_validation = strict_input_validation
        self.add_workflow_history = add_workflow_history
        self.num_history_runs = num_history_runs

    @property
    def title(self) -> str:
        """The name of its output."""
        executor = self.executor
        own = getattr(executor, "name", None) or getattr(executor, "id", None) or getattr(executor, "__name__", None)
        return self.name or str(own or type(executor).__name__)

    @property
    def executor_type(self) -> str:
        """``agent``, ``team``, ``workflow`` or ``function``."""
        return self.executor.session_type if isinstance(self.executor, SessionOwner) else "function"


PAUSE_OPTIONS = "_kern_nb_review"
"""The attribute of a function that `pause` has marked: the parameters of its step."""
