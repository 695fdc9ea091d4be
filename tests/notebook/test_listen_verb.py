"""`%kern listen`: the agents of other processes, by their OpenTelemetry spans, in the store in use."""

from __future__ import annotations

import json
import urllib.request

import pytest

import kern_nb
from kern_nb.errors import BadUsage

pytest.importorskip("uvicorn", reason="needs the extra otel")
pytest.importorskip("opentelemetry.proto", reason="needs the extra otel")

SPAN = {
    "traceId": "a" * 32,
    "spanId": "b" * 16,
    "startTimeUnixNano": "1790000000000000000",
    "endTimeUnixNano": "1790000001000000000",
    "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
}


def send(listener):
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}).encode()
    request = urllib.request.Request(f"{listener.url}/v1/traces", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def test_listening_and_stopping(notebook, attached_stores):
    store = kern_nb.attach(":memory:", name="notebook")
    listener = notebook.run("%kern listen --port 0")
    assert listener.store is store
    assert repr(listener) == f"<Listener {listener.url}, writes to 'notebook'>"
    send(listener)
    assert len(store.runs_df()) == 1
    assert notebook.run(f"%kern listen --stop --port {listener.port}") is None
    assert not listener.is_open


def test_another_store_and_stopping_all(notebook, attached_stores):
    kern_nb.attach(":memory:", name="one")
    kern_nb.attach(":memory:", name="two")
    listeners = [notebook.run(f"%kern listen --port 0 --store {name}") for name in ("one", "two")]
    assert [kern_nb.store_registry.name_of(listener.store) for listener in listeners] == ["one", "two"]
    notebook.run("%kern listen --stop")
    assert [listener.is_open for listener in listeners] == [False, False]


def test_bad_input(notebook, attached_stores):
    error, _ = notebook.fails("%kern listen --port 0")
    assert "No store is attached" in str(error)
    kern_nb.attach(":memory:", name="notebook")
    for line in ("--stop", "--stop --port 1", "--stop --store notebook", "--port 99999", "--port x"):
        error, lines = notebook.fails(f"%kern listen {line}")
        assert isinstance(error, BadUsage)
        assert len(lines) == 2
