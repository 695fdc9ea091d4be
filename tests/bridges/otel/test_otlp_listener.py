"""`kern_nb.listen`: OTLP over HTTP from any process, with the answers that the protocol defines."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from agent_spans import AgentSpans, call, rows_of, text
from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

import kern_nb
from kern_nb.bridges.otel import recorder, stop_listening
from kern_nb.bridges.otel import requests as otlp_requests
from kern_nb.db import SqliteDb, open_store
from kern_nb.errors import BadUsage, MissingExtra, StoreBusy

JSON, PROTOBUF = "application/json", "application/x-protobuf"
ONE_SPAN = {
    "traceId": "a" * 32,
    "spanId": "b" * 16,
    "name": "chat",
    "startTimeUnixNano": "1790000000000000000",
    "endTimeUnixNano": "1790000001000000000",
    "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
}


def document(*spans):
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def send(listener, body, content_type=JSON, *, path="/v1/traces", method="POST", **headers):
    """Send a request; return the status, the headers and the body of the answer."""
    connection = http.client.HTTPConnection(listener.host, listener.port, timeout=20)
    fields = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, fields, encode_chunked="Transfer-Encoding" in fields)
    response = connection.getresponse()
    result = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return result


def status_of(body):
    """The code and the message of a `google.rpc.Status` in protobuf."""
    assert body[:1] == b"\x08"
    length = body[3]
    return body[1], body[4 : 4 + length] if length < 128 else body[5:]


@pytest.fixture
def sender(provider, listener):
    """What records spans that OpenTelemetry's exporter sends to the listener."""
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = OTLPSpanExporter(f"{listener.url}/v1/traces", compression=Compression.Gzip)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return AgentSpans(provider)


# Senders --------------------------------------------------------------------------------------------------------------


def test_the_exporter_of_opentelemetry(sender, store):
    """Two traces of one conversation, the second repeating the first, and a nested agent."""
    history = sender.support("trip", [], "one", nested=True)
    sender.support("trip", history, "two", call_id="c2")
    runs = store.runs_df()
    assert list(runs["agent_id"]) == ["desk", "expert", "desk"]
    assert list(runs["n_messages"]) == [4, 2, 4]
    assert set(runs["status"]) == {"COMPLETED"}
    assert store.check().problems == []


def test_an_error_of_an_agent(sender, store):
    with pytest.raises(ValueError, match="broken"):
        sender.failing("failing")
    run = store.runs_df().iloc[0]
    assert (run["status"], run["error"], run["input"]) == ("ERROR", "broken", "Anyone?")


