"""OpenTelemetry spans: every dialect and layout gives the same conversation, and what inputs repeat is stored once."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pandas as pd
import pytest
from mutations import mistyped, torn, truncated

START = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


def encode(value):
    """A value as OTLP has it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [encode(item) for item in value]}}
    return {"stringValue": value}


def attributes_of(values):
    return [{"key": key, "value": encode(value)} for key, value in values.items()]


class Recorder:
    """Makes spans of one trace, a second each unless a duration is stated; `lines` are in the order of their ends."""

    clock = 0

    def __init__(self, trace="a1"):
        self.trace = trace.rjust(32, "0")
        self.spans = []

    def span(self, name, attributes, parent=None, duration=1, status=None, events=(), at=None):
        """Add a span; return its id."""
        Recorder.clock += 1
        span_id = f"{Recorder.clock:016x}"
        start = START + (Recorder.clock if at is None else at) * SECOND
        span = {
            "traceId": self.trace,
            "spanId": span_id,
            "name": name,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + int(duration * SECOND)),
            "attributes": attributes_of(attributes),
            "events": [{"name": n, "timeUnixNano": str(start), "attributes": attributes_of(a)} for n, a in events],
            "status": {"code": status} if status else {},
        }
        if parent:
            span["parentSpanId"] = parent
        self.spans.insert(0, span)  # children arrive first
        return span_id

    def agent(self, name, parent=None, **attributes):
        """Add the span of an agent that lasts longer than what it does."""
        values = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
        return self.span(f"invoke_agent {name}", values | dotted(attributes), parent, duration=100)

    def chat(self, sent, received, parent=None, **attributes):
        """Add a model call by the GenAI conventions."""
        values = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m-1",
            "gen_ai.provider.name": "acme",
            "gen_ai.input.messages": json.dumps(sent),
            "gen_ai.output.messages": json.dumps(received),
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 2,
            "gen_ai.usage.cache_read.input_tokens": 4,
        }
        return self.span("chat m-1", values | dotted(attributes), parent)

    def tool(self, name, call_id, args, result, parent=None, **options):
        """Add the execution of a tool."""
        values = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.call.id": call_id}
        values |= {"gen_ai.tool.call.arguments": json.dumps(args), "gen_ai.tool.call.result": result}
        return self.span(f"execute_tool {name}", values, parent, **options)


def dotted(values):
    return {key.replace("__", "."): value for key, value in values.items()}


def otlp(spans, **resource):
    scope = {"scope": {"name": "test", "version": "1"}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": attributes_of(resource)}, "scopeSpans": [scope]}]}


def lines_of(*recorders):
    """One line per span."""
    return [otlp([span], **{"service.name": "shop"}) for recorder in recorders for span in recorder.spans]


def text(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def call(call_id, name, arguments):
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}


def answer(*parts):
    return {"role": "assistant", "parts": list(parts)}


def result(call_id, content):
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": content}]}


@pytest.fixture
def store(tmp_path):
    """A SQLite store."""
    from kern_nb.db import SqliteDb

    return SqliteDb(str(tmp_path / "s.db"))


@pytest.fixture
def ingest(store, tmp_path):
    """Write values as lines of a file and take them in, twice: the second time nothing is stored."""

    def write(values, name="spans.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        report = store.ingest(path)
        again = store.ingest(path)
        assert (again.sessions, again.runs, again.messages) == (0, 0, 0)
        return report

    return write


def drafts_of(path):
    """The drafts and problems that the importer yields for a file."""
    from kern_nb.ingest.importers.otel import Otel
    from kern_nb.ingest.source import Source

    source = Source(path, path.name)
    importer = Otel()
    items = list(importer.read(source)) if importer.recognizes(source) else []
    return [d for d in items if hasattr(d, "runs")], [p for p in items if not hasattr(p, "runs")]


@pytest.fixture
def read(tmp_path):
    """Write values as lines of a file and return its drafts; there must be no problem."""
    from kern_nb.ingest.registry import detect_importer
    from kern_nb.ingest.source import Source

    def write(values, name="spans.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        drafts, problems = drafts_of(path)
        assert problems == []
        assert detect_importer(Source(path, name)).name == "otel", "no other importer takes the file"
        return drafts

    return write


def talk_of(run):
    return [(m.role, m.content) for m in run.messages]


def support_trace(trace, conversation, history, prompt):
    """A run with a tool call; returns the recorder and the history after it."""
    recorder = Recorder(trace)
    root = recorder.agent("desk", gen_ai__conversation__id=conversation, gen_ai__aggregated_usage__input_tokens=20)
    sent = [*history, text("user", prompt)]
    thought = {"type": "reasoning", "content": "look first"}
    called = answer(thought, call("c1", "look", {"x": 1}))
    recorder.chat(sent, [called], root)
    recorder.tool("look", "c1", {"x": 1}, "seen", root)
    recorder.chat([*sent, called, result("c1", "seen")], [answer({"type": "text", "content": "Done."})], root)
    return recorder, [*sent, called, result("c1", "seen"), text("assistant", "Done.")]


def test_what_inputs_repeat_is_stored_once(store, ingest):
    """A conversation over two traces is one session with a run each; usage is that of the model calls."""
    first, history = support_trace("a1", "talk-1", [], "Hello")
    second, _ = support_trace("b2", "talk-1", history, "Again")
    report = ingest([*lines_of(second), *lines_of(first)])
    session = store.get_session("talk-1")

    assert (report.sessions, report.runs, report.messages, report.tool_calls) == (1, 2, 8, 2)
    assert [run.input for run in session.runs] == ["Hello", "Again"]
    roles = [("user", "Hello"), ("tool", "seen"), ("assistant", "Done.")]
    assert [m for m in talk_of(session.runs[0]) if isinstance(m[1], str)] == roles
    assert session.runs[0].messages[1].content == [{"type": "reasoning", "reasoning": "look first"}]
    [looked] = session.runs[1].tool_calls
    assert (looked.args, looked.result, looked.status, looked.duration_s) == ({"x": 1}, "seen", "completed", 1.0)
    usage = [m.usage for m in session.runs[0].messages if m.usage]
    assert [(u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cost) for u in usage] == [(10, 2, 4, None)] * 2
    assert session.runs[0].duration_s == 100.0
    assert (session.runs[0].model, session.runs[0].model_provider, session.agent_id) == ("m-1", "acme", "desk")


def test_a_document_or_base64_ids_give_the_same(read, tmp_path):
    """One document with all spans reads as lines do, and ids may be base64."""
    recorder, _ = support_trace("a1", "talk-1", [], "Hello")
    [from_lines] = read(lines_of(recorder))
    spans = json.loads(json.dumps(recorder.spans))
    for span in spans:
        for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
            span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(otlp(spans, **{"service.name": "shop"}), indent=1))
    [[from_document], problems] = drafts_of(path)

    assert problems == []
    assert from_document.hashes == from_lines.hashes
    assert [talk_of(run) for run in from_document.runs] == [talk_of(run) for run in from_lines.runs]


def test_a_trace_in_two_files(tmp_path, store):
    """A trace whose spans are in two files of a folder is read whole; files of other traces are not companions."""
    from kern_nb.ingest.importers.otel import Otel
    from kern_nb.ingest.source import Source

    first, history = support_trace("a1", "talk-1", [], "Hello")
    second, _ = support_trace("b2", "talk-1", history, "Again")
    other, _ = support_trace("c3", "talk-1", history, "Again")
    spans = lines_of(first, second)
    for name, lines in (("1.jsonl", spans[:2]), ("2.jsonl", spans[2:6]), ("3.jsonl", spans[6:])):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines_of(other)))
    (tmp_path / "x.json").write_text("{}")
    source = Source(tmp_path / "2.jsonl", "2.jsonl")

    assert [path.name for path in Otel().companions(source)] == ["1.jsonl", "3.jsonl"]
    [draft] = Otel().read(source)
    assert [run.input for run in draft.runs] == ["Hello", "Again"]
    assert sum(len(run.messages) for run in draft.runs) == 8
    store.ingest(tmp_path / "1.jsonl")
    assert [run.output for run in store.get_session("talk-1").runs] == ["Done.", "Done."]


