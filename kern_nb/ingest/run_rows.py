"""The rows of the runs of a draft: those that are added to a line, and those that replace stored ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kern_nb.db import mapping
from kern_nb.db.mapping import Row, RunRows
from kern_nb.db.process_identity import current_process
from kern_nb.extra_keys import MESSAGE_KEYS
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import Draft, run_id_for
from kern_nb.ingest.matching import Match
from kern_nb.ingest.owners import Owners
from kern_nb.ingest.stored_lines import InheritedMessages, StoredLine, StoredLines, StoredRun
from kern_nb.records import Run


@dataclass
class Merged:
    """The changes of a draft, and what the report says about it."""

    changes: Changes
    is_branch: bool = False
    is_nested_agent: bool = False
    repeated_tokens: int = 0
    tokens: int = 0


@dataclass
class RowMerger:
    """Adds the rows of drafts to the changes of a batch, and keeps the stored lines and owners up to date.

    Attributes:
        lines: The stored sessions.
        check: Raises UnstorableValue if the rows of a draft cannot be stored.
        new_sessions: The rows of the sessions that the batch adds.
    """

    lines: StoredLines
    check: Callable[[Changes], None]
    new_sessions: dict[str, Row] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        self.owners = Owners(self.lines)

    def _append_runs(
        self, draft: Draft, line: StoredLine, first: int, changes: Changes, *, cut: InheritedMessages | None
    ) -> list[Run]:
        """Add rows for the runs of a draft from ``first`` on; of that, without the messages of ``cut``."""
        written = []
        for position, i in enumerate(range(first, len(draft.runs))):
            skipped = cut.count if cut is not None and i == first else 0
            run = own_run(draft, line, i, skipped)
            if draft.keeps_run_ids:
                stated = draft.runs[i].run_id
                run.run_id = stated if self.owners.session_of(stated) is None else run_id_for(line.session_id, stated)
            written.append(run)
            index = line.next_index + position
            self._add_rows(changes, run, line.session_id, index, draft, i, draft.keys[i][skipped:])
        return written

    def _replace_runs(self, draft: Draft, line: StoredLine, match: Match, base: int, changes: Changes) -> None:
        """Replace the rows of runs whose record has changed."""
        for i in match.changed:
            stored = line.runs[base + i]
            if stored.session_id != line.session_id:
                continue  # inherited: its own session is imported from another file
            skipped = 0 if stored.cut is None else stored.cut.count
            run = own_run(draft, line, i, skipped)
            run.run_id = stored.run_id
            changes.replaced.append(run.run_id)
            self._add_rows(changes, run, line.session_id, stored.run_index, draft, i, draft.keys[i][skipped:])

    def _add_rows(
        self, changes: Changes, run: Run, session_id: str, run_index: int, draft: Draft, i: int, keys: list[str]
    ) -> None:
        rows: RunRows = mapping.run_rows(run, session_id)
        rows.run["source_hash"] = draft.hashes[i]
        if draft.earlier is not None:
            rows.run["process"] = current_process() if run.status == "RUNNING" else None
        rows.run["internal"] = (rows.run["internal"] or {}) | {MESSAGE_KEYS: keys}
        for row in (rows.run, *rows.messages, *rows.tool_calls):
            row["run_index"] = run_index
        changes.runs[run.run_id] = rows
        self.owners.sessions[run.run_id] = session_id
        for requirement in run.requirements:
            ids = {"run_id": run.run_id, "session_id": session_id}
            changes.requirements[run.run_id, requirement.requirement_id] = mapping.requirement_row(requirement) | ids

    def _finish(self, draft: Draft, changes: Changes) -> None:
        if changes:
            changes.blobs |= draft.blobs
            self.check(changes)
        for rows in changes.runs.values():
            for call in rows.tool_calls:
                self.owners.calls[call["session_id"], call["tool_call_id"]] = call["run_id"]

    def _extend_line(
        self,
        line: StoredLine,
        draft: Draft,
        first: int,
        written: list[Run],
        cut: InheritedMessages | None = None,
    ) -> None:
        """Append the runs of a draft to its line, so that later drafts are compared with them."""
        n_new = max(len(draft.runs) - first, 0)
        for run, i in zip(written[len(written) - n_new :], range(first, len(draft.runs)), strict=True):
            inherited = cut if i == first else None
            stored = StoredRun(
                line.session_id, line.next_index, run.run_id, None, mapping.to_micros(run.created_at), inherited
            )
            self._set_run(stored, draft, i)
            line.runs.append(stored)
            line.last_index = line.next_index

    @staticmethod
    def _set_run(run: StoredRun, draft: Draft, i: int) -> None:
        skipped = 0 if run.cut is None else run.cut.count
        run.source_hash, run.keys, run.has_loaded_keys = draft.hashes[i], draft.keys[i][skipped:], True


def own_run(draft: Draft, line: StoredLine, i: int, skipped: int) -> Run:
    """A run of a draft as a run of a line, without its inherited messages."""
    run = draft.runs[i]
    if line.session_id == draft.session_id and not skipped:
        return run
    messages = run.messages[skipped:]
    for message in messages:
        for call in message.tool_calls:
            if call.message_index is not None:
                call.message_index -= skipped
    has_prompt = any(message.role == "user" for message in messages)
    return run.model_copy(
        update={
            "run_id": run_id_for(line.session_id, i),
            "messages": messages,
            "input": run.input if has_prompt or not skipped else "",  # the prompt is inherited
        }
    )


def tokens(runs: list[Run]) -> int:
    """The tokens that runs used, without those of caches."""
    return sum(message_tokens(run, len(run.messages)) for run in runs)


def message_tokens(run: Run, n: int) -> int:
    """The tokens that the first ``n`` messages of a run used."""
    usages = [message.usage for message in run.messages[:n] if message.usage] or ([run.usage] if run.usage else [])
    return sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in usages)
