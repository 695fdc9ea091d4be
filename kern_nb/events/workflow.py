"""The events of workflows' runs: the values of ``event``, and the class of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from kern_nb.events import base


class WorkflowRunEvent(StrEnum):
    """The values of ``event`` of a workflow's events."""

    workflow_started = "WorkflowStarted"
    workflow_continued = "WorkflowContinued"
    workflow_completed = "WorkflowCompleted"
    workflow_paused = "WorkflowPaused"
    workflow_error = "WorkflowError"
    workflow_cancelled = "WorkflowCancelled"
    step_started = "StepStarted"
    step_completed = "StepCompleted"
    step_output = "StepOutput"
    step_paused = "StepPaused"
    step_error = "StepError"
    loop_execution_started = "LoopExecutionStarted"
    loop_iteration_started = "LoopIterationStarted"
    loop_iteration_completed = "LoopIterationCompleted"
    loop_execution_completed = "LoopExecutionCompleted"
    parallel_execution_started = "ParallelExecutionStarted"
    parallel_execution_completed = "ParallelExecutionCompleted"
    condition_execution_started = "ConditionExecutionStarted"
    condition_execution_completed = "ConditionExecutionCompleted"
    router_execution_started = "RouterExecutionStarted"
    router_execution_completed = "RouterExecutionCompleted"
    steps_execution_started = "StepsExecutionStarted"
    steps_execution_completed = "StepsExecutionCompleted"
    session_summary_started = "WorkflowSessionSummaryStarted"
    session_summary_completed = "WorkflowSessionSummaryCompleted"


@dataclass(kw_only=True, repr=False)
class WorkflowRunOutputEvent(base.BaseRunOutputEvent):
    """An event of a workflow's run."""

    workflow_name: str = ""


@dataclass(kw_only=True, repr=False)
class WorkflowStartedEvent(WorkflowRunOutputEvent, base.Started):
    """A workflow's run starts."""

    event: str = WorkflowRunEvent.workflow_started.value


@dataclass(kw_only=True, repr=False)
class WorkflowContinuedEvent(WorkflowRunOutputEvent, base.Continued):
    """A workflow's run continues."""

    event: str = WorkflowRunEvent.workflow_continued.value


@dataclass(kw_only=True, repr=False)
class WorkflowCompletedEvent(WorkflowRunOutputEvent, base.Completed):
    """A workflow's run is completed."""

    event: str = WorkflowRunEvent.workflow_completed.value


@dataclass(kw_only=True, repr=False)
class WorkflowPausedEvent(WorkflowRunOutputEvent, base.Paused):
    """A workflow's run waits for a person."""

    event: str = WorkflowRunEvent.workflow_paused.value


@dataclass(kw_only=True, repr=False)
class WorkflowErrorEvent(WorkflowRunOutputEvent, base.Failed):
    """A workflow's run ended with an error."""

    event: str = WorkflowRunEvent.workflow_error.value


@dataclass(kw_only=True, repr=False)
class WorkflowCancelledEvent(WorkflowRunOutputEvent, base.Cancelled):
    """A workflow's run was cancelled, or a person rejected a step."""

    event: str = WorkflowRunEvent.workflow_cancelled.value


@dataclass(kw_only=True, repr=False)
class StepOutputEvent(WorkflowRunOutputEvent):
    """A step that is a function has returned ``content``."""

    event: str = WorkflowRunEvent.step_output.value


@dataclass(kw_only=True, repr=False)
class WorkflowDetailEvent(WorkflowRunOutputEvent):
    """An event within a workflow: a step, or a group of steps, starts or ends."""

    is_detail: ClassVar[bool] = True


@dataclass(kw_only=True, repr=False)
class StepStartedEvent(WorkflowDetailEvent):
    """A step starts."""

    event: str = WorkflowRunEvent.step_started.value


@dataclass(kw_only=True, repr=False)
class StepCompletedEvent(WorkflowDetailEvent):
    """A step is completed; ``content`` is its output."""

    event: str = WorkflowRunEvent.step_completed.value


@dataclass(kw_only=True, repr=False)
class StepPausedEvent(WorkflowDetailEvent):
    """A step waits for a person."""

    event: str = WorkflowRunEvent.step_paused.value