def openinference_trace():
    """An answer with reasoning and two calls: one output message, then three messages of the next input."""
    recorder = Recorder()
    top = recorder.span("Agent workflow", {"openinference.span.kind": "AGENT", "session.id": "s-1"}, duration=50)
    inner = {"openinference.span.kind": "AGENT", "agent.name": "desk", "session.id": "s-1"}
    desk = recorder.span("desk", inner, top, duration=40)
    turn = recorder.span("turn", {"openinference.span.kind": "CHAIN"}, desk, duration=30)
    usage = {"llm.token_count.prompt": 10, "llm.token_count.completion": 2, "llm.cost.total": 0.5}
    output, sent = "llm.output_messages.0.message.", "llm.input_messages.{}.message."

    def call_attributes(prefix, n, call_id, args):
        prefix = f"{prefix}tool_calls.{n}.tool_call."
        return {f"{prefix}id": call_id, f"{prefix}function.name": "look", f"{prefix}function.arguments": args}

    first = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m-1",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "Hello",
        f"{output}role": "assistant",
        f"{output}contents.0.message_content.type": "reasoning",
        f"{output}contents.0.message_content.text": "look first",
        **call_attributes(output, 0, "c1", '{"x": 1}'),
        **call_attributes(output, 1, "c2", '{"x": 2}'),
    }
    recorder.span("response", first | usage, turn)
    for n, seen in ((2, "two"), (1, "one")):
        values = {"openinference.span.kind": "TOOL", "tool.name": "look", "output.value": seen}
        recorder.span("look", values | {"input.value": json.dumps({"x": n})}, turn)
    second = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m-1",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "Hello",
        f"{sent.format(2)}role": "assistant",
        **call_attributes(sent.format(2), 0, "c1", '{"x": 1}'),
        f"{sent.format(3)}role": "assistant",
        **call_attributes(sent.format(3), 0, "c2", '{"x": 2}'),
    }
    for n, (call_id, seen) in enumerate((("c1", "one"), ("c2", "two")), 10):
        second |= {f"{sent.format(n)}role": "tool", f"{sent.format(n)}content": seen}
        second[f"{sent.format(n)}tool_call_id"] = call_id
    second |= {f"{output}role": "assistant", f"{output}content": "Done."}
    second |= {f"{output}contents.0.message_content.type": "text", f"{output}contents.0.message_content.text": "Done."}
    recorder.span("response", second | usage, desk)
    return recorder


def test_openinference_compares_calls_not_messages(read):
    """The agent below the workflow is the same run; calls without an id in their span are joined by arguments."""
    [draft] = read(lines_of(openinference_trace()))
    [run] = draft.runs

    assert draft.session_id == "s-1"
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert (run.agent_id, run.input, run.output) == ("desk", "Hello", "Done.")
    calls = run.messages[1].tool_calls
    assert [(c.tool_call_id, c.args, c.status) for c in calls] == [
        ("c1", {"x": 1}, "completed"),
        ("c2", {"x": 2}, "completed"),
    ]
    assert calls[1].created_at < calls[0].created_at
    assert [m.content for m in run.messages if m.role == "tool"] == ["one", "two"]
    assert sum(m.usage.cost for m in run.messages if m.usage) == 1.0


