"""Questions of a workflow to a person: the requirements that its nodes create, and what the answers mean.

A requirement is found by its key, the path of its node and its purpose, so that a resumed run asks nothing twice. An
answer that does not fit is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kern_nb.extra_keys import FIELD_SCHEMA, INPUT_FIELDS, REQUIRED_FIELDS, STEP_PATH
from kern_nb.interop.media import as_text, plain_value
from kern_nb.record_methods.steps import CHOICE, OUTPUT
from kern_nb.records import Requirement, Run
from kern_nb.runtime.workflow_nodes import Node, Router
from kern_nb.runtime.workflow_types import HumanReview, OnTimeout, StepOutput, UserInputField

PREVIOUS = "previous_step_content"

_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


class Paused(Exception):
    """A node is paused."""


class Rejected(Exception):
    """A person rejected a node, which ends the workflow."""


@dataclass(frozen=True)
class Answers:
    """The answers before a node runs.

    Attributes:
        is_skipped: Whether the next node follows.
        is_else: Whether the other branch of a condition runs.
        edited: The edited input, with the key `PREVIOUS`.
        user_input: The entered values.
        choices: The selected steps of a router.
    """

    is_skipped: bool = False
    is_else: bool = False
    edited: dict[str, Any] = field(default_factory=dict)
    user_input: dict[str, Any] | None = None
    choices: list[str] | None = None


class Reviews:
    """The requirements of one run of a workflow: those that are stored, and the new ones of its next pause."""

    def __init__(self, run: Run) -> None:
        self.stored = {r.extra[STEP_PATH]: r for r in run.requirements if STEP_PATH in r.extra}
        self.new: list[Requirement] = []

    def before(self, node: Node, path: str, previous: Any) -> Answers:
        """Return the answers that a node needs before it runs.

        Raises:
            Paused: an answer is pending.
            Rejected: a rejection ends the workflow.
        """
        review = node.human_review
        edited: dict[str, Any] = {}
        confirmation = None
        if review.requires_confirmation:
            args = {PREVIOUS: plain_value(previous)}
            confirmation = self._request(path, node, review.confirmation_message, args)
            if confirmation is not None:
                verdict = _verdict(confirmation, review)
                if verdict in ("skip", "else"):
                    return Answers(is_skipped=verdict == "skip" or node.kind != "Condition", is_else=verdict == "else")
                if verdict != "approve":
                    raise Rejected(_reason(node, confirmation))
                edited = confirmation.answer if isinstance(confirmation.answer, dict) else {}
        values, is_answered = None, True
        if review.requires_user_input:
            values, is_answered = self._input(node, path, previous)
        if not is_answered or (review.requires_confirmation and confirmation is None):
            raise Paused
        if review.requires_user_input and values is None:
            return Answers(is_skipped=True)
        choices = values[CHOICE] if values is not None and isinstance(node, Router) else None
        return Answers(edited=edited, user_input=None if choices else values, choices=choices)

    def select_again(self, node: Router, path: str, previous: Any) -> Answers:
        """Return a person's selection of a router's steps, after they rejected the output of others."""
        values, is_answered = self._input(node, path, previous)
        if not is_answered:
            raise Paused
        return Answers(is_skipped=values is None, choices=values[CHOICE] if values else None)

    def after(self, node: Node, path: str, output: StepOutput, message: str) -> Requirement:
        """Return the answer about an output.

        Raises:
            Paused: the answer is pending.
        """
        answer = self._request(f"{path}.review", node, message, {OUTPUT: plain_value(output.content)})
        if answer is None:
            raise Paused
        return answer

    def judge(self, node: Node, answer: Requirement, *, is_last: bool = False) -> str:
        """Return what follows an answer about an output: ``approve``, ``skip`` or ``retry``.

        Raises:
            Rejected: it ends the workflow.
        """
        verdict = _verdict(answer, node.human_review)
        if verdict == "cancel" or (verdict == "retry" and is_last):
            raise Rejected(_reason(node, answer, "the output of "))
        return "skip" if verdict == "else" else verdict

    def has_asked(self, path: str) -> bool:
        """Whether a node has a requirement that its answers before it runs are read from."""
        return path in self.stored or f"{path}.input" in self.stored

    def on_error(self, node: Node, path: str, error: str, n: int) -> str:
        """Return what a person decided about the n-th error of a step: ``approve`` (try again), ``skip`` or ``cancel``.

        Raises:
            Paused: the answer is pending.
        """
        message = f"{node.title} failed: {error}. Approve to try again, reject to continue with the next step."
        answer = self._request(error_key(path, n), node, message, {"error": error})
        if answer is None:
            raise Paused
        verdict = _verdict(answer, node.human_review)
        return verdict if verdict == "approve" or answer.status == "expired" else "skip"

    def n_errors(self, path: str) -> int:
        """Return how many errors of a step a person has decided about."""
        n = 0
        while error_key(path, n) in self.stored:
            n += 1
        return n

    def _input(self, node: Node, path: str, previous: Any) -> tuple[dict[str, Any] | None, bool]:
        """Return the values that a person entered, None for a rejection; and whether there is an answer that fits."""
        review, n, problem = node.human_review, 0, ""
        fields = _choice_fields(node, review) if isinstance(node, Router) else review.input_fields()
        default = f"Select {node.title}: {', '.join(map(str, fields[0].allowed_values or ()))}" if fields else None
        message = review.user_input_message or (default if isinstance(node, Router) else None)
        while True:
            text = f"{problem} {message or ''}".strip() or f"Enter the values of {node.title}."
            args = {} if previous is None else {PREVIOUS: plain_value(previous)}
            key = f"{path}.input.{n}" if n else f"{path}.input"
            answer = self._request(key, node, text, args, fields=fields)
            if answer is None:
                return None, False
            verdict = _verdict(answer, review)
            if verdict == "cancel":
                raise Rejected(_reason(node, answer))
            if not answer.approved:  # an input cannot be approved without its values
                return None, True
            values = _named_values(answer.answer, fields)
            if isinstance(node, Router):
                values = _as_choices(values)
            problem = _problem(values, fields, is_list=isinstance(node, Router), review=review)
            if not problem:
                return values, True
            n += 1

    def _request(
        self,
        key: str,
        node: Node,
        message: str | None,
        args: dict[str, Any],
        *,
        fields: Sequence[UserInputField] | None = None,
    ) -> Requirement | None:
        """Return the answered requirement with this key; None, and a new requirement, if it was not asked."""
        if (stored := self.stored.get(key)) is not None:
            return stored
        review = node.human_review
        kind = "confirmation" if fields is None else "user_input"
        requirement = Requirement.model_validate({"kind": kind, "tool_name": node.title, "args": args})
        requirement.prompt, requirement.assignee, requirement.extra = message, review.assignee, {STEP_PATH: key}
        if fields is not None:
            requirement.extra[INPUT_FIELDS] = [item.name for item in fields]
            requirement.extra[FIELD_SCHEMA] = [asdict(item) for item in fields]
            if required := [item.name for item in fields if item.required]:
                requirement.extra[REQUIRED_FIELDS] = required
        if review.timeout is not None:
            requirement.created_at = datetime.now(UTC)
            requirement.expires_at = requirement.created_at + timedelta(seconds=review.timeout)
        self.new.append(requirement)
        return None


def error_key(path: str, n: int) -> str:
    """Return the key of the question about the n-th error of a step."""
    return f"{path}.error.{n}"


def _verdict(requirement: Requirement, review: HumanReview) -> str:
    if requirement.status == "expired":
        return str(OnTimeout(review.on_timeout))
    return "approve" if requirement.approved else str(review.on_reject)


def _reason(node: Node, requirement: Requirement, subject: str = "") -> str:
    reason = "nobody answered in time" if requirement.status == "expired" else requirement.note
    return f"{subject}step {node.title} was rejected" + (f": {reason}" if reason else "")


def _choice_fields(node: Router, review: HumanReview) -> list[UserInputField]:
    names = [choice.title for choice in node.choices]
    kind = "list" if review.allow_multiple_selections else "str"
    return [UserInputField(CHOICE, field_type=kind, allowed_values=names)]


def _named_values(answer: Any, fields: Sequence[UserInputField]) -> dict[str, Any]:
    """Return an answer by field: a single value is that of the only field."""
    if isinstance(answer, dict):
        return answer
    return {} if answer is None else {fields[0].name if fields else "input": answer}


def _as_choices(values: dict[str, Any]) -> dict[str, Any]:
    choice = values.get(CHOICE)
    return values if choice is None else {CHOICE: choice if isinstance(choice, list) else [choice]}


def _problem(values: dict[str, Any], fields: Sequence[UserInputField], *, is_list: bool, review: HumanReview) -> str:
    """Return why values do not fit the fields, as a sentence; empty where they do."""
    for item in fields:
        value = values.get(item.name)
        if value is None or value == "":
            if item.required:
                return f"{item.name} is required."
            continue
        kind = _TYPES.get(item.field_type, object)
        is_wrong_bool = isinstance(value, bool) and item.field_type in ("int", "float")
        if not is_list and (not isinstance(value, kind) or is_wrong_bool):
            return f"{item.name} must be a value of type {item.field_type}, got {as_text(value)}."
        selected = value if is_list else [value]
        if item.allowed_values and (wrong := [one for one in selected if one not in item.allowed_values]):
            return f"{as_text(wrong[0])} is not one of {', '.join(map(str, item.allowed_values))}."
        if is_list and len(selected) > 1 and not review.allow_multiple_selections:
            return "Select one."
    return ""
