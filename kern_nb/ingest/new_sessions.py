"""Storing a draft as a new session: a line of its own, or a branch of the line with which it has records in common."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kern_nb.db import mapping
from kern_nb.db.mapping import Row
from kern_nb.ingest.branch_points import point_in
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.matching import Match, align, join_runs, n_equal
from kern_nb.ingest.origins import branch_time, score_rows, source_key, with_origin
from kern_nb.ingest.run_rows import Merged, RowMerger, message_tokens, tokens
from kern_nb.ingest.stored_lines import InheritedMessages, StoredLine
from kern_nb.records import Message


@dataclass
class ReadLines:
    """What an import has read so far, of the lines of each session: a file may have several, or repeat one.

    Attributes:
        lengths: The length of the longest line, by file and session id.
        ends: The stored lines at whose end a line ended, by file: what goes on from there was taken back.
    """

    lengths: dict[tuple[str, str], int] = field(default_factory=dict)
    ends: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> ReadLines:
        """Return a copy, for a transaction that may be tried again."""
        return ReadLines(dict(self.lengths), set(self.ends))


@dataclass
class NewSessionMerger(RowMerger):
    """Merges drafts whose session is not stored.

    Attributes:
        read_lines: What the import has read so far.
    """

    read_lines: ReadLines

    def _note_line(self, draft: Draft) -> int | None:
        """Record that a draft was read; return the length of the longest one of its file and id before it."""
        key = (draft.file, draft.session_id)
        longest = self.read_lines.lengths.get(key)
        self.read_lines.lengths[key] = max(longest or 0, draft.weight)
        return longest

    def _n_stated(self, draft: Draft) -> int:
        """The number of runs that a draft leaves out, as its fork states that it inherits them."""
        line = self.lines.get_imported(draft.session_id) if draft.fork else None
        return 0 if line is None else line.n_inherited

    def _find_parent(self, draft: Draft) -> tuple[StoredLine, Draft, Match] | None:
        """The stored session with the longest beginning in common, by the ids of records."""
        best: tuple[StoredLine, Draft, Match] | None = None
        for name in self.lines.by_source_key.get(source_key(draft) or "", ()):
            line = self.lines.get(name)
            if line is None:
                continue
            aligned, match = align(self.lines, draft, line.runs, exact=True)
            n = n_equal(aligned, match)
            if n and (best is None or n > n_equal(*best[1:])):
                best = line, aligned, match
        return best

    def _branch_after(self, draft: Draft, parent: StoredLine, match: Match, session_id: str | None = None) -> Merged:
        """Store a draft as a branch of a line, after what they have in common."""
        fork: tuple[int, int | None]
        n_equal = match.runs
        position = n_equal + self._n_stated(draft)
        run = parent.runs[position] if position < len(parent.runs) else None
        if match.messages and run is not None:
            fork, cut = point_in(run, match.messages)
        elif n_equal and (last := parent.runs[position - 1]).is_inherited_part:
            n_equal -= 1
            fork, cut = point_in(last, len(draft.keys[n_equal]))
        else:
            fork, cut = (parent.last_index if run is None else run.run_index - 1, None), None
        repeated = tokens(draft.runs[:n_equal])
        if cut is not None:
            repeated += message_tokens(draft.runs[n_equal], cut.count)
        merged = self._branch(draft, parent, fork, cut, n_equal=n_equal, session_id=session_id)
        merged.repeated_tokens = repeated if session_id is None else 0
        return merged

    def _branch(
        self,
        draft: Draft,
        parent: StoredLine,
        fork: tuple[int, int | None],
        cut: InheritedMessages | None,
        *,
        n_equal: int,
        session_id: str | None = None,
    ) -> Merged:
        row = self._session_row(draft, session_id or draft.session_id)
        row |= {
            "parent_session_id": parent.session_id,
            "fork_run_index": fork[0],
            "fork_message_index": fork[1],
            "source_key": parent.session["source_key"],
            "created_at": branch_time(draft, row["created_at"], parent, n_equal, 0 if cut is None else cut.count),
        }
        until = fork[0] if fork[1] is None else fork[0] - 1
        inherited = [run for run in parent.runs if run.run_index <= until]
        line = StoredLine(row, inherited, len(inherited), fork[0])
        merged = self._new_session(draft, row, line, first=n_equal, cut=cut)
        merged.is_branch = True
        return merged

    def _with_inherited(self, draft: Draft, cut: InheritedMessages | None) -> Draft:
        """A draft whose first run repeats what it inherits of a run, as the drafts of copies do."""
        keys = [] if cut is None else (self.lines.keys_of(cut.run) or [])[: cut.count]
        if not draft.runs or draft.keys[0][: len(keys)] == keys:
            return draft
        first = draft.runs[0]
        for message in first.messages:
            for call in message.tool_calls:
                if call.message_index is not None:
                    call.message_index += len(keys)
        messages = [Message(role="user") for _ in keys] + first.messages  # only their number matters
        run = first.model_copy(update={"messages": messages})
        return replace(draft, runs=[run, *draft.runs[1:]], keys=[keys + draft.keys[0], *draft.keys[1:]])

    def _new_session(
        self, draft: Draft, row: Row, line: StoredLine, *, first: int, cut: InheritedMessages | None
    ) -> Merged:
        changes = Changes()
        if cut is not None and cut.count == len(draft.keys[first]):  # it has nothing of its own
            if first + 1 < len(draft.runs):
                draft = join_runs(draft, first)  # as it is when the line is loaded
            else:
                line.add_inherited(cut)
                first, cut = first + 1, None
        written = self._append_runs(draft, line, first, changes, cut=cut)
        changes.rows["sessions"].append(row)
        changes.scores |= score_rows(draft, line.session_id)
        self._finish(draft, changes)
        self._extend_line(line, draft, first, written, cut=cut)
        self.lines.add(line)
        self.read_lines.ends.add((draft.file, line.session_id))
        self.new_sessions[line.session_id] = row
        return Merged(changes, tokens=tokens(written))

    def _session_row(self, draft: Draft, session_id: str) -> Row:
        row = mapping.session_row(draft.session.model_copy(update={"session_id": session_id}))
        data = with_origin(draft, row["session_data"])
        return row | {"session_data": data, "source_key": source_key(draft), "missing_parent": None}