def test_openllmetry_without_a_session_is_one_session_per_trace(read):
    """The older attributes have numbers in their names; without an agent, each prompt is a run."""
    recorder = Recorder("c3")
    values = {
        "gen_ai.system": "OpenAI",
        "llm.request.type": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": json.dumps([{"type": "text", "text": "Hello"}]),
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.finish_reason": "tool_calls",
        "gen_ai.completion.0.tool_calls.0.id": "c1",
        "gen_ai.completion.0.tool_calls.0.name": "look",
        "gen_ai.completion.0.tool_calls.0.arguments": "{broken",
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 2,
        "llm.usage.total_tokens": 12,
    }
    recorder.span("openai.chat", values)
    more = {
        "gen_ai.prompt.2.role": "assistant",
        "gen_ai.prompt.2.tool_calls.0.id": "c1",
        "gen_ai.prompt.2.tool_calls.0.name": "look",
        "gen_ai.prompt.2.tool_calls.0.arguments": "{broken",
        "gen_ai.prompt.3.role": "tool",
        "gen_ai.prompt.3.tool_call_id": "c1",
        "gen_ai.prompt.3.content": "seen",
    }
    kept = {key: value for key, value in values.items() if not key.startswith("gen_ai.completion.")}
    said = {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Done."}
    recorder.span("openai.chat", kept | more | said)
    follow_up = {"gen_ai.prompt.4.role": "assistant", "gen_ai.prompt.4.content": "Done."}
    follow_up |= {"gen_ai.prompt.5.role": "user", "gen_ai.prompt.5.content": "Why?"}
    recorder.span("openai.chat", kept | more | follow_up | {"gen_ai.completion.0.content": "Because."})
    [draft] = read(lines_of(recorder))

    assert draft.session_id == recorder.trace
    assert [talk_of(run) for run in draft.runs] == [
        [("system", "Be brief."), ("user", "Hello"), ("assistant", None), ("tool", "seen"), ("assistant", "Done.")],
        [("user", "Why?"), ("assistant", "Because.")],
    ]
    [broken] = draft.runs[0].messages[2].tool_calls
    assert (broken.args, broken.extra) == ("{broken", {"args_invalid": True})
    usage = draft.runs[0].messages[2].usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (10, 2, None)


def test_messages_in_events(read):
    """The conventions before 1.37 have the messages in events, version 1 of pydantic-ai in an attribute."""
    recorder = Recorder()
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 1}
    events = [
        {"event.name": "gen_ai.system.message", "role": "system", "content": "Be brief."},
        {"event.name": "gen_ai.user.message", "role": "user", "content": "Hello"},
        {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "Hi."}},
    ]
    recorder.span("chat", values | {"events": json.dumps(events)})
    other = Recorder("b2")
    parts = [(e["event.name"], {k: v for k, v in e.items() if isinstance(v, str)}) for e in events]
    parts[2] = ("gen_ai.choice", {"index": 0, "message": json.dumps(events[2]["message"])})
    other.span("chat", values, events=parts)
    drafts = read([*lines_of(recorder), *lines_of(other)])

    expected = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi.")]
    assert [talk_of(run) for draft in drafts for run in draft.runs] == [expected, expected]


def test_a_nested_agent_is_a_member(read):
    """An agent below a tool has a session of its own, whatever conversation it states; its prompt is not a user's."""
    recorder = Recorder()
    root = recorder.agent("boss", gen_ai__conversation__id="talk-1")
    sent, called = text("user", "Hello"), answer(call("c1", "ask", {"q": "x"}))
    recorder.chat([sent], [called], root)
    tool = recorder.tool("ask", "c1", {"q": "x"}, "42", root)
    helper = recorder.agent("helper", tool, gen_ai__conversation__id="inner-1")
    recorder.chat([text("user", "x")], [text("assistant", "42")], helper)
    recorder.chat([sent, called, result("c1", "42")], [text("assistant", "It is 42.")], root)
    main, member = read(lines_of(recorder))

    assert (main.session_id, member.session_id) == ("talk-1", "inner-1")
    assert talk_of(main.runs[0])[2:] == [("tool", "42"), ("assistant", "It is 42.")]
    assert talk_of(member.runs[0]) == [("user", "x"), ("assistant", "42")]
    assert (member.membership.session_id, member.membership.tool_call_id) == ("talk-1", "c1")
    assert member.runs[0].agent_id == "helper"


def test_members_of_runs_with_the_same_call_ids(store, ingest):
    """Nested agents belong to the run that started them, even if both runs have a call of that id."""
    recorders, history = [], []
    for trace, prompt in (("a1", "Hello"), ("b2", "Again")):
        recorder = Recorder(trace)
        root = recorder.agent("boss", gen_ai__conversation__id="talk-1")
        history, called = [*history, text("user", prompt)], answer(call("c1", "ask", {}))
        recorder.chat(history, [called], root)
        tool = recorder.tool("ask", "c1", {}, "42", root)
        helper = recorder.agent("helper", tool)
        recorder.chat([text("user", "x")], [text("assistant", "42")], helper)
        history += [called, result("c1", "42")]
        recorders.append(recorder)
    report = ingest(lines_of(*recorders))
    runs = store.get_session("talk-1").runs

    assert (report.sessions, report.runs, report.errors) == (1, 4, [])
    assert [run.parent_run_id for run in runs] == [None, None, runs[0].run_id, runs[1].run_id]
    assert [run.agent_id for run in runs] == ["boss", "boss", "helper", "helper"]


def test_a_crash_before_the_end_of_the_run(read):
    """The span of the agent is missing then: its calls are the turns of its conversation, the nested agent a member."""
    recorder = Recorder()
    root = recorder.agent("boss")
    sent, called = text("user", "Hello"), answer(call("c1", "ask", {"q": "x"}))
    recorder.chat([sent], [called], root, gen_ai__conversation__id="talk-1")
    values = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "ask", "gen_ai.tool.call.id": "c1"}
    tool = recorder.span("execute_tool ask", values | {"gen_ai.conversation.id": "talk-1"}, root)
    helper = recorder.agent("helper", tool, gen_ai__conversation__id="inner-1")
    recorder.chat([text("user", "x")], [text("assistant", "42")], helper, gen_ai__conversation__id="inner-1")
    recorder.spans = [span for span in recorder.spans if span["spanId"] != root]
    main, member = read(lines_of(recorder))

    assert (main.session_id, talk_of(main.runs[0])) == ("talk-1", [("user", "Hello"), ("assistant", None)])
    assert (member.session_id, member.membership.tool_call_id) == ("inner-1", "c1")


def test_a_handoff_goes_on_with_the_run(read):
    """An agent that continues the conversation of the one around it adds to its run; one with its own is a member."""
    recorder = Recorder()
    root = recorder.agent("boss", session__id="s-1")
    over = answer({"type": "text", "content": "Over to the desk."}, call("h1", "transfer_to_desk", {}))
    recorder.chat([text("user", "Hello")], [over], root)
    recorder.span("handoff to desk", {"openinference.span.kind": "TOOL"}, root)
    history = [text("user", "Hello"), over, result("h1", "ok")]
    desk = recorder.agent("desk", root)
    recorder.chat([{"role": "system", "content": "You are the desk."}, *history], [text("assistant", "Yes?")], desk)
    critic = recorder.agent("critic", root)
    recorder.chat([text("user", "Judge: Yes?")], [text("assistant", "Fine.")], critic)
    main, member = read(lines_of(recorder))

    contents = ["Hello", "Over to the desk.", "ok", "You are the desk.", "Yes?"]
    assert [m.content for m in main.runs[0].messages] == contents
    assert [c.tool_name for c in main.runs[0].messages[1].tool_calls] == ["transfer_to_desk"]
    assert main.runs[0].extra["agents"] == ["desk"]
    assert talk_of(member.runs[0]) == [("user", "Judge: Yes?"), ("assistant", "Fine.")]
    assert member.membership.session_id == "s-1"


