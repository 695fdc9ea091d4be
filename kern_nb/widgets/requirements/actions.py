"""Resolving requirements by clicks, for the inbox and the chat."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kern_nb.environment import login_name
from kern_nb.errors import BadUsage, KernError, ReadOnlyStore
from kern_nb.operations.inbox import find_requirement, short_ids
from kern_nb.text import formatting
from kern_nb.views import feedback, requirements
from kern_nb.widgets.base import Widget, decode_key
from kern_nb.widgets.requirements import form
from kern_nb.widgets.rpc import STORE_GONE, call, error_payload

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Requirement


class RequirementActions(Widget):
    """A widget that resolves requirements.

    Each action returns ``{said, line}``: a message and the equivalent command; or ``{refused}``, an error of the
    requirement, such as an invalid value or an earlier answer of someone else.

    Attributes:
        by: Who answers.
    """

    def __init__(self, store: str | SessionStore | None, *, by: str | None) -> None:
        self.by = login_name() if by is None else by
        super().__init__(store)

    @abstractmethod
    def after_action(self, requirement: Requirement) -> None:
        """Handle the requirement after an action."""

    @abstractmethod
    def owner_of(self, requirement: Requirement) -> str | None:
        """Return the id of the agent whose run has the requirement, if known."""

    @call
    def approve(self, key: str, edits: dict[str, str]) -> dict[str, Any]:
        """Approve a tool call, with edited arguments if any; see `form.parse_edits`."""

        def resolve(requirement: Requirement) -> tuple[Requirement, list[str]]:
            args = form.parse_edits(requirement, edits)
            words = [] if args is None else _option("--args", json.dumps(args, ensure_ascii=False))
            return self.store.resolve(requirement, approve=True, args=args, by=self.by), words

        return self._act(key, "approve", f"{formatting.GOOD} Approved", resolve)

    @call
    def reject(self, key: str, note: str) -> dict[str, Any]:
        """Reject a requirement; the note is sent to the model."""

        def resolve(requirement: Requirement) -> tuple[Requirement, list[str]]:
            rejected = self.store.resolve(requirement, approve=False, note=note or None, by=self.by)
            return rejected, _note_option(note)

        return self._act(key, "reject", f"{formatting.BAD} Rejected", resolve)

    @call
    def answer(self, key: str, texts: list[str], as_text: bool) -> dict[str, Any]:  # noqa: FBT001 - passed by name
        """Answer a requirement with the texts of its fields, or one text; see `form.parse_values`."""

        def resolve(requirement: Requirement) -> tuple[Requirement, list[str]]:
            value = form.parse_values(requirement, texts, self._text_fields(requirement), as_text=as_text)
            if feedback.questions_of(requirement):
                words = form.format_choices(requirement, value)
            else:
                words = form.format_answer(value, by_field=bool(requirements.field_names(requirement)))
            return self.store.resolve(requirement, approve=True, value=value, by=self.by), words

        return self._act(key, "answer", f"{formatting.GOOD} Answered", resolve)

    @call
    def hand_off(self, key: str, to: str, note: str) -> dict[str, Any]:
        """Hand a requirement off to a person."""
        to = to.strip()

        def hand_off(requirement: Requirement) -> tuple[Requirement, list[str]]:
            if not to:
                raise BadUsage("The assignee must not be empty.", "Enter who is to answer.")
            words = [*_option("--to", to), *_note_option(note)]
            return self.store.handoff(requirement, to=to, note=note or None, by=self.by), words

        return self._act(key, "handoff", f"→ Handed off to {to}:", hand_off)

    def form_data(self, requirement: Requirement, name: str) -> dict[str, Any]:
        """Convert a requirement for the script."""
        return form.form_data(requirement, name, self._text_fields(requirement))

    def continue_line(self, run: object, variable: str | None) -> str:
        """Return the command that resumes a run with the agent of a variable."""
        return self.line("continue", str(run), *(["--agent", variable] if variable else []))

    def _text_fields(self, requirement: Requirement) -> set[str]:
        return form.text_fields(requirement, form.find_owner(self.owner_of(requirement)))

    def _act(
        self, key: str, verb: str, message: str, action: Callable[[Requirement], tuple[Requirement, list[str]]]
    ) -> dict[str, Any]:
        identity = decode_key(key)
        try:
            requirement = find_requirement(self.store, identity)
            name = short_ids(self.store, [requirement])[requirement.key]
            result, words = action(requirement)
        except KernError as error:
            if isinstance(error, STORE_GONE) and not isinstance(error, ReadOnlyStore):
                raise
            return {"refused": error_payload(error)}
        self.after_action(result)
        by = [] if self.by in (None, login_name()) else _option("--by", str(self.by))
        return {"said": f"{message} {requirements.describe(result)}.", "line": self.line(verb, name, *words, *by)}

    @call
    def answer_as(self, by: str) -> None:
        """Set who answers from now on."""
        self.by = by.strip()[:200] or login_name()


def requirements_of_latest_pause(all_requirements: Iterable[Requirement]) -> list[Requirement]:
    """Return the requirements of a run's latest pause, which followed the answers to the one before."""
    paused = list(all_requirements)
    newest = max((r.created_at for r in paused if r.created_at), default=None)
    if newest is None:
        return paused
    start = max((r.resolved_at for r in paused if r.resolved_at and r.resolved_at < newest), default=None)
    return [r for r in paused if start is None or r.created_at is None or r.created_at > start]


def _note_option(note: str) -> list[str]:
    return _option("--note", formatting.single_line(note)) if note else []


def _option(flag: str, value: str) -> list[str]:
    """Return an option with its value, which is not parsed as an option or a variable, however it begins."""
    return [f"{flag}={value}"] if value[:1] in {"-", "$"} else [flag, value]
