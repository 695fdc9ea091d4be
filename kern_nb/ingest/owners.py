"""The owners of nested agents: the runs that started them, by the membership that the source states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from kern_nb.ingest.importer import Membership, run_id_for
from kern_nb.ingest.stored_lines import StoredLine, StoredLines

Owner: TypeAlias = "tuple[StoredLine, str]"
"""The session of the run that started a nested agent, and the id of the run."""


@dataclass
class Owners:
    """The runs of stored sessions and of a batch, as owners of nested agents.

    Attributes:
        lines: The stored sessions.
        nested: The session and the first run of each nested agent of the batch, which are runs of its parent.
        calls: The run of each tool call of the batch, by session and id of the call.
        sessions: The session of each run of the batch.
        withdrawn: The ids of the stored runs that the drafts withdraw.
    """

    lines: StoredLines
    nested: dict[str, tuple[str, str]] = field(default_factory=dict)
    calls: dict[tuple[str, str], str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def is_stored(self, run_id: str) -> bool:
        """Whether a run is stored as a member of another one that stays."""
        row = self.lines.run_row(run_id)
        parent_id = None if row is None else row["parent_run_id"]
        return parent_id is not None and parent_id not in self.withdrawn

    def find_stored(self, run_id: str) -> Owner | None:
        """The owner of a run that is stored as a member: a run stays where it was stored."""
        row = self.lines.run_row(run_id)
        owner = None if row is None else self.lines.get(row["session_id"])
        return None if owner is None or row is None else (owner, row["parent_run_id"])

    def find(self, membership: Membership, start: int | None) -> Owner | None:
        """The owner of a nested agent.

        Args:
            membership: What the source states.
            start: When the first run of the agent was created, in microseconds, if it has one.
        """
        line = self.lines.get_imported(membership.session_id)
        if membership.run_id is not None and (owner := self.lines.get(self.session_of(membership.run_id) or "")):
            return owner, membership.run_id
        if line is None:
            return self._find_nested(membership)
        if not line.runs:
            return None
        run_id = self._run_of_call(line, membership.tool_call_id)
        if run_id is None:
            earlier = [r for r in line.runs if start is not None and r.created_at is not None and r.created_at <= start]
            run_id = (earlier or line.runs)[-1].run_id
        # The run of another nested agent is none of the line's.
        owner_id = next((run.session_id for run in line.runs if run.run_id == run_id), line.session_id)
        owner = self.lines.get(owner_id)
        return None if owner is None else (owner, run_id)

    def _find_nested(self, membership: Membership) -> Owner | None:
        """The owner of an agent that a nested agent started, which is stored as runs of its own parent."""
        parent = self.nested.get(membership.session_id)
        if parent is None and (run := self.lines.run_row(run_id_for(membership.session_id, 0))):
            parent = run["session_id"], run["run_id"]
        owner = self.lines.get(parent[0]) if parent else None
        if owner is None or parent is None:
            return None
        return owner, self._run_of_call(owner, membership.tool_call_id) or parent[1]

    def session_of(self, run_id: str) -> str | None:
        """The session that has a run, by the id that the run has in its source."""
        row = self.lines.run_row(run_id)
        return self.sessions.get(run_id) or (None if row is None else str(row["session_id"]))

    def _run_of_call(self, line: StoredLine, tool_call_id: str | None) -> str | None:
        if tool_call_id is None:
            return None
        return self.calls.get((line.session_id, tool_call_id)) or self.lines.run_of_call(line, tool_call_id)
