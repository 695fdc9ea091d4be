"""The nodes of a workflow: steps, and how they are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner

if TYPE_CHECKING:
    from kern_nb.runtime.context import RunContext


@dataclass(frozen=True)
class StepInput:
    """The argument of a function that is a step, a condition, or the end condition of a loop.

    Attributes:
        input: The workflow's input.
        previous_step_content: The output of the previous step, or None; after `Parallel`, a dict by step name.
        previous_step_outputs: The outputs of all steps so far, by name; of a loop, the latest.
        session_state: The session's state; changes are stored when the step ends.
        run_context: The workflow's run.
    """

    input: Any
    previous_step_content: Any
    previous_step_outputs: dict[str, Any]
    session_state: dict[str, Any]
    run_context: RunContext


@dataclass(frozen=True)
class Step:
    """One step: an agent, a team, or a function of a `StepInput` (plain or async) that returns a JSON value.

    Attributes:
        executor: What runs. An agent's input is the previous step's output; for the first step, the workflow's input.
        name: Its name; that of the agent or function where None.
        requires_confirmation: Whether a person must approve it before it runs. A rejection ends the workflow.
        prompt: The question for that person.
        assignee: The person to answer.
    """

    executor: Any
    name: str | None = None
    requires_confirmation: bool = False
    prompt: str | None = None
    assignee: str | None = None

    @property
    def title(self) -> str:
        """The name of its output."""
        executor = self.executor
        own = getattr(executor, "name", None) or getattr(executor, "id", None) or getattr(executor, "__name__", None)
        return self.name or str(own or type(executor).__name__)


@dataclass(frozen=True)
class Steps:
    """Steps one after the other."""

    steps: Sequence[Any]
    name: str = "steps"


@dataclass(frozen=True, init=False)
class Parallel:
    """Steps that run concurrently, on the same input. The output is a dict by step name."""

    steps: Sequence[Any]
    name: str

    def __init__(self, *steps: Any, name: str = "parallel") -> None:
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "name", name)


@dataclass(frozen=True)
class Condition:
    """Steps that run if a function of the `StepInput` returns true, and others that run if not."""

    evaluator: Callable[[StepInput], Any]
    steps: Sequence[Any]
    else_steps: Sequence[Any] = ()
    name: str = "condition"


@dataclass(frozen=True)
class Loop:
    """Steps that repeat until a function of the `StepInput` returns true; at most ``max_iterations`` times."""

    steps: Sequence[Any]
    end_condition: Callable[[StepInput], Any] | None = None
    max_iterations: int = 3
    name: str = "loop"


Node = Step | Steps | Parallel | Condition | Loop


def node_title(node: Node) -> str:
    """Return the name of a node's output."""
    return node.title if isinstance(node, Step) else node.name


def build_steps(steps: Any) -> Steps:
    """Convert a step or a list of steps to nodes.

    Raises:
        BadUsage: an item is not a step, or two parallel steps have the same name.
    """
    return Steps([_build_node(step) for step in (steps if isinstance(steps, (list, tuple)) else [steps])])


def _require_function(name: str, function: Any) -> None:
    if not callable(function):
        raise BadUsage(f"{name} must be a function, got {function!r}.", "Pass a function of the StepInput.")


def _build_node(item: Any) -> Node:
    if isinstance(item, (list, tuple)):
        return build_steps(item)
    if isinstance(item, Steps):
        return Steps(build_steps(item.steps).steps, item.name)
    if isinstance(item, Parallel):
        nodes = build_steps(item.steps).steps
        names = [node_title(node) for node in nodes]
        if len(set(names)) < len(names):
            raise BadUsage(f"Parallel steps need different names, got {', '.join(names)}.", "Step(agent, name=...)")
        return Parallel(*nodes, name=item.name)
    if isinstance(item, Condition):
        _require_function(item.name, item.evaluator)
        return Condition(item.evaluator, build_steps(item.steps).steps, build_steps(item.else_steps).steps, item.name)
    if isinstance(item, Loop):
        if item.end_condition is not None:
            _require_function(item.name, item.end_condition)
        if item.max_iterations < 1:
            message = f"max_iterations of {item.name!r} must be at least 1, got {item.max_iterations}."
            raise BadUsage(message, "For example: Loop(steps, max_iterations=3)")
        return Loop(build_steps(item.steps).steps, item.end_condition, item.max_iterations, item.name)
    step = item if isinstance(item, Step) else Step(item)
    executor = step.executor
    if isinstance(executor, SessionOwner) or (callable(executor) and not isinstance(executor, type)):
        return step
    hint = "Pass an agent, a team, a function, Step, Parallel, Condition or Loop."
    raise BadUsage(f"A step must be an agent, a team or a function, got {item!r}.", hint)
