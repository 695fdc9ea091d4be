"""Answers to the questions of a workflow's nodes, and filters of these, under Agno's names.

An answer is a mark on the requirement: ``continue_run`` stores it, once. What a node asks follows from the key of its
requirement: `kern_nb.runtime.workflow_reviews`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.extra_keys import FIELD_SCHEMA, REQUIRED_FIELDS, STEP_PATH

if TYPE_CHECKING:
    from kern_nb.records import Requirement

OUTPUT = "output"
CHOICE = "choice"

_UNRESOLVED = ("pending", "claimed")


class StepRequirementMethods:
    """How a question of a workflow's node is answered."""

    if TYPE_CHECKING:
        requirement_id: str
        kind: Any
        status: Any
        tool_name: str | None
        args: Any
        prompt: str | None
        approved: bool | None
        answer: Any
        note: str | None
        extra: dict[str, Any]

    @property
    def step_name(self) -> str | None:
        """The node that asks; None for a requirement of a tool."""
        return self.tool_name if self._key else None

    @property
    def confirmation_message(self) -> str | None:
        """The question."""
        return self.prompt

    user_input_message = output_review_message = confirmation_message

    @property
    def requires_output_review(self) -> bool:
        """Whether it is about an output."""
        return self._key.endswith(".review")

    is_post_execution = requires_output_review

    @property
    def requires_route_selection(self) -> bool:
        """Whether a person selects steps of a router."""
        return self.kind == "user_input" and self.available_choices is not None

    @property
    def available_choices(self) -> list[str] | None:
        """The steps that a person can select; None for another question."""
        schema = self.extra.get(FIELD_SCHEMA) or []
        is_router = len(schema) == 1 and schema[0].get("name") == CHOICE
        return schema[0].get("allowed_values") if is_router else None

    @property
    def needs_output_review(self) -> bool:
        """Whether an output is still to be reviewed."""
        return self.requires_output_review and self._is_open

    @property
    def needs_route_selection(self) -> bool:
        """Whether steps are still to be selected."""
        return self.requires_route_selection and self._is_open

    @property
    def needs_decision(self) -> bool:
        """Whether a person has still to decide about an error."""
        return self.is_of_error and self._is_open

    @property
    def is_of_error(self) -> bool:
        """Whether it is about an error."""
        return ".error." in self._key

    @property
    def error_message(self) -> str | None:
        """The error; None for another question."""
        return self.args.get("error") if self.is_of_error and isinstance(self.args, dict) else None

    @property
    def rejection_feedback(self) -> str | None:
        """The note of a rejection."""
        return self.note

    def edit(self, new_output: Any) -> None:
        """Accept an output as another one. Like the next ones, it notes the answer for ``continue_run``.

        Raises:
            BadUsage: it asks for something else, or has an answer; likewise for the others.
        """
        self._mark("an edited output", is_asked=self.requires_output_review, answer={OUTPUT: new_output})

    def set_user_input(self, **values: Any) -> None:
        """Enter the values of a step by name."""
        required = self.extra.get(REQUIRED_FIELDS) or []
        if missing := [name for name in required if values.get(name) in (None, "")]:
            raise BadUsage(f"{self.tool_name} needs {', '.join(missing)}.", f"set_user_input({missing[0]}=...)")
        self._mark("values", is_asked=self.kind == "user_input", answer=values)

    def select(self, *choices: str) -> None:
        """Select steps of a router by name."""
        answer = {CHOICE: choices[0] if len(choices) == 1 else list(choices)}
        self._mark("a selection", is_asked=self.requires_route_selection, answer=answer)

    def retry(self) -> None:
        """Try a failed step again."""
        self._mark("a decision about an error", is_asked=self.is_of_error)

    def skip(self) -> None:
        """Continue with the step after a failed one."""
        self._mark("a decision about an error", is_asked=self.is_of_error, approved=False)

    @property
    def _key(self) -> str:
        key = self.extra.get(STEP_PATH)
        return key if isinstance(key, str) else ""

    @property
    def _is_open(self) -> bool:
        return self.status in _UNRESOLVED and self.approved is None

    def _mark(self, subject: str, *, is_asked: bool, approved: bool = True, answer: Any = None) -> None:
        if not is_asked:
            message = f"Requirement {self.requirement_id} ({self.kind}) does not ask for {subject}."
            raise BadUsage(message, "Answer what it asks: requirement.prompt")
        if not self._is_open:
            message = f"Requirement {self.requirement_id} ({self.tool_name or self.kind}) has an answer."
            raise BadUsage(message, "A requirement is answered once; continue the run.")
        self.approved, self.answer = approved, answer


class StepRunMethods:
    """The questions of a workflow's run."""

    if TYPE_CHECKING:
        requirements: list[Requirement]

    @property
    def step_requirements(self) -> list[Requirement]:
        """The questions of nodes, answered or not, in order; without those about errors."""
        return [item for item in self.requirements if item.step_name is not None and not item.is_of_error]

    @property
    def active_step_requirements(self) -> list[Requirement]:
        """Those of `step_requirements` without an answer."""
        return [item for item in self.step_requirements if item.status in _UNRESOLVED and item.approved is None]

    @property
    def steps_requiring_confirmation(self) -> list[Requirement]:
        """Those that ask whether a node may run."""
        pending = self.active_step_requirements
        return [item for item in pending if item.kind == "confirmation" and not item.requires_output_review]

    @property
    def steps_requiring_output_review(self) -> list[Requirement]:
        """Those about an output."""
        return [item for item in self.active_step_requirements if item.requires_output_review]

    @property
    def steps_requiring_user_input(self) -> list[Requirement]:
        """Those that ask for values."""
        pending = self.active_step_requirements
        return [item for item in pending if item.kind == "user_input" and not item.requires_route_selection]

    @property
    def steps_requiring_route(self) -> list[Requirement]:
        """Those that ask for steps of a router."""
        return [item for item in self.active_step_requirements if item.requires_route_selection]

    @property
    def error_requirements(self) -> list[Requirement]:
        """The questions about errors, answered or not."""
        return [item for item in self.requirements if item.is_of_error]

    @property
    def active_error_requirements(self) -> list[Requirement]:
        """Those of `error_requirements` without an answer."""
        return [item for item in self.error_requirements if item.needs_decision]

    steps_with_errors = active_error_requirements
