"""Branch points in the line of a stored session: after a number of messages, or where a fork states that it begins."""

from __future__ import annotations

from typing import TypeAlias

from kern_nb.ingest.importer import Fork
from kern_nb.ingest.stored_lines import InheritedMessages, StoredLine, StoredLines, StoredRun

BranchPointInLine: TypeAlias = "tuple[tuple[int, int | None], InheritedMessages | None]"
"""The last run and message that a branch inherits, and what it inherits of a run that the point cuts."""


def point_in(run: StoredRun, n: int) -> tuple[tuple[int, int | None], InheritedMessages]:
    """The branch point after the first ``n`` messages of a run, which may inherit them from another one."""
    while run.cut is not None and n <= run.cut.count:
        run = run.cut.run
    before = 0 if run.cut is None else run.cut.count
    return (run.run_index, n - before - 1), InheritedMessages(run, n)


def fork_point(lines: StoredLines, parent: StoredLine, fork: Fork) -> BranchPointInLine:
    """The branch point of a fork that names the first record after it."""
    before_key = fork.before_key or ""
    for run in () if fork.before_key is None else parent.runs:
        keys = lines.keys_of(run) or []
        n = sum(key < before_key for key in keys)
        if n == len(keys):
            continue
        if n == 0:
            return (run.run_index - 1, None), None
        return point_in(run, n)
    if parent.runs and (last := parent.runs[-1]).is_inherited_part and last.cut is not None:
        return point_in(last, last.cut.count)
    return (parent.last_index, None), None
