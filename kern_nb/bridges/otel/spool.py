"""`SpanSpool`: the spans of traces that grow, in tables beside the store's, until all of a trace is written as runs.

What `TraceRecorder.record` has returned for is here, so that nothing of it is lost if the process is killed: the next
recorder of the store takes over the spans of a process that is gone. The runs that a trace is about to be written as
are here, too: a run keeps its id when its trace goes on in another process.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched
from kern_nb.bridges.otel.live_trace import Plan, Position
from kern_nb.db import integrity
from kern_nb.db.column_types import Integer, Text
from kern_nb.db.memory import InMemoryDb
from kern_nb.db.process_identity import current_process
from kern_nb.db.sql_expressions import current_micros
from kern_nb.db.store import SessionStore
from kern_nb.ingest.importer import Membership
from kern_nb.ingest.importers.otel.spans import Event, Span

_SPANS, _RUNS = "spans", "runs"


class _Tables:
    """The tables of one workload.

    Attributes:
        recorders: The process of each recorder, and when it was last heard of.
        parts: What arrived of a trace at once (``spans``), or the runs that it is written as (``runs``).
    """

    def __init__(self, session_table: str, db_schema: str | None) -> None:
        metadata = sa.MetaData(schema=db_schema)
        self.recorders = sa.Table(
            f"{session_table}_otel_recorders",
            metadata,
            sa.Column("recorder_id", Text, primary_key=True, nullable=False),
            sa.Column("process", Text, nullable=False),
            sa.Column("heartbeat_at", Integer, nullable=False),
        )
        self.parts = sa.Table(
            f"{session_table}_otel_spans",
            metadata,
            sa.Column("recorder_id", Text, primary_key=True, nullable=False),
            sa.Column("position", Integer, primary_key=True, autoincrement=False, nullable=False),
            sa.Column("trace_id", Text, nullable=False),
            sa.Column("kind", Text, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )


@lru_cache(maxsize=32)
def _shared_tables(session_table: str, db_schema: str | None) -> _Tables:
    return _Tables(session_table, db_schema)


@dataclass
class Arrival:
    """Spans of a trace, and events by the id of their span, that arrived at once."""

    trace_id: str
    spans: list[Span] = field(default_factory=list)
    events: list[tuple[str, Event]] = field(default_factory=list)


@dataclass
class SpooledTrace:
    """What a process that is gone had of a trace.

    Attributes:
        arrivals: Its spans and events.
        plans: The runs that it was written as, or was about to be.
    """

    arrivals: list[Arrival] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)


class SpanSpool:
    """The spans of one recorder. A store in memory ends with the process, and has none."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._tables = _shared_tables(store.tables.name, store.tables.metadata.schema)
        self._id = uuid4().hex
        self._position = 0
        self._is_used = False
        self._is_durable = not isinstance(store, InMemoryDb)

    def add(self, arrivals: Iterable[Arrival], plans: Mapping[str, Plan]) -> None:
        """Store spans, and the runs that traces are about to be written as; raises KernError."""
        parts = [(arrival.trace_id, _SPANS, _encode_arrival(arrival)) for arrival in arrivals]
        parts += [(trace_id, _RUNS, _encode_plan(plan)) for trace_id, plan in plans.items()]
        if not parts or not self._is_durable:
            return
        rows = [
            {"recorder_id": self._id, "position": position, "trace_id": trace_id, "kind": kind, "content": content}
            for position, (trace_id, kind, content) in enumerate(parts, self._position)
        ]
        self._create()

        def insert(connection: Connection) -> None:
            self._touch(connection)
            connection.execute(self._tables.parts.insert(), rows)

        self._store.write(insert)
        self._position += len(rows)

    def remove(self, trace_ids: Collection[str]) -> None:
        """Forget traces that are written completely; raises KernError."""
        if not trace_ids or not self._is_used:
            return
        p = self._tables.parts

        def delete(connection: Connection) -> None:
            for batch in batched(trace_ids):
                connection.execute(p.delete().where(p.c.recorder_id == self._id, p.c.trace_id.in_(batch)))

        self._store.write(delete)

    def close(self) -> None:
        """Forget all traces, which are written completely; raises KernError."""
        if self._is_used:
            self._store.write(lambda connection: self._delete(connection, [self._id]))
            self._is_used = False

    def beat(self) -> None:
        """Say that this process is alive, to those that cannot see it; raises KernError."""
        if self._is_used:
            self._store.write(self._touch)

    def adopt(self) -> dict[str, SpooledTrace]:
        """Take over the traces of recorders whose process is gone; raises KernError."""
        if not self._is_durable or not self._exists():
            return {}
        with self._store.read_connection() as connection:
            if not self._find_gone(connection, is_locking=False):
                return {}
        self._create()

        def move(connection: Connection) -> list[Any]:
            self._touch(connection)
            gone = self._find_gone(connection, is_locking=True)
            p = self._tables.parts
            query = sa.select(p).where(p.c.recorder_id.in_(gone)).order_by(p.c.recorder_id, p.c.position)
            rows = [dict(row) for row in connection.execute(query).mappings()]
            self._delete(connection, gone)
            moved = [
                row | {"recorder_id": self._id, "position": position}
                for position, row in enumerate(rows, self._position)
            ]
            if moved:
                connection.execute(p.insert(), moved)
            return moved

        rows = self._store.write(move)
        self._position += len(rows)
        traces: dict[str, SpooledTrace] = {}
        for row in rows:
            trace = traces.setdefault(row["trace_id"], SpooledTrace())
            if row["kind"] == _SPANS:
                trace.arrivals.append(_decode_arrival(row["trace_id"], row["content"]))
            else:
                trace.plans.append(_decode_plan(row["content"]))
        return traces

    def _exists(self) -> bool:
        if not self._store.exists():
            return False
        table = self._tables.parts
        with self._store.read_connection() as connection:
            return sa.inspect(connection).has_table(table.name, schema=table.schema)

    def _create(self) -> None:
        if self._is_used:
            return

        def create(connection: Connection) -> None:
            self._store.lock_imports(connection)  # of two processes that create a table at once, PostgreSQL refuses one
            for table in (self._tables.recorders, self._tables.parts):
                table.create(connection, checkfirst=True)

        self._store.write(create)
        self._is_used = True

    def _touch(self, connection: Connection) -> None:
        """Say that this process is alive; another may have taken it for gone when it had no traces."""
        r = self._tables.recorders
        update = r.update().where(r.c.recorder_id == self._id).values(heartbeat_at=current_micros())
        if connection.execute(update.returning(r.c.recorder_id)).first() is None:
            row = {"recorder_id": self._id, "process": current_process(), "heartbeat_at": current_micros()}
            connection.execute(r.insert().values(row))

    def _find_gone(self, connection: Connection, *, is_locking: bool) -> list[str]:
        r = self._tables.recorders
        silence = (current_micros() - r.c.heartbeat_at).label("silence")
        query = sa.select(r.c.recorder_id, r.c.process, silence).where(r.c.recorder_id != self._id)
        rows = connection.execute(self._store.locked(query) if is_locking else query).all()
        return [row.recorder_id for row in rows if integrity.process_state(row.process, "", row.silence)[0] == "gone"]

    def _delete(self, connection: Connection, recorder_ids: Collection[str]) -> None:
        for table in (self._tables.parts, self._tables.recorders):
            connection.execute(table.delete().where(table.c.recorder_id.in_(recorder_ids)))


