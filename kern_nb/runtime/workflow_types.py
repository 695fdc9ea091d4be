"""What the functions of a workflow receive and return, and how a person reviews its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.runtime.workflow_history import history_text

if TYPE_CHECKING:
    from kern_nb.records import Session
    from kern_nb.runtime.context import RunContext


class OnReject(StrEnum):
    """What follows a rejection: the next step, the end, the other branch of a condition, or another attempt."""

    skip = "skip"
    cancel = "cancel"
    else_branch = "else"
    retry = "retry"


class OnError(StrEnum):
    """What follows an error: the end of the run, the next step, or the question whether to try again."""

    fail = "fail"
    skip = "skip"
    pause = "pause"


class OnTimeout(StrEnum):
    """What follows when nobody answers in time: the end, the next step, or what an approval does."""

    cancel = "cancel"
    skip = "skip"
    approve = "approve"


@dataclass
class UserInputField:
    """A value that a person enters, as one of `HumanReview.user_input_schema`.

    Attributes:
        name: Its name.
        field_type: ``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``.
        description: What it is.
        required: Whether it must be entered.
        allowed_values: Its only possible values.
    """

    name: str
    field_type: str = "str"
    description: str | None = None
    required: bool = True
    allowed_values: Sequence[Any] | None = None


@dataclass(frozen=True)
class HumanReview:
    """How a person reviews a node: a step, a loop, a router, a condition, or steps.

    Example:
        >>> from kern_nb import InMemoryDb, Workflow
        >>> from kern_nb.workflow import HumanReview, Step
        >>> review = HumanReview(requires_output_review=True, on_reject="retry")
        >>> workflow = Workflow([Step(lambda step: "a draft", name="write", human_review=review)], db=InMemoryDb())
        >>> run = workflow.run("roses")
        >>> run.requirements[0].edit("a poem")
        >>> workflow.continue_run(run).output
        'a poem'

    Attributes:
        requires_confirmation: Whether a person must approve the node before it runs.
        confirmation_message: The question for that person.
        requires_user_input: Whether a person enters values for a step, or selects the steps of a router.
        user_input_message: The question for that person.
        user_input_schema: The values of a step: dicts or `UserInputField`.
        allow_multiple_selections: Whether a person may select several steps of a router.
        requires_output_review: Whether a person must accept the output of a step or a router, or edits it; or a
            function of the `StepOutput` that returns whether.
        output_review_message: The question for that person.
        requires_iteration_review: Whether a person reviews each iteration of a loop: an approval ends the loop with
            that output; with ``on_reject="retry"``, a rejection starts the next iteration.
        iteration_review_message: The question for that person.
        on_reject: ``skip``, ``cancel``, ``retry`` (of a review of an output) or ``else`` (of a condition).
        on_error: ``fail``, ``skip`` or ``pause``, for the node and those within it; where None, an error fails.
        max_retries: The maximum number of further attempts after rejected outputs; then the workflow is cancelled.
        timeout: The time to answer, in seconds.
        on_timeout: ``cancel``, ``skip`` or ``approve``.
        assignee: The person to answer.

    Raises:
        BadUsage: a value is not one of these.
    """

    requires_confirmation: bool = False
    confirmation_message: str | None = None
    requires_user_input: bool = False
    user_input_message: str | None = None
    user_input_schema: Sequence[Any] | None = None
    allow_multiple_selections: bool = False
    requires_output_review: bool | Callable[[StepOutput], Any] = False
    output_review_message: str | None = None
    requires_iteration_review: bool = False
    iteration_review_message: str | None = None
    on_reject: OnReject | str = OnReject.skip
    on_error: OnError | str | None = None
    max_retries: int = 3
    timeout: float | None = None
    on_timeout: OnTimeout | str = OnTimeout.cancel
    assignee: str | None = None

    def __post_init__(self) -> None:
        if self.on_reject == "else_branch":
            object.__setattr__(self, "on_reject", "else")
        for name, values in (("on_reject", OnReject), ("on_error", OnError), ("on_timeout", OnTimeout)):
            value = getattr(self, name)
            if value not in [*values, None]:
                message = f"{name} must be one of {', '.join(values)}, got {value!r}."
                raise BadUsage(message, f"For example: {name}={next(iter(values)).value!r}")
        is_retry_of_output = self.requires_output_review or self.requires_iteration_review
        if self.on_reject == "retry" and self.requires_confirmation and not is_retry_of_output:
            message = "on_reject='retry' would run a step that a person rejected before it ran."
            raise BadUsage(message, "Use on_reject='skip' or 'cancel', or requires_output_review=True.")

    def input_fields(self) -> list[UserInputField]:
        """Return the values that a person enters."""
        names = {item.name for item in fields(UserInputField)}
        result: list[UserInputField] = []
        for item in self.user_input_schema or ():
            values: dict[str, Any] = item if isinstance(item, dict) else {n: getattr(item, n, None) for n in names}
            if not isinstance(values.get("name"), str):
                raise BadUsage(f"A field of user_input_schema needs a name, got {item!r}.", "{'name': 'city'}")
            result.append(UserInputField(**{name: values[name] for name in names if values.get(name) is not None}))
        return result


def build_review(
    kind: str, allowed: Iterable[str], review: HumanReview | None, options: dict[str, Any], on_reject: str
) -> HumanReview:
    """Return the review of a node, from an object or from its fields as parameters of the node.

    Raises:
        BadUsage: both are passed, a parameter is unknown, or such a node has no such review.
    """
    names = [item.name for item in fields(HumanReview)]
    for name in options:
        if name not in names:
            raise BadUsage(f"{kind} has no parameter {name!r}.", did_you_mean(name, names, f"{kind}(human_review=...)"))
    if review is not None and options:
        raise BadUsage(
            f"{kind} takes human_review or {next(iter(options))}, not both.", "HumanReview(...) has it, too."
        )
    if review is not None and not isinstance(review, HumanReview):
        raise BadUsage(
            f"human_review must be a HumanReview, got {review!r}.", "From kern_nb.workflow: HumanReview(...)"
        )
    result = review or HumanReview(**{"on_reject": on_reject} | options)
    for name in names:
        if name.startswith("requires_") and getattr(result, name) and name not in allowed:
            raise BadUsage(f"{kind} cannot have {name}.", f"It can have: {', '.join(allowed) or 'no review'}.")
    return result


@dataclass
class StepOutput:
    """What a step returned; a function may return one itself.

    Example:
        >>> from kern_nb import InMemoryDb, Workflow
        >>> from kern_nb.workflow import StepOutput
        >>> def check(step):
        ...     return StepOutput(content="too short", stop=len(step.input) < 10)
        >>> Workflow([check, lambda step: "long enough"], db=InMemoryDb()).run("roses").output
        'too short'

    Attributes:
        content: The output, a JSON value.
        success: Whether the step did what it should.
        error: Why not.
        stop: Whether the workflow ends here, as completed.
        step_name: The step.
        step_id: The step's path in the workflow, such as ``1.0``.
        step_type: ``Step``, ``Steps``, ``Parallel``, ``Condition``, ``Loop`` or ``Router``.
        executor_type: ``agent``, ``team``, ``workflow`` or ``function``.
        executor_name: The agent, team, workflow or function.
        step_run_id: The run of the step.
        steps: The outputs of the steps within it.
    """

    content: Any = None
    success: bool = True
    error: str | None = None
    stop: bool = False
    step_name: str | None = None
    step_id: str | None = None
    step_type: str | None = None
    executor_type: str | None = None
    executor_name: str | None = None
    step_run_id: str | None = None
    steps: list[StepOutput] | None = None

    def search(self, name: str) -> StepOutput | None:
        """Return the output of a step within this one."""
        for step in self.steps or ():
            match = step if step.step_name == name else step.search(name)
            if match is not None:
                return match
        return None


def last_content(output: StepOutput) -> Any:
    """Return the content of the last step within an output; of `Parallel`, its own: a dict by step name."""
    while output.steps and output.step_type != "Parallel":
        output = output.steps[-1]
    return output.content


def agent_text(output: StepOutput | None) -> Any:
    """Return what the agent of the next step is told: the last content; after `Parallel`, a text with all of them."""
    if output is None or not output.steps:
        return output and output.content
    if output.step_type != "Parallel":
        return agent_text(output.steps[-1])
    contents = [(step.step_name, agent_text(step)) for step in output.steps]
    parts = [f"=== {name} ===\n{content}" for name, content in contents if not _is_blank(content)]
    return "\n\n".join(parts) or None


def _is_blank(content: Any) -> bool:
    return content is None or not str(content).strip()


@dataclass
class WorkflowExecutionInput:
    """The input of a workflow whose ``steps`` is one function with a parameter ``execution_input``.

    Attributes:
        input: The workflow's input.
        additional_data: What the caller passed beside it.
    """

    input: Any = None
    additional_data: dict[str, Any] | None = None


@dataclass
class StepInput:
    """The argument of a function that is a step, a condition or the selector of a router.

    Example:
        >>> from kern_nb.workflow import StepInput, StepOutput
        >>> step = StepInput("roses", previous_step_outputs={"count": StepOutput(5), "first": StepOutput("r")})
        >>> step.get_step_content("count")
        5
        >>> step.get_all_previous_content().splitlines()
        ['=== count ===', '5', '', '=== first ===', 'r']

    Attributes:
        input: The workflow's input.
        previous_step_content: The output of the previous step, or None; after `Parallel`, a dict by step name.
        previous_step_outputs: The outputs of the steps before, by name; of a loop, the latest.
        additional_data: What the caller passed beside the input; with ``user_input``, what a person entered, and with
            ``previous_output`` and ``rejection_feedback``, what a person rejected and why.
        session_state: The session's state; changes are stored when the step ends.
        run_context: The workflow's run.
    """

    input: Any = None
    previous_step_content: Any = None
    previous_step_outputs: dict[str, StepOutput] = field(default_factory=dict)
    additional_data: dict[str, Any] | None = None
    session_state: dict[str, Any] = field(default_factory=dict)
    run_context: RunContext | None = None

    def get_input_as_string(self) -> str | None:
        """Return the workflow's input as text; any value but a text as JSON."""
        from kern_nb.interop.media import as_text

        return None if self.input is None else as_text(self.input)

    def get_step_output(self, step_name: str) -> StepOutput | None:
        """Return the output of a step before this one, also within another one; None if there is no such step."""
        if step_name in self.previous_step_outputs:
            return self.previous_step_outputs[step_name]
        return StepOutput(steps=list(self.previous_step_outputs.values())).search(step_name)

    def get_step_content(self, step_name: str) -> Any:
        """Return the content of a step before this one; of `Parallel`, a dict by step name; None without the step."""
        output = self.get_step_output(step_name)
        return None if output is None else last_content(output)

    def get_all_previous_content(self) -> str:
        """Return the contents of all steps before this one as a text, each below the name of its step."""
        contents = ((name, agent_text(output)) for name, output in self.previous_step_outputs.items())
        return "\n\n".join(f"=== {name} ===\n{content}" for name, content in contents if not _is_blank(content))

    def get_last_step_content(self) -> Any:
        """Return the content of the previous step."""
        return self.previous_step_content

    @property
    def workflow_session(self) -> Session | None:
        """The session, with its runs as they are stored now."""
        context = self.run_context
        return None if context is None else context.store.get_session(context.session_id)

    def get_workflow_history(self, num_runs: int | None = None) -> list[tuple[str, str]]:
        """Return the inputs and outputs of the session's earlier completed runs, or of so many of the latest."""
        from kern_nb.runtime.history import past_exchanges

        context = self.run_context
        return [] if context is None else past_exchanges(context, num_runs)

    def get_workflow_history_context(self, num_runs: int | None = None) -> str | None:
        """Return the same as the text that agents are told; None without earlier runs."""
        return history_text(self.get_workflow_history(num_runs))


class IterationOutputs(list[StepOutput]):
    """The argument of a loop's end condition: the outputs of the iteration, in order.

    It has the attributes of a `StepInput`, too, whose previous step is the last one of the iteration.
    """

    def __init__(self, outputs: Iterable[StepOutput], step_input: StepInput) -> None:
        super().__init__(outputs)
        self._step_input = step_input

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step_input, name)
