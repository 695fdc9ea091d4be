"""Drafts to rows of a store, in one transaction. What is there already is left alone.

A record is known again by its session's id and its run's place and hash. What the analyst did in between stays: titles,
scores of other sources, branches, runs of her own. A session goes in whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import mapping
from kern_nb.db.blobs import Blob
from kern_nb.db.column_types import Json, Text
from kern_nb.db.store import SessionStore
from kern_nb.errors import UnstorableValue
from kern_nb.ingest.bundle_merge import Bundled, Known, known, restoring
from kern_nb.ingest.diff import Changes, Stored, changes_of
from kern_nb.ingest.importer import LONGEST_ID, Draft, Malformed
from kern_nb.ingest.report import IngestReport, Problem

# A batch is what is held in memory at once.
_BATCH_SESSIONS = 500
_BATCH_MESSAGES = 20_000
_SHOWN_ID = 80

Item = Draft | Bundled | Blob | Problem
"""What importers hand over: a session, foreign or of a bundle; a file that sessions name; what is wrong."""


def load(store: SessionStore, drafts: Iterable[Item]) -> IngestReport:
    """Store drafts in one transaction.

    Args:
        store: The store.
        drafts: The drafts, and problems to report; gone through again where another writer was in the way.

    Raises:
        ReadOnlyStore: the store was opened to be read.
    """
    try:
        return store.write(lambda connection: _Loading(connection, store).all(drafts))
    except UnstorableValue:
        # Look at each value before it is sent, and leave out the record that holds this one.
        return store.write(lambda connection: _Loading(connection, store, careful=True).all(drafts))


class _Loading:
    """Drafts on their way into the store, in one transaction."""

    def __init__(self, connection: Connection, store: SessionStore, *, careful: bool = False) -> None:
        self.connection = connection
        self.store = store
        self.careful = careful
        self.report = IngestReport()
        self.seen: dict[tuple[str, str], Callable[[], int]] = {}

    def all(self, drafts: Iterable[Item]) -> IngestReport:
        """Store what can be stored; the report."""
        for batch in self._batches(drafts):
            stored = self._stored([draft.session_id for draft in batch if isinstance(draft, Draft)])
            theirs = self._known([draft for draft in batch if isinstance(draft, Bundled)])
            changes = Changes()
            for draft in batch:
                amiss = ""
                try:
                    if isinstance(draft, Bundled):
                        found, amiss = restoring(draft, theirs)
                    else:
                        found = changes_of(draft, stored)
                    if self.careful:
                        self._check(found)
                except (Malformed, UnstorableValue) as error:
                    self._report(draft, f"is left out: {str(error).rstrip('.')}")
                else:
                    self.report.skipped += not found
                    changes.add(found)
                    if isinstance(draft, Bundled):
                        theirs.accept(draft)
                    if amiss:
                        self._report(draft, amiss)
            self._write(changes)
        return self.report

    def _known(self, drafts: list[Bundled]) -> Known:
        return known(self.connection, self.store, drafts) if drafts else Known()

    def _batches(self, drafts: Iterable[Item]) -> Iterator[list[Draft | Bundled]]:
        batch: dict[str, Draft | Bundled] = {}
        messages, kind = 0, None
        for draft in drafts:
            if isinstance(draft, Problem):
                self.report.errors.append(draft)
            elif isinstance(draft, Blob):
                self._keep(draft)
            elif self._is_first(draft):
                session_id = draft.session_id
                # The same session in a second file is compared with what the first one stored; a bundle's rows have
                # more columns.
                full = len(batch) >= _BATCH_SESSIONS or messages >= _BATCH_MESSAGES
                if full or session_id in batch or kind not in (None, type(draft)):
                    yield list(batch.values())
                    batch, messages = {}, 0
                batch[session_id], kind = draft, type(draft)
                messages += draft.weight
        if batch:
            yield list(batch.values())

    def _is_first(self, draft: Draft | Bundled) -> bool:
        key = (draft.file, draft.session_id)
        longest = mapping.MAX_ID_LENGTH if isinstance(draft, Bundled) else LONGEST_ID
        if len(draft.session_id) > longest:
            self._report(draft, f"is left out: its id is longer than {longest} characters")
        elif key in self.seen:
            self._report(draft, f"is left out: the file has a session of that id already, at line {self.seen[key]()}")
        else:
            self.seen[key] = draft.line
            return True
        return False

    def _report(self, draft: Draft | Bundled, what: str) -> None:
        name = draft.session_id
        shown = name if len(name) <= _SHOWN_ID else name[: _SHOWN_ID - 1] + "…"
        self.report.errors.append(Problem(draft.file, draft.line(), f"Session {shown!r} {what}."))

    def _keep(self, blob: Blob) -> None:
        self._insert_blob(blob.sha256, blob.media_type, blob.content)

    def _insert_blob(self, sha256: str, media_type: str | None, content: bytes) -> None:
        blob = {"sha256": sha256, "media_type": media_type, "size": len(content), "content": content}
        self.connection.execute(self.store.insert(self.store.tables.blobs).values(**blob).on_conflict_do_nothing())

    def _stored(self, ids: list[str]) -> Stored:
        s, r = self.store.tables.sessions, self.store.tables.runs
        query = self.store.locked(sa.select(s).where(s.c.session_id.in_(ids)))
        sessions = {row["session_id"]: row for row in self.connection.execute(query).mappings()}
        runs: dict[str, dict[int, RowMapping]] = {}
        if sessions:
            known = sa.select(r.c.session_id, r.c.run_index, r.c.run_id, r.c.source_hash)
            for row in self.connection.execute(known.where(r.c.session_id.in_(list(sessions)))).mappings():
                runs.setdefault(row["session_id"], {})[row["run_index"]] = row
        return Stored(sessions, runs)

    def _check(self, changes: Changes) -> None:
        """Look at every value before it is sent.

        Raises:
            UnstorableValue: one cannot be stored.
        """
        for name, made in changes.rows.items():
            for column in getattr(self.store.tables, name).c:
                if isinstance(column.type, (Text, Json)):  # `rows` has looked at the numbers
                    for row in made:
                        column.type.process_bind_param(row.get(column.name), self.connection.dialect)

    def _write(self, changes: Changes) -> None:
        connection, tables = self.connection, self.store.tables
        if changes.replaced:
            for table in (tables.tool_calls, tables.messages, tables.runs):
                connection.execute(table.delete().where(table.c.run_id.in_(changes.replaced)))
        if changes.renewed:
            q = tables.requirements
            connection.execute(q.delete().where(q.c.requirement_id.in_(changes.renewed)))
        for draft, row in changes.updated:
            session_id, s, scores = draft.session.session_id, tables.sessions, tables.scores
            connection.execute(s.update().where(s.c.session_id == session_id).values(**row))
            ours = (scores.c.session_id == session_id) & (scores.c.source == draft.source)
            connection.execute(scores.delete().where(ours))
        for session_id, row in changes.touched:
            s = tables.sessions
            connection.execute(s.update().where(s.c.session_id == session_id).values(**row))
        for key, content in changes.blobs.items():
            self._insert_blob(key, "application/json", content)
        for name, made in changes.rows.items():
            self.store.insert_rows(connection, getattr(tables, name), made)
        for name in ("sessions", "runs", "messages", "tool_calls"):
            setattr(self.report, name, getattr(self.report, name) + len(changes.rows[name]))
