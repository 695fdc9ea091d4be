"""Resolve requirements of paused runs from what a person types: checked against the requirement, then stored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kern_nb.db import SessionStore
from kern_nb.errors import BadUsage
from kern_nb.operations import agent_registry
from kern_nb.operations.inbox import find_requirement, short_ids
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.operations.value_parser import parse_answer
from kern_nb.records import UNRESOLVED_STATUSES, Requirement
from kern_nb.text import formatting
from kern_nb.views import feedback, requirements

_MAX_NAMED = 3


@dataclass(frozen=True, repr=False)
class Resolution:
    """A requirement as stored now, those of its run that are still pending, and the next step as text."""

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
        message = f"{requirements.describe(requirement)} needs a value ({requirement.kind}), not an approval."
        raise BadUsage(message, f"Answer it: {requirements.answer_commands(requirement, reference)[0]}")
    resolved = opened.resolve(requirement, approve=True, args=args, note=note, by=by)
    change = ""
    if args is not None:
        tool = formatting.truncate(resolved.tool_name or "tool", 60)
        change = f" as {tool}({formatting.format_arguments(resolved.answer, 120)})"
    return _resolution(opened, store, resolved, f"{formatting.GOOD} Approved {requirements.describe(resolved)}{change}")


def reject(
    reference: str, *, note: str | None = None, by: str | None = None, store: str | SessionStore | None = None
) -> Resolution:
    """Reject a requirement of a paused run; arguments and errors as for `approve`."""
    opened = agent_registry.resolve_store(store)
    requirement = find_requirement(opened, reference)
    resolved = opened.resolve(requirement, approve=False, note=note, by=by)
    return _resolution(opened, store, resolved, f"{formatting.BAD} Rejected {requirements.describe(resolved)}")


def answer(
    reference: str,
    *words: str,
    note: str | None = None,
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Provide the value that a paused run requires; other arguments and errors as for `approve`.

    ``words`` are JSON, a text, or ``field=value`` for each required field.

    Raises:
        BadUsage: The fields do not match, or the requirement needs an approval.
    """
    opened = agent_registry.resolve_store(store)
    requirement = find_requirement(opened, reference)
    if requirement.kind == "confirmation" and requirement.status in UNRESOLVED_STATUSES:
        lines = " or ".join(requirements.answer_commands(requirement, reference))
        raise BadUsage(f"{requirements.describe(requirement)} needs an approval, not a value.", f"Decide: {lines}")
    value = parse_answer(words, requirement) if requirement.status in UNRESOLVED_STATUSES else None
    resolved = opened.resolve(requirement, approve=True, value=value, note=note, by=by)
    if questions := feedback.questions_of(resolved):
        text = formatting.truncate(feedback.format_choices(questions, resolved.answer), 120)
    else:
        text = formatting.format_arguments(value, 120)
        text = f"“{text}”" if isinstance(value, str) else text or "nothing"
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
    run, pending = _pending(opened, assigned)
    n_assigned = sum(requirement.assignee == to for requirement in pending)
    subject = f"{n_assigned:,} requirements" if n_assigned > 1 else requirements.describe(assigned)
    key = short_ids(opened, [assigned])[assigned.key]
    suffix = _store_option(store)
    inbox = f"%kern inbox --for {requirements.quote(to)}{suffix}"
    line = requirements.answer_commands(assigned, key)[0] + suffix
    action = f"→ Assigned to {formatting.truncate(to, 60)}: {subject} in {run or assigned.session_id}."
    return Resolution(assigned, pending, (action, f"List them with {inbox}; answer with, for example, {line}"))


def reply(
    reference: str,
    text: str = "",
    *,
    files: Sequence[str | Path] = (),
    by: str | None = None,
    store: str | SessionStore | None = None,
) -> Resolution:
    """Write a message, files of the disk, or both into a session that is handed off; see `SessionStore.reply`.

    Raises:
        BadUsage: There is neither a text nor a file, or a file cannot be read; nothing is written.
    """
    if not text and not files:
        raise BadUsage("A reply needs a text or a file.", 'For example: %kern reply chat "I called her."')
    opened = agent_registry.resolve_store(store)
    try:
        contents: dict[str, str | bytes] = {Path(file).name: Path(file).read_bytes() for file in files}
    except OSError as error:
        raise BadUsage(f"Cannot read {error.filename!r}: {error.strerror}.", "Pass the path of a file.") from error
    requirement = find_requirement(opened, reference)
    opened.reply(requirement, text or None, files=contents, by=by)
    subject = " and ".join(["a message"] * bool(text) + [f"{name!r}" for name in contents])
    run, pending = _pending(opened, requirement)
    key = short_ids(opened, [requirement])[requirement.key]
    line = requirements.answer_commands(requirement, key)[0] + _store_option(store)
    action = f"{formatting.GOOD} Wrote {subject} in {run or requirement.session_id}."
    return Resolution(requirement, pending, (action, f"It stays handed off; hand it back with {line}"))


def _resolution(
    opened: SessionStore, store: str | SessionStore | None, requirement: Requirement, action: str
) -> Resolution:
    run, pending = _pending(opened, requirement)
    title = str(run or requirement.session_id)
    if pending:
        ids = short_ids(opened, pending)
        names = [f"{ids[r.key]} {requirements.describe(r, 60)}" for r in pending[:_MAX_NAMED]]
        more = ", …" if len(pending) > _MAX_NAMED else ""
        inbox = f"%kern inbox --session {requirements.quote(title)}{_store_option(store)}"
        next_step = f"{len(pending):,} more pending: {', '.join(names)}{more}; {inbox}"
    else:
        owner = run.owner if run else None
        variable = agent_registry.find_runner_of(run, opened) if run else None
        agent = variable or owner or "NAME"
        name = store if isinstance(store, str) else ""
        next_step = f"Resume it: {requirements.continue_command(title, agent, name)}"
    note = f": {formatting.truncate(requirement.note, 120)}" if requirement.note else "."
    return Resolution(requirement, pending, (f"{action} in {title}{note}", next_step))


def _pending(store: SessionStore, requirement: Requirement) -> tuple[RunEntry | None, list[Requirement]]:
    """Return the run that a requirement holds up, and the pending requirements of that run, without expired ones."""
    run = RunIndex(store, [requirement.session_id]).top_level(requirement.run_id)
    candidates = store.requirements(run_id=run.run_id if run else requirement.run_id)
    return run, [candidate for candidate in candidates if requirements.is_pending(candidate)]


def _store_option(store: str | SessionStore | None) -> str:
    return f" --store {requirements.quote(store)}" if isinstance(store, str) else ""
