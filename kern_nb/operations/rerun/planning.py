"""What of a session is run again: which inputs are given once more, and before which place the branch is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.db import SessionStore
from kern_nb.db.reads import is_in_history
from kern_nb.errors import BadUsage
from kern_nb.extra_keys import BY_TOOL, RETRY, STATE_ARGUMENT
from kern_nb.interop import media
from kern_nb.records import Message, Run
from kern_nb.text.missing_values import na_to_none

if TYPE_CHECKING:
    from kern_nb.db.references import Reference

_NOT_A_PERSONS = (BY_TOOL, RETRY)
"""Marks of messages that have a user's role, and are no user's."""


@dataclass(frozen=True)
class Input:
    """An input that is given again.

    Attributes:
        content: What the agent is given.
        of: The run whose input it was: its session_id, run_id and run_index.
        session_state: What of the session's state was given with it.
    """

    content: Any
    of: dict[str, Any]
    session_state: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The run, as people write it."""
        return f"{self.of['session_id']}/{self.of['run_index']}"


@dataclass(frozen=True)
class Plan:
    """What is run again.

    Attributes:
        before: The place that the branch does not inherit, as `SessionStore.branch` takes it.
        inputs: What is given, in order.
        runs: The runs that these are of.
        skipped: The runs that have no input, as people write them.
    """

    before: int | tuple[int, int]
    inputs: tuple[Input, ...]
    runs: tuple[Run, ...]
    skipped: tuple[str, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether the branch inherits a run in part."""
        return isinstance(self.before, tuple)


def plan(store: SessionStore, place: Reference, *, message: Any, onward: bool, as_it_is: bool) -> Plan:
    """What is given again of a session (all of it), a run, or a message on; nothing is written.

    Args:
        store: Where it is.
        place: The session, run or message.
        message: What is given in place of the first input; None leaves that as it is.
        onward: Whether the inputs of all later runs are given too.
        as_it_is: Whether inputs are values, as a workflow takes them, and not texts and files.

    Raises:
        BadUsage: there is no run, no input to give, or the place lies within a member's run.
    """
    of_session = _runs(store, place.session_id)
    chosen = _chosen(of_session, place, onward=onward)
    runs = [store.get_run(run.run_id) for run in chosen]
    contents = [_input(run) for run in runs]
    before: int | tuple[int, int] = chosen[0].run_index
    if place.message_index is not None:
        before, contents[0] = _at_message(runs[0], place.message_index)
    if contents[0] is None and message is None and place.run_index is not None:
        raise BadUsage(*_unsaid(runs[0], place))
    inputs: list[Input] = []
    skipped: list[str] = []
    for run, content in zip(runs, contents, strict=True):
        replaced = message if run is runs[0] else None
        of = {"session_id": run.session_id, "run_id": run.run_id, "run_index": run.run_index}
        if content is None and replaced is None:
            skipped.append(str(Input(None, of)))
        else:
            given = _given(content, replaced, store, as_it_is=as_it_is)
            inputs.append(Input(given, of, run.internal.get(STATE_ARGUMENT) or {}))
    if not inputs:
        raise BadUsage(f"No run of {place} has an input.", "There is nothing to give again.")
    return Plan(before, tuple(inputs), tuple(runs), tuple(skipped))


class _Row(NamedTuple):
    run_id: str
    run_index: int
    parent_run_id: str | None


def _runs(store: SessionStore, session_id: str) -> list[_Row]:
    """The runs that a session sees, in order."""
    df = store.runs_df(session_id, lineage=True)[list(_Row._fields)]
    rows = na_to_none(df).itertuples(index=False)
    return sorted((_Row(*row) for row in rows), key=lambda row: row.run_index)


def _chosen(runs: list[_Row], place: Reference, *, onward: bool) -> list[_Row]:
    """The runs to make again. Members' runs are made by their leader's."""
    if not runs:
        raise BadUsage(f"{place} has no runs.", "There is nothing to run again.")
    if place.run_index is None:
        return [run for run in runs if run.parent_run_id is None]
    named = next(run for run in runs if run.run_index == place.run_index)
    if named.parent_run_id is not None:
        top = _top(runs, named)
        raise BadUsage(
            f"{place} is within the run {place.session_id}/{top.run_index}, which made it.",
            f"Run that one again: {place.session_id}/{top.run_index}",
        )
    later = [run for run in runs if run.parent_run_id is None and run.run_index > named.run_index]
    return [named, *later] if onward else [named]


def _top(runs: list[_Row], run: _Row) -> _Row:
    by_id = {one.run_id: one for one in runs}
    seen = set[str]()
    while run.run_id not in seen and (above := by_id.get(run.parent_run_id or "")) is not None:
        seen.add(run.run_id)
        run = above
    return run


def _input(run: Run) -> Any:
    """What a run was given: its input, or the first thing that a user says in it; None where it was given nothing."""
    if run.input not in (None, []):
        return run.input
    said = (message.content for message in run.messages if _is_users(message))
    return next((content for content in said if content not in (None, [])), None)


def _is_users(message: Message) -> bool:
    marked = message.from_history or any(mark in message.internal for mark in _NOT_A_PERSONS)
    return message.role == "user" and not marked


def _at_message(run: Run, index: int) -> tuple[int | tuple[int, int], Any]:
    """The place before a message, and what a user says there.

    Instructions are the agent's own: where only such come before the message, the whole run is left out.
    """
    earlier = [m for m in run.messages if m.message_index is not None and m.message_index < index]
    said = next(m for m in run.messages if m.message_index == index)
    run_index = run.run_index or 0
    before = (run_index, index) if any(map(is_in_history, earlier)) else run_index
    return before, (said.content or None if _is_users(said) else None)


def _unsaid(run: Run, place: Reference) -> tuple[str, str]:
    hint = "Say what is to be said there: message=..."
    if place.message_index is None:
        return f"Run {place} has no input.", hint
    role = next(m.role for m in run.messages if m.message_index == place.message_index)
    return f"{place} is no text of a user's: the role is {role!r}.", hint


def _given(content: Any, message: Any, store: SessionStore, *, as_it_is: bool) -> Any:
    """An input as an agent takes it: a stored one with its files, of which the store may have lost some."""
    if as_it_is:
        return content if message is None else message
    found = content if content is None or isinstance(content, str) else media.load_content(content, store)
    if message is None:
        return media.build_prompt(found, {})
    if isinstance(message, str) and isinstance(found, list):  # another text; the files beside it stay
        return media.build_prompt([message, *(part for part in found if not isinstance(part, str))], {})
    return media.build_prompt(message, {})
