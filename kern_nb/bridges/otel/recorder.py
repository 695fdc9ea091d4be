"""`TraceRecorder`: spans in, rows out. It keeps each trace until it has ended, and writes what is known of it.

What it has taken is stored: as runs, or in the `spool`, from which the next recorder of the store takes it over if this
process is killed. Runs are written at once, unless writing the trace took long the last time: then after nine times as
long, so that growing traces cost at most a tenth of the time; a trace that ends is always written at once. A thread
writes what is due, and abandons traces that wait for spans in vain.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from kern_nb.bridges.otel.histories import Histories
from kern_nb.bridges.otel.live_trace import LiveTrace, Plan
from kern_nb.bridges.otel.spool import Arrival, SpanSpool
from kern_nb.db import heartbeats
from kern_nb.db.store import SessionStore
from kern_nb.errors import HasBranches, KernError, RunNotFound, SessionNotFound
from kern_nb.ingest.importer import RECORD_ERRORS, Draft
from kern_nb.ingest.importers.otel import read_sessions
from kern_nb.ingest.importers.otel.messages import Thread
from kern_nb.ingest.importers.otel.spans import Event, Span
from kern_nb.ingest.importers.otel.trace import Trace
from kern_nb.ingest.writer import write_drafts
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run

_log = logging.getLogger("kern_nb.otel")

_GRACE_S = 60.0  # a complete trace may still get log records, or spans of another process
_WAIT_FACTOR = 9
_RETRY_S = 5.0
_CHECK_S = 1.0
_ADOPT_S = 60.0
_MAX_ITEMS = 200_000


@dataclass
class Rejection:
    """A trace that could not be stored as it is.

    Attributes:
        trace_id: The trace.
        reason: What is wrong with it.
    """

    trace_id: str
    reason: str


@dataclass
class _Batch:
    """Traces that are written in one transaction, and the sessions that this changes."""

    plans: list[tuple[LiveTrace, Plan]] = field(default_factory=list)
    session_ids: set[str] = field(default_factory=set)


class TraceRecorder:
    """Records the spans of growing traces in a store. Its methods may be called by several threads.

    Args:
        store: The store.
        idle_timeout_s: How long a trace waits for its missing spans, before its open runs are INTERRUPTED.
    """

    def __init__(self, store: SessionStore, idle_timeout_s: float = 600) -> None:
        self.store = store
        self._idle_timeout_s = idle_timeout_s
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._traces: dict[str, LiveTrace] = {}
        self._spool = SpanSpool(store)
        self._histories = Histories(store)
        self._arrivals: list[Arrival] = []  # not in the spool yet: of traces without an agent so far, too
        self._next_adoption = self._next_beat = 0.0
        self._thread: threading.Thread | None = None
        self._is_closed = False
        _recorders.add(self)
        try:
            self._adopt()
        except KernError as error:
            _log.warning("Spans that another process left are not written yet: %s", error)

    def record(self, spans: Iterable[Span], events: Iterable[tuple[str, str, Event]] = ()) -> list[Rejection]:
        """Add spans, and events with the ids of their trace and span; write the traces that are due.

        What it returns for is stored, whatever becomes of this process. If the store cannot be written, the spans are
        kept and written with the next ones.

        Returns:
            The traces of which something is not stored, and why.

        Raises:
            KernError: The store cannot be written.
        """
        by_trace: dict[str, Arrival] = {}
        for span in spans:
            by_trace.setdefault(span.trace_id, Arrival(span.trace_id)).spans.append(span)
        for trace_id, span_id, event in events:
            by_trace.setdefault(trace_id, Arrival(trace_id)).events.append((span_id, event))
        with self._lock:
            for trace_id, arrival in by_trace.items():
                self._arrivals.append(arrival)
                self._traces.setdefault(trace_id, LiveTrace(trace_id)).add(arrival.spans, arrival.events)
            self._drop_oldest()
            self._start_thread()
            now = time.monotonic()
            changed = [self._traces[name] for name in by_trace if name in self._traces]
            changed = [trace for trace in changed if trace.has_changed]
            try:
                return self._write([trace for trace in changed if trace.due <= now or trace.is_complete()])
            finally:
                self._wake.notify_all()

    def flush(self) -> list[Rejection]:
        """Write what is known of all traces; raises as `record` does."""
        with self._lock:
            rejections: list[Rejection] = []
            while changed := [trace for trace in self._traces.values() if trace.has_changed]:
                rejections += self._write(changed)
            self._store_arrivals(_Batch())
            return rejections

    def close(self) -> list[Rejection]:
        """Write what is known of all traces; runs that have not ended are INTERRUPTED. Raises as `record` does."""
        with self._lock:
            if self._is_closed:
                return []
            self._is_closed = True
            self._wake.notify_all()
            for trace in self._traces.values():
                self._abandon(trace)
            rejections = self.flush()
            self._spool.close()
            self._traces.clear()
            return rejections

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    # Writing ----------------------------------------------------------------------------------------------------------

    def _write(self, traces: list[LiveTrace]) -> list[Rejection]:
        batch, rejections = _Batch(), list[Rejection]()
        start = time.monotonic()
        try:
            for trace in sorted(traces, key=lambda trace: trace.start_ns):
                try:
                    plan, problems = self._read(trace, batch, rejections)
                except KernError:
                    raise
                except (
                    *RECORD_ERRORS,
                    LookupError,
                ) as error:  # the other traces are stored
                    _log.debug("Trace %s cannot be read.", trace.trace_id, exc_info=True)
                    trace.has_changed = False
                    rejections.append(Rejection(trace.trace_id, f"{type(error).__name__}: {error}"))
                    continue
                rejections += problems
                batch.plans.append((trace, plan))
                batch.session_ids |= {draft.session_id for draft in plan.drafts}
            self._write_batch(batch, rejections)
        except KernError:  # of the traces that are written anyway, the spans are in the spool
            for trace in traces:
                trace.due = time.monotonic() + _RETRY_S
            raise
        duration = time.monotonic() - start
        for trace in traces:
            trace.due = time.monotonic() + duration * _WAIT_FACTOR
        return rejections

    def _read(self, trace: LiveTrace, batch: _Batch, rejections: list[Rejection]) -> tuple[Plan, list[Rejection]]:
        def thread_of(session_id: str) -> Thread:
            if session_id not in trace.threads:
                if session_id in batch.session_ids:  # by another trace, which comes before this one
                    self._write_batch(batch, rejections)
                trace.threads[session_id] = self._load_thread(session_id, trace)
            return trace.threads[session_id].copy()

        items = list(read_sessions(trace.trace_id, [Trace(trace.spans.values())], thread_of))
        problems = [Rejection(item.file, item.reason) for item in items if isinstance(item, Problem)]
        return trace.plan((item for item in items if isinstance(item, Draft)), self._find_spans), problems

    def _write_batch(self, batch: _Batch, rejections: list[Rejection]) -> None:
        self._store_arrivals(batch)
        drafts = [draft for _, plan in batch.plans for draft in plan.drafts]
        if drafts:
            report = write_drafts(self.store, drafts)
            rejections += [Rejection(problem.file, problem.reason) for problem in report.errors]
        for run in (run for draft in drafts for run in draft.runs if run.status == "RUNNING"):
            heartbeats.add(self.store, run.run_id)
        empty = {session_id for trace, plan in batch.plans for session_id in trace.apply(plan)}
        for session_id in empty:
            self._delete_empty(session_id)
        for trace, _ in batch.plans:
            self._read_again(trace)
        batch.plans, batch.session_ids = [], set()

    def _store_arrivals(self, batch: _Batch) -> None:
        """Store what has arrived, and which runs it is about to be written as."""
        plans = {trace.trace_id: plan for trace, plan in batch.plans if trace.has_new_runs(plan)}
        may_be_stored = {name for name, trace in self._traces.items() if trace.may_be_stored}
        self._spool.add([arrival for arrival in self._arrivals if arrival.trace_id in may_be_stored], plans)
        self._arrivals = [arrival for arrival in self._arrivals if arrival.trace_id not in may_be_stored]

    def _adopt(self) -> None:
        """Take over the traces of processes that are gone; they are written by the thread."""
        self._next_adoption = time.monotonic() + _ADOPT_S
        for trace_id, spooled in self._spool.adopt().items():
            trace = self._traces.setdefault(trace_id, LiveTrace(trace_id))
            for arrival in spooled.arrivals:
                trace.add(arrival.spans, arrival.events)
            trace.restore(spooled.plans, self._find_run)
        if self._traces:
            self._start_thread()

    def _read_again(self, trace: LiveTrace) -> None:
        """Mark the traces that may continue what this one has said."""
        session_ids = trace.session_ids
        for other in self._traces.values():
            if other is not trace and other.start_ns > trace.start_ns and not session_ids.isdisjoint(other.threads):
                for session_id in session_ids:
                    other.threads.pop(session_id, None)
                other.has_changed = True

    def _delete_empty(self, session_id: str) -> None:
        """Delete the session of a trace whose spans turned out to belong to another one."""
        try:
            if not self.store.session_runs(session_id, limit=1):
                self.store.delete_session(session_id, progress=False)
        except (SessionNotFound, HasBranches):
            pass

    def _load_thread(self, session_id: str, trace: LiveTrace) -> Thread:
        """What a session had said before a trace: its model calls repeat it."""
        start = trace.start_ns
        later = [other.stored_runs() for other in self._traces.values() if other is trace or other.start_ns > start]
        return self._histories.load(session_id, start, frozenset[str]().union(*later))

    def _find_run(self, run_id: str) -> Run | None:
        try:
            return self.store.get_run(run_id)
        except RunNotFound:
            return None

    def _find_spans(self, run_id: str) -> set[str] | None:
        run = self._find_run(run_id)
        if run is None:
            return None
        items: list[Run | Message] = [run, *run.messages]
        return {str(item.extra["span_id"]) for item in items if "span_id" in item.extra}

    # The thread -------------------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if not self._is_closed and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=_watch, args=(weakref.ref(self),), name="kern-otel", daemon=True)
            self._thread.start()

    def watch(self) -> bool:
        """Wait for a moment, then write and drop what is due; returns whether to go on."""
        with self._lock:
            if self._is_closed or not self._traces:
                self._thread = None
                return False
            now = time.monotonic()
            next_due = min((t.due for t in self._traces.values() if t.has_changed), default=now + _CHECK_S)
            self._wake.wait(min(max(next_due - now, 0.001), _CHECK_S, self._idle_timeout_s))
            if self._is_closed:
                return False
            now = time.monotonic()
            for trace in self._traces.values():
                if now - trace.last_arrival > self._idle_timeout_s:
                    self._abandon(trace)
            try:
                self._forget([trace for trace in self._traces.values() if self._is_over(trace, now)])
                if now >= self._next_beat:
                    self._next_beat = now + heartbeats.INTERVAL_S
                    self._spool.beat()
                if now >= self._next_adoption:
                    self._adopt()
                rejections = self._write([t for t in self._traces.values() if t.has_changed and t.due <= now])
                for rejection in rejections:
                    _log.warning("Trace %s is not stored completely: %s", rejection.trace_id, rejection.reason)
            except KernError as error:
                _log.warning("Runs are not written yet: %s Their spans are kept, and written later.", error)
            return True

    def _is_over(self, trace: LiveTrace, now: float) -> bool:
        """Whether a trace is written, and nothing more of it is expected."""
        idle = now - trace.last_arrival
        if trace.has_changed or idle <= _GRACE_S:
            return False
        return idle > self._idle_timeout_s or (trace.is_complete() and not trace.has_waiting_events)

    def _forget(self, traces: Collection[LiveTrace]) -> None:
        self._spool.remove([trace.trace_id for trace in traces])
        for trace in traces:
            del self._traces[trace.trace_id]
        if traces:
            self._arrivals = [arrival for arrival in self._arrivals if arrival.trace_id in self._traces]

    @staticmethod
    def _abandon(trace: LiveTrace) -> None:
        if not trace.is_abandoned and trace.spans and not trace.is_complete():
            trace.is_abandoned = trace.has_changed = True

    def _drop_oldest(self) -> None:
        """Bound the memory: write the traces that were silent for longest as they are, and forget them."""
        total = sum(trace.n_items for trace in self._traces.values())
        for trace in sorted(self._traces.values(), key=lambda trace: trace.last_arrival):
            if total <= _MAX_ITEMS or len(self._traces) == 1:
                return
            if trace.has_changed:
                _log.warning("Trace %s is not expected to go on: too many spans are waiting.", trace.trace_id)
            self._abandon(trace)
            if trace.has_changed:
                self._write([trace])
            total -= trace.n_items
            self._forget([trace])

    def forget(self) -> None:
        """In a forked child: the traces are the parent's."""
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._traces, self._thread = {}, None
        self._spool, self._arrivals = SpanSpool(self.store), []


_recorders: weakref.WeakSet[TraceRecorder] = weakref.WeakSet()


def _forget_all() -> None:
    for recorder in list(_recorders):
        recorder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _watch(reference: weakref.ref[TraceRecorder]) -> None:
    while (recorder := reference()) is not None and recorder.watch():
        del recorder
