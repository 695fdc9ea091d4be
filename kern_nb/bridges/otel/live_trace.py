"""A trace whose spans are still arriving: which runs its spans are, and whether these are complete.

A span is sent when it ends, children before their parents. Until the span of an agent is there, its model calls are a
run of their own, which is RUNNING; its nested agents are runs beside it. When the span arrives, they become one run
with members: a run keeps its id as long as it has a span that it had before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from kern_nb.ingest.importer import Draft, Membership, hash_record, run_id_for
from kern_nb.ingest.importers.otel import dialects
from kern_nb.ingest.importers.otel.messages import Thread
from kern_nb.ingest.importers.otel.spans import Event, Span
from kern_nb.ingest.importers.otel.trace import Trace
from kern_nb.records import Run, RunStatus

_TRACE_KEYS = ("trace_id", "file")  # of metadata; a session may have several traces
_MAX_NAMES = 1000


@dataclass(frozen=True)
class Position:
    """Where a run is stored: its session, and what it is a member of."""

    session_id: str
    membership: Membership | None


@dataclass
class Plan:
    """What is stored of a trace once its drafts are written.

    Attributes:
        runs: The runs, by their ids.
        run_of_span: The run of each span.
        drafts: The drafts to write.
        withdrawn: Stored runs that the drafts have otherwise.
    """

    runs: dict[str, Position] = field(default_factory=dict)
    run_of_span: dict[str, str] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    withdrawn: frozenset[str] = frozenset()


class LiveTrace:
    """The spans of a trace, and what is stored of it.

    Attributes:
        trace_id: Its id.
        spans: Its spans, by their ids.
        threads: What each of its sessions had said before it began.
        last_arrival: When the last span arrived; of the monotonic clock, like all times here.
        due: When it may be written again.
        has_changed: Whether there is something to write.
        is_abandoned: Whether no further spans are expected, although some are missing.
    """

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id
        self.spans: dict[str, Span] = {}
        self.threads: dict[str, Thread] = {}
        self.last_arrival = time.monotonic()
        self.due = 0.0
        self.has_changed = False
        self.is_abandoned = False
        self._events: list[tuple[str, Event]] = []
        self._is_relevant = False
        self._stored = Plan()

    @property
    def n_items(self) -> int:
        """The number of spans and events in memory."""
        return len(self.spans) + len(self._events)

    @property
    def may_be_stored(self) -> bool:
        """Whether it is one of an agent, or may be: a web server sends many that are not."""
        return self._is_relevant or bool(self._events)

    @property
    def has_waiting_events(self) -> bool:
        """Whether there are events whose span has not arrived."""
        return bool(self._events)

    @property
    def start_ns(self) -> int:
        """When it began, as far as is known."""
        return min((span.start_ns for span in self.spans.values() if span.start_ns), default=0)

    @property
    def session_ids(self) -> set[str]:
        """The sessions that have stored runs of it, which are no members."""
        return {position.session_id for position in self._stored.runs.values() if position.membership is None}

    def add(self, spans: Iterable[Span], events: Iterable[tuple[str, Event]] = ()) -> None:
        """Add spans, and events by the id of their span; what is there already changes nothing."""
        for span in spans:
            known = self.spans.get(span.span_id)
            if known is not None and (known.end is not None or span.end is None):
                continue
            self.spans[span.span_id] = span
            self._is_relevant = self._is_relevant or dialects.is_relevant(span)
            self.has_changed = True
        self._events += events
        for span_id, event in self._events:
            if (owner := self.spans.get(span_id)) and event not in owner.events:
                owner.events.append(event)
                self._is_relevant = self._is_relevant or dialects.is_relevant(owner)
                self.has_changed = True
        self._events = [(span_id, event) for span_id, event in self._events if span_id not in self.spans]
        self.has_changed = self.has_changed and self._is_relevant
        self.is_abandoned = self.is_abandoned and not self.has_changed
        self.last_arrival = time.monotonic()

    def is_complete(self) -> bool:
        """Whether the spans around each span have arrived; those of other processes may never do."""
        return all(s.parent_id is None or s.has_remote_parent or s.parent_id in self.spans for s in self.spans.values())

    def restore(self, plans: Iterable[Plan], find_run: Callable[[str], Run | None]) -> None:
        """Set what is stored of it, as far as the runs exist that another process wrote it as, or was about to."""
        for plan in plans:
            for run_id, position in plan.runs.items():
                run = find_run(run_id)
                if run is None or (run.parent_run_id is None) != (position.membership is None):
                    continue
                if run.parent_run_id is not None or run.session_id == position.session_id:
                    self._stored.runs[run_id] = position
            stored = {span: run_id for span, run_id in plan.run_of_span.items() if run_id in self._stored.runs}
            self._stored.run_of_span |= stored

    def has_new_runs(self, plan: Plan) -> bool:
        """Whether a plan has runs that are not stored there."""
        return plan.runs != self._stored.runs

    def stored_runs(self) -> frozenset[str]:
        """The ids of its stored runs."""
        return frozenset(self._stored.runs)

    def plan(self, drafts: Iterable[Draft], find_spans: Callable[[str], set[str] | None]) -> Plan:
        """Complete the drafts of this trace: the ids of their runs, and the status of those that are not complete.

        Args:
            drafts: The drafts, which are changed.
            find_spans: Returns the spans of a stored run that this trace has not written; None if there is no such run.
        """
        plan, trace = Plan(drafts=list(drafts)), Trace(self.spans.values())
        for draft in plan.drafts:
            if draft.membership is not None:
                parent_id = self._parent_run_id(draft, plan, trace)
                draft.membership = replace(draft.membership, run_id=parent_id)
            for i, run in enumerate(draft.runs):
                run.run_id = self._run_id(draft, i, plan, find_spans)
                plan.runs[run.run_id] = Position(draft.session_id, draft.membership)
                plan.run_of_span |= dict.fromkeys(draft.record_ids[i], run.run_id)
                if self._set_status(run, trace, draft.record_ids[i]):
                    draft.hashes[i] = hash_record(draft.hashes[i], run.status)
            metadata = draft.session.metadata or {}
            draft.session.metadata = {key: value for key, value in metadata.items() if key not in _TRACE_KEYS}
            draft.earlier = self.stored_runs()
        stored = self._stored.runs
        plan.withdrawn = frozenset(run_id for run_id, position in stored.items() if plan.runs.get(run_id) != position)
        if plan.drafts:
            plan.drafts[0].withdrawn = plan.withdrawn
        return plan

    def apply(self, plan: Plan) -> set[str]:
        """Note that a plan was written; return the sessions that have no runs of this trace any more."""
        before = self.session_ids
        self._stored = plan
        plan.drafts = []
        self.has_changed = False
        return before - self.session_ids

    def _run_id(self, draft: Draft, i: int, plan: Plan, find_spans: Callable[[str], set[str] | None]) -> str:
        records = draft.record_ids[i]
        earlier = dict.fromkeys(self._stored.run_of_span.get(record, "") for record in records)
        for name in earlier:
            if name not in plan.runs and self._is_at(name, draft):
                return name
        first = records[0] if records else ""
        names = [draft.runs[i].run_id, run_id_for(draft.session_id, f"{self.trace_id}/{first}")]
        names += [run_id_for(draft.session_id, f"{self.trace_id}/{first}/{n}") for n in range(_MAX_NAMES)]
        for name in names:
            if name in plan.runs or (name in self._stored.runs and name not in earlier):
                continue
            if name in earlier:
                return name
            # Another process, or this one before a restart, may have stored a run of the same trace.
            spans = find_spans(name)
            if spans is None or not spans.isdisjoint(records):
                return name
        return names[-1]

    def _parent_run_id(self, draft: Draft, plan: Plan, trace: Trace) -> str | None:
        """The run around a nested agent; None as long as it has no span around it."""
        first = self.spans.get(str(draft.runs[0].extra.get("span_id")))
        around = trace.ancestors(first) if first else ()
        return next((plan.run_of_span[span.span_id] for span in around if span.span_id in plan.run_of_span), None)

    def _is_at(self, run_id: str, draft: Draft) -> bool:
        """Whether a run is stored where the runs of a draft are: a member of another has another id."""
        position = self._stored.runs.get(run_id)
        if position is None or position.session_id != draft.session_id:
            return False
        return (position.membership is None) == (draft.membership is None)

    def _set_status(self, run: Run, trace: Trace, records: list[str]) -> bool:
        """Set the status of a run whose agent may go on; returns whether it is such a run."""
        if not records or run.extra.get("span_id") in self.spans:  # the span of its agent
            return False
        span = self.spans[records[0]]
        outermost = [span, *trace.ancestors(span)][-1]
        if outermost.parent_id is None or outermost.has_remote_parent:
            return False
        status: RunStatus = "RUNNING"
        if self.is_abandoned:
            last = run.messages[-1] if run.messages else None
            has_answer = last is not None and last.role == "assistant" and not last.tool_calls
            if run.status != "COMPLETED" or has_answer:
                return False
            status = "INTERRUPTED"
        run.status, run.error, run.finished_at, run.duration_s = status, None, None, None
        return True
