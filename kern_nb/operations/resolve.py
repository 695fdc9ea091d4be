"""Answers to what paused runs wait for, as a person types them: checked against the question, then given once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.operations import agent_registry
from kern_nb.operations.inbox import find_requirement, short_ids
from kern_nb.operations.run_index import RunIndex
from kern_nb.operations.value_parser import parse_answer
from kern_nb.records import UNANSWERED, Requirement
from kern_nb.text import formatting
from kern_nb.views import requirements

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_NAMED = 3


@dataclass(frozen=True, repr=False)
class Resolution:
    """What was done, and what comes next.

    Attributes:
        requirement: The requirement as it is stored now.
        waiting: What its run still waits for.
        sentences: Both in words.
    """

    requirement: Requirement
    waiting: list[Requirement] = field(repr=False)
    sentences: tuple[str, ...]

    def __repr__(self) -> str:
        return requirements.sentences_text(self.sentences)

    def _repr_html_(self) -> str:
        return requirements.sentences_html(self.sentences)


def approve(
    reference: str,
    *,
    args: dict[str, Any] | None = None,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Let a tool run that waits for confirmation.

    Args:
        reference: The requirement, the beginning of its id, or the run (``chat/2``) that waits for it alone.
        args: Arguments that replace the model's, by name.
        note: A word for the model.
        by: Who says so.
        store: A store or the name of one; where None the one in use, else that of the agents here.

    Raises:
        BadUsage: it asks for a value, not for a confirmation.
        RequirementNotFound, AmbiguousReference, AlreadyResolved, AlreadyClaimed: see `SessionStore.resolve`.
    """
    found = agent_registry.resolve_store(store)
    one = find_requirement(found, reference)
    if one.kind != "confirmation" and one.status in UNANSWERED:
        way = requirements.lines(one, reference)[0]
        raise BadUsage(
            f"{requirements.asked(one)} waits for a value ({one.kind}), not for an approval.", f"Give it: {way}"
        )
    done = found.resolve(one.requirement_id, approve=True, args=args, note=note, by=by)
    changed = (
        ""
        if args is None
        else f" as {formatting.cut(done.tool_name or 'tool', 60)}({formatting.compact(done.answer, 120)})"
    )
    return _answered(found, store, done, f"{formatting.GOOD} Approved {requirements.asked(done)}{changed}")


def reject(
    reference: str, *, note: str | None = None, by: str | None = None, store: str | SessionStore | None = None
) -> Resolution:
    """Refuse what a paused run waits for; arguments and errors as for `approve`."""
    found = agent_registry.resolve_store(store)
    done = found.resolve(find_requirement(found, reference).requirement_id, approve=False, note=note, by=by)
    return _answered(found, store, done, f"{formatting.BAD} Refused {requirements.asked(done)}")


def answer(
    reference: str,
    *words: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Give the value that a paused run waits for.

    Args:
        reference: The requirement, the beginning of its id, or the run (``chat/2``) that waits for it alone.
        *words: JSON, a text, or ``field=value`` for each field that is asked for.
        note: A word for the model.
        by: Who says so.
        store: A store or the name of one; where None the one in use, else that of the agents here.

    Raises:
        BadUsage: it is not the fields that are asked for, or a confirmation is asked for.
        RequirementNotFound, AmbiguousReference, AlreadyResolved, AlreadyClaimed: see `SessionStore.resolve`.
    """
    found = agent_registry.resolve_store(store)
    one = find_requirement(found, reference)
    if one.kind == "confirmation" and one.status in UNANSWERED:
        ways = " or ".join(requirements.lines(one, reference))
        raise BadUsage(f"{requirements.asked(one)} waits for an approval, not for a value.", f"Decide: {ways}")
    value = parse_answer(words, one) if one.status in UNANSWERED else None
    done = found.resolve(one.requirement_id, approve=True, value=value, note=note, by=by)
    given = f"“{formatting.cut(value, 120)}”" if isinstance(value, str) else formatting.compact(value, 120) or "nothing"
    return _answered(found, store, done, f"{formatting.GOOD} Answered {requirements.asked(done)} with {given}")


def handoff(
    reference: str,
    *,
    to: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Hand what waits, or where nothing does the session, to a person; see `SessionStore.handoff`."""
    found = agent_registry.resolve_store(store)
    done = found.handoff(reference, to=to, note=note, by=by)
    person = formatting.cut(to, 60)
    places = RunIndex(found, [done.session_id])
    key = short_ids(found, [done])[done.requirement_id]
    ends = f" --store {requirements.quoted(store)}" if isinstance(store, str) else ""
    left = _still_waiting(found, places, done)
    theirs = [one for one in left if one.assignee == to]
    what = f"{len(theirs):,} requirements" if len(theirs) > 1 else requirements.asked(done)
    look, way = f"%kern inbox --for {requirements.quoted(to)}{ends}", f"{requirements.lines(done, key)[0]}{ends}"
    said = f"→ Handed to {person}: {what} in {_run_of(places, done)}."
    return Resolution(done, left, (said, f"They see it with {look} and answer with, for example, {way}"))


def _answered(found: SessionStore, store: str | SessionStore | None, done: Requirement, said: str) -> Resolution:
    places = RunIndex(found, [done.session_id])
    left = _still_waiting(found, places, done)
    run = _run_of(places, done)
    name = store if isinstance(store, str) else ""
    note = f": {formatting.cut(done.note, 120)}" if done.note else "."
    return Resolution(done, left, (f"{said} in {run}{note}", _next(found, places, done, left, name)))


def _run_of(places: RunIndex, requirement: Requirement) -> str:
    return str(places.top_level(requirement.run_id) or requirement.session_id)


def _still_waiting(store: SessionStore, places: RunIndex, requirement: Requirement) -> list[Requirement]:
    """What the run that goes on still waits for; what is too late is not waited for."""
    top = places.top_level(requirement.run_id)
    left = store.requirements(run_id=top.run_id if top else requirement.run_id)
    return [one for one in left if requirements.is_waiting(one)]


def _next(store: SessionStore, places: RunIndex, done: Requirement, left: list[Requirement], name: str) -> str:
    """What there is to do now."""
    ends = f" --store {requirements.quoted(name)}" if name else ""
    run = _run_of(places, done)
    if left:
        keys = short_ids(store, left)
        named = ", ".join(f"{keys[one.requirement_id]} {requirements.asked(one, 60)}" for one in left[:_NAMED])
        more = ", …" if len(left) > _NAMED else ""
        hint = f"%kern inbox --session {requirements.quoted(run)}{ends}"
        return f"It still waits for {len(left):,} more: {named}{more}; {hint}"
    top = places.top_level(done.run_id)
    owner = top.owner if top else None
    return f"Go on: {requirements.continue_line(run, agent_registry.find_variable(owner) or owner or 'NAME', name)}"
