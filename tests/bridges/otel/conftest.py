"""A tracer provider per test, and stores that growing traces are written to at once."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
pytest.importorskip("opentelemetry.proto", reason="needs the extra otel")
pytest.importorskip("uvicorn", reason="needs the extra otel")


@pytest.fixture
def provider():
    """A tracer provider without processors."""
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def agents(provider):
    """What records the spans of agents with the provider."""
    from agent_spans import AgentSpans

    return AgentSpans(provider)


@pytest.fixture
def finished(provider):
    """The spans that have ended, in the order in which they did."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


@pytest.fixture
def eager(monkeypatch):
    """Growing traces are written with each span."""
    from kern_nb.bridges.otel import recorder

    monkeypatch.setattr(recorder, "_WAIT_FACTOR", 0)


@pytest.fixture
def exporter(store, eager):
    """An exporter to the store."""
    from kern_nb.bridges.otel import KernSpanExporter

    exporter = KernSpanExporter(store)
    yield exporter
    exporter.shutdown()


@pytest.fixture
def listener(store, eager):
    """A listener that writes to the store."""
    import kern_nb

    with kern_nb.listen(store, port=0) as listener:
        yield listener


@pytest.fixture
def wait_for():
    """Wait until a condition holds."""

    def wait(condition, seconds=20):
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, "it does not become true"
            time.sleep(0.02)

    return wait