def test_interleaved_traces_of_several_threads(sender, store):
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        sender.support(f"c{number}", [], f"turn {number}", nested=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = store.runs_df()
    assert sorted(runs["agent_id"]) == ["desk"] * 4 + ["expert"] * 4
    desks = runs[runs["agent_id"] == "desk"].set_index("run_id")
    assert all(desks.loc[run["parent_run_id"]]["session_id"] == run["session_id"]
               for _, run in runs[runs["agent_id"] == "expert"].iterrows())  # fmt: skip


@pytest.mark.parametrize("encoding", ["plain", "gzip", "deflate"])
@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_every_encoding_gives_the_same_rows(agents, finished, listener, store, tmp_path, content_type, encoding):
    from agent_spans import imported

    agents.support("trip", [], "one", nested=True)
    message = encode_spans(finished())
    body = message.SerializeToString() if content_type == PROTOBUF else _hex_json(message)
    headers = {} if encoding == "plain" else {"Content_Encoding": encoding}
    body = {"plain": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    status, answered, content = send(listener, body, content_type, **headers)
    assert (status, answered["content-type"]) == (200, content_type)
    assert content == (b"{}" if content_type == JSON else b"")
    assert rows_of(store) == rows_of(imported(finished(), SqliteDb(str(tmp_path / "imported.db")), tmp_path))


def _hex_json(message):
    """OTLP/JSON has ids in hexadecimal."""
    import base64

    value = json.loads(MessageToJson(message))
    for resource in value["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(value).encode()


def test_a_thousand_spans_in_one_request(agents, finished, listener, store):
    for number in range(250):
        agents.support(f"c{number}", [], "one")
    spans = finished()
    assert len(spans) == 1000
    status, _, content = send(listener, encode_spans(spans).SerializeToString(), PROTOBUF)
    assert (status, content) == (200, b"")
    assert len(store.runs_df()) == 250
    assert len(store.messages_df()) == 1000


def test_a_sender_that_is_killed(store, eager, wait_for):
    """Its run is RUNNING as long as spans may come, then INTERRUPTED; other senders are not affected."""
    with kern_nb.listen(store, port=0, idle_timeout_s=0.5) as listener:
        command = [sys.executable, str(Path(__file__).with_name("otlp_sender.py")), listener.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "sent\n"
            process.kill()
        assert list(store.runs_df()["input"]) == ["Where?"]
        wait_for(lambda: list(store.runs_df()["status"]) == ["INTERRUPTED"])
        assert send(listener, json.dumps(document(ONE_SPAN)))[0] == 200
    assert sorted(store.runs_df()["status"]) == ["COMPLETED", "INTERRUPTED"]
    assert store.check().problems == []


def test_messages_in_log_records(listener, store):
    """The records of a span may come before it."""
    logs = {"traceId": "a" * 32, "spanId": "b" * 16, "eventName": "gen_ai.client.inference.operation.details"}
    messages = json.dumps([text("user", "Where?")])
    logs["attributes"] = [{"key": "gen_ai.input.messages", "value": {"stringValue": messages}}]
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [logs, {"body": {"stringValue": "a line of a log"}}]}]}]}
    status, _, content = send(listener, json.dumps(body), path="/v1/logs")
    assert (status, content) == (200, b"{}")
    assert store.list_sessions() == []
    send(listener, json.dumps(document(ONE_SPAN)))
    assert list(store.runs_df()["input"]) == ["Where?"]


def test_the_browser_sees_a_run_while_it_runs(sender, store):
    """What `%kern browse` lists."""
    with sender.agent("desk", "trip"):
        sender.chat([text("user", "Where?")], [call("c1", "look", {})], "trip")
        [session] = store.list_sessions(status="RUNNING")
        assert session.session_id == "trip"
    assert list(store.list_sessions(status="RUNNING")) == []


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "status", "reason"),
    [
        (b"{", JSON, {}, 400, "not JSON"),
        (b"[]", JSON, {}, 400, "must be an object"),
        (b"\xff\xfe\xff", JSON, {}, 400, "not JSON"),
        (b"[" * 100_000, JSON, {}, 400, "not JSON"),
        (b"not protobuf", PROTOBUF, {}, 400, "not an OTLP request"),
        (b"plain", JSON, {"Content_Encoding": "gzip"}, 400, "not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-9], JSON, {"Content_Encoding": "gzip"}, 400, "not complete gzip"),
        (b"{}", JSON, {"Content_Encoding": "br"}, 415, "'br' is not supported"),
        (b"{}", "text/plain", {}, 415, "'text/plain' is not supported"),
        (b"{}", JSON, {"path": "/v1/metrics"}, 404, "There is no /v1/metrics"),
        (b"{}", JSON, {"method": "PUT"}, 405, "takes POST"),
        (b"{}", JSON, {"Host": "evil.example:80"}, 403, "is not this machine"),
    ],
)
def test_other_requests_are_refused_with_the_reason(listener, store, body, content_type, headers, status, reason):
    answered, fields, content = send(listener, body, content_type, **headers)
    assert answered == status
    if content_type == PROTOBUF:
        code, message = status_of(content)
        assert (code, fields["content-type"]) == (3, PROTOBUF)
        assert reason in message.decode()
    else:
        assert reason in json.loads(content)["message"]
    assert not store.exists()
    assert send(listener, json.dumps(document(ONE_SPAN)))[0] == 200, "it goes on listening"


