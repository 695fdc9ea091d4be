"""Plan a rerun: which inputs run again, and the branch point before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.db import SessionStore
from kern_nb.db.reads import is_in_history
from kern_nb.errors import BadUsage
from kern_nb.extra_keys import BY_TOOL, RETRY, STATE_ARGUMENT
from kern_nb.interop import media
from kern_nb.operations.run_index import top_level_id
from kern_nb.records import Message, Run
from kern_nb.text.missing_values import na_to_none

if TYPE_CHECKING:
    from kern_nb.db.references import Reference

_NOT_BY_USER = (BY_TOOL, RETRY)
"""Marks of messages with a user's role that no user wrote."""


@dataclass(frozen=True)
class Input:
    """An input to run again.

    Attributes:
        content: The input of the agent.
        origin: The run it comes from: its session_id, run_id and run_index.
        session_state: The part of the session state that was passed with it.
    """

    content: Any
    origin: dict[str, Any]
    session_state: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the run as a reference."""
        return f"{self.origin['session_id']}/{self.origin['run_index']}"


@dataclass(frozen=True)
class Plan:
    """What to run again.

    Attributes:
        before: The first run or message that the branch does not inherit, as `SessionStore.branch` takes it.
        inputs: The inputs, in order.
        runs: The runs they come from.
        skipped: References of the runs without an input.
    """

    before: int | tuple[int, int]
    inputs: tuple[Input, ...]
    runs: tuple[Run, ...]
    skipped: tuple[str, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether the branch inherits a part of a run."""
        return isinstance(self.before, tuple)


def plan(store: SessionStore, target: Reference, *, message: Any, onward: bool, raw: bool) -> Plan:
    """Plan the rerun of a session (all runs), a run, or a message on; nothing is written.

    Args:
        store: The store.
        target: The session, run or message.
        message: The first input, instead of the recorded one; None keeps that.
        onward: Whether to run the inputs of all later runs, too.
        raw: Whether inputs are plain values, as a workflow takes them, not texts and files.

    Raises:
        BadUsage: There is no run or no input, or the target is within a member's run.
    """
    rows = _select(_rows(store, target.session_id), target, onward=onward)
    runs = [store.get_run(row.run_id) for row in rows]
    contents = [_recorded_input(run) for run in runs]
    before: int | tuple[int, int] = rows[0].run_index
    if target.message_index is not None:
        before, contents[0] = _split_at_message(runs[0], target.message_index)
    if contents[0] is None and message is None and target.run_index is not None:
        raise _no_input(runs[0], target)
    inputs: list[Input] = []
    skipped: list[str] = []
    for run, content in zip(runs, contents, strict=True):
        replacement = message if run is runs[0] else None
        origin = {"session_id": run.session_id, "run_id": run.run_id, "run_index": run.run_index}
        if content is None and replacement is None:
            skipped.append(str(Input(None, origin)))
        else:
            value = _content(content, replacement, store, raw=raw)
            inputs.append(Input(value, origin, run.internal.get(STATE_ARGUMENT) or {}))
    if not inputs:
        raise BadUsage(f"No run of {target} has an input to run again.", "See its runs with %kern show.")
    return Plan(before, tuple(inputs), tuple(runs), tuple(skipped))


class _Row(NamedTuple):
    run_id: str
    run_index: int
    parent_run_id: str | None


def _rows(store: SessionStore, session_id: str) -> list[_Row]:
    """Return the runs that a session sees, in order."""
    df = store.runs_df(session_id, lineage=True)[list(_Row._fields)]
    rows = na_to_none(df).itertuples(index=False)
    return sorted((_Row(*row) for row in rows), key=lambda row: row.run_index)


def _select(rows: list[_Row], target: Reference, *, onward: bool) -> list[_Row]:
    """Return the runs to run again. Members' runs are not among them: their team's run makes them."""
    if not rows:
        raise BadUsage(f"{target} has no runs to run again.", "Run its agent first.")
    if target.run_index is None:
        return [row for row in rows if row.parent_run_id is None]
    first = next(row for row in rows if row.run_index == target.run_index)
    if first.parent_run_id is not None:
        top_level_run = top_level_id(first.run_id, {row.run_id: row.parent_run_id for row in rows})
        top_level = f"{target.session_id}/{next(row.run_index for row in rows if row.run_id == top_level_run)}"
        raise BadUsage(f"{target} is a member's run within run {top_level}.", f"Run that one again: {top_level}")
    later = [row for row in rows if row.parent_run_id is None and row.run_index > first.run_index]
    return [first, *later] if onward else [first]


def _recorded_input(run: Run) -> Any:
    """Return a run's input, else the first content of a user's message in it; None if it has neither."""
    if run.input not in (None, []):
        return run.input
    contents = (message.content for message in run.messages if _is_by_user(message))
    return next((content for content in contents if content not in (None, [])), None)


def _is_by_user(message: Message) -> bool:
    excluded = message.from_history or any(mark in message.internal for mark in _NOT_BY_USER)
    return message.role == "user" and not excluded


def _split_at_message(run: Run, index: int) -> tuple[int | tuple[int, int], Any]:
    """Return the branch point before a message, and its content if it is a user's.

    If only instructions precede the message, the branch excludes the whole run: instructions are the agent's own.
    """
    earlier = [m for m in run.messages if m.message_index is not None and m.message_index < index]
    message = next(m for m in run.messages if m.message_index == index)
    run_index = run.run_index or 0
    before = (run_index, index) if any(map(is_in_history, earlier)) else run_index
    return before, (message.content or None if _is_by_user(message) else None)


def _no_input(run: Run, target: Reference) -> BadUsage:
    hint = "Pass the input: message=..."
    if target.message_index is None:
        return BadUsage(f"Run {target} has no input.", hint)
    role = next(m.role for m in run.messages if m.message_index == target.message_index)
    return BadUsage(f"{target} must be a user's message with text, got role {role!r}.", hint)


def _content(recorded: Any, message: Any, store: SessionStore, *, raw: bool) -> Any:
    """Return an input as an agent takes it; a recorded one with its files, as far as the store has them."""
    if raw:
        return recorded if message is None else message
    content = recorded if recorded is None or isinstance(recorded, str) else media.load_content(recorded, store)
    if message is None:
        return media.build_prompt(content, {})
    if isinstance(message, str) and isinstance(content, list):  # only the text is replaced; the files stay
        return media.build_prompt([message, *(part for part in content if not isinstance(part, str))], {})
    return media.build_prompt(message, {})
