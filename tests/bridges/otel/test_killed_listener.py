"""What a listener or an exporter has acknowledged survives kill -9: the next one of the store goes on with it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from agent_spans import imported, rows_of
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import kern_nb
from kern_nb.bridges.otel import KernSpanExporter, recorder
from kern_nb.bridges.otel.spool import SpanSpool
from kern_nb.db import SqliteDb
from kern_nb.db.process_identity import current_process
from kern_nb.ingest.importers.otel import spans as otlp

PROGRAM = Path(__file__).with_name("listener_process.py")
GONE = current_process().replace(f":{os.getpid()}:", ":4194303:")


@contextmanager
def listening(path, wait_factor):
    """The port of a listener in a process of its own, which is killed at the end."""
    command = [sys.executable, str(PROGRAM), str(path), str(wait_factor)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def post(port, spans):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    fields = {"Content-Type": "application/x-protobuf"}
    connection.request("POST", "/v1/traces", encode_spans(spans).SerializeToString(), fields)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    assert answer == (200, b"")


@pytest.fixture
def requests(agents, finished):
    """The spans of three traces of two conversations, in requests of one and of several."""
    history = agents.support("trip", [], "one", nested=True)
    agents.support("trip", history, "two", call_id="c2", nested=True, expert="aside", stated_early=False)
    agents.support("other", [], "three")
    spans = list(finished())
    sizes = [1, 2, 1, 1, 3, 1, 1]
    result = []
    while spans:
        size = sizes.pop(0) if sizes else 2
        result.append(spans[:size])
        del spans[:size]
    return result


@pytest.mark.parametrize("wait_factor", [0, 1_000_000], ids=["written at once", "waiting"])
def test_a_killed_listener_loses_nothing_that_it_has_acknowledged(requests, tmp_path, wait_factor):
    """Killed after each request, or after the first ones; the sender does not repeat anything."""
    spans = [span for request in requests for span in request]
    with SqliteDb(tmp_path / "expected.db") as expected:
        imported(spans, expected, tmp_path)
        rows = rows_of(expected, ids=False)
    for every in (2, 5, len(requests)):
        path = tmp_path / f"{every}.db"
        for first in range(0, len(requests), every):
            with listening(path, wait_factor) as port:
                for request in requests[first : first + every]:
                    post(port, request)
        with SqliteDb(path) as store:
            kern_nb.listen(store, port=0).close()
            assert rows_of(store, ids=False) == rows
            assert not store.check().problems
            with store.read_connection() as connection:
                tables = ("agno_sessions_otel_spans", "agno_sessions_otel_recorders")
                counts = [connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() for table in tables]
                assert counts == [0, 0]


@pytest.mark.every_engine
def test_the_next_recorder_takes_over_what_a_process_that_is_gone_has_left(requests, store):
    """Also what it had written already as runs, and a log record whose span is still to come."""
    before = recorder.TraceRecorder(store)
    late = requests[-1]
    for request in requests[:-1]:
        before.record(parse(request))
    span = next(iter(parse(late)))
    event = otlp.Event("exception", {"exception.message": "lost"}, span.start)
    before.record((), [(span.trace_id, span.span_id, event)])
    n_runs = len(store.runs_df())
    tables = before._spool._tables
    assert SpanSpool(store).adopt() == {}, "its process is alive"
    store.write(lambda connection: connection.execute(tables.recorders.update().values(process=GONE)))
    before.forget()
    after = recorder.TraceRecorder(store)
    after.flush()
    assert len(store.runs_df()) == n_runs
    after.record(parse(late))
    [stored] = [s for trace in after._traces.values() for s in trace.spans.values() if s.span_id == span.span_id]
    assert stored.events[-1] == event
    after.close()
    assert set(store.runs_df()["status"]) == {"COMPLETED"}
    assert not store.check().problems


def parse(spans):
    from google.protobuf.json_format import MessageToDict

    return otlp.parse_otlp(MessageToDict(encode_spans(spans)), 0)


def test_an_exporter_that_returns_success_has_stored_the_spans(tmp_path, monkeypatch):
    """A process that ends without shutdown, in the middle of a run."""
    program = """
import os, sys
sys.path.insert(0, sys.argv[2])
from agent_spans import AgentSpans, call, text
from kern_nb.bridges.otel import KernSpanExporter
from kern_nb.db import SqliteDb
from kern_nb.db.process_identity import current_process
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

results = []
class Noting(KernSpanExporter):
    def export(self, spans):
        results.append(super().export(spans))
        return results[-1]

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Noting(SqliteDb(sys.argv[1]), idle_timeout_s=60)))
agents = AgentSpans(provider)
with agents.agent("desk", "killed"):
    for i in range(3):
        agents.chat([text("user", "Where?")], [call(f"c{i}", "look", {})], "killed")
    assert results == [SpanExportResult.SUCCESS] * 3
    os._exit(9)
"""
    path = tmp_path / "s.db"
    command = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == 9
    with SqliteDb(path) as store:
        KernSpanExporter(store).shutdown()
        [run] = store.get_session("killed").runs
        assert (run.status, [call.tool_call_id for m in run.messages for call in m.tool_calls]) == (
            "INTERRUPTED",
            ["c0", "c1", "c2"],
        )