def test_failures(read):
    """A failed call has no messages; its prompt is in the agent's span. A tool's failure is that of its span."""
    recorder = Recorder()
    conversation = [text("user", "Hello"), answer(call("c1", "look", {}))]
    conversation += [{"role": "user", "parts": [{"type": "tool_call_response", "id": "c1", "result": "try again"}]}]
    root = recorder.span(
        "agent run",
        {"gen_ai.operation.name": "invoke_agent", "pydantic_ai.all_messages": json.dumps(conversation)},
        duration=50,
        status="STATUS_CODE_ERROR",
        events=[("exception", {"exception.type": "RuntimeError", "exception.message": "the model is down"})],
    )
    recorder.chat(conversation[:1], conversation[1:2], root)
    recorder.tool("look", "c1", {}, "try again", root, status=2)
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1"}
    recorder.span("chat", values, root, status="STATUS_CODE_ERROR")
    second = Recorder("b2")
    events = [("exception", {"exception.type": "asyncio.exceptions.CancelledError", "exception.message": ""})]
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "error.type": "timeout"}
    second.span("chat", values | {"gen_ai.input.messages": json.dumps(conversation[:1])}, status=2, events=events)
    failed, cancelled = read([*lines_of(recorder), *lines_of(second)])

    [run] = failed.runs
    assert (run.status, run.error) == ("ERROR", "the model is down")
    assert [(m.role, m.content, m.is_error) for m in run.messages] == [
        ("user", "Hello", None),
        ("assistant", None, None),
        ("tool", "try again", True),
    ]
    assert run.messages[1].tool_calls[0].status == "failed"
    assert [(r.status, r.error, r.input) for r in cancelled.runs] == [("CANCELLED", "timeout", "Hello")]


def test_a_conversation_that_lacks_the_last_answer(read):
    """If a tool raises, pydantic-ai's conversation ends before the answer that called it: nothing is new in it."""
    recorder = Recorder()
    sent = [text("user", "Hello")]
    root = recorder.agent("desk", gen_ai__conversation__id="talk-1", pydantic_ai__all_messages=json.dumps(sent))
    recorder.chat(sent, [answer(call("c1", "look", {}))], root)
    recorder.tool("look", "c1", {}, "broke", root, status=2)
    [draft] = read(lines_of(recorder))

    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", None)]
    assert draft.runs[0].messages[1].tool_calls[0].status == "failed"


