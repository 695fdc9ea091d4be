"""`KernSpanExporter`: the spans of a process's own tracer provider become rows while their traces grow."""

from __future__ import annotations

import logging
import random

import pytest
from agent_spans import AgentSpans, call, imported, result, rows_of, text

from kern_nb.bridges.otel import KernSpanExporter
from kern_nb.bridges.otel.histories import Histories
from kern_nb.db import InMemoryDb, SqliteDb, open_store
from kern_nb.errors import NoStore, StoreUnavailable

RUN = ["agent_id", "status", "input", "output", "n_messages"]


def runs_of(store):
    """The main columns of the runs, in order."""
    frame = store.runs_df().sort_values("run_index")[RUN].astype(object)
    return [tuple(row) for row in frame.where(frame.notna(), None).to_numpy()]


def batches(spans, generator):
    """The spans in batches of random sizes."""
    rest = list(spans)
    while rest:
        size = generator.choice([1, 1, 2, 5])
        yield rest[:size]
        rest = rest[size:]


@pytest.fixture
def conversations(agents, finished):
    """Two traces of one conversation, nested agents, errors, agents of a workflow, a call without an agent."""
    history = agents.support("trip", [], "one", nested=True)
    agents.support("trip", history, "two", call_id="c2", stated_early=False, nested=True)
    history = agents.support("other", [], "x", nested=True, expert="expert-1")
    agents.support("other", history, "y", call_id="c2", nested=True, expert="expert-2")
    agents.support(None, [], "no conversation", nested=True)
    with pytest.raises(ValueError, match="broken"):
        agents.failing("failing")
    agents.chat([text("user", "plain")], [text("assistant", "hi")])
    with agents.tracer.start_as_current_span("workflow"):
        for name in "AB":
            with agents.agent(name):
                agents.chat([text("user", f"ask {name}")], [text("assistant", f"said {name}")])
    return finished()


# Growing traces -------------------------------------------------------------------------------------------------------


