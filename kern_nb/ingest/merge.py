"""Merging drafts with what is stored: what is new, what continues a session, and what branches from it.

A run that grew or whose record was corrected in its file is replaced. Messages that part from those of the stored
session are stored as a branch, so that nothing is overwritten and no conversation is a mixture of two. Records that
another session has already are inherited from it, not stored again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from kern_nb.db import mapping
from kern_nb.db.mapping import Row, RunRows
from kern_nb.db.process_identity import current_process
from kern_nb.extra_keys import MESSAGE_KEYS, TOOL_CALL_ID
from kern_nb.ingest.branch_points import fork_point, point_in
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import Draft, MalformedRecord, hash_record, run_id_for
from kern_nb.ingest.matching import Match, align, has_all, has_lost_content, join_runs, n_equal
from kern_nb.ingest.missing_parents import missing_parent
from kern_nb.ingest.origins import (
    branch_time,
    describe_other_session,
    is_same_file,
    merge_columns,
    origin_of,
    score_rows,
    source_key,
    with_origin,
)
from kern_nb.ingest.owners import Owner, Owners
from kern_nb.ingest.stored_lines import InheritedMessages, StoredLine, StoredLines, StoredRun, common_messages
from kern_nb.records import Message, Run

_KEY_LENGTH = 8


@dataclass
class Merged:
    """The changes of a draft, and what the report says about it."""

    changes: Changes
    is_branch: bool = False
    is_nested_agent: bool = False
    repeated_tokens: int = 0
    tokens: int = 0


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
class DraftMerger:
    """Merges the drafts of a batch, one after the other. Nothing here writes to the store.

    Attributes:
        lines: The stored sessions.
        check: Raises UnstorableValue if the rows of a draft cannot be stored.
        read_lines: What the import has read so far.
        new_sessions: The rows of the sessions that the batch adds.
    """

    lines: StoredLines
    check: Callable[[Changes], None]
    read_lines: ReadLines
    new_sessions: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owners = Owners(self.lines)

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

    # Sessions that are stored -----------------------------------------------------------------------------------------

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
        return Merged(changes, tokens=_tokens(written))

    def _append_run(self, draft: Draft, line: StoredLine, i: int, changes: Changes) -> Run:
        """Append a run of a draft to a line, without the history that it repeats."""
        skipped = self._repeated_history(draft, line, i) if draft.earlier is None else 0
        run = _own_run(draft, line, i, skipped).model_copy(update={"run_id": draft.runs[i].run_id})
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

    def _note_line(self, draft: Draft) -> int | None:
        """Record that a draft was read; return the length of the longest one of its file and id before it."""
        key = (draft.file, draft.session_id)
        longest = self.read_lines.lengths.get(key)
        self.read_lines.lengths[key] = max(longest or 0, draft.weight)
        return longest

    def _may_extend(self, draft: Draft, line: StoredLine) -> bool:
        """Whether what follows the end of a line belongs to it: no line of the file ends there."""
        return not draft.has_record_ids or (draft.file, line.session_id) not in self.read_lines.ends

    def _n_stated(self, draft: Draft) -> int:
        """The number of runs that a draft leaves out, as its fork states that it inherits them."""
        line = self.lines.get_imported(draft.session_id) if draft.fork else None
        return 0 if line is None else line.n_inherited

    def _continue(self, draft: Draft, line: StoredLine, match: Match) -> Merged:
        """Replace the runs of a line that have changed, and append those that are new."""
        changes = Changes()
        base = self._n_stated(draft)
        written = self._append_runs(draft, line, match.runs, changes, cut=None)
        self._correct(draft, line, match, base, changes)
        self._extend_line(line, draft, match.runs, written)
        if len(line.runs) == base + len(draft.runs):
            self.read_lines.ends.add((draft.file, line.session_id))
        return Merged(changes, tokens=_tokens(written))

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

    # New sessions -----------------------------------------------------------------------------------------------------

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
        repeated = _tokens(draft.runs[:n_equal])
        if cut is not None:
            repeated += _message_tokens(draft.runs[n_equal], cut.count)
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
        return Merged(changes, tokens=_tokens(written))

    def _session_row(self, draft: Draft, session_id: str) -> Row:
        row = mapping.session_row(draft.session.model_copy(update={"session_id": session_id}))
        data = with_origin(draft, row["session_data"])
        return row | {"session_data": data, "source_key": source_key(draft), "missing_parent": None}

    # Nested agents ----------------------------------------------------------------------------------------------------

    def _find_owner(self, draft: Draft) -> Owner | None:
        """The run that the runs of a draft belong to, if they are those of a nested agent."""
        membership = draft.membership
        if membership is None:
            return None
        is_stated = draft.earlier is not None and membership.run_id is not None
        first = draft.runs[0] if draft.runs else None
        if first is not None and not is_stated and self.owners.is_stored(first.run_id):
            return self.owners.find_stored(first.run_id)
        return self.owners.find(membership, None if first is None else mapping.to_micros(first.created_at))

    def _add_members(self, draft: Draft, line: StoredLine, parent_run_id: str) -> Merged:
        changes = Changes()
        written: list[Run] = []
        title = (draft.session.session_data or {}).get("session_name")
        for i, run in enumerate(draft.runs):
            row = self.lines.run_row(run.run_id)
            is_moved = row is not None and row["parent_run_id"] in self.owners.withdrawn
            if row is not None and row["source_hash"] == draft.hashes[i] and not is_moved:
                continue
            if row is not None:
                stored = StoredRun(row["session_id"], row["run_index"], row["run_id"], row["source_hash"])
                keys = self.lines.keys_of(stored) or []
                differs = common_messages(keys, draft.keys[i]) < min(len(keys), len(draft.keys[i]))
                is_earlier = run.run_id in (draft.earlier or ())
                is_corrected = is_earlier or (not draft.has_record_ids and is_same_file(draft, line.session))
                if differs and not is_corrected and not (draft.has_record_ids and has_all(draft.keys[i], keys)):
                    raise MalformedRecord(f"run {i} of the nested agent is stored already, and differs")
                if len(draft.keys[i]) < len(keys) and not is_earlier:
                    continue  # an older copy
                changes.replaced.append(run.run_id)
            index = line.next_index if row is None else row["run_index"]
            line.last_index = max(line.last_index, index)
            run.parent_run_id = parent_run_id
            run.agent_id = run.agent_id or draft.session.agent_id
            nested = {"session_id": draft.session_id, "name": title}
            run.extra = run.extra | {"nested_agent": {key: value for key, value in nested.items() if value is not None}}
            if draft.membership is not None and draft.membership.tool_call_id is not None:
                run.internal = run.internal | {TOOL_CALL_ID: draft.membership.tool_call_id}
            written.append(run)
            self._add_rows(changes, run, line.session_id, index, draft, i, draft.keys[i])
        self._finish(draft, changes)
        if draft.runs:
            self.owners.nested[draft.session_id] = (line.session_id, draft.runs[0].run_id)
        return Merged(changes, is_nested_agent=True, tokens=_tokens(written))

    # Rows -------------------------------------------------------------------------------------------------------------

    def _append_runs(
        self, draft: Draft, line: StoredLine, first: int, changes: Changes, *, cut: InheritedMessages | None
    ) -> list[Run]:
        """Add rows for the runs of a draft from ``first`` on; of that, without the messages of ``cut``."""
        written = []
        for position, i in enumerate(range(first, len(draft.runs))):
            skipped = cut.count if cut is not None and i == first else 0
            run = _own_run(draft, line, i, skipped)
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
            run = _own_run(draft, line, i, skipped)
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


def _own_run(draft: Draft, line: StoredLine, i: int, skipped: int) -> Run:
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


def _tokens(runs: list[Run]) -> int:
    return sum(_message_tokens(run, len(run.messages)) for run in runs)


def _message_tokens(run: Run, n: int) -> int:
    usages = [message.usage for message in run.messages[:n] if message.usage] or ([run.usage] if run.usage else [])
    return sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in usages)
