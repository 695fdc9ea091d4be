"""Answers to what paused runs wait for, as a person types them: checked against the question, then given once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.operations import agent_registry
from kern_nb.operations.inbox import requirement_named, short_keys
from kern_nb.operations.run_index import Places
from kern_nb.operations.value_parser import value_of
from kern_nb.records import UNRESOLVED_STATUSES, Requirement
from kern_nb.text import formatting
from kern_nb.views import requirements

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_NAMED = 3


@dataclass(frozen=True, repr=False)
class Answered:
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
) -> Answered:
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
    found = agent_registry.store_of(store)
    one = requirement_named(found, reference)
    if one.kind != "confirmation" and one.status in UNRESOLVED_STATUSES:
        way = requirements.lines(one, reference)[0]
        raise BadUsage(
            f"{requirements.describe(one)} waits for a value ({one.kind}), not for an approval.", f"Give it: {way}"
        )
    done = found.resolve(one.requirement_id, approve=True, args=args, note=note, by=by)
    changed = (
        ""
        if args is None
        else f" as {formatting.truncate(done.tool_name or 'tool', 60)}({formatting.format_arguments(done.answer, 120)})"
    )
    return _answered(found, store, done, f"{formatting.GOOD} Approved {requirements.describe(done)}{changed}")


def reject(
    reference: str, *, note: str | None = None, by: str | None = None, store: str | SessionStore | None = None
) -> Answered:
    """Refuse what a paused run waits for; arguments and errors as for `approve`."""
    found = agent_registry.store_of(store)
    done = found.resolve(requirement_named(found, reference).requirement_id, approve=False, note=note, by=by)
    return _answered(found, store, done, f"{formatting.BAD} Refused {requirements.describe(done)}")


def answer(
    reference: str,
    *words: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Answered:
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
    found = agent_registry.store_of(store)
    one = requirement_named(found, reference)
    if one.kind == "confirmation" and one.status in UNRESOLVED_STATUSES:
        ways = " or ".join(requirements.lines(one, reference))
        raise BadUsage(f"{requirements.asked(one)} waits for an approval, not for a value.", f"Decide: {ways}")
    value = value_of(words, one) if one.status in UNRESOLVED_STATUSES else None
    done = found.resolve(one.requirement_id, approve=True, value=value, note=note, by=by)
    given = (
        f"“{formatting.truncate(value, 120)}”"
        if isinstance(value, str)
        else formatting.format_arguments(value, 120) or "nothing"
    )
    return _answered(found, store, done, f"{formatting.GOOD} Answered {requirements.describe(done)} with {given}")


def handoff(
    reference: str,
    *,
    to: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Answered:
    """Hand what waits, or where nothing does the session, to a person; see `SessionStore.handoff`."""
    found = agent_registry.store_of(store)
    done = found.handoff(reference, to=to, note=note, by=by)
    person = formatting.truncate(to, 60)
    places = Places(found, [done.session_id])
    key = short_keys(found, [done])[done.requirement_id]
    ends = f" --store {requirements.quote(store)}" if isinstance(store, str) else ""
    left = _still_waiting(found, places, done)
    theirs = [one for one in left if one.assignee == to]
    what = f"{len(theirs):,} requirements" if len(theirs) > 1 else requirements.describe(done)
    look, way = (
        f"%kern inbox --for {requirements.quote(to)}{ends}",
        f"{requirements.answer_commands(done, key)[0]}{ends}",
    )
    said = f"→ Handed to {person}: {what} in {_run_of(places, done)}."
    return Answered(done, left, (said, f"They see it with {look} and answer with, for example, {way}"))


def _answered(found: SessionStore, store: str | SessionStore | None, done: Requirement, said: str) -> Answered:
    places = Places(found, [done.session_id])
    left = _still_waiting(found, places, done)
    run = _run_of(places, done)
    name = store if isinstance(store, str) else ""
    note = f": {formatting.truncate(done.note, 120)}" if done.note else "."
    return Answered(done, left, (f"{said} in {run}{note}", _next(found, places, done, left, name)))


def _run_of(places: Places, requirement: Requirement) -> str:
    return str(places.top(requirement.run_id) or requirement.session_id)


def _still_waiting(store: SessionStore, places: Places, requirement: Requirement) -> list[Requirement]:
    """What the run that goes on still waits for; what is too late is not waited for."""
    top = places.top(requirement.run_id)
    left = store.requirements(run_id=top.run_id if top else requirement.run_id)
    return [one for one in left if requirements.is_pending(one)]


def _next(store: SessionStore, places: Places, done: Requirement, left: list[Requirement], name: str) -> str:
    """What there is to do now."""
    ends = f" --store {requirements.quote(name)}" if name else ""
    run = _run_of(places, done)
    if left:
        keys = short_keys(store, left)
        named = ", ".join(f"{keys[one.requirement_id]} {requirements.describe(one, 60)}" for one in left[:_NAMED])
        more = ", …" if len(left) > _NAMED else ""
        hint = f"%kern inbox --session {requirements.quote(run)}{ends}"
        return f"It still waits for {len(left):,} more: {named}{more}; {hint}"
    top = places.top(done.run_id)
    owner = top.owner if top else None
    return f"Go on: {requirements.continue_command(run, agent_registry.variable_of(owner) or owner or 'NAME', name)}"
