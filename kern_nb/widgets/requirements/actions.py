"""Answers that are given by clicks: what the inbox and a chat share."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kern_nb.environment import login_name
from kern_nb.errors import BadUsage, KernError, ReadOnlyStore
from kern_nb.operations.inbox import find_requirement, short_ids
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.widgets.base import Widget, id_of
from kern_nb.widgets.requirements import form
from kern_nb.widgets.rpc import GONE, call, told

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Requirement

_ID = 200


class Answering(Widget):
    """A widget in which what runs wait for is answered.

    Every answer is ``{said, line}``: what was done, and the line that does the same; or ``{refused}``, an error that
    belongs to the requirement: someone else was faster, or what was typed does not fit.

    Attributes:
        by: Who answers.
    """

    def __init__(self, store: str | SessionStore | None, *, by: str | None) -> None:
        self.by = login_name() if by is None else by
        super().__init__(store)

    @abstractmethod
    def answered(self, done: Requirement) -> None:
        """What follows an answer."""

    @call
    def approve(self, key: str, edits: dict[str, str]) -> dict[str, Any]:
        """Let a tool run, with the arguments that were edited; see `asked.edited`."""

        def do(one: Requirement) -> tuple[Requirement, list[str]]:
            args = form.edited(one, edits)
            done = self.store.resolve(one.requirement_id, approve=True, args=args, by=self.by)
            return done, [] if args is None else _option("--args", json.dumps(args, ensure_ascii=False))

        return self._give(key, "approve", f"{formatting.GOOD} Approved", do)

    @call
    def reject(self, key: str, note: str) -> dict[str, Any]:
        """Refuse what is waited for; the note is what the model is told."""

        def do(one: Requirement) -> tuple[Requirement, list[str]]:
            done = self.store.resolve(one.requirement_id, approve=False, note=note or None, by=self.by)
            return done, _note(note)

        return self._give(key, "reject", f"{formatting.BAD} Refused", do)

    @call
    def answer(self, key: str, texts: list[str], as_text: bool) -> dict[str, Any]:  # noqa: FBT001 - it comes by name
        """Give the value that is waited for: the texts of its fields, or one text; see `asked.value`."""

        def do(one: Requirement) -> tuple[Requirement, list[str]]:
            text_fields = form.text_fields(one, form.owner_here(self.owner_of(one)))
            value = form.value(one, texts, text_fields, as_text=as_text)
            done = self.store.resolve(one.requirement_id, approve=True, value=value, by=self.by)
            return done, form.words(value, by_field=bool(requirements.fields(one)))

        return self._give(key, "answer", f"{formatting.GOOD} Answered", do)

    @call
    def hand_on(self, key: str, to: str, note: str) -> dict[str, Any]:
        """Hand what is waited for to a person."""

        def do(one: Requirement) -> tuple[Requirement, list[str]]:
            if not to.strip():
                raise BadUsage("Nobody was named.", "Write who is to answer.")
            done = self.store.handoff(one.requirement_id, to=to.strip(), note=note or None, by=self.by)
            return done, [*_option("--to", to.strip()), *_note(note)]

        return self._give(key, "handoff", f"→ Handed to {to.strip()}:", do)

    @abstractmethod
    def owner_of(self, one: Requirement) -> str | None:
        """The id of the agent whose run waits for it, as far as it is known."""

    def card(self, one: Requirement, name: str) -> dict[str, Any]:
        """A requirement for the script."""
        return form.card(one, name, form.text_fields(one, form.owner_here(self.owner_of(one))))

    def _give(
        self, key: str, verb: str, said: str, do: Callable[[Requirement], tuple[Requirement, list[str]]]
    ) -> dict[str, Any]:
        identity = id_of(key)
        try:
            one = find_requirement(self.store, identity)
            name = short_ids(self.store, [one])[identity]
            done, words = do(one)
        except KernError as error:
            if isinstance(error, GONE) and not isinstance(error, ReadOnlyStore):
                raise
            return {"refused": told(error)}
        self.answered(done)
        by = [] if self.by in (None, login_name()) else _option("--by", str(self.by))
        return {"said": f"{said} {requirements.asked(done)}.", "line": self.line(verb, name, *words, *by)}

    @call
    def answer_as(self, by: str) -> None:
        """Who answers from now on."""
        self.by = by.strip()[:_ID] or login_name()


def latest_pause(of_run: Iterable[Requirement]) -> list[Requirement]:
    """What the latest pause of a run asked: it came after the answers to the one before."""
    ordered = list(of_run)
    newest = max((one.created_at for one in ordered if one.created_at), default=None)
    if newest is None:
        return ordered
    answers = [one.resolved_at for one in ordered if one.resolved_at and one.resolved_at < newest]
    before = max(answers, default=None)
    return [one for one in ordered if before is None or one.created_at is None or one.created_at > before]


def _note(note: str) -> list[str]:
    return _option("--note", formatting.one_line(note)) if note else []


def _option(flag: str, value: str) -> list[str]:
    """An option with its value, which is no option and no variable, however it begins."""
    return [f"{flag}={value}"] if value[:1] in {"-", "$"} else [flag, value]
