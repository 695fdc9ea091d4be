"""OpenTelemetry spans of agents: OTLP/JSON as lines or as a document, and exports of Logfire, Langfuse and Phoenix.

Three conventions are read: OpenTelemetry's for GenAI (those of pydantic-ai in its versions, too), OpenInference, and
OpenLLMetry's older attributes (`dialects`). A session is a conversation or session id, else a trace; a run is the
topmost span of an agent, else a prompt with what answers it; nested agents are member runs (`runs`). Each model
call repeats the conversation so far: only what is new in it is a message (`messages`).

The time of an answer is the end of its model call, that of a result the end of its tool, that of a prompt the start of
the call that sends it; messages from before the recording have none. Usage is that of the model calls, never of the
spans around them. If the instrumentation did not record the content, messages have usage and times only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.archives import DAMAGE, open_content, plain_name
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, Membership, error_text, hash_record, run_id_for
from kern_nb.ingest.importers.otel import dialects
from kern_nb.ingest.importers.otel.drafts import NAME, build_draft
from kern_nb.ingest.importers.otel.exports import is_span_record, parse_spans
from kern_nb.ingest.importers.otel.messages import Thread
from kern_nb.ingest.importers.otel.runs import Unit, read_units
from kern_nb.ingest.importers.otel.spans import Event, Span, parse_logs
from kern_nb.ingest.importers.otel.trace import Trace
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

_OTHER_SIGNALS = frozenset({"resourceLogs", "resource_logs", "resourceMetrics", "resource_metrics"})
_SUFFIXES = (".json", ".jsonl")
_OPENING_BYTES = 200
_BLOCK_BYTES = 1_000_000
_MAX_JOINED_BYTES = 1_000_000_000
_TRACE_ID = re.compile(rb'"trace_?[iI]d"\s*:\s*"([^"\\]+)"')
_OTLP = re.compile(rb'"(resource_?[sS]pans|batches|scope_?[sS]pans)"')


class Otel(Importer):
    """OpenTelemetry spans of agents."""

    name = NAME
    reads = "OpenTelemetry spans of agents and models"

    def recognizes(self, source: Source) -> bool:
        """Spans, at least one of them of an agent, a model call or a tool."""
        if not any(is_span_record(value) or _is_other_signal(value) for value in source.head):
            return False
        values = (item for item in source.values() if not isinstance(item, Problem))
        spans = (span for item in values for span in parse_spans(item.value, item.line))
        return any(isinstance(span, Span) and dialects.is_relevant(span) for span in spans)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per conversation and per nested agent, in the order in which they begin."""
        traces: dict[str, dict[str, Span]] = {}
        events: list[tuple[str, str, Event]] = []
        others = [source.sibling(path) for path in self.companions(source)]
        for part in (source, *others):
            for item in _read_spans(part, events):
                if isinstance(item, Problem):
                    yield item
                    continue
                spans = traces.setdefault(item.trace_id, {})
                if item.end is not None or item.span_id not in spans:  # a later copy is the complete one
                    spans[item.span_id] = item
        for trace_id, span_id, event in events:
            if span := traces.get(trace_id, {}).get(span_id):
                span.events.append(event)
        yield from read_sessions(source.name, [Trace(spans.values()) for spans in traces.values()])

    def companions(self, source: Source) -> Iterable[Path]:
        """The other files of the folder with spans of the same traces: a collector begins new files at any time."""
        shared, joined = set(_trace_ids(source.original)), list[Path]()
        if not shared:
            return ()
        siblings = sorted(path for path in source.original.parent.iterdir() if path != source.original)
        siblings = [path for path in siblings if plain_name(path.name).endswith(_SUFFIXES)]
        ids = {path: own_ids for path in siblings if (own_ids := _trace_ids(path))}
        while more := [path for path, own in ids.items() if own & shared]:
            joined += more
            shared.update(*(ids.pop(path) for path in more))
        # All of it is in memory at once.
        is_small = sum(path.stat().st_size for path in joined) <= _MAX_JOINED_BYTES
        return sorted(joined) if is_small else ()


def _is_other_signal(value: object) -> bool:
    """Whether a JSON value is an export of logs or metrics: a collector may write them to the file of the spans."""
    return isinstance(value, dict) and not _OTHER_SIGNALS.isdisjoint(value)


def _read_spans(source: Source, events: list[tuple[str, str, Event]]) -> Iterator[Span | Problem]:
    """Yield the spans of a file; add to ``events`` what its log records say about spans."""
    for item in source.values():
        if isinstance(item, Problem):
            yield item
        elif _is_other_signal(item.value):
            events += parse_logs(item.value)
        else:
            for span in parse_spans(item.value, item.line):
                yield Problem(source.name, item.line, span) if isinstance(span, str) else span


def _trace_ids(path: Path) -> frozenset[bytes]:
    """The ids of the traces in a file of OTLP/JSON; empty for any other file."""
    try:
        status = path.stat()
        return _scan(path, status.st_mtime_ns, status.st_size) if path.is_file() else frozenset()
    except DAMAGE:
        return frozenset()


