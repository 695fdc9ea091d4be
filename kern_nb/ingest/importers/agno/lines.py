"""The lines of a session of Agno: runs that were forked or generated again part from the run that they repeat.

Agno keeps such runs one after the other, and each repeats the messages of the run that it comes from. Here a fork is a
branch that inherits these. A run that was generated again takes the place of the one it replaces, which becomes the
branch. Runs of members and steps belong to the run of their team or workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kern_nb.ingest.importers.agno.runs import inner_runs
from kern_nb.ingest.importers.agno.tables import RunRecord, SessionRecord
from kern_nb.ingest.parsing.values import to_list, to_object, to_text


class Line(NamedTuple):
    """Runs that follow each other.

    Attributes:
        runs: The runs.
        branch: The run by which a branch differs from the session's own line, which is none.
    """

    runs: list[RunRecord]
    branch: RunRecord | None = None


class Member(NamedTuple):
    """A run that is part of another one."""

    run: RunRecord
    parent: RunRecord


def split_members(session: SessionRecord, source: SessionRecord | None) -> tuple[list[RunRecord], list[Member]]:
    """The runs of a session on their own, and those that are part of one; ``source`` is what the session is a copy of.

    The copies of members' runs are not counted again. They name the run of the source's team as theirs.
    """
    runs = {run.run_id: run for run in session.runs}
    inner = [run for record in session.runs for run in inner_runs(record)]
    runs = {run.run_id: run for run in reversed(inner)} | runs  # a row is newer than the copy inside another run
    copied = set() if source is None else {_first_message(run) for run in _all_runs(source)} - {None}
    own: list[RunRecord] = []
    members: list[Member] = []
    for run in session.runs:
        parent = runs.get(run.parent_run_id or "")
        if parent is None and run.parent_run_id and to_text(run.data.get("forked_from_session_id")):
            parent = next((other for other in session.runs if _is_root(other, run.position)), None)
        if parent is None or _is_inside(parent, run, runs):
            own.append(run)
        elif _first_message(run) not in copied:
            members.append(Member(run, parent))
    unique = [run for run in inner if runs[run.run_id] is run and _first_message(run) not in copied]
    members += [Member(run, runs[run.parent_run_id or ""]) for run in unique]
    return own, _in_order(members)


def _is_root(run: RunRecord, position: int) -> bool:
    """Whether a run after a position is part of none: that of a team comes after those of its members."""
    return run.position > position and run.parent_run_id is None


def _all_runs(session: SessionRecord) -> Iterable[RunRecord]:
    for run in session.runs:
        yield run
        yield from inner_runs(run)


def _first_message(run: RunRecord) -> str | None:
    messages = to_list(run.data.get("messages"))
    return to_text(to_object(messages[0]).get("id")) if messages else None


def _is_inside(run: RunRecord, other: RunRecord, rows: dict[str, RunRecord]) -> bool:
    """Whether a run is, at any depth, part of another one: malformed records refer to each other."""
    seen: set[str] = set()
    current: RunRecord | None = run
    while current is not None and current.run_id not in seen:
        if current.run_id == other.run_id:
            return True
        seen.add(current.run_id)
        current = rows.get(current.parent_run_id or "")
    return current is not None


def _in_order(members: list[Member]) -> list[Member]:
    """Members after the run that they are part of: Agno stores the run of a member first."""
    pending = {member.run.run_id: member for member in members}
    ordered: list[Member] = []
    for member in members:
        chain: list[Member] = []
        current: Member | None = member
        while current is not None and pending.pop(current.run.run_id, None) is not None:
            chain.append(current)
            current = pending.get(current.parent.run_id)
        ordered += reversed(chain)
    return ordered


def find_lines(runs: Sequence[RunRecord]) -> list[Line]:
    """The lines of the runs of a session, its own first."""
    main: list[RunRecord] = []
    forked = {to_text(run.data.get("forked_from_run_id")) for run in runs}
    paths: dict[str, list[RunRecord]] = {}
    branches: list[RunRecord] = []
    for run in runs:
        source = paths.get(to_text(run.data.get("forked_from_run_id")) or "")
        if source is None:
            main.append(run)
            if run.run_id in forked:
                paths[run.run_id] = list(main)
            continue
        paths[run.run_id] = [*source[:-1], run]
        if main[-1] is source[-1] and _replaces(run, source[-1]):
            branches.append(main.pop())
            main.append(run)
        else:
            branches.append(run)
    return [Line(main), *(Line(paths[run.run_id], run) for run in branches)]


def _replaces(run: RunRecord, source: RunRecord) -> bool:
    """Whether a run was generated instead of another one."""
    return run.data.get("regenerated_from") == source.run_id and source.get("status") == "REGENERATED"