def test_a_request_without_spans_is_nothing(listener, store):
    assert send(listener, b"{}")[::2] == (200, b"{}")
    assert send(listener, b"", PROTOBUF)[::2] == (200, b"")
    assert not store.exists()


def test_bodies_that_are_too_large(store, monkeypatch):
    """By the length that is stated, as they arrive, and decompressed."""
    from kern_nb.bridges.otel import listener as module

    monkeypatch.setattr(module, "_MAX_BODY_BYTES", 1000)
    with kern_nb.listen(store, port=0) as listener:
        assert send(listener, b" " * 2000)[0] == 413
        assert send(listener, iter([b" " * 600, b" " * 600]), Transfer_Encoding="chunked")[0] == 413
        assert send(listener, gzip.compress(b" " * 100_000, mtime=0), Content_Encoding="gzip")[0] == 413
        assert send(listener, json.dumps(document(ONE_SPAN)))[0] == 200
    assert len(store.runs_df()) == 1


def test_malformed_spans_are_rejected_and_counted_and_the_others_stored(listener, store):
    body = json.dumps(document(ONE_SPAN, {"name": "no ids"}, "no span"))
    status, _, content = send(listener, body)
    partial = json.loads(content)["partialSuccess"]
    assert (status, partial["rejectedSpans"]) == (200, "2")
    assert "it has no trace and span id" in partial["errorMessage"]
    assert len(store.runs_df()) == 1


def test_a_partial_success_in_protobuf(agents, finished, listener, store):
    agents.support("x" * 1000, [], "one")
    agents.support("trip", [], "two")
    status, _, content = send(listener, encode_spans(finished()).SerializeToString(), PROTOBUF)
    answer = ExportTraceServiceResponse.FromString(content)
    assert (status, answer.partial_success.rejected_spans) == (200, 4)
    assert "its id is longer than 500 characters" in answer.partial_success.error_message
    assert list(store.runs_df()["input"]) == ["two"]


def test_a_busy_store_asks_for_another_try_which_stores_all(listener, store, monkeypatch):
    def busy(*_, **__):
        raise StoreBusy("Process 7 has the file.", "Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "write", busy)
        status, fields, content = send(listener, json.dumps(document(ONE_SPAN)))
        assert (status, fields["retry-after"]) == (503, "5")
        assert json.loads(content) == {"code": 14, "message": "Process 7 has the file. Wait."}
    assert send(listener, json.dumps(document(ONE_SPAN)))[0] == 200
    assert len(store.runs_df()) == 1


def test_a_read_only_store_is_no_reason_to_try_again(tmp_path, store):
    store.append_run("s", kern_nb.Run(input="a", output="b"))
    path = tmp_path / "s.db"
    assert path.exists()
    read_only = open_store(path, read_only=True)
    with kern_nb.listen(read_only, port=0) as listener:
        status, fields, content = send(listener, json.dumps(document(ONE_SPAN)))
        assert status == 500
        assert "retry-after" not in fields
        assert "read-only" in json.loads(content)["message"]
        listener._recorder._traces.clear()  # else close() raises the same
        listener._recorder._arrivals.clear()


# Listeners ------------------------------------------------------------------------------------------------------------


def test_a_listener_is_on_loopback_and_ends(store):
    listener = kern_nb.listen(store, port=0)
    assert (listener.host, listener.is_open) == ("127.0.0.1", True)
    assert repr(listener) == f"<Listener {listener.url}, writes to 's'>"
    listener.close()
    listener.close()
    assert repr(listener) == f"<Listener {listener.url}, closed>"
    with pytest.raises(ConnectionRefusedError):
        send(listener, b"{}")
    with kern_nb.listen(store, port=listener.port) as again:
        assert send(again, b"{}")[0] == 200


def test_a_port_in_use(store, tmp_path):
    with kern_nb.listen(store, port=0) as listener:
        assert kern_nb.listen(store, port=listener.port) is listener, "a cell may run again"
        with pytest.raises(BadUsage, match="used by this process"):
            kern_nb.listen(SqliteDb(str(tmp_path / "other.db")), port=listener.port)
        code = f"import kern_nb; kern_nb.listen(kern_nb.InMemoryDb(), port={listener.port})"
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "cannot be listened on" in process.stderr


@pytest.mark.parametrize("port", [-1, 70_000, "4318", True, None])
def test_a_port_that_is_none(store, port):
    with pytest.raises(BadUsage, match="port must be an int"):
        kern_nb.listen(store, port=port)


def test_an_address_of_another_machine(store):
    with pytest.raises(BadUsage, match="cannot be listened on"):
        kern_nb.listen(store, port=0, host="192.0.2.1")


def test_all_addresses_on_request(store):
    """Requests by any name are answered then."""
    with kern_nb.listen(store, port=0, host="0.0.0.0") as listener:
        assert send(listener, b"{}", Host="machine.example")[0] == 200


def test_closing_writes_what_is_known(agents, finished, store):
    """Also what waits because the trace was written a moment ago."""
    with kern_nb.listen(store, port=0) as listener, agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [call("c1", "look", {})], "trip")
        send(listener, encode_spans(finished()).SerializeToString(), PROTOBUF)
        listener._recorder._traces[next(iter(listener._recorder._traces))].due = float("inf")
        agents.chat([text("user", "Where?")], [text("assistant", "There.")], "trip")
        send(listener, encode_spans(finished()[1:]).SerializeToString(), PROTOBUF)
        assert list(store.runs_df()["output"].isna()) == [True]
        listener.close()
    assert list(store.runs_df()["output"]) == ["There."]


