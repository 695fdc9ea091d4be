"""Agents of any framework with OpenTelemetry instrumentation, recorded in a store while they run.

`KernSpanExporter` is for the process of the agent; `listen` takes the spans of other processes (OTLP over HTTP). Both
hand the spans to a `TraceRecorder`, which keeps each trace until it ends, reads what is known of it with the importer
of OpenTelemetry (`kern_nb.ingest.importers.otel`), and updates the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.bridges.otel.listener import DEFAULT_PORT, Listener, listen, stop_listening
from kern_nb.errors import MissingExtra

if TYPE_CHECKING:
    from kern_nb.bridges.otel.exporter import KernSpanExporter

__all__ = ["DEFAULT_PORT", "KernSpanExporter", "Listener", "listen", "stop_listening"]


def __getattr__(name: str) -> Any:
    if name != "KernSpanExporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from kern_nb.bridges.otel.exporter import KernSpanExporter
    except ImportError as error:
        message = f"KernSpanExporter needs the OpenTelemetry SDK: {error}."
        raise MissingExtra(message, 'Run pip install "kern_nb[otel]".') from error
    return KernSpanExporter
