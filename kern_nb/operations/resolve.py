"""Resolve requirements of paused runs from what a person types: checked against the requirement, then stored once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.operations import agent_registry
from kern_nb.operations.inbox import find_requirement, short_ids
from kern_nb.operations.run_index import RunIndex
from kern_nb.operations.value_parser import parse_answer
from kern_nb.records import UNRESOLVED_STATUSES, Requirement
from kern_nb.text import formatting
from kern_nb.views import requirements

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_MAX_NAMED = 3


@dataclass(frozen=True, repr=False)
class Resolution:
    """A resolved requirement, and the next step.

    Attributes:
        requirement: The requirement as stored now.
        waiting: The requirements of its run that are still pending.
        sentences: Both as text.
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
    """Approve a tool call that needs confirmation.

    Args:
        reference: The requirement, a prefix of its id, or its run (``chat/2``) if that has no other.
        args: Arguments that replace the model's, by name.
        note: A note for the model.
        by: The person who approves.
        store: A store or its name; by default the one in use, else that of the notebook's agents.

    Raises:
        BadUsage: The requirement needs a value, not an approval.
        RequirementNotFound: There is no such requirement.
        AmbiguousReference: The reference fits several.
        AlreadyResolved: It is resolved or expired.
        AlreadyClaimed: Another process is resolving it.
    """
    opened = agent_registry.resolve_store(store)
    requirement = find_requirement(opened, reference)
    if requirement.kind != "confirmation" and requirement.status in UNRESOLVED_STATUSES:
        raise BadUsage(
            f"{requirements.describe(requirement)} needs a value ({requirement.kind}), not an approval.",
            f"Answer it: {requirements.answer_commands(requirement, reference)[0]}",
        )
    resolved = opened.resolve(requirement.requirement_id, approve=True, args=args, note=note, by=by)
    tool = formatting.truncate(resolved.tool_name or "tool", 60)
    change = "" if args is None else f" as {tool}({formatting.format_arguments(resolved.answer, 120)})"
    return _resolution(opened, store, resolved, f"{formatting.GOOD} Approved {requirements.describe(resolved)}{change}")


def reject(
    reference: str, *, note: str | None = None, by: str | None = None, store: str | SessionStore | None = None
) -> Resolution:
    """Reject a requirement of a paused run; arguments and errors as for `approve`."""
    opened = agent_registry.resolve_store(store)
    requirement = find_requirement(opened, reference)
    resolved = opened.resolve(requirement.requirement_id, approve=False, note=note, by=by)
    return _resolution(opened, store, resolved, f"{formatting.BAD} Rejected {requirements.describe(resolved)}")


def answer(
    reference: str,
    *words: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Provide the value that a paused run requires.

    Args:
        reference: The requirement, a prefix of its id, or its run (``chat/2``) if that has no other.
        *words: JSON, a text, or ``field=value`` for each required field.
        note: A note for the model.
        by: The person who answers.
        store: A store or its name; by default the one in use, else that of the notebook's agents.

    Raises:
        BadUsage: The fields do not match, or the requirement needs an approval.
        RequirementNotFound: There is no such requirement.
        AmbiguousReference: The reference fits several.
        AlreadyResolved: It is resolved or expired.
        AlreadyClaimed: Another process is resolving it.
    """
    opened = agent_registry.resolve_store(store)
    requirement = find_requirement(opened, reference)
    if requirement.kind == "confirmation" and requirement.status in UNRESOLVED_STATUSES:
        lines = " or ".join(requirements.answer_commands(requirement, reference))
        raise BadUsage(f"{requirements.describe(requirement)} needs an approval, not a value.", f"Decide: {lines}")
    value = parse_answer(words, requirement) if requirement.status in UNRESOLVED_STATUSES else None
    resolved = opened.resolve(requirement.requirement_id, approve=True, value=value, note=note, by=by)
    text = (
        f"“{formatting.truncate(value, 120)}”"
        if isinstance(value, str)
        else formatting.format_arguments(value, 120) or "nothing"
    )
    action = f"{formatting.GOOD} Answered {requirements.describe(resolved)} with {text}"
    return _resolution(opened, store, resolved, action)


def handoff(
    reference: str,
    *,
    to: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Assign a requirement to a person, or a session if it has none pending; see `SessionStore.handoff`."""
    opened = agent_registry.resolve_store(store)
    assigned = opened.handoff(reference, to=to, note=note, by=by)
    runs = RunIndex(opened, [assigned.session_id])
    pending = _pending(opened, runs, assigned)
    same_assignee = [requirement for requirement in pending if requirement.assignee == to]
    subject = f"{len(same_assignee):,} requirements" if len(same_assignee) > 1 else requirements.describe(assigned)
    key = short_ids(opened, [assigned])[assigned.requirement_id]
    suffix = _store_option(store)
    inbox, line = (
        f"%kern inbox --for {requirements.quote(to)}{suffix}",
        requirements.answer_commands(assigned, key)[0] + suffix,
    )
    action = f"→ Assigned to {formatting.truncate(to, 60)}: {subject} in {_run_title(runs, assigned)}."
    return Resolution(assigned, pending, (action, f"List them with {inbox}; answer with, for example, {line}"))


def _resolution(
    opened: SessionStore, store: str | SessionStore | None, requirement: Requirement, action: str
) -> Resolution:
    runs = RunIndex(opened, [requirement.session_id])
    pending = _pending(opened, runs, requirement)
    run = _run_title(runs, requirement)
    note = f": {formatting.truncate(requirement.note, 120)}" if requirement.note else "."
    if pending:
        next_step = _pending_sentence(opened, run, pending, _store_option(store))
    else:
        top_level = runs.top_level(requirement.run_id)
        owner = top_level.owner if top_level else None
        agent = agent_registry.find_variable(owner) or owner or "NAME"
        name = store if isinstance(store, str) else ""
        next_step = f"Resume it: {requirements.continue_command(run, agent, name)}"
    return Resolution(requirement, pending, (f"{action} in {run}{note}", next_step))


def _pending_sentence(store: SessionStore, run: str, pending: list[Requirement], suffix: str) -> str:
    """Name the first pending requirements of a run, and the line that lists all of them."""
    ids = short_ids(store, pending)
    names = ", ".join(f"{ids[r.requirement_id]} {requirements.describe(r, 60)}" for r in pending[:_MAX_NAMED])
    ellipsis = ", …" if len(pending) > _MAX_NAMED else ""
    return f"{len(pending):,} more pending: {names}{ellipsis}; %kern inbox --session {requirements.quote(run)}{suffix}"


def _pending(store: SessionStore, runs: RunIndex, requirement: Requirement) -> list[Requirement]:
    """Return the pending requirements of the run that resumes, without expired ones."""
    top_level = runs.top_level(requirement.run_id)
    candidates = store.requirements(run_id=top_level.run_id if top_level else requirement.run_id)
    return [candidate for candidate in candidates if requirements.is_pending(candidate)]


def _run_title(runs: RunIndex, requirement: Requirement) -> str:
    return str(runs.top_level(requirement.run_id) or requirement.session_id)


def _store_option(store: str | SessionStore | None) -> str:
    return f" --store {requirements.quote(store)}" if isinstance(store, str) else ""
