"""Answers to requirements, and the tool calls that wait for them, under Agno's names.

An answer is a mark on the requirement: `continue_run` stores it, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.records import Requirement, ToolCall

_UNRESOLVED = ("pending", "claimed")


class UserInputField:
    """An argument that a person enters; assigning ``value`` answers.

    ``field_type`` is the type of the present value; None without one, as the types of a tool are not stored.
    """

    description: str | None = None

    def __init__(self, requirement: Requirement, name: str) -> None:
        self._requirement = requirement
        self.name = name

    @property
    def value(self) -> Any:
        """The person's value, else the model's; None without one."""
        requirement = self._requirement
        entered = requirement.answer if isinstance(requirement.answer, dict) else {}
        args = requirement.args if isinstance(requirement.args, dict) else {}
        return entered.get(self.name, args.get(self.name))

    @value.setter
    def value(self, value: Any) -> None:
        self._requirement.enter_values({self.name: value})

    @property
    def field_type(self) -> type | None:
        """The type of the value."""
        return None if self.value is None else type(self.value)

    def __repr__(self) -> str:
        return f"UserInputField(name={self.name!r}, value={self.value!r})"


class ToolExecution:
    """A tool call under Agno's names, with the requirement that it waits for; setters answer that."""

    def __init__(self, call: ToolCall | None, requirement: Requirement | None) -> None:
        self._call, self._requirement = call, requirement

    @property
    def requirement(self) -> Requirement | None:
        """The requirement that it waits for, or waited for; None without one."""
        return self._requirement

    @property
    def tool_call_id(self) -> str | None:
        """The id of the call."""
        return (self._call or self._require()).tool_call_id

    @property
    def tool_name(self) -> str | None:
        """The name of the tool."""
        return (self._call or self._require()).tool_name

    @property
    def tool_args(self) -> Any:
        """The arguments."""
        return (self._call or self._require()).args

    @property
    def tool_call_error(self) -> bool | None:
        """Whether the tool failed; None if that is unknown."""
        return self._call.is_error if self._call else None

    @property
    def result(self) -> Any:
        """The result; None without one. A value that is set is the result of an external execution."""
        entered = self._requirement.external_execution_result if self._requirement else None
        return self._call.result if self._call and self._call.result is not None else entered

    @result.setter
    def result(self, value: Any) -> None:
        self._require().set_external_execution_result(value)

    @property
    def requires_confirmation(self) -> bool:
        """Whether a person must approve it."""
        return self._has_kind("confirmation")

    @property
    def requires_user_input(self) -> bool:
        """Whether a person enters arguments."""
        return self._has_kind("user_input")

    @property
    def external_execution_required(self) -> bool:
        """Whether its result comes from outside."""
        return self._has_kind("external_execution")

    @property
    def is_paused(self) -> bool:
        """Whether it waits for a person or a program."""
        return self._requirement is not None

    @property
    def confirmed(self) -> bool | None:
        """Whether it is approved; None before an answer. Setting it answers."""
        return self._requirement.confirmation if self._requirement else None

    @confirmed.setter
    def confirmed(self, value: bool) -> None:
        requirement = self._require()
        if value:
            requirement.confirm()
        else:
            requirement.reject()

    @property
    def confirmation_note(self) -> str | None:
        """The note of the answer."""
        return self._requirement.note if self._requirement else None

    @confirmation_note.setter
    def confirmation_note(self, value: str | None) -> None:
        self._require().note = value

    @property
    def answered(self) -> bool:
        """Whether the requirement has an answer."""
        return self._requirement is not None and self._requirement.is_resolved()

    @property
    def user_input_schema(self) -> list[UserInputField]:
        """The arguments that a person enters."""
        return self._requirement.user_input_schema if self._requirement else []

    def _has_kind(self, kind: str) -> bool:
        return self._requirement is not None and self._requirement.kind == kind

    def _require(self) -> Requirement:
        if self._requirement is None:
            name = self._call.tool_name if self._call else None
            raise BadUsage(f"The call of {name} waits for no answer.", "Answer those of run.active_requirements.")
        return self._requirement

    def __repr__(self) -> str:
        return f"ToolExecution(tool_name={self.tool_name!r}, tool_args={self.tool_args!r}, result={self.result!r})"


