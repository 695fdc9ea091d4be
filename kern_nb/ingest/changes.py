"""The rows that an import writes, collected for a batch of sessions."""

from __future__ import annotations

from dataclasses import dataclass, field

from kern_nb.db.mapping import Row, RunRows
from kern_nb.ingest.bundle_schema import TABLES, Rows


@dataclass
class Changes:
    """The changes to write.

    Attributes:
        rows: New rows by table.
        runs: New rows of runs by run id.
        scores: New rows of scores by id.
        requirements: New rows of requirements by run and id, in place of those stored; `all_rows` has all four.
        updated: Ids of stored sessions that have changed, and the new columns of each.
        rescored: The session and the source of scores that are replaced by new ones.
        replaced_scores: Ids of scores that are replaced by new ones.
        replaced: Ids of runs whose rows are replaced by new ones.
        renewed: Run ids and ids of requirements whose rows are replaced by new ones.
        blobs: Shared JSON by its SHA-256.
        warning: What the import reports about a session that it stores.
        orphan: What it reports, too, if the parent of the session is not stored at the end.
    """

    rows: Rows = field(default_factory=lambda: {name: [] for name in TABLES})
    runs: dict[str, RunRows] = field(default_factory=dict)
    scores: dict[str, Row] = field(default_factory=dict)
    requirements: dict[tuple[str, str], Row] = field(default_factory=dict)
    updated: list[tuple[str, Row]] = field(default_factory=list)
    rescored: list[tuple[str, str]] = field(default_factory=list)
    replaced_scores: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    renewed: list[tuple[str, str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    warning: str = ""
    orphan: str = ""

    def __bool__(self) -> bool:
        return bool(self.updated or self.runs or self.scores or any(self.rows.values()))

    def all_rows(self) -> Rows:
        """The new rows by table, with those of `runs`, `scores` and `requirements`."""
        rows = {name: list(rows) for name, rows in self.rows.items()}
        rows["scores"] += self.scores.values()
        rows["requirements"] += self.requirements.values()
        for run in self.runs.values():
            rows["runs"].append(run.run)
            rows["messages"] += run.messages
            rows["tool_calls"] += run.tool_calls
        return rows

    def add(self, other: Changes) -> None:
        """Append other changes to these."""
        for name in TABLES:
            self.rows[name] += other.rows[name]
        for run_id, run in other.runs.items():
            self.runs.pop(run_id, None)  # a later version of a run of this batch
            self.runs[run_id] = run
        self.scores |= other.scores
        self.requirements |= other.requirements
        self.updated += other.updated
        self.rescored += other.rescored
        self.replaced_scores += other.replaced_scores
        self.replaced += other.replaced
        self.renewed += other.renewed
        self.blobs |= other.blobs
