"""Writing what importers yield to a store: a transaction a batch, without touching rows that are stored already.

The user's changes stay: titles, scores of other sources, branches, runs of their own. A session is stored completely or
not at all, so that a killed import leaves whole sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import blobs, mapping
from kern_nb.db.blobs import Blob
from kern_nb.db.column_types import Json, Text
from kern_nb.db.open_runs import update_session
from kern_nb.db.store import SessionStore
from kern_nb.errors import UnstorableValue
from kern_nb.ingest import missing_parents
from kern_nb.ingest.bundle_merge import BundledSession, ExistingRows, load_existing, merge_session
from kern_nb.ingest.changes import Changes
from kern_nb.ingest.importer import MAX_ID_LENGTH, Draft, ImportItem, MalformedRecord
from kern_nb.ingest.merge import DraftMerger
from kern_nb.ingest.new_sessions import ReadLines
from kern_nb.ingest.stored_lines import StoredLines
from kern_nb.ingest_report import IngestReport, Problem

# A batch bounds what is in memory at once.
_BATCH_SESSIONS = 500
_BATCH_MESSAGES = 20_000
_SHOWN_ID_LENGTH = 80


def write_drafts(store: SessionStore, items: Iterable[ImportItem]) -> IngestReport:
    """Write what importers yield, a batch after the other; each is a transaction."""
    report = IngestReport()
    read_lines = ReadLines()
    for batch in _batches(items):
        written, read_lines = _write_batch(store, batch, read_lines)
        report += written
    return report


def _write_batch(store: SessionStore, batch: list[ImportItem], read_lines: ReadLines) -> tuple[IngestReport, ReadLines]:
    def write(connection: Connection, *, check_values: bool) -> tuple[IngestReport, ReadLines]:
        writer = _BatchWriter(connection, store, read_lines.copy(), check_values=check_values)
        return writer.write(batch), writer.read_lines

    if all(isinstance(item, Problem) for item in batch):
        return IngestReport(errors=[item for item in batch if isinstance(item, Problem)]), read_lines
    try:
        return store.write(lambda connection: write(connection, check_values=False))
    except UnstorableValue:
        # Check each value before it is sent, and skip the record that contains the unstorable one.
        return store.write(lambda connection: write(connection, check_values=True))


def _batches(items: Iterable[ImportItem]) -> Iterator[list[ImportItem]]:
    batch: list[ImportItem] = []
    sessions = messages = 0
    kind: type[Draft | BundledSession] | None = None
    bundled: set[str] = set()
    for item in items:
        if isinstance(item, (Draft, BundledSession)):
            is_full = sessions >= _BATCH_SESSIONS or messages >= _BATCH_MESSAGES
            # Rows of a bundle have more columns; a session that repeats is compared with what was stored of it.
            if is_full or kind not in (None, type(item)) or item.session_id in bundled:
                yield batch
                batch, sessions, messages, bundled = [], 0, 0, set()
            sessions, messages, kind = sessions + 1, messages + item.weight, type(item)
            if isinstance(item, BundledSession):
                bundled.add(item.session_id)
        batch.append(item)
    if batch:
        yield batch


def _require_length(session_id: str, limit: int) -> None:
    if len(session_id) > limit:
        raise MalformedRecord(f"its id is longer than {limit} characters")


def _problem(draft: Draft | BundledSession, text: str) -> Problem:
    name = draft.session_id
    label = name if len(name) <= _SHOWN_ID_LENGTH else name[: _SHOWN_ID_LENGTH - 1] + "…"
    return Problem(draft.file, draft.line(), f"Session {label!r} {text}.")


class _BatchWriter:
    def __init__(
        self, connection: Connection, store: SessionStore, read_lines: ReadLines, *, check_values: bool
    ) -> None:
        self.connection = connection
        self.store = store
        self.check_values = check_values
        self.report = IngestReport()
        self.orphans: list[tuple[str, Problem]] = []
        self.read_lines = read_lines

    def write(self, batch: list[ImportItem]) -> IngestReport:
        self.store.lock_imports(self.connection)
        drafts = [item for item in batch if isinstance(item, Draft)]
        bundled = [item for item in batch if isinstance(item, BundledSession)]
        existing = load_existing(self.connection, self.store, bundled) if bundled else ExistingRows()
        merger = DraftMerger(StoredLines(self.connection, self.store), self._require_storable, self.read_lines)
        if drafts:
            merger.load(drafts)
        changes = Changes(replaced=[run_id for draft in drafts for run_id in draft.withdrawn])
        for item in batch:
            if isinstance(item, Problem):
                self.report.errors.append(item)
            elif isinstance(item, Blob):
                blobs.insert(self.connection, self.store, item)
            else:
                new = self._merge(item, merger, existing)
                if new is not None:
                    changes.add(new)
        self._write_changes(changes)
        names = [*(draft.session_id for draft in drafts), *(session.session_id for session in bundled)]
        linked = missing_parents.link(self.connection, self.store, names)
        self.report.errors += [problem for name, problem in self.orphans if name not in linked]
        return self.report

    def _merge(self, item: Draft | BundledSession, merger: DraftMerger, existing: ExistingRows) -> Changes | None:
        limit = mapping.MAX_ID_LENGTH if isinstance(item, BundledSession) else MAX_ID_LENGTH
        is_session = True  # a nested agent is none: its runs belong to a session
        try:
            _require_length(item.session_id, limit)
            if isinstance(item, BundledSession):
                changes = merge_session(item, existing)
                self._require_storable(changes)
                existing.add(item)
            else:
                merged = merger.merge(item)
                changes, is_session = merged.changes, not merged.is_nested_agent
                self.report.branches += merged.is_branch and bool(changes.rows["sessions"])
                self.report.tokens += merged.tokens
                self.report.repeated_tokens += merged.repeated_tokens
        except (MalformedRecord, UnstorableValue) as error:
            if isinstance(error, UnstorableValue) and not self.check_values:
                raise
            self.report.errors.append(_problem(item, f"is not imported: {str(error).rstrip('.')}"))
            return None
        self.report.skipped += is_session and not changes
        if changes.orphan:
            self.orphans.append((item.session_id, _problem(item, changes.orphan)))
        if changes.warning:
            self.report.errors.append(_problem(item, changes.warning))
        return changes

    def _require_storable(self, changes: Changes) -> None:
        """Raise UnstorableValue for the first value that cannot be stored; only after the batch could not be."""
        if not self.check_values:
            return
        for name, rows in changes.all_rows().items():
            for column in getattr(self.store.tables, name).c:
                if isinstance(column.type, (Text, Json)):  # numbers are checked when the rows are made
                    for row in rows:
                        column.type.process_bind_param(row.get(column.name), self.connection.dialect)

    def _write_changes(self, changes: Changes) -> None:
        connection, tables = self.connection, self.store.tables
        scores, requirements = tables.scores, tables.requirements
        if changes.replaced:
            for table in (tables.tool_calls, tables.messages, tables.runs):
                connection.execute(table.delete().where(table.c.run_id.in_(changes.replaced)))
        if changes.renewed:
            q, run_id = requirements.c, sa.bindparam("of_run", type_=requirements.c.run_id.type)
            is_renewed = (q.run_id == run_id) & (q.requirement_id == sa.bindparam("id", type_=q.requirement_id.type))
            keys = [{"of_run": run, "id": name} for run, name in changes.renewed]
            connection.execute(requirements.delete().where(is_renewed), keys)
        for session_id, row in changes.updated:
            update_session(connection, self.store, session_id, **row)
        for session_id, source in changes.rescored:
            connection.execute(scores.delete().where(scores.c.session_id == session_id, scores.c.source == source))
        if changes.requirements:
            run_ids, ids = zip(*changes.requirements, strict=True)
            of_runs = requirements.c.run_id.in_(set(run_ids)) & requirements.c.requirement_id.in_(ids)
            connection.execute(requirements.delete().where(of_runs))
        shared = [Blob(sha256, "application/json", content) for sha256, content in changes.blobs.items()]
        blobs.insert_all(connection, self.store, shared)
        if changes.replaced_scores:
            connection.execute(scores.delete().where(scores.c.score_id.in_(changes.replaced_scores)))
        rows = changes.all_rows()
        for name, new in rows.items():
            self.store.insert_rows(connection, getattr(tables, name), new)
        for name in ("sessions", "runs", "messages", "tool_calls"):
            setattr(self.report, name, getattr(self.report, name) + len(rows[name]))
