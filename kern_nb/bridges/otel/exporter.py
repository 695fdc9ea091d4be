"""`KernSpanExporter`: the spans of a process's own tracer provider, recorded in a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from kern_nb import store_registry
from kern_nb.bridges.otel.recorder import Rejection, TraceRecorder
from kern_nb.db.store import SessionStore
from kern_nb.errors import KernError
from kern_nb.ingest.importers.otel.spans import Event, Span, new_span, parse_time

_log = logging.getLogger("kern_nb.otel")
_SHOWN = 3


class KernSpanExporter(SpanExporter):
    """An exporter of OpenTelemetry's SDK that writes agents' spans to a store: sessions, runs, messages, tool calls.

    It takes the conventions for GenAI, OpenInference and OpenLLMetry; other spans are not stored. A run appears while
    its trace grows: RUNNING until the span of its agent ends, INTERRUPTED if that never comes.

    SUCCESS of `export` means that the spans are stored, whatever becomes of the process: the next exporter or listener
    of the store goes on with traces that a killed process left. If the store cannot be written, `export` returns
    FAILURE, the reason is logged, and the spans are kept: they are written with the next ones.

    Args:
        store: A store or the name of an attached one; None for the one in use.
        idle_timeout_s: How long a trace waits for its missing spans, before its open runs are INTERRUPTED.

    Raises:
        NoStore: No store is in use, or none has that name.

    Example:
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.bridges.otel import KernSpanExporter
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import BatchSpanProcessor
        >>> store, provider = InMemoryDb(), TracerProvider()
        >>> provider.add_span_processor(BatchSpanProcessor(KernSpanExporter(store)))
        >>> tracer = provider.get_tracer("demo")
        >>> with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}):
        ...     pass
        >>> provider.shutdown()
        >>> list(store.runs_df()["status"])
        ['COMPLETED']
    """

    def __init__(self, store: str | SessionStore | None = None, *, idle_timeout_s: float = 600) -> None:
        self.store = store_registry.find(store)
        self._recorder = TraceRecorder(self.store, idle_timeout_s)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Store spans that have ended; FAILURE if something of them is not stored, which is logged."""
        if self._recorder.is_closed:
            _log.warning("%d spans are not stored: the exporter is shut down.", len(spans))
            return SpanExportResult.FAILURE
        try:
            rejections = self._recorder.record(convert_spans(spans))
        except KernError as error:
            _log.error("Spans are not stored yet: %s %s They are kept, and written later.", error, error.hint)
            return SpanExportResult.FAILURE
        return _report(rejections)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is known of all traces; returns whether it is stored."""
        try:
            return _report(self._recorder.flush()) is SpanExportResult.SUCCESS
        except KernError as error:
            _log.error("Spans are not stored yet: %s %s", error, error.hint)
            return False

    def shutdown(self) -> None:
        """Write what is known of all traces; runs that have not ended are INTERRUPTED."""
        try:
            _report(self._recorder.close())
        except KernError as error:
            message = "Runs are not written: %s %s The next exporter or listener writes the spans that were stored."
            _log.error(message, error, error.hint)


def _report(rejections: Sequence[Rejection]) -> SpanExportResult:
    for rejection in rejections[:_SHOWN]:
        _log.warning("Trace %s is not stored completely: %s", rejection.trace_id, rejection.reason)
    if len(rejections) > _SHOWN:
        _log.warning("%d more traces are not stored completely.", len(rejections) - _SHOWN)
    return SpanExportResult.FAILURE if rejections else SpanExportResult.SUCCESS


def convert_spans(spans: Sequence[ReadableSpan]) -> Iterator[Span]:
    """The spans of the SDK as the importer has them."""
    resources: dict[int, dict[str, Any]] = {}
    for span in spans:
        context, parent, scope = span.get_span_context(), span.parent, span.instrumentation_scope
        if context is None:
            continue
        if id(span.resource) not in resources:
            resources[id(span.resource)] = _to_attributes(span.resource.attributes)
        result = new_span(
            0,
            ids=(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{parent.span_id:016x}" if parent else None),
            name=span.name,
            times=(span.start_time, span.end_time),
            attributes=_to_attributes(span.attributes),
            events=[Event(e.name, _to_attributes(e.attributes), parse_time(e.timestamp)) for e in span.events],
            status=(span.status.status_code.name, span.status.description),
            resource=resources[id(span.resource)],
            scope={"name": scope.name, "version": scope.version} if scope else {},
        )
        result.has_remote_parent = bool(parent and parent.is_remote)
        yield result


def _to_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _to_value(value) for name, value in (attributes or {}).items()}


def _to_value(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_value(item) for item in value]
    if isinstance(value, Mapping):
        return _to_attributes(value)
    return value
