"""The steps of a workflow, as they are written down: nodes that say what runs, and when."""

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
    """What a function that is a step, a condition or a loop's end is given.

    Attributes:
        input: The workflow's input.
        previous_step_content: What the step before gave; None for the first. After `Parallel`, a dict by step name.
        previous_step_outputs: What every step so far gave, by its name; of a loop, the latest.
        session_state: The session's state; what is set here is stored when the step ends.
        run_context: The workflow's run.
    """

    input: Any
    previous_step_content: Any
    previous_step_outputs: dict[str, Any]
    session_state: dict[str, Any]
    run_context: RunContext


@dataclass(frozen=True)
class Step:
    """One step: an agent, a team, or a function of a `StepInput` (plain or async) that gives any JSON value.

    Attributes:
        executor: What runs. An agent is given what the step before gave, the first one the workflow's input.
        name: Its name; that of the agent or function where None.
        requires_confirmation: Whether a person must agree before it runs. A refusal ends the workflow.
        prompt: What that person is asked.
        assignee: Who is to answer.
    """

    executor: Any
    name: str | None = None
    requires_confirmation: bool = False
    prompt: str | None = None
    assignee: str | None = None

    @property
    def title(self) -> str:
        """The name under which its output is known."""
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
    """Steps at once. Each is given what the step before them gave; together they give a dict by step name."""

    steps: Sequence[Any]
    name: str

    def __init__(self, *steps: Any, name: str = "parallel") -> None:
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "name", name)


@dataclass(frozen=True)
class Condition:
    """Steps that run if a function of the `StepInput` says so, or others if not."""

    evaluator: Callable[[StepInput], Any]
    steps: Sequence[Any]
    else_steps: Sequence[Any] = ()
    name: str = "condition"


@dataclass(frozen=True)
class Loop:
    """Steps that run again until a function of the `StepInput` says it is enough; at most ``max_iterations`` times."""

    steps: Sequence[Any]
    end_condition: Callable[[StepInput], Any] | None = None
    max_iterations: int = 3
    name: str = "loop"


Node = Step | Steps | Parallel | Condition | Loop


def normal(given: Any) -> Steps:
    """Steps as nodes, whichever way they were given.

    Raises:
        BadUsage: something is no step, or two steps side by side have one name.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    nodes = [_node(one) for one in several]
    return Steps(nodes)


def _require_functions(one: Any) -> None:
    """Raises BadUsage for a condition or a loop's end that is no function, and for a loop without a turn."""
    asked = one.evaluator if isinstance(one, Condition) else getattr(one, "end_condition", None)
    if (isinstance(one, Condition) or asked is not None) and isinstance(one, (Condition, Loop)) and not callable(asked):
        raise BadUsage(f"{one.name}: {asked!r} is no function.", "Give a function of the StepInput.")
    if isinstance(one, Loop) and one.max_iterations < 1:
        raise BadUsage(f"{one.name} would never run: max_iterations={one.max_iterations}.", "Give 1 or more.")


def _node(one: Any) -> Node:
    if isinstance(one, (list, tuple)):
        return normal(one)
    if isinstance(one, Steps):
        return Steps(normal(one.steps).steps, one.name)
    if isinstance(one, Parallel):
        nodes = normal(one.steps).steps
        names = [getattr(node, "title", None) or node.name for node in nodes]
        if len(set(names)) < len(names):
            raise BadUsage(f"Steps at once need names of their own: {', '.join(names)}.", "Step(agent, name=...)")
        return Parallel(*nodes, name=one.name)
    _require_functions(one)
    if isinstance(one, Condition):
        return Condition(one.evaluator, normal(one.steps).steps, normal(one.else_steps).steps, one.name)
    if isinstance(one, Loop):
        return Loop(normal(one.steps).steps, one.end_condition, one.max_iterations, one.name)
    step = one if isinstance(one, Step) else Step(one)
    executor = step.executor
    if isinstance(executor, SessionOwner) or (callable(executor) and not isinstance(executor, type)):
        return step
    raise BadUsage(f"{one!r} is no step.", "Give an agent, a team, a function, Step, Parallel, Condition or Loop.")