def test_content_that_was_not_recorded(read):
    """Usage, times and calls are imported; the content is missing, not empty."""
    recorder = Recorder()
    root = recorder.agent("desk", gen_ai__conversation__id="talk-1")
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 5}
    recorder.span("chat", values, root)
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look", "gen_ai.tool.call.id": "c1"}
    recorder.span("execute_tool look", tool, root)
    recorder.span("chat", values, root)
    shapes = {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text"}]}])}
    shapes["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "parts": [{"type": "thinking"}]}])
    other = Recorder("b2")
    other.span("chat", values | shapes)
    unrecorded, shaped = read([*lines_of(recorder), *lines_of(other)])

    [run] = unrecorded.runs
    assert [(m.role, m.content, m.usage.input_tokens) for m in run.messages] == [("assistant", None, 5)] * 2
    [looked] = run.messages[0].tool_calls
    assert (looked.tool_name, looked.status, looked.args, looked.result) == ("look", "completed", None, None)
    assert talk_of(shaped.runs[0]) == [("user", None), ("assistant", None)]


def test_an_agent_that_alone_has_the_content(read):
    """The input and the output of an agent's span are its messages if its model calls have none."""
    recorder = Recorder()
    values = {"openinference.span.kind": "AGENT", "input.value": "Hello", "output.value": "Hi."}
    root = recorder.span("desk", values, duration=9)
    recorder.span("llm", {"openinference.span.kind": "LLM", "llm.token_count.prompt": 5}, root)
    [draft] = read(lines_of(recorder))

    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", "Hi.")]
    assert draft.runs[0].messages[1].usage.input_tokens == 5


def test_a_call_recorded_twice_counts_once(read):
    """A framework and its client library may both record a model call, one below the other."""
    recorder = Recorder()
    outer = recorder.chat([text("user", "Hello")], [text("assistant", "Hi.")])
    recorder.chat([text("user", "Hello")], [text("assistant", "Hi.")], outer)
    [draft] = read(lines_of(recorder))

    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", "Hi.")]
    assert draft.runs[0].messages[1].usage.input_tokens == 10


def test_inputs_that_do_not_extend_the_conversation(read):
    """A window of the history, a summary in its place, and another conversation in between add only what is new."""
    recorder = Recorder()

    def chat(sent, received):
        recorder.chat([text(*m) for m in sent], [text("assistant", received)], gen_ai__conversation__id="talk-1")

    chat([("system", "S"), ("user", "1")], "one")
    chat([("system", "S"), ("user", "1"), ("assistant", "one"), ("user", "2")], "two")
    chat([("user", "Write a title.")], "Numbers")
    chat([("system", "S"), ("user", "2"), ("assistant", "two"), ("user", "3")], "three")
    chat([("user", "Summary: 1 to 2"), ("user", "3"), ("assistant", "three"), ("user", "4")], "four")
    [draft] = read(lines_of(recorder))

    contents = [[m.content for m in run.messages] for run in draft.runs]
    assert contents[0] == ["S", "1", "one"]
    assert contents[1] == ["2", "two"]
    assert contents[2] == ["Write a title.", "Numbers"]
    assert [c for run in contents[3:] for c in run] == ["3", "three", "Summary: 1 to 2", "4", "four"]


def test_the_same_prompt_again_is_a_prompt(read):
    """Two runs of an agent without a memory, in one session, have a prompt each."""
    recorders = [Recorder(trace) for trace in ("a1", "b2")]
    for recorder in recorders:
        root = recorder.agent("desk", session__id="s-1")
        recorder.chat([text("user", "Hello")], [text("assistant", "Hi.")], root)
    [draft] = read(lines_of(*recorders))

    assert [talk_of(run) for run in draft.runs] == [[("user", "Hello"), ("assistant", "Hi.")]] * 2


def test_evaluations_are_scores(store, ingest):
    """An event with a value is a score of the session; its label and explanation are kept."""
    recorder = Recorder()
    event = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.5}
    recorder.chat([text("user", "Hello")], [text("assistant", "Hi.")], gen_ai__conversation__id="talk-1")
    label = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.label": "kind"}
    events = [("gen_ai.evaluation.result", event), ("gen_ai.evaluation.result", label)]
    recorder.span("evaluate", {}, events=events)
    ingest(lines_of(recorder))

    scores = store.scores_df()
    assert scores[["name", "value"]].to_numpy().tolist() == [["relevance", 0.5]]
    labels = [row.get("gen_ai.evaluation.score.label") for row in store.get_session("talk-1").agent_data["evaluations"]]
    assert labels == [None, "kind"]


def test_truncated_attributes(read):
    """The messages before the end of a truncated attribute are read; the rest stays as text."""
    recorder = Recorder()
    sent = json.dumps([text("user", "Hello"), text("assistant", "Hi."), text("user", "And now?")])[:-8]
    received = json.dumps([text("assistant", "A long answer")])[:-8]
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.input.messages": sent}
    recorder.span("chat", values | {"gen_ai.output.messages": received})
    [draft] = read(lines_of(recorder))
    messages = [m for run in draft.runs for m in run.messages]

    assert [(m.role, m.content) for m in messages[:2]] == [("user", "Hello"), ("assistant", "Hi.")]
    assert messages[-1].content == received
    assert messages[-1].extra["truncated"] is True
    assert "And n" in messages[-1].extra["truncated_input"]


def test_parts_that_are_no_text(read):
    """Images and files stay parts under a type that the store knows."""
    recorder = Recorder()
    parts = [
        {"type": "text", "content": "Look"},
        {"type": "uri", "modality": "image", "uri": "https://example.org/x.png"},
        {"type": "blob", "mime_type": "audio/wav", "content": "AAAA"},
        {"type": "novelty", "x": 1},
    ]
    recorder.chat([{"role": "user", "parts": parts}], [text("assistant", "Nice.")])
    [draft] = read(lines_of(recorder))

    from kern_nb.records import text_of

    content = draft.runs[0].messages[0].content
    assert text_of(content) == "Look"
    assert [part["type"] for part in content] == ["text", "image", "audio", "media"]
    assert content[3]["source_type"] == "novelty"


def test_logfire_rows(read):
    """Rows have ISO times and decoded attributes; a pending span is not the span."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.input.messages": [text("user", "Hello")],
        "gen_ai.output.messages": [text("assistant", "Hi.")],
        "gen_ai.usage.input_tokens": 10,
    }
    row = {"trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": None, "span_name": "chat", "kind": "span"}
    row |= {"start_timestamp": "2026-09-01T10:00:00Z", "end_timestamp": "2026-09-01T10:00:02.5Z"}
    row |= {"otel_scope_name": "pydantic-ai", "service_name": "shop", "attributes": json.dumps(attributes)}
    [draft] = read([{**row, "kind": "pending_span"}, row])
    [run] = draft.runs

    assert talk_of(run) == [("user", "Hello"), ("assistant", "Hi.")]
    assert (run.duration_s, draft.session.metadata["service"]) == (2.5, "shop")


def test_phoenix_and_sdk_spans(read):
    """The layout of Phoenix and of the SDK's console exporter, with nested or dotted attributes."""
    message = {"message": {"role": "user", "content": "Hello"}}
    attributes = {"llm": {"model_name": "m-1", "input_messages": [message], "token_count": {"prompt": 3}}}
    attributes |= {"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "Hi."}
    span = {"name": "llm", "context": {"trace_id": "0x" + "a" * 32, "span_id": "0x" + "b" * 16}, "span_kind": "LLM"}
    span |= {"parent_id": None, "start_time": "2026-09-01T10:00:00Z", "end_time": "2026-09-01T10:00:01Z"}
    [draft] = read([span | {"attributes": attributes, "status_code": "OK"}])

    assert draft.session_id == "a" * 32
    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", "Hi.")]
    assert draft.runs[0].messages[1].usage.input_tokens == 3


def test_langfuse_observations(read):
    """A trace with observations: its session, user and scores; cached tokens are beside the others."""
    times = {"startTime": "2026-09-01T10:00:00Z", "endTime": "2026-09-01T10:00:01Z"}
    agent = {"id": "o1", "traceId": "t1", "type": "AGENT", "name": "desk", **times, "parentObservationId": None}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    sent = [{"role": "user", "content": "Hello"}]
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    generation = {"id": "o2", "traceId": "t1", "type": "GENERATION", "parentObservationId": "o1", "model": "m-1"}
    generation |= times | {"input": sent, "output": called, "costDetails": {"total": 0.25}}
    generation["usageDetails"] = {"input": 5, "cache_read_input_tokens": 7, "output": 2, "total": 14}
    tool = {"id": "o3", "traceId": "t1", "type": "TOOL", "name": "look", "parentObservationId": "o1", "level": "ERROR"}
    tool |= times | {"input": {}, "output": None, "statusMessage": "no such file"}
    last = {**generation, "id": "o4", "startTime": "2026-09-01T10:00:02Z", "endTime": "2026-09-01T10:00:03Z"}
    last["input"] = [*sent, called, {"role": "tool", "tool_call_id": "c1", "content": "none"}]
    last["output"] = {"choices": [{"message": {"role": "assistant", "content": "Nothing."}}]}
    trace = {"id": "t1", "sessionId": "s-1", "userId": "ann", "name": "support", "timestamp": times["startTime"]}
    trace |= {"observations": [agent, generation, tool, last], "scores": [{"name": "quality", "value": 0.75}]}
    [draft] = read([trace])
    [run] = draft.runs

    assert (draft.session_id, draft.session.user_id, draft.session.session_name) == ("s-1", "ann", "support")
    assert talk_of(run) == [("user", "Hello"), ("assistant", None), ("tool", "none"), ("assistant", "Nothing.")]
    usage = run.messages[1].usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cost) == (12, 7, 0.25)
    assert (run.messages[2].is_error, run.messages[1].tool_calls[0].extra["error"]) == (True, "no such file")
    assert draft.scores == {"quality": 0.75}


def snake_case(value):
    """A JSON value with its names in snake case."""
    if isinstance(value, list):
        return [snake_case(item) for item in value]
    if isinstance(value, dict):
        return {re.sub("[A-Z]", lambda m: "_" + m[0].lower(), k): snake_case(v) for k, v in value.items()}
    return value


def test_wrappings_of_otlp(read):
    """A list of exports, batches of Tempo, resources or spans alone, snake case, a file with logs at its start."""
    recorder, _ = support_trace("a1", "talk-1", [], "Hello")
    whole = otlp(recorder.spans, **{"service.name": "shop"})
    [expected] = read([whole])
    resources = whole["resourceSpans"]
    spans = [span | {"resource": resources[0]["resource"]} for span in recorder.spans]
    exports = [[otlp([span]) for span in recorder.spans]], [{"batches": resources}], [{"trace": whole}], resources
    for values in (*exports, spans, [snake_case(whole)], [{"resourceLogs": []}] * 25 + [whole]):
        [draft] = read(values)
        assert [talk_of(run) for run in draft.runs] == [talk_of(run) for run in expected.runs]
        assert draft.runs[0].run_id == expected.runs[0].run_id


def test_messages_and_evaluations_in_log_records(read):
    """Instrumentations may log messages as events of a span, before it ends or after."""
    recorder = Recorder()
    span_id = recorder.span("chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1"})

    def log(name, **body):
        fields = [{"key": k, "value": {"kvlistValue": {"values": attributes_of(v)}} if isinstance(v, dict) else encode(v)}
                  for k, v in body.items()]  # fmt: skip
        record = {"traceId": recorder.trace, "spanId": span_id, "body": {"kvlistValue": {"values": fields}}}
        record["attributes"] = attributes_of({"event.name": name})
        return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}

    values = [log("gen_ai.user.message", content="Hello"), *lines_of(recorder)]
    values.append(log("gen_ai.choice", index=0, message={"role": "assistant", "content": "Hi."}))
    score = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 0.5}
    values.append(log("gen_ai.evaluation.result", **score))
    [draft] = read(values)

    assert [talk_of(run) for run in draft.runs] == [[("user", "Hello"), ("assistant", "Hi.")]]
    assert draft.scores == {"tone": 0.5}