def test_a_run_appears_with_its_first_model_call_and_is_complete_when_its_agent_ends(provider, agents, store, exporter):
    """SimpleSpanProcessor exports each span as it ends, children before their parents."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider.add_span_processor(SimpleSpanProcessor(exporter))
    called = call("c1", "look", {"x": 1})
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [called], "trip")
        assert runs_of(store) == [(None, "RUNNING", "Where?", None, 2)]
        run_id = store.runs_df()["run_id"][0]
        with agents.tool("look", "c1", {"x": 1}, "seen"):
            pass
        agents.chat([text("user", "Where?"), called, result("c1", "seen")], [text("assistant", "There.")], "trip")
        assert runs_of(store) == [(None, "RUNNING", "Where?", "There.", 4)]
    assert runs_of(store) == [("desk", "COMPLETED", "Where?", "There.", 4)]
    assert store.runs_df()["run_id"][0] == run_id, "a run keeps its id"
    assert list(store.tool_calls_df()["result"]) == ["seen"]
    assert store.check().problems == []


def test_a_nested_agent_is_a_run_at_once_and_a_member_later(provider, agents, store, exporter):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [call("c1", "ask", {})], "trip")
        with agents.tool("ask", "c1", {}, "seen"):
            with agents.agent("expert", "trip"):
                agents.chat([text("user", "Help")], [text("assistant", "I know.")], "trip")
            assert runs_of(store)[1] == ("expert", "COMPLETED", "Help", "I know.", 2)
        frame = store.runs_df()
        assert list(frame["status"]) == ["RUNNING", "COMPLETED"]
        assert frame["parent_run_id"][1] == frame["run_id"][0]
    frame = store.runs_df()
    assert list(frame["agent_id"]) == ["desk", "expert"]
    assert frame["parent_run_id"][1] == frame["run_id"][0]
    assert store.check().problems == []


@pytest.mark.every_engine
@pytest.mark.parametrize("seed", range(3))
def test_spans_in_batches_give_what_an_import_of_all_gives(conversations, store, exporter, tmp_path, seed):
    """The rows are those of an import of the whole file, ids included; nothing is stored twice."""
    for batch in batches(conversations, random.Random(seed)):
        assert exporter.export(batch).name == "SUCCESS"
    exporter.shutdown()
    expected = imported(conversations, SqliteDb(str(tmp_path / "imported.db")), tmp_path)
    assert rows_of(store) == rows_of(expected)
    assert store.check().problems == []
    imported(conversations, store, tmp_path)  # the same spans as a file add nothing
    assert rows_of(store) == rows_of(expected)


@pytest.mark.parametrize("seed", range(10))
def test_spans_in_any_order_give_what_an_import_of_all_gives(conversations, store, exporter, tmp_path, seed):
    generator = random.Random(seed)
    spans = generator.sample(conversations, len(conversations))
    for batch in batches(spans, generator):
        exporter.export(batch)
    exporter.shutdown()
    expected = imported(conversations, SqliteDb(str(tmp_path / "imported.db")), tmp_path)
    assert rows_of(store, ids=False) == rows_of(expected, ids=False)
    assert store.check().problems == []


def test_spans_that_arrive_twice_change_nothing(conversations, store, exporter):
    exporter.export(conversations)
    rows = rows_of(store)
    exporter.export(conversations)
    exporter.export(conversations[3:9])
    assert rows_of(store) == rows


def test_another_process_continues_a_conversation(agents, finished, store, exporter):
    """What it repeats of the conversation is not stored again, although this process has not seen it."""
    history = agents.support("trip", [], "one")
    exporter.export(finished())
    exporter.shutdown()
    agents.support("trip", history, "two", call_id="c2")
    later = KernSpanExporter(store)
    later.export(finished()[4:])
    later.shutdown()
    assert runs_of(store) == [
        ("desk", "COMPLETED", "one", "Done: one.", 4),
        ("desk", "COMPLETED", "two", "Done: two.", 4),
    ]


def test_two_exporters_of_one_trace(agents, finished, store, exporter):
    """An agent of another process, with an exporter of its own, gets a run of its own."""
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "a")], [text("assistant", "b")], "trip")
        with agents.agent("remote", "trip"):
            agents.chat([text("user", "c")], [text("assistant", "d")], "trip")
    first, remote_chat, remote, desk = finished()
    second = KernSpanExporter(store)
    exporter.export([first])
    second.export([remote_chat, remote])
    exporter.export([desk])
    second.shutdown()
    exporter.shutdown()
    assert sorted(runs_of(store)) == [("desk", "COMPLETED", "a", "b", 2), ("remote", "COMPLETED", "c", "d", 2)]


def test_evaluations_of_two_traces_are_both_kept(agents, finished, store, exporter):
    for name, value in (("helpful", 0.5), ("polite", 1.0)):
        with agents.agent("desk", "trip") as span:
            agents.chat([text("user", name)], [text("assistant", "Yes.")], "trip")
            attributes = {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value}
            span.add_event("gen_ai.evaluation.result", attributes)
        exporter.export(finished()[-2:])
    assert dict(store.scores_df()[["name", "value"]].to_numpy()) == {"helpful": 0.5, "polite": 1.0}


# Traces that do not end -----------------------------------------------------------------------------------------------


def test_the_runs_that_have_not_ended_at_shutdown_are_interrupted(agents, finished, store, exporter):
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [call("c1", "look", {})], "trip")
        exporter.export(finished())
        exporter.shutdown()
    assert runs_of(store) == [(None, "INTERRUPTED", "Where?", None, 2)]
    assert exporter.export(finished()).name == "FAILURE"
    assert store.check().problems == []


def test_a_trace_that_waits_in_vain_is_interrupted_and_goes_on_when_a_span_comes(agents, finished, store, wait_for):
    exporter = KernSpanExporter(store, idle_timeout_s=0.1)
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [call("c1", "look", {})], "trip")
        exporter.export(finished())
        wait_for(lambda: runs_of(store)[0][1] == "INTERRUPTED")
    exporter.export(finished()[1:])
    assert runs_of(store) == [("desk", "COMPLETED", "Where?", None, 2)]
    exporter.shutdown()


def test_an_open_run_of_a_process_that_is_gone_is_known_to_check(agents, finished, tmp_path):
    """The row names the process that writes it."""
    path = tmp_path / "s.db"
    exporter = KernSpanExporter(open_store(path))
    with agents.agent("desk", "trip"):
        agents.chat([text("user", "Where?")], [call("c1", "look", {})], "trip")
        exporter.export(finished())
        store = open_store(path)
        assert store.check().problems == [], "this process is alive"
    exporter.export(finished()[1:])
    exporter.shutdown()
    assert runs_of(store)[0][1] == "COMPLETED"


def test_a_model_call_whose_parent_is_in_another_process_is_complete(provider, store, exporter):
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider.add_span_processor(SimpleSpanProcessor(exporter))
    remote = trace.SpanContext(trace_id=7, span_id=8, is_remote=True, trace_flags=trace.TraceFlags(1))
    agents = AgentSpans(provider)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        agents.chat([text("user", "Where?")], [text("assistant", "There.")])
    assert runs_of(store) == [(None, "COMPLETED", "Where?", "There.", 2)]


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_failed_export_is_reported_and_stored_with_the_next_one(
    agents, finished, store, exporter, caplog, monkeypatch
):
    agents.support("trip", [], "one")
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "write", failing_write)
        assert exporter.export(finished()).name == "FAILURE"
        assert not exporter.force_flush()
    assert "The disk is gone." in caplog.text
    agents.chat([text("user", "plain")], [text("assistant", "hi")])
    assert exporter.export(finished()[4:]).name == "SUCCESS"
    assert exporter.force_flush()
    assert sorted(store.runs_df()["output"]) == ["Done: one.", "hi"]


def failing_write(*_, **__):
    raise StoreUnavailable("The disk is gone.")


def test_a_read_only_store_is_a_failure(agents, finished, tmp_path, caplog):
    path = tmp_path / "s.db"
    SqliteDb(str(path)).append_run("s", _run())
    exporter = KernSpanExporter(open_store(path, read_only=True))
    agents.support("trip", [], "one")
    assert exporter.export(finished()).name == "FAILURE"
    exporter.shutdown()
    assert "read-only" in caplog.text


def _run():
    from kern_nb.records import Run

    return Run(input="a", output="b")


def test_what_cannot_be_stored_is_named_and_the_rest_is_stored(agents, finished, store, exporter, caplog):
    """A session id of 1,000 characters is refused, the other conversation of the batch is stored."""
    agents.support("x" * 1000, [], "one")
    agents.support("trip", [], "two")
    assert exporter.export(finished()).name == "FAILURE"
    assert "its id is longer than" in caplog.text
    assert list(store.runs_df()["input"]) == ["two"]


def test_spans_of_no_agent_are_not_stored(provider, store, exporter, caplog):
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("web").start_as_current_span("GET /"):
        pass
    assert provider.force_flush()
    assert not store.exists()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_store_in_use_is_the_default(monkeypatch):
    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_in_use", None)
    with pytest.raises(NoStore):
        KernSpanExporter()


def test_threads_share_an_exporter(provider, store, exporter):
    """Eight agents at once, each with conversations of its own, through a BatchSpanProcessor."""
    from concurrent.futures import ThreadPoolExecutor

    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=20))
    agents = AgentSpans(provider)

    def work(number):
        history = []
        for turn in range(3):
            history = agents.support(f"c{number}", history, f"turn {turn}", call_id=f"t{turn}", nested=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    provider.shutdown()
    runs = store.runs_df()
    assert len(runs) == 8 * 3 * 2
    assert set(runs["status"]) == {"COMPLETED"}
    assert set(runs[runs["agent_id"] == "desk"]["n_messages"]) == {4}
    assert set(runs["session_id"]) == {f"c{number}" for number in range(8)}


def test_a_store_in_memory_is_written_to(agents, finished):
    store = InMemoryDb()
    exporter = KernSpanExporter(store)
    agents.support("trip", [], "one")
    exporter.export(finished())
    exporter.shutdown()
    assert runs_of(store) == [("desk", "COMPLETED", "one", "Done: one.", 4)]


@pytest.mark.every_engine
def test_a_conversation_is_not_read_again_with_each_trace(agents, finished, store, exporter, monkeypatch):
    """Each trace repeats the conversation so far: of what is stored, the run before is read, and what has changed."""
    read = Histories._read
    loaded = []
    monkeypatch.setattr(
        Histories,
        "_read",
        lambda self, connection, lineage, ids: loaded.append(len(ids)) or read(self, connection, lineage, ids),
    )
    history = []
    for i in range(5):
        history = agents.support("trip", history, f"question {i}", call_id=f"c{i}")
        exporter.export(finished()[-4:])
    assert loaded == [1, 1, 1, 1]
    with store.transaction():  # as another process does
        changed = store.get_session("trip").runs[1]
        changed.messages[0].content = "edited"
        store.put_run("trip", changed.model_copy(update={"finished_at": None}))
    agents.support("trip", history, "the last", call_id="c9")
    exporter.export(finished()[-4:])
    assert loaded[-1] == 2
    assert [run.n_messages for run in store.runs_df().itertuples()] == [4, 4, 4, 4, 4, 4 + 1]
