"""The nodes of a workflow: steps, and how they are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.workflow_types import HumanReview, build_review

_CONFIRMATION = ("requires_confirmation",)
_OF_OUTPUT = ("requires_confirmation", "requires_user_input", "requires_output_review")


class Node:
    """What the nodes of a workflow have in common.

    Attributes:
        name: The name of its output.
        description: What it is for.
        human_review: How a person reviews it.
    """

    kind: ClassVar[str]
    reviews: ClassVar[Sequence[str]] = _CONFIRMATION
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
    reviews: ClassVar[Sequence[str]] = _OF_OUTPUT

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


class Steps(Node):
    """Steps one after the other."""

    kind: ClassVar[str] = "Steps"

    def __init__(
        self,
        steps: Any = (),
        name: str | None = None,
        *,
        description: str | None = None,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        if isinstance(steps, str):  # Steps("name", steps=...) has them by keyword
            raise BadUsage(f"Steps needs a list of steps, got {steps!r}.", "Steps([agent, function], name='draft')")
        super().__init__(name or "steps", description, human_review, review)
        self.steps = build_nodes(steps)


class Parallel(Node):
    """Steps that run concurrently, on the same input.

    The output is a dict by step name. An agent after them is told all of them, each below its name. A first argument
    that is a text is the name.
    """

    kind: ClassVar[str] = "Parallel"
    reviews: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        *steps: Any,
        name: str | None = None,
        description: str | None = None,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        if steps and isinstance(steps[0], str):
            name, steps = name or steps[0], steps[1:]
        super().__init__(name or "parallel", description, human_review, review)
        self.steps = build_nodes(steps)
        _require_different_names(self.steps, "Parallel steps")


class Condition(Node):
    """Steps that run if a function of the `StepInput` returns true, and others that run if not.

    Args:
        evaluator: The function, True or False.
        steps: The steps that run if it is true.
        else_steps: The steps that run if not. Without any, the next step has the input of the condition.
        name: Its name.
        description: What it is for.
        human_review: How a person reviews it; or its fields as ``review``. A rejection runs ``else_steps``.
        **review: Fields of `HumanReview`.
    """

    kind: ClassVar[str] = "Condition"
    on_reject: ClassVar[str] = "else"

    def __init__(
        self,
        evaluator: Any = True,  # noqa: FBT002 - a function, or a constant
        steps: Any = (),
        else_steps: Any = (),
        name: str | None = None,
        *,
        description: str | None = None,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        if isinstance(evaluator, (list, tuple)):  # Condition([step], function)
            evaluator, steps = (True if isinstance(steps, tuple) else steps), evaluator
        super().__init__(name or "condition", description, human_review, review)
        self.evaluator = evaluator if isinstance(evaluator, bool) else _require_function(self.title, evaluator)
        self.steps = build_nodes(steps)
        self.else_steps = build_nodes(else_steps or ())


class Router(Node):
    """Steps of which a function of the `StepInput`, or a person, selects those that run, one after the other.

    Example:
        >>> from kern_nb import InMemoryDb, Workflow
        >>> from kern_nb.workflow import Router, Step
        >>> short, long = Step(lambda step: "a haiku", name="short"), Step(lambda step: "an epic", name="long")
        >>> router = Router([short, long], selector=lambda step: "long" if "hero" in step.input else "short")
        >>> Workflow([router], db=InMemoryDb()).run("a hero").output
        'an epic'

    Args:
        choices: The steps, each with its own name; a list is a sequence.
        selector: The function. It returns the name of a choice, a choice, or a list of these; without any, the next
            step has the input of the router. A parameter ``step_choices`` is the list of choices.
        name: Its name.
        description: What it is for.
        human_review: How a person reviews it; or its fields as ``review``. With ``requires_user_input``, a person
            selects.
        **review: Fields of `HumanReview`.

    Raises:
        BadUsage: nobody selects, or two choices have the same name.
    """

    kind: ClassVar[str] = "Router"
    reviews: ClassVar[Sequence[str]] = _OF_OUTPUT

    def __init__(
        self,
        choices: Any = (),
        selector: Callable[..., Any] | None = None,
        name: str | None = None,
        *,
        description: str | None = None,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        super().__init__(name or "router", description, human_review, review)
        items = choices if isinstance(choices, (list, tuple)) else [choices]
        lists = {n: Steps(item, f"steps_group_{n}") for n, item in enumerate(items) if isinstance(item, (list, tuple))}
        self.choices = build_nodes([lists.get(n, item) for n, item in enumerate(items)])
        self._items = items
        _require_different_names(self.choices, "The choices of a router")
        if selector is None and not self.human_review.requires_user_input:
            raise BadUsage(
                f"Router {self.title!r} has no selector.", "Pass selector=function or requires_user_input=True."
            )
        self.selector = None if selector is None else _require_function(self.title, selector)

    def selected_names(self, selection: Any) -> list[str]:
        """Return the names of what a selector returned.

        Raises:
            BadUsage: it is not one of the choices.
        """
        if selection is None:
            return []
        if isinstance(selection, (list, tuple)) and not any(selection is item for item in self._items):
            return [name for item in selection for name in self.selected_names(item)]
        for choice, item in zip(self.choices, self._items, strict=True):
            if selection is item or selection is choice or selection == choice.title:
                return [choice.title]
        names = ", ".join(choice.title for choice in self.choices)
        message = f"Router {self.title!r} selected {selection!r}, which is not one of its choices: {names}."
        raise BadUsage(message, "Return the name of a choice, or a list of names.")


class Loop(Node):
    """Steps that repeat until a function returns true.

    Args:
        steps: The steps of an iteration.
        end_condition: The function. Its argument is the list of the iteration's outputs, which also has the attributes
            of a `StepInput`.
        max_iterations: The maximum number of iterations.
        name: Its name.
        description: What it is for.
        forward_iteration_output: Whether an iteration starts with the output of the one before; otherwise each starts
            with the input of the loop.
        human_review: How a person reviews it; or its fields as ``review``.
        **review: Fields of `HumanReview`.
    """

    kind: ClassVar[str] = "Loop"
    reviews: ClassVar[Sequence[str]] = ("requires_confirmation", "requires_iteration_review")

    def __init__(
        self,
        steps: Any = (),
        end_condition: Callable[..., Any] | None = None,
        max_iterations: int = 3,
        name: str | None = None,
        *,
        description: str | None = None,
        forward_iteration_output: bool = False,
        human_review: HumanReview | None = None,
        **review: Any,
    ) -> None:
        super().__init__(name or "loop", description, human_review, review)
        if max_iterations < 1:
            message = f"max_iterations of {self.title!r} must be at least 1, got {max_iterations}."
            raise BadUsage(message, "For example: Loop(steps, max_iterations=3)")
        self.steps = build_nodes(steps)
        self.end_condition = None if end_condition is None else _require_function(self.title, end_condition)
        self.max_iterations = max_iterations
        self.forward_iteration_output = forward_iteration_output


def build_nodes(steps: Any) -> list[Node]:
    """Convert a step or a list of steps to nodes.

    Raises:
        BadUsage: an item is not a step.
    """
    items = steps if isinstance(steps, (list, tuple)) else [steps]
    return [
        item if isinstance(item, Node) else Steps(item) if isinstance(item, (list, tuple)) else Step(item)
        for item in items
    ]


def build_steps(steps: Any) -> Steps:
    """Convert the steps of a workflow to one node."""
    return steps if isinstance(steps, Steps) else Steps(steps)


def first_executor(node: Node, attribute: str) -> Any:
    """Return the first agent or team of a node that has an attribute with a value; None if there is none."""
    if isinstance(node, Step):
        return node.executor if getattr(node.executor, attribute, None) is not None else None
    nodes = [inner for name in ("steps", "else_steps", "choices") for inner in getattr(node, name, ())]
    return next((match for inner in nodes if (match := first_executor(inner, attribute)) is not None), None)


def _require_function(name: str, function: Any) -> Any:
    if isinstance(function, str):
        message = f"{name} must be a function, got the expression {function!r}."
        raise BadUsage(message, "CEL expressions are not evaluated: pass a function of the StepInput.")
    if not callable(function):
        raise BadUsage(f"{name} must be a function, got {function!r}.", "Pass a function of the StepInput.")
    return function


def _require_different_names(nodes: Sequence[Node], subject: str) -> None:
    names = [node.title for node in nodes]
    if len(set(names)) < len(names):
        raise BadUsage(f"{subject} need different names, got {', '.join(names)}.", "Step(agent, name=...)")