def test_a_file_that_grows_in_the_middle_of_a_run(store, tmp_path):
    """A span is written at its end, that of an agent after its calls: its run is the one that the calls began."""
    first, history = support_trace("a1", "talk-1", [], "Hello")
    second, _ = support_trace("b2", "talk-1", history, "Again")
    for recorder in (first, second):
        for span in recorder.spans:
            span["attributes"] += attributes_of({"session.id": "talk-1"})
        recorder.spans.sort(key=lambda span: span["endTimeUnixNano"])
    lines = [json.dumps(line) + "\n" for line in lines_of(first, second)]
    path = tmp_path / "spans.jsonl"
    for n in range(1, len(lines) + 1):
        path.write_text("".join(lines[:n]))
        store.ingest(path)
    session = store.get_session("talk-1")

    assert [(run.input, run.output, len(run.messages)) for run in session.runs] == [
        ("Hello", "Done.", 4),
        ("Again", "Done.", 4),
    ]
    assert store.sessions_df()["input_tokens"].tolist() == [40]


def test_a_trace_in_two_compressed_files(store, tmp_path):
    """A collector's files may be compressed one by one."""
    recorder, _ = support_trace("a1", "talk-1", [], "Hello")
    lines = lines_of(recorder)
    for name, part in (("1.jsonl.gz", lines[:2]), ("2.jsonl.gz", lines[2:])):
        (tmp_path / name).write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in part).encode()))
    report = store.ingest(tmp_path)

    assert (report.sessions, report.runs, report.messages, report.tool_calls) == (1, 1, 4, 1)


def test_usage_that_only_an_agent_states(read):
    """It is that of the run if neither its model calls nor nested agents state theirs: it may include those."""
    recorder = Recorder()
    usage = {"gen_ai__usage__input_tokens": 10, "gen_ai__usage__output_tokens": 2}
    root = recorder.agent("boss", gen_ai__conversation__id="talk-1", **usage)
    sent = {"gen_ai.input.messages": json.dumps([text("user", "Hello")]), "gen_ai.request.model": "m-1"}
    recorder.span("chat", {"gen_ai.operation.name": "chat"} | sent, root)
    other = Recorder("b2")
    root = other.agent("boss", gen_ai__conversation__id="talk-2", **usage)
    helper = other.agent("helper", other.tool("ask", "c1", {}, "42", root))
    other.chat([text("user", "x")], [text("assistant", "42")], helper)
    first, second, member = read(lines_of(recorder, other))

    assert (first.runs[0].usage.input_tokens, first.runs[0].usage.output_tokens) == (10, 2)
    assert second.runs[0].usage is None
    assert member.runs[0].messages[1].usage.input_tokens == 10


def test_tokens_that_are_counted_beside_the_input(read):
    """Some instrumentations count cached tokens beside the input; the cost may be in parts."""
    recorder = Recorder()
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.usage.output_tokens": 2}
    cached = {"gen_ai.usage.cache_read.input_tokens": 5, "gen_ai.usage.input_tokens": 8}
    sent = {
        "gen_ai.input.messages": json.dumps([text("user", "Hello")]),
        "llm.cost.prompt": 0.5,
        "llm.cost.completion": 1,
    }
    recorder.span("chat", values | sent | cached | {"gen_ai.usage.total_tokens": 15})
    recorder.span("chat", values | cached | {"gen_ai.usage.total_tokens": 10})
    recorder.span("chat", values | cached | {"gen_ai.usage.input_tokens": 3})
    [draft] = read(lines_of(recorder))

    usage = [m.usage for run in draft.runs for m in run.messages if m.usage]
    assert [u.input_tokens for u in usage] == [13, 8, 8]
    assert usage[0].cost == 1.5


def test_calls_that_failed(read):
    """A failed call without an answer ends its run, even if it states usage; one that is tried again does not."""
    recorder = Recorder()
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.provider.name": "acme"}
    sent = {"gen_ai.input.messages": json.dumps([text("user", "Hello")])}
    recorder.span("chat", values | sent | {"error.type": "429", "gen_ai.usage.input_tokens": 9})
    recorder.chat([text("user", "Next")], [text("assistant", "Hi.")])
    retried = Recorder("b2")
    retried.span("chat", values | sent, status=2)
    retried.span("chat", values | sent | {"gen_ai.output.messages": json.dumps([text("assistant", "Hi.")])})
    first, second = read(lines_of(recorder, retried))

    assert [(r.status, r.error, r.input, r.model_provider) for r in first.runs] == [
        ("ERROR", "429", "Hello", "acme"),
        ("COMPLETED", None, "Next", "acme"),
    ]
    assert [(r.status, talk_of(r)) for r in second.runs] == [("COMPLETED", [("user", "Hello"), ("assistant", "Hi.")])]


