"""A program that is killed in the middle of a run: `otlp_sender.py URL` sends a model call, says so, and waits."""

from __future__ import annotations

import sys
import time

from agent_spans import AgentSpans, call, text
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{sys.argv[1]}/v1/traces")))
agents = AgentSpans(provider)
with agents.agent("desk", "killed"):
    agents.chat([text("user", "Where?")], [call("c1", "look", {})], "killed")
    print("sent", flush=True)
    time.sleep(60)
