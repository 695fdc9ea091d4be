"""`Histories`: what the sessions that traces continue had said before. A run is read once, not with every trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched
from kern_nb.db import reads
from kern_nb.db.lineage import Lineage, load_lineage
from kern_nb.db.store import SessionStore
from kern_nb.ingest.importers.otel.messages import Piece, Thread, parse_messages
from kern_nb.records import Message

_MAX_SESSIONS = 64

_State = tuple[Any, ...]
"""What differs after a run was written again."""


class Histories:
    """The runs of sessions, as far as messages are compared with them."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._sessions: OrderedDict[str, dict[str, tuple[_State, list[Piece]]]] = OrderedDict()

    def load(self, session_id: str, start_ns: int, excluded: Collection[str]) -> Thread:
        """What a session had said before a time, without the messages of some runs; raises KernError."""
        thread = Thread()
        if not self._store.exists():
            return thread
        tables = self._store.tables
        with self._store.read_connection() as connection:
            session = reads.session_row(connection, tables, session_id)
            if session is None:
                self._sessions.pop(session_id, None)
                return thread
            lineage = load_lineage(connection, tables, session)
            states = self._states(connection, lineage, start_ns, excluded)
            known = self._sessions.get(session_id, {})
            current = {
                run_id: known[run_id] for run_id, state in states.items() if known.get(run_id, ("",))[0] == state
            }
            missing = [run_id for run_id in states if run_id not in current]
            for run_id, pieces in self._read(connection, lineage, missing).items():
                current[run_id] = states[run_id], pieces
        thread.remember([piece for run_id in states if run_id in current for piece in current[run_id][1]])
        self._sessions[session_id] = known | current
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return thread

    def _states(
        self, connection: Connection, lineage: Lineage, start_ns: int, excluded: Collection[str]
    ) -> dict[str, _State]:
        """The runs that are no members and began before a time, in order."""
        r = self._store.tables.runs
        columns = (r.c.run_id, r.c.created_at, r.c.status, r.c.source_hash, r.c.finished_at)
        query = sa.select(*columns).where(lineage.runs(r), r.c.parent_run_id.is_(None)).order_by(r.c.run_index)
        rows = connection.execute(query).all()
        return {
            row.run_id: tuple(row[2:])
            for row in rows
            if row.run_id not in excluded and (row.created_at is None or row.created_at * 1000 < start_ns)
        }

    def _read(self, connection: Connection, lineage: Lineage, run_ids: list[str]) -> dict[str, list[Piece]]:
        tables = self._store.tables
        pieces: dict[str, list[Piece]] = {}
        for batch in batched(run_ids):
            query = sa.select(tables.runs).where(lineage.runs(tables.runs), tables.runs.c.run_id.in_(batch))
            rows = connection.execute(query.order_by(tables.runs.c.run_index)).mappings().all()
            for run in reads.load_runs(connection, tables, lineage, rows):
                parsed = parse_messages(_to_record(message) for message in run.messages)
                pieces[run.run_id] = [Piece(piece.role, piece.kind, None, None, piece.key) for piece in parsed]
        return pieces


def _to_record(message: Message) -> dict[str, object]:
    """A stored message, as the importer reads messages."""
    calls = [{"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args} for call in message.tool_calls]
    record = {"role": message.role, "content": message.content, "tool_calls": calls}
    return record | {"tool_call_id": message.tool_call_id, "name": message.tool_name}