def test_ids_may_be_numbers_and_messages_null(read):
    """An agent may have an id only; null is no message."""
    recorder = Recorder()
    values = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": "a-1", "gen_ai.conversation.id": 17}
    root = recorder.span("invoke_agent", values | {"user.id": 5}, duration=9)
    recorder.chat([None, text("user", "Hello")], None, root)
    [draft] = read(lines_of(recorder))

    assert (draft.session_id, draft.session.user_id, draft.session.agent_id) == ("17", "5", "a-1")
    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", None)]


def test_an_embedding_is_no_message(read):
    """OpenLLMetry records the calls of embedding models like those of other ones."""
    recorder = Recorder()
    recorder.span(
        "openai.embeddings", {"llm.request.type": "embedding", "gen_ai.request.model": "e", "gen_ai.prompt": "x"}
    )
    recorder.span("completion", {"gen_ai.request.model": "m", "gen_ai.prompt": "Once", "gen_ai.completion": "upon"})
    [draft] = read(lines_of(recorder))

    assert talk_of(draft.runs[0]) == [("user", "Once"), ("assistant", "upon")]
    assert draft.runs[0].messages[0].extra == {}, "a text that is no JSON is not truncated"


def test_parts_of_a_result(read):
    """The text of a result's part is its text."""
    recorder = Recorder()
    parts = [{"type": "text", "content": "seen"}, {"type": "blob", "mime_type": "image/png", "content": "AA"}]
    recorder.chat(
        [text("user", "Hello"), answer(call("c1", "look", {})), result("c1", parts)], [text("assistant", "Hi.")]
    )
    [draft] = read(lines_of(recorder))
    content = draft.runs[0].messages[2].content

    assert [part["type"] for part in content] == ["text", "image"]
    assert content[0]["text"] == "seen"


def test_a_frame_of_phoenix(store, tmp_path):
    """Columns with dotted names, in Parquet or in JSON with times in milliseconds."""
    row = {
        "context.trace_id": "a" * 32,
        "context.span_id": "b" * 16,
        "parent_id": None,
        "name": "llm",
        "span_kind": "LLM",
    }
    row |= {"start_time": pd.Timestamp("2026-09-01T10:00:00Z"), "end_time": pd.Timestamp("2026-09-01T10:00:02Z")}
    row |= {"status_code": "OK", "attributes.llm.model_name": "m-1", "attributes.session.id": "s-1"}
    row["attributes.llm.input_messages"] = [{"message.role": "user", "message.content": "Hello"}]
    row["attributes.llm.output_messages"] = [{"message.role": "assistant", "message.content": "Hi."}]
    row["attributes.llm.token_count.prompt"] = 3.0
    pd.DataFrame([row]).to_parquet(tmp_path / "spans.parquet")
    milliseconds = {name: int(row[name].timestamp() * 1000) for name in ("start_time", "end_time")}
    (tmp_path / "spans.json").write_text(json.dumps([row | milliseconds]))
    for name in ("spans.parquet", "spans.json"):
        [draft], problems = drafts_of(tmp_path / name)
        assert (draft.session_id, problems) == ("s-1", [])
        assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", "Hi.")]
        assert (draft.runs[0].created_at.year, draft.runs[0].duration_s) == (2026, 2.0)
        assert draft.runs[0].messages[1].usage.input_tokens == 3


def test_objects_as_attributes(read):
    """Phoenix exports nested attributes; messages of the GenAI conventions in them stay lists."""
    values = {"operation": {"name": "chat"}, "request": {"model": "m-1"}}
    values |= {"input": {"messages": [text("user", "Hello")]}, "output": {"messages": [text("assistant", "Hi.")]}}
    span = {"name": "llm", "context": {"trace_id": "a" * 32, "span_id": "b" * 16}, "attributes": {"gen_ai": values}}
    [draft] = read([span | {"start_time": "2026-09-01T10:00:00Z", "parent_id": "0x" + "0" * 16}])

    assert talk_of(draft.runs[0]) == [("user", "Hello"), ("assistant", "Hi.")]


def test_logfire_columns(read):
    """A query's result by columns; a numeric level, a duration and the attributes of the resource."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": [text("user", "Hello")],
    }
    row = {"trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": None, "span_name": "chat", "kind": "span"}
    row |= {"start_timestamp": "2026-09-01T10:00:00Z", "duration": 2.5, "level": 17, "exception_message": "down"}
    row |= {"attributes": attributes, "deployment_environment": "prod", "otel_resource_attributes": {"host": "h"}}
    [draft] = read([{"columns": [{"name": name, "values": [value]} for name, value in row.items()]}])

    assert (draft.runs[0].status, draft.runs[0].error, draft.runs[0].input) == ("ERROR", "down", "Hello")
    assert draft.session.metadata["environment"] == "prod"
    assert draft.session.agent_data["resource"]["host"] == "h"
    assert draft.session.updated_at - draft.session.created_at == 2


def test_counts_of_langfuse(read):
    """Older and newer names, parts inside or beside a count as the total says; a trace's scores are counted once."""
    times = {"startTime": "2026-09-01T10:00:00Z", "endTime": "2026-09-01T10:00:02Z", "type": "GENERATION"}
    sent = [{"role": "user", "content": "Hello"}]
    inside = {"input": 10, "output": 5, "input_cached_tokens": 4, "output_reasoning_tokens": 2, "total": 15}
    beside = {"input": 9, "output": 1, "cache_read": 90, "total": 100}
    old = {"promptTokens": 7, "completionTokens": 3, "totalTokens": 10}
    counts = [
        {"usageDetails": inside},
        {"usageDetails": beside},
        {"usage": old},
        {"usage": {"input": 5, "unit": "SECONDS"}},
    ]
    observations = [{"id": f"o{i}", **times, "input": sent, "output": f"Hi {i}", **c} for i, c in enumerate(counts)]
    observations[0] |= {"costDetails": {"input": 0.25, "output": 0.5}, "completionStartTime": "2026-09-01T10:00:00.5Z"}
    trace = {"id": "t1", "observations": observations, "scores": [{"name": "q", "value": 1}], "environment": "prod"}
    [draft] = read([[trace]])
    usage = [m.usage for run in draft.runs for m in run.messages if m.role == "assistant"]

    assert [
        u and (u.input_tokens, u.output_tokens, u.cache_read_tokens, u.reasoning_tokens, u.cost) for u in usage
    ] == [
        (10, 5, 4, 2, 0.75),
        (99, 1, 90, None, None),
        (7, 3, None, None, None),
        None,
    ]
    assert draft.runs[0].time_to_first_token_s == 0.5
    assert (draft.scores, len(draft.session.agent_data["evaluations"])) == ({"q": 1.0}, 1)
    assert draft.session.metadata["environment"] == "prod"


