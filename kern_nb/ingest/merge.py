"""Merging drafts with what is stored: what is new, what continues a session, and what branches from it.

A run that grew or whose record was corrected in its file is replaced. Messages that part from those of the stored
session are stored as a branch, so that nothing is overwritten and no conversation is a mixture of two. Records that
another session has already are inherited from it, not stored again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kern_nb.db import mapping
from kern_nb.ingest.branch_points import fork_point
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import Draft, MalformedRecord, hash_record, run_id_for
from kern_nb.ingest.matching import Match, align, has_all, has_lost_content
from kern_nb.ingest.members import MemberMerger
from kern_nb.ingest.missing_parents import missing_parent
from kern_nb.ingest.new_sessions import NewSessionMerger
from kern_nb.ingest.origins import (
    describe_other_session,
    is_same_file,
    merge_columns,
    origin_of,
    score_rows,
    source_key,
)
from kern_nb.ingest.run_rows import Merged, own_run, tokens
from kern_nb.ingest.stored_lines import StoredLine, StoredRun, common_messages
from kern_nb.records import Run

_KEY_LENGTH = 8


class DraftMerger(NewSessionMerger, MemberMerger):
    """Merges the drafts of a batch, one after the other. Nothing here writes to the store."""

    def load(self, drafts: list[Draft]) -> None:
        """Load what the drafts of a batch are compared with."""
        ids = [draft.session_id for draft in drafts]
        ids += [draft.fork.session_id for draft in drafts if draft.fork]
        ids += [draft.membership.session_id for draft in drafts if draft.membership]
        self.lines.load(ids, [key for draft in drafts if (key := source_key(draft))])
        identified = [draft for draft in drafts if draft.membership or draft.keeps_run_ids]
        self.lines.load_runs(run.run_id for draft in identified for run in draft.runs)
        self.owners.withdrawn = {run_id for draft in drafts for run_id in draft.withdrawn}
        self.lines.withdraw(self.owners.withdrawn)

    def merge(self, draft: Draft) -> Merged:
        """Merge one draft; raise MalformedRecord if it cannot be stored."""
        line = self.lines.get_imported(draft.session_id)
        if line is not None and draft.membership is not None and draft.earlier is not None and not line.runs:
            line = None  # it was a session of its own, until the span around it arrived
        if line is not None:
            return self._append_missing(draft, line) if draft.has_run_ids else self._extend(draft, line)
        if owner := self._find_owner(draft):
            return self._add_members(draft, *owner)
        if draft.fork is not None and (parent := self.lines.get_imported(draft.fork.session_id)):
            self._note_line(draft)
            point, cut = fork_point(self.lines, parent, draft.fork)
            return self._branch(self._with_inherited(draft, cut), parent, point, cut, n_equal=0)
        if parent_match := self._find_parent(draft):
            self._note_line(draft)
            parent, aligned, match = parent_match
            return self._branch_after(aligned, parent, match)
        self._note_line(draft)
        row = self._session_row(draft, draft.session_id)
        row |= missing_parent(draft, row)
        merged = self._new_session(draft, row, StoredLine(row, [], 0, -1), first=0, cut=None)
        if draft.fork is not None:
            parent_id = draft.fork.session_id
            merged.changes.orphan = f"is stored without its inherited runs: the store has no session {parent_id!r}"
        return merged

    def _extend(self, draft: Draft, line: StoredLine) -> Merged:
        longest = self._note_line(draft)
        if draft.lacks_records and has_all(self._all_keys(line), [key for keys in draft.keys for key in keys]):
            return Merged(Changes())
        is_first = longest is None
        base = self._n_stated(draft)
        corrects = is_first and not draft.has_record_ids and is_same_file(draft, line.session)
        n_inherited = line.n_inherited - base
        if draft.fork and len(line.runs) > base:
            draft = self._with_inherited(draft, line.runs[base].cut)
        options: dict[str, Any] = {
            "corrects": corrects,
            "completes": is_first and draft.has_record_ids,
            "extends": self._may_extend(draft, line),
            "n_inherited": n_inherited,
        }
        draft, match = align(self.lines, draft, line.runs[base:], **options)
        if match.parts:
            merged = self._diverge(draft, line, match, is_first=is_first)
            if is_first and draft.has_record_ids and is_same_file(draft, line.session):
                self._correct(draft, line, match, base, merged.changes)
            return merged
        merged = self._continue(draft, line, match)
        if origin_of(line.session).get("hash") == draft.session_hash:
            self._update_time(draft, line, merged.changes)
            return merged
        if is_first:
            self._update_session(draft, line, merged.changes)
        elif longest is not None and draft.weight <= longest and not draft.has_record_ids:
            raise MalformedRecord("the file has a session of this id with the same messages")
        return merged

    def _append_missing(self, draft: Draft, line: StoredLine) -> Merged:
        """Append the runs that the store lacks, and replace those that have grown; runs are identified by their ids."""
        changes = Changes()
        stored = {run.run_id: run for run in line.runs}
        written = []
        for i, run in enumerate(draft.runs):
            old = stored.get(run.run_id)
            keys = [] if old is None else self.lines.keys_of(old) or []
            n_common = common_messages(keys, draft.keys[i])
            is_earlier = run.run_id in (draft.earlier or ())
            if old is not None and keys and draft.keys[i] and not n_common and not is_earlier:
                # Another part of the session, whose importer saw none of the records before it.
                run.run_id = run_id_for(run.run_id, draft.keys[i][0])
                old, keys, n_common = stored.get(run.run_id), draft.keys[i], len(draft.keys[i])
            if old is None:
                written.append(self._append_run(draft, line, i, changes))
                continue
            is_older = not is_earlier and len(draft.keys[i]) < len(keys) and n_common == len(draft.keys[i])
            if old.source_hash != draft.hashes[i] and not is_older:
                changes.replaced.append(run.run_id)
                self._add_rows(changes, run, line.session_id, old.run_index, draft, i, draft.keys[i])
                self._set_run(old, draft, i)
                written.append(run)
        if (written or draft.scores) and origin_of(line.session).get("hash") != draft.session_hash:
            self._update_session(draft, line, changes)
        self._finish(draft, changes)
        return Merged(changes, tokens=tokens(written))

    def _append_run(self, draft: Draft, line: StoredLine, i: int, changes: Changes) -> Run:
        """Append a run of a draft to a line, without the history that it repeats."""
        skipped = self._repeated_history(draft, line, i) if draft.earlier is None else 0
        run = own_run(draft, line, i, skipped).model_copy(update={"run_id": draft.runs[i].run_id})
        keys = draft.keys[i][skipped:]
        self._add_rows(changes, run, line.session_id, line.next_index, draft, i, keys)
        new = StoredRun(
            line.session_id, line.next_index, run.run_id, draft.hashes[i], mapping.to_micros(run.created_at)
        )
        new.keys, new.has_loaded_keys = keys, True
        line.runs.append(new)
        line.last_index = line.next_index
        return run

    def _repeated_history(self, draft: Draft, line: StoredLine, i: int) -> int:
        """The number of messages at the start of a run that repeat all messages of a line."""
        history = self._all_keys(line)
        n = common_messages(history, draft.keys[i])
        return n if n == len(history) else 0

    def _all_keys(self, line: StoredLine) -> list[str]:
        """The keys of all messages of a line."""
        return [key for run in line.runs for key in self.lines.keys_of(run) or ()]

    def _may_extend(self, draft: Draft, line: StoredLine) -> bool:
        """Whether what follows the end of a line belongs to it: no line of the file ends there."""
        return not draft.has_record_ids or (draft.file, line.session_id) not in self.read_lines.ends

    def _continue(self, draft: Draft, line: StoredLine, match: Match) -> Merged:
        """Replace the runs of a line that have changed, and append those that are new."""
        changes = Changes()
        base = self._n_stated(draft)
        written = self._append_runs(draft, line, match.runs, changes, cut=None)
        self._correct(draft, line, match, base, changes)
        self._extend_line(line, draft, match.runs, written)
        if len(line.runs) == base + len(draft.runs):
            self.read_lines.ends.add((draft.file, line.session_id))
        return Merged(changes, tokens=tokens(written))

    def _correct(self, draft: Draft, line: StoredLine, match: Match, base: int, changes: Changes) -> None:
        """Replace the runs of a line whose record has changed, unless what changed it is a damage of the file."""
        damaged = [i for i in match.changed if has_lost_content(self.lines, draft, i, line.runs[base + i])]
        if damaged:
            names = ", ".join(str(line.runs[base + i].run_index) for i in damaged)
            changes.warning = f"keeps its run {names} as stored: in this version of the file it lacks something"
            match = replace(match, changed=tuple(i for i in match.changed if i not in damaged))
        self._replace_runs(draft, line, match, base, changes)
        self._finish(draft, changes)
        for index in match.changed:
            if line.runs[base + index].session_id == line.session_id:
                self._set_run(line.runs[base + index], draft, index)

    def _update_session(self, draft: Draft, line: StoredLine, changes: Changes) -> None:
        columns = merge_columns(draft, mapping.session_row(draft.session), line.session)
        if line.session_id in self.new_sessions:
            self.new_sessions[line.session_id] |= columns
        else:
            changes.updated.append((line.session_id, columns))
            if not draft.has_run_ids:
                changes.rescored.append((line.session_id, draft.source))
        scores = score_rows(draft, line.session_id)
        changes.replaced_scores += scores if draft.has_run_ids else []  # those of other runs stay
        changes.scores |= scores

    def _update_time(self, draft: Draft, line: StoredLine, changes: Changes) -> None:
        """Update the time of a session whose record is unchanged but for new messages."""
        new, old = mapping.session_row(draft.session)["updated_at"], line.session["updated_at"]
        if not changes.runs or new is None or (old is not None and new <= old):
            return
        if line.session_id in self.new_sessions:
            self.new_sessions[line.session_id]["updated_at"] = new
        else:
            changes.updated.append((line.session_id, {"updated_at": new}))

    def _diverge(
        self, draft: Draft, line: StoredLine, match: Match, *, is_first: bool, tried: tuple[str, ...] = ()
    ) -> Merged:
        """Store a draft that parts from the session of its id as a branch with an id of its own."""
        is_line = draft.has_record_ids or not is_first  # else an id may mean something else in another file
        # A damaged version of the file may have looked like one of another format.
        is_same_path = origin_of(line.session).get("file", "") == draft.path_hash
        may_be_new = draft.has_record_ids and (not is_first or is_same_path)
        if match.runs == 0 and not may_be_new and (match.messages == 0 or not is_line):
            raise MalformedRecord(describe_other_session(line, draft))
        branch_id = _branch_id(draft, match, tried)
        branch = self.lines.get(branch_id)
        if branch is None:
            return self._branch_after(draft, line, match, branch_id)
        base, extends = self._n_stated(draft), self._may_extend(draft, branch)
        draft, match = align(self.lines, draft, branch.runs[base:], extends=extends)
        if match.parts:
            return self._diverge(draft, branch, match, is_first=False, tried=(*tried, branch_id))
        return self._continue(draft, branch, match)


def _branch_id(draft: Draft, match: Match, tried: tuple[str, ...]) -> str:
    """The id of the branch that begins with the first message that a line lacks.

    The same message may begin other branches, if a damaged version of the file lacked messages before it.
    """
    keys = [key for run in draft.keys[: match.runs + 1] for key in run]
    n = sum(map(len, draft.keys[: match.runs])) + match.messages
    first = keys[n] if n < len(keys) else ""  # a run that ends before the stored one does
    names: list[Any] = [first, keys[: n + 1], draft.keys]
    ids = [f"{draft.session_id}~{hash_record(draft.session_id, name)[:_KEY_LENGTH]}" for name in names]
    unused = next((name for name in ids if name not in tried), None)
    if unused is None:
        raise MalformedRecord("the store has branches of this session that differ from it")
    return unused