@lru_cache(maxsize=1000)
def _scan(path: Path, _modified: int, _size: int) -> frozenset[bytes]:
    with open_binary(path) as file:
        content = open_content(file)
        data = content.read(_BLOCK_BYTES)
        if not _OTLP.search(data[:_OPENING_BYTES]):
            return frozenset()
        ids = set(_TRACE_ID.findall(data))
        while more := content.read(_BLOCK_BYTES):
            data = data[-_OPENING_BYTES:] + more  # an id may be at the end of a block
            ids.update(_TRACE_ID.findall(data))
    return frozenset(ids)


class _Conversation:
    """A session: its units in the order in which they begin, and the evaluations of its traces."""

    def __init__(self, session_id: str, thread: Thread) -> None:
        self.session_id = session_id
        self.thread = thread
        self.groups: list[tuple[Trace, Span | None, list[Span]]] = []
        self.traces: dict[int, Trace] = {}

    @property
    def line(self) -> int:
        """The line of its first span."""
        return min(span.line for _, _, spans in self.groups for span in spans)


def read_sessions(
    file: str, traces: list[Trace], thread_of: Callable[[str], Thread] = lambda _: Thread()
) -> Iterator[Draft | Problem]:
    """Yield a draft per conversation and per nested agent, in the order in which they begin.

    Args:
        file: The name of the file, for problems.
        traces: The traces, none of them empty.
        thread_of: Returns what a session has said before these traces.
    """
    conversations: dict[str, _Conversation] = {}
    for trace in sorted(traces, key=lambda trace: trace.spans[0].start_ns):
        for session_id, top, spans in trace.top_groups():
            if (conversation := conversations.get(session_id)) is None:
                conversation = conversations[session_id] = _Conversation(session_id, thread_of(session_id))
            conversation.groups.append((trace, top, spans))
            conversation.traces[id(trace)] = trace
    used_ids = set(conversations)
    for conversation in conversations.values():
        conversation.groups.sort(key=lambda group: (group[1] or group[2][0]).start_ns)
        units: list[Unit] = []
        for trace, top, spans in conversation.groups:
            try:
                units += read_units(trace, top, spans, conversation.thread)
            except RECORD_ERRORS as error:
                name = top.name if top else "calls of a model"
                yield Problem(file, spans[0].line, f"The spans of {name!r} are not imported: {_reason(error)}.")
        try:
            spans = [span for trace in conversation.traces.values() for span in trace.spans]
            own = [unit for unit in units if unit.parent is None]
            yield build_draft(file, conversation.session_id, own, spans, conversation.line)
        except RECORD_ERRORS as error:
            text = f"Session {conversation.session_id!r} is not imported: {_reason(error)}."
            yield Problem(file, conversation.line, text)
            continue
        yield from _member_drafts(file, conversation, units, used_ids)


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else error_text(error)


def _member_drafts(
    file: str, conversation: _Conversation, units: list[Unit], used_ids: set[str]
) -> Iterator[Draft | Problem]:
    """Yield the nested agents, each one a session of its own, named as it says or after its span."""
    names = {id(unit): conversation.session_id for unit in units if unit.parent is None}
    owners: dict[str | None, set[int]] = {}
    for unit in units:
        for item in unit.messages:
            for call in item.message.tool_calls:
                owners.setdefault(call.tool_call_id, set()).add(id(unit))
    for unit in units:
        if unit.parent is None or unit.span is None:
            continue
        parent_id = names[id(unit.parent)]
        own_id = dialects.session_id(unit.span)
        session_id = own_id if own_id and own_id not in used_ids else f"{parent_id}/{unit.span.span_id}"
        used_ids.add(session_id)
        names[id(unit)] = session_id
        call_id = dialects.tool_call_id(unit.tool) or _joined_id(unit.parent, unit.tool) if unit.tool else None
        if len(owners.get(call_id, ())) > 1:  # ids may repeat between runs: the time says which run it was
            call_id = None
        try:
            draft = build_draft(file, session_id, [unit], (), unit.span.line)
        except RECORD_ERRORS as error:
            text = f"The nested agent {unit.span.name!r} is not imported: {_reason(error)}."
            yield Problem(file, unit.span.line, text)
            continue
        if session_id != own_id:  # the id that the run has as long as the span around it is not written
            name = f"{unit.span.trace_id}/{unit.span.span_id}"
            draft.runs[0].run_id = run_id_for(conversation.session_id, name)
        draft.hashes[0] = hash_record(draft.hashes[0], parent_id, call_id)  # it may be stored without its parent
        draft.membership = Membership(parent_id, call_id)
        yield draft


def _joined_id(parent: Unit, tool: Span) -> str | None:
    """The id of the call that a tool's span without one was joined with."""
    calls = (call for item in parent.messages for call in item.message.tool_calls)
    name = dialects.tool_name(tool)
    return next((c.tool_call_id for c in calls if c.created_at == tool.start and c.tool_name == name), None)
