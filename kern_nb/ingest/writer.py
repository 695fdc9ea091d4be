"""Writing drafts to a store, in one transaction, without touching rows that are stored already.

A record is identified by the id of its session and the index and hash of its run. The user's changes stay: titles,
scores of other sources, branches, runs of their own. A session is stored completely or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import blobs, mapping
from kern_nb.db.blobs import Blob
from kern_nb.db.column_types import Json, Text
from kern_nb.db.store import SessionStore
from kern_nb.errors import UnstorableValue
from kern_nb.ingest.bundle_merge import BundledSession, ExistingRows, load_existing, merge_session
from kern_nb.ingest.diff import Changes, diff_session
from kern_nb.ingest.importer import MAX_ID_LENGTH, Draft, ImportItem, MalformedRecord
from kern_nb.ingest.report import IngestReport, Problem

# A batch bounds what is in memory at once.
_BATCH_SESSIONS = 500
_BATCH_MESSAGES = 20_000
_SHOWN_ID_LENGTH = 80


def write_drafts(store: SessionStore, read: Callable[[], Iterable[ImportItem]]) -> IngestReport:
    """Write drafts in one transaction, which calls ``read`` again if it is retried."""
    try:
        return store.write(lambda connection: _Writer(connection, store).write(read()))
    except UnstorableValue:
        # Check each value before it is sent, and skip the record that contains the unstorable one.
        return store.write(lambda connection: _Writer(connection, store, check_values=True).write(read()))


class _Writer:
    def __init__(self, connection: Connection, store: SessionStore, *, check_values: bool = False) -> None:
        self.connection = connection
        self.store = store
        self.check_values = check_values
        self.report = IngestReport()
        self.lines: dict[tuple[str, str], Callable[[], int]] = {}

    def write(self, drafts: Iterable[ImportItem]) -> IngestReport:
        for batch in self._batches(drafts):
            sessions, runs = self._load_sessions([draft.session_id for draft in batch if isinstance(draft, Draft)])
            bundled = [draft for draft in batch if isinstance(draft, BundledSession)]
            existing = load_existing(self.connection, self.store, bundled) if bundled else ExistingRows()
            changes = Changes()
            for draft in batch:
                try:
                    if isinstance(draft, BundledSession):
                        new = merge_session(draft, existing)
                    else:
                        session_id = draft.session_id
                        new = diff_session(draft, sessions.get(session_id), runs.get(session_id, {}))
                    if self.check_values:
                        self._require_storable(new)
                except (MalformedRecord, UnstorableValue) as error:
                    self._report(draft, f"is not imported: {str(error).rstrip('.')}")
                else:
                    self.report.skipped += not new
                    changes.add(new)
                    if isinstance(draft, BundledSession):
                        existing.add(draft)
                    if new.warning:
                        self._report(draft, new.warning)
            self._write_changes(changes)
        return self.report

    def _batches(self, drafts: Iterable[ImportItem]) -> Iterator[list[Draft | BundledSession]]:
        batch: dict[str, Draft | BundledSession] = {}
        messages, kind = 0, None
        for draft in drafts:
            if isinstance(draft, Problem):
                self.report.errors.append(draft)
            elif isinstance(draft, Blob):
                blobs.insert(self.connection, self.store, draft)
            elif self._is_acceptable(draft):
                session_id = draft.session_id
                # The same session in a second file is compared with what the first one stored. Rows of a bundle have
                # more columns.
                is_full = len(batch) >= _BATCH_SESSIONS or messages >= _BATCH_MESSAGES
                if is_full or session_id in batch or kind not in (None, type(draft)):
                    yield list(batch.values())
                    batch, messages = {}, 0
                batch[session_id], kind = draft, type(draft)
                messages += draft.weight
        if batch:
            yield list(batch.values())

    def _is_acceptable(self, draft: Draft | BundledSession) -> bool:
        """Report a session whose id is too long, or repeated in its file."""
        key = (draft.file, draft.session_id)
        limit = mapping.MAX_ID_LENGTH if isinstance(draft, BundledSession) else MAX_ID_LENGTH
        if len(draft.session_id) > limit:
            self._report(draft, f"is not imported: its id is longer than {limit} characters")
        elif key in self.lines:
            self._report(draft, f"is not imported: line {self.lines[key]()} of the file has a session with this id")
        else:
            self.lines[key] = draft.line
            return True
        return False

    def _report(self, draft: Draft | BundledSession, text: str) -> None:
        name = draft.session_id
        label = name if len(name) <= _SHOWN_ID_LENGTH else name[: _SHOWN_ID_LENGTH - 1] + "…"
        self.report.errors.append(Problem(draft.file, draft.line(), f"Session {label!r} {text}."))

    def _load_sessions(self, ids: list[str]) -> tuple[dict[str, RowMapping], dict[str, dict[int, RowMapping]]]:
        """Return the stored sessions by id, and their runs by session and index."""
        s, r = self.store.tables.sessions, self.store.tables.runs
        query = self.store.locked(sa.select(s).where(s.c.session_id.in_(ids)))
        sessions = {row["session_id"]: row for row in self.connection.execute(query).mappings()}
        runs: dict[str, dict[int, RowMapping]] = {}
        if sessions:
            columns = sa.select(r.c.session_id, r.c.run_index, r.c.run_id, r.c.source_hash)
            for row in self.connection.execute(columns.where(r.c.session_id.in_(list(sessions)))).mappings():
                runs.setdefault(row["session_id"], {})[row["run_index"]] = row
        return sessions, runs

    def _require_storable(self, changes: Changes) -> None:
        """Raise UnstorableValue for the first value that cannot be stored."""
        for name, rows in changes.rows.items():
            for column in getattr(self.store.tables, name).c:
                if isinstance(column.type, (Text, Json)):  # numbers are checked when the rows are made
                    for row in rows:
                        column.type.process_bind_param(row.get(column.name), self.connection.dialect)

    def _write_changes(self, changes: Changes) -> None:
        connection, tables = self.connection, self.store.tables
        s, scores, requirements = tables.sessions, tables.scores, tables.requirements
        if changes.replaced:
            for table in (tables.tool_calls, tables.messages, tables.runs):
                connection.execute(table.delete().where(table.c.run_id.in_(changes.replaced)))
        if changes.renewed:
            connection.execute(requirements.delete().where(requirements.c.requirement_id.in_(changes.renewed)))
        for session_id, row in changes.updated:
            connection.execute(s.update().where(s.c.session_id == session_id).values(**row))
        for session_id, source in changes.rescored:
            connection.execute(scores.delete().where(scores.c.session_id == session_id, scores.c.source == source))
        for sha256, content in changes.blobs.items():
            blobs.insert(connection, self.store, Blob(sha256, "application/json", content))
        for name, rows in changes.rows.items():
            self.store.insert_rows(connection, getattr(tables, name), rows)
        for name in ("sessions", "runs", "messages", "tool_calls"):
            setattr(self.report, name, getattr(self.report, name) + len(changes.rows[name]))
