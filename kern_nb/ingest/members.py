"""Storing the runs of a nested agent as runs of the session of the run that started it."""

from __future__ import annotations

from kern_nb.db import mapping
from kern_nb.extra_keys import TOOL_CALL_ID
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import Draft, MalformedRecord
from kern_nb.ingest.matching import has_all
from kern_nb.ingest.origins import is_same_file
from kern_nb.ingest.owners import Owner
from kern_nb.ingest.run_rows import Merged, RowMerger, tokens
from kern_nb.ingest.stored_lines import StoredLine, StoredRun, common_messages
from kern_nb.records import Run


class MemberMerger(RowMerger):
    """Merges the drafts of nested agents."""

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
        return Merged(changes, is_nested_agent=True, tokens=tokens(written))