def test_the_process_ends_with_an_open_listener_and_open_traces(tmp_path):
    """Nothing hangs, and what is known is stored."""
    code = f"""
import json, urllib.request, kern_nb
listener = kern_nb.listen(kern_nb.SqliteDb({str(tmp_path / "s.db")!r}), port=0)
span = {ONE_SPAN | {"parentSpanId": "c" * 16}!r}
body = json.dumps({{"resourceSpans": [{{"scopeSpans": [{{"spans": [span]}}]}}]}}).encode()
request = urllib.request.Request(listener.url + "/v1/traces", body, {{"Content-Type": "application/json"}})
assert urllib.request.urlopen(request).status == 200
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    [run] = open_store(tmp_path / "s.db").get_session("a" * 32).runs
    assert run.status in ("COMPLETED", "INTERRUPTED")


def test_stop_listening(store):
    first, second = kern_nb.listen(store, port=0), kern_nb.listen(store, port=0)
    stop_listening(first.port)
    assert (first.is_open, second.is_open) == (False, True)
    stop_listening()
    with pytest.raises(BadUsage, match="Nothing listens"):
        stop_listening()


def test_without_the_extra_the_error_names_the_command(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra) as caught:
        kern_nb.listen(store, port=0)
    assert caught.value.hint == 'Run pip install "kern_nb[otel]".'


def test_what_is_forgotten_first_when_there_are_too_many_spans(agents, finished, store, monkeypatch):
    """The trace that was silent for longest; what is stored of it stays."""
    monkeypatch.setattr(recorder, "_MAX_ITEMS", 10)
    for number in range(5):
        agents.support(f"c{number}", [], "one")
    kept = recorder.TraceRecorder(store)
    from kern_nb.bridges.otel.exporter import convert_spans

    for start in range(0, 20, 4):
        kept.record(convert_spans(finished()[start : start + 4]))
    assert len(kept._traces) == 2
    kept.close()
    assert len(store.runs_df()) == 5


def test_varints_are_those_of_protobuf():
    for value in (0, 1, 127, 128, 300, 2**31):
        body = otlp_requests.success("/v1/traces", PROTOBUF, value, "r" * 200).body
        parsed = ExportTraceServiceResponse.FromString(body).partial_success
        assert (parsed.rejected_spans, parsed.error_message) == (value, "r" * 200)