class RequirementMethods:
    """How a requirement is answered: the answer is noted in ``approved``, ``answer`` and ``note``, and stored later."""

    if TYPE_CHECKING:
        requirement_id: str
        kind: Any
        status: Any
        tool_call_id: str | None
        tool_name: str | None
        args: Any
        approved: bool | None
        answer: Any
        note: str | None
        extra: dict[str, Any]

    @property
    def id(self) -> str:
        """The ``requirement_id``."""
        return self.requirement_id

    @property
    def tool_execution(self) -> ToolExecution:
        """The tool call that waits for it."""
        return ToolExecution(None, cast("Requirement", self))

    @property
    def needs_confirmation(self) -> bool:
        """Whether a person must still approve or reject it."""
        return self._needs("confirmation")

    @property
    def needs_user_input(self) -> bool:
        """Whether a person must still enter arguments."""
        return self._needs("user_input")

    @property
    def needs_user_feedback(self) -> bool:
        """Whether a person must still answer questions."""
        return self._needs("user_feedback")

    @property
    def needs_external_execution(self) -> bool:
        """Whether the result of the call must still be supplied."""
        return self._needs("external_execution")

    def is_resolved(self) -> bool:
        """Whether it has an answer, stored or not, or has expired."""
        return self.status not in _UNRESOLVED or self.approved is not None

    @property
    def confirmation(self) -> bool | None:
        """Whether a call that needs a confirmation is approved; None before that."""
        return self.approved if self.kind == "confirmation" else None

    @property
    def confirmation_note(self) -> str | None:
        """The note."""
        return self.note

    @property
    def user_input_schema(self) -> list[UserInputField]:
        """The arguments that a person enters; empty for other kinds."""
        if self.kind != "user_input":
            return []
        names = self.extra.get("fields") or (list(self.args) if isinstance(self.args, dict) else [])
        return [UserInputField(cast("Requirement", self), name) for name in names]

    @property
    def external_execution_result(self) -> Any:
        """The result that was supplied; None before that."""
        return self.answer if self.kind == "external_execution" else None

    @external_execution_result.setter
    def external_execution_result(self, result: Any) -> None:
        self.set_external_execution_result(result)

    def confirm(self) -> None:
        """Approve the call. Like the next three, it notes the answer: ``continue_run(requirements=[...])`` stores it.

        Raises:
            BadUsage: it needs no confirmation, or has an answer; likewise for the others.
        """
        self._note_answer("confirmation", approved=True)

    def reject(self, note: str | None = None) -> None:
        """Reject the call; the model learns the note."""
        self._require("confirmation")
        self.approved, self.note = False, note or self.note

    def provide_user_input(self, values: Mapping[str, Any]) -> None:
        """Enter arguments by name. It is answered when every field has a value."""
        self._require("user_input")
        self.enter_values(values)

    def provide_user_feedback(self, selections: Mapping[str, Any]) -> None:
        """Answer the questions: the selected options by question."""
        self._note_answer("user_feedback", approved=True, answer=dict(selections))

    def set_external_execution_result(self, result: Any) -> None:
        """Supply the result of the call."""
        self._note_answer("external_execution", approved=True, answer=result)

    def enter_values(self, values: Mapping[str, Any]) -> None:
        """Enter arguments of a user input, also after others were entered, until the answer is stored."""
        if self.kind != "user_input" or self.status not in _UNRESOLVED:
            self._require("user_input")
        fields = {field.name for field in self.user_input_schema}
        if unknown := sorted(set(values) - fields):
            hint = f"Its fields are {', '.join(sorted(fields)) or 'none'}."
            raise BadUsage(f"Requirement {self.requirement_id} has no field {unknown[0]!r}.", hint)
        self.answer = (self.answer if isinstance(self.answer, dict) else {}) | dict(values)
        self.approved = True if all(field.value is not None for field in self.user_input_schema) else None

    def _needs(self, kind: str) -> bool:
        return self.kind == kind and not self.is_resolved()

    def _require(self, kind: str) -> None:
        if self.kind != kind:
            raise BadUsage(f"Requirement {self.requirement_id} needs {self.kind}, not {kind}.", "Answer what it needs.")
        if self.is_resolved():
            outcome = "expired" if self.status == "expired" else "approved" if self.approved else "rejected"
            message = f"Requirement {self.requirement_id} ({self.tool_name or self.kind}) is {outcome}."
            raise BadUsage(message, "A requirement is answered once; continue the run.")

    def _note_answer(self, kind: str, *, approved: bool, answer: Any = None) -> None:
        self._require(kind)
        self.approved, self.answer = approved, answer