def _encode(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, default=_to_json).encode(), 1)


def _to_json(value: Any) -> Any:
    return {"$time": value.isoformat()} if isinstance(value, datetime) else str(value)


def _decode(content: bytes) -> Any:
    return json.loads(zlib.decompress(content), object_hook=_from_json)


def _from_json(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value["$time"]) if value.keys() == {"$time"} else value


def _encode_arrival(arrival: Arrival) -> bytes:
    spans = [asdict(span) for span in arrival.spans]
    return _encode([spans, [(span_id, asdict(event)) for span_id, event in arrival.events]])


def _decode_arrival(trace_id: str, content: bytes) -> Arrival:
    spans, events = _decode(content)
    return Arrival(
        trace_id,
        [Span(**span | {"events": [Event(**event) for event in span["events"]]}) for span in spans],
        [(span_id, Event(**event)) for span_id, event in events],
    )


def _encode_plan(plan: Plan) -> bytes:
    return _encode([{run_id: asdict(position) for run_id, position in plan.runs.items()}, plan.run_of_span])


def _decode_plan(content: bytes) -> Plan:
    runs, run_of_span = _decode(content)
    return Plan(dict(_positions(runs)), run_of_span)


def _positions(runs: dict[str, Any]) -> Iterator[tuple[str, Position]]:
    for run_id, position in runs.items():
        stated = position["membership"]
        yield run_id, Position(position["session_id"], Membership(**stated) if stated else None)