def test_a_nested_agent_in_a_file_that_grows(tmp_path):
    """Whatever of a trace is written first, its runs are stored once, and the nested agent below its parent."""
    from kern_nb.db import SqliteDb

    recorder = Recorder()
    root = recorder.agent("boss")
    sent, called = text("user", "Hello"), answer(call("c1", "ask", {"q": "x"}))
    recorder.chat([sent], [called], root)
    tool = recorder.tool("ask", "c1", {"q": "x"}, "42", root, duration=5)
    values = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
    helper = recorder.span("invoke_agent helper", values, tool, duration=3)
    recorder.chat([text("user", "x")], [text("assistant", "42")], helper)
    recorder.chat([sent, called, result("c1", "42")], [text("assistant", "It is 42.")], root)
    recorder.spans.sort(key=lambda span: int(span["endTimeUnixNano"]))
    lines = [json.dumps(line) + "\n" for line in lines_of(recorder)]
    path = tmp_path / "spans.jsonl"
    for n in range(1, len(lines)):
        other = SqliteDb(str(tmp_path / f"{n}.db"))
        for part in (lines[:n], lines):
            path.write_text("".join(part))
            assert other.ingest(path).errors == []
        boss, nested = other.get_session(recorder.trace).runs
        assert (boss.output, nested.output, nested.parent_run_id) == ("It is 42.", "42", boss.run_id), n
        assert other.sessions_df()["input_tokens"].tolist() == [30]
        other.close()


def test_further_attributes_are_kept(read):
    """Settings of a call and what the user adds to a span are beside the answer, the run and the call."""
    recorder = Recorder()
    root = recorder.agent("desk", team="red")
    recorder.chat([text("user", "Hello")], [answer(call("c1", "look", {}))], root, gen_ai__request__top_p=0.5)
    values = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look", "gen_ai.tool.call.id": "c1"}
    recorder.span("execute_tool look", values | {"cost_center": 7}, root)
    [draft] = read(lines_of(recorder))
    [run] = draft.runs

    assert run.extra["attributes"] == {"team": "red"}
    assert run.messages[1].extra["attributes"] == {"gen_ai.request.top_p": 0.5}
    assert run.messages[1].tool_calls[0].extra["attributes"] == {"cost_center": 7}


def test_requests_as_they_were_sent(read):
    """An instrumentation may have the messages in the request only: of Anthropic, or of the Responses API."""
    requests = [{"model": "m", "system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}]}]
    requests.append({"model": "m", "instructions": "Be brief.", "input": "Hello"})
    for request in requests:
        recorder = Recorder()
        values = {"openinference.span.kind": "LLM", "input.value": json.dumps(request), "output.value": "Hi."}
        recorder.span("llm", values)
        [draft] = read(lines_of(recorder))
        assert talk_of(draft.runs[0]) == [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi.")]


def test_other_files_are_not_recognized(tmp_path):
    """Spans without a model, an agent or a tool, and records of other programs."""
    from kern_nb.ingest.importers.otel import Otel
    from kern_nb.ingest.source import Source

    http = Recorder()
    http.span("GET /", {"http.method": "GET"})
    path = tmp_path / "x.jsonl"
    for value in (*lines_of(http), {"messages": [{"role": "user", "content": "x"}]}, [1], {"type": ["AGENT"], "id": 1}):
        path.write_text(json.dumps(value))
        assert not Otel().recognizes(Source(path, path.name))


def test_damaged_files(tmp_path):
    """Whatever is damaged, nothing is raised, and the sessions of intact traces come in."""
    first, history = support_trace("a1", "talk-1", [], "Hello")
    second, _ = support_trace("b2", "talk-2", history, "Again")
    lines = [*lines_of(first), *lines_of(second), *lines_of(openinference_trace())]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = tmp_path / "x.jsonl"
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        path.write_bytes(damaged)
        drafts_of(path)
    for value in mistyped(lines, 150):
        path.write_text("".join(json.dumps(line) + "\n" for line in value))
        drafts, _ = drafts_of(path)
        assert len({d.session_id for d in drafts if d.membership is None} & {"talk-1", "talk-2", "s-1"}) >= 2
    for attribute in ("gen_ai.input.messages", "gen_ai.output.messages", "pydantic_ai.all_messages"):
        parts = [answer(call("c1", "look", {"x": 1})), result("c1", "seen"), text("user", "Hello")]
        for value in mistyped(parts, 50):
            span = Recorder()
            span.span("chat", {"gen_ai.operation.name": "chat", attribute: json.dumps(value)})
            path.write_text(json.dumps(lines_of(span)[0]))
            drafts, problems = drafts_of(path)
            assert len(drafts) == 1, problems


def samples(shared_data):
    figures = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    return {name: figure for name, figure in figures.items() if figure["kind"] == "otel"}


def test_samples(shared_data, tmp_path):
    """The figures of the samples, on a store; calls of an answer that only a later input shows are counted, too."""
    from kern_nb.db import SqliteDb

    for name, expected in samples(shared_data).items():
        store = SqliteDb(str(tmp_path / f"{name.replace('/', '-')}.db"))
        report = store.ingest(shared_data / name)
        again = store.ingest(shared_data / name)
        assert report.errors == []
        assert (again.sessions, again.runs, again.messages, again.tool_calls) == (0, 0, 0, 0)
        messages, calls = store.messages_df(), store.tool_calls_df()
        ids = sorted(store.sessions_df()["session_id"])
        assert ids == sorted(expected["session_ids"]), name
        assert (report.runs, report.messages) == (expected["runs"], expected["messages_once"]), name
        assert messages["role"].value_counts().to_dict() == expected["messages_by_role"], name
        runs = store.runs_df()
        for column in ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"):
            assert runs[column].sum() == expected[column], (name, column)
        assert set(messages["model"].dropna()) == set(expected["models"])
        assert len(calls) - expected["tool_calls"] in (0, len(ids) - 1), name
        assert int(calls["is_error"].fillna(False).sum()) == (expected["failed_calls"] or 0)
        first, last = runs["created_at"].min().isoformat(), runs["finished_at"].max().isoformat()
        assert (first[:23], last[:23]) == (expected["first_ts"][:-1], expected["last_ts"][:-1]), name