@dataclass(kw_only=True, repr=False)
class StepErrorEvent(WorkflowDetailEvent):
    """A step has failed with ``error``."""

    event: str = WorkflowRunEvent.step_error.value
    error: str | None = None


@dataclass(kw_only=True, repr=False)
class LoopExecutionStartedEvent(WorkflowDetailEvent):
    """A loop starts."""

    event: str = WorkflowRunEvent.loop_execution_started.value
    max_iterations: int | None = None


@dataclass(kw_only=True, repr=False)
class LoopIterationStartedEvent(WorkflowDetailEvent):
    """An iteration of a loop starts; the first is 1."""

    event: str = WorkflowRunEvent.loop_iteration_started.value
    iteration: int = 0
    max_iterations: int | None = None


@dataclass(kw_only=True, repr=False)
class LoopIterationCompletedEvent(WorkflowDetailEvent):
    """An iteration of a loop is completed; ``content`` is its output."""

    event: str = WorkflowRunEvent.loop_iteration_completed.value
    iteration: int = 0
    max_iterations: int | None = None
    should_continue: bool = True


@dataclass(kw_only=True, repr=False)
class LoopExecutionCompletedEvent(WorkflowDetailEvent):
    """A loop is completed; ``content`` is the output of its last iteration."""

    event: str = WorkflowRunEvent.loop_execution_completed.value
    total_iterations: int = 0
    max_iterations: int | None = None


@dataclass(kw_only=True, repr=False)
class ParallelExecutionStartedEvent(WorkflowDetailEvent):
    """Parallel steps start."""

    event: str = WorkflowRunEvent.parallel_execution_started.value
    parallel_step_count: int | None = None


@dataclass(kw_only=True, repr=False)
class ParallelExecutionCompletedEvent(WorkflowDetailEvent):
    """Parallel steps are completed; ``content`` is their outputs by name."""

    event: str = WorkflowRunEvent.parallel_execution_completed.value
    parallel_step_count: int | None = None


@dataclass(kw_only=True, repr=False)
class ConditionExecutionStartedEvent(WorkflowDetailEvent):
    """A condition is evaluated, and its branch starts."""

    event: str = WorkflowRunEvent.condition_execution_started.value
    condition_result: bool | None = None


@dataclass(kw_only=True, repr=False)
class ConditionExecutionCompletedEvent(WorkflowDetailEvent):
    """The branch of a condition, ``"if"`` or ``"else"``, is completed; ``content`` is its output."""

    event: str = WorkflowRunEvent.condition_execution_completed.value
    condition_result: bool | None = None
    branch: str | None = None


@dataclass(kw_only=True, repr=False)
class RouterExecutionStartedEvent(WorkflowDetailEvent):
    """A router has selected steps, which start."""

    event: str = WorkflowRunEvent.router_execution_started.value
    selected_steps: list[str] = field(default_factory=list)


@dataclass(kw_only=True, repr=False)
class RouterExecutionCompletedEvent(WorkflowDetailEvent):
    """The steps that a router has selected are completed; ``content`` is their output."""

    event: str = WorkflowRunEvent.router_execution_completed.value
    selected_steps: list[str] = field(default_factory=list)


@dataclass(kw_only=True, repr=False)
class StepsExecutionStartedEvent(WorkflowDetailEvent):
    """A sequence of steps within the workflow starts."""

    event: str = WorkflowRunEvent.steps_execution_started.value
    steps_count: int | None = None


@dataclass(kw_only=True, repr=False)
class StepsExecutionCompletedEvent(WorkflowDetailEvent):
    """A sequence of steps within the workflow is completed; ``content`` is its output."""

    event: str = WorkflowRunEvent.steps_execution_completed.value
    steps_count: int | None = None


@dataclass(kw_only=True, repr=False)
class SessionSummaryStartedEvent(WorkflowRunOutputEvent, base.SummaryStarted):
    """The summary of the workflow's session is being updated."""

    event: str = WorkflowRunEvent.session_summary_started.value


@dataclass(kw_only=True, repr=False)
class SessionSummaryCompletedEvent(WorkflowRunOutputEvent, base.SummaryCompleted):
    """The summary of the workflow's session is stored."""

    event: str = WorkflowRunEvent.session_summary_completed.value
