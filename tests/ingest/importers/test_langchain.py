"""LangChain's messages in each of their layouts, and runs of LangSmith, whose model calls repeat what was said."""

from __future__ import annotations

import json

import pytest

from kern_nb.db import SqliteDb
from kern_nb.ingest.importer import Draft, Membership
from kern_nb.ingest.importers.langchain import LangChain
from kern_nb.ingest.registry import detect_importer
from kern_nb.ingest.source import Source
from tests.ingest.importers.mutations import mistyped, truncated

HUMAN = {"type": "human", "content": "Where is the key?", "id": "h1"}
CALL = {"name": "search", "args": {"in": "drawer"}, "id": "c1", "type": "tool_call"}
USAGE = {"input_tokens": 8, "output_tokens": 3, "total_tokens": 11}
AI = {"type": "ai", "content": "", "id": "a1", "tool_calls": [CALL], "usage_metadata": USAGE}
AI |= {"response_metadata": {"model_name": "m-2", "model_provider": "acme"}}
TOOL = {"type": "tool", "content": "locked", "tool_call_id": "c1", "name": "search", "status": "error", "id": "t1"}
LAST = {"type": "ai", "content": [{"type": "text", "text": "It is locked."}], "id": "a2"}
MESSAGES = [HUMAN, AI, TOOL, LAST]
CLASSES = {"human": "HumanMessage", "ai": "AIMessage", "tool": "ToolMessage"}


def nested(fields):
    return {"type": fields["type"], "data": fields}


def constructor(fields):
    path = ["langchain", "schema", "messages", CLASSES[fields["type"]]]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": {k: v for k, v in fields.items() if k != "type"}}


def read(path, values, suffix=".json"):
    file = path / f"history{suffix}"
    is_lines = suffix == ".jsonl"
    file.write_text("\n".join(map(json.dumps, values)) if is_lines else json.dumps(values, indent=1))
    source = Source(file, file.name)
    assert detect_importer(source).name == "langchain"
    items = list(LangChain().read(source))
    return [item for item in items if isinstance(item, Draft)], [i.reason for i in items if not isinstance(i, Draft)]


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        ([nested(m) for m in MESSAGES], ".json"),
        ([constructor(m) for m in MESSAGES], ".json"),
        (MESSAGES, ".json"),
        ([nested(m) for m in MESSAGES], ".jsonl"),
        ({"messages": [constructor(m) for m in MESSAGES]}, ".json"),
        ({"values": {"messages": MESSAGES}}, ".json"),
        (
            {"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {"messages": list(map(constructor, MESSAGES))}},
            ".json",
        ),
    ],
)
def test_each_layout_has_the_same_messages(tmp_path, values, suffix):
    [draft], problems = read(tmp_path, values, suffix)
    [run] = draft.runs

    assert not problems
    assert draft.session_id == "history"
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert [(c.tool_name, c.args, c.status) for c in run.messages[1].tool_calls] == [
        ("search", {"in": "drawer"}, "failed")
    ]
    assert (run.model, run.model_provider) == ("m-2", "acme")
    assert run.messages[1].usage.total_tokens == 11
    assert (run.created_at, run.duration_s) == (None, None)
    assert draft.has_record_ids


def test_several_conversations_and_a_bad_message(tmp_path):
    drafts, problems = read(tmp_path, [{"thread_id": "x", "messages": [HUMAN, 5, LAST]}, [HUMAN]])

    assert [(d.session_id, len(d.runs[0].messages)) for d in drafts] == [("x", 2), ("history-2", 1)]
    assert problems == ["Message 1 of session 'x' is not imported: a message must have a type and a content."]


def test_older_calls_and_invalid_ones(tmp_path):
    raw = {"tool_calls": [{"id": "r", "type": "function", "function": {"name": "f", "arguments": '{"x": 2}'}}]}
    old = {"type": "ai", "content": "", "additional_kwargs": raw}
    bad = {"type": "ai", "content": "", "invalid_tool_calls": [{"name": "f", "args": "{x", "id": "i", "error": "no"}]}
    [draft], _ = read(tmp_path, [HUMAN, old, bad])
    old_call, bad_call = (m.tool_calls[0] for m in draft.runs[0].messages[1:])

    assert (old_call.tool_call_id, old_call.tool_name, old_call.args) == ("r", "f", {"x": 2})
    assert (bad_call.args, bad_call.extra["args_invalid"]) == ("{x", True)


def test_parts_that_repeat_calls_are_left_out(tmp_path):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Wait"}, {"type": "odd", "x": 1}]
    repeated = {"type": "tool_use", "id": "c1", "name": "search", "input": {}}
    [draft], _ = read(tmp_path, [HUMAN, {**AI, "content": [*parts, repeated]}])
    message = draft.runs[0].messages[1]

    assert message.content == parts[:2]
    assert message.extra["other_parts"] == [parts[2]]


def run(name, kind, second, parent=None, **fields):
    trace = fields.pop("trace", "T1")
    row = {"id": name, "name": name, "run_type": kind, "trace_id": trace, "parent_run_id": parent, "session_id": "proj"}
    row |= {"start_time": f"2026-05-01T00:00:{second:02}", "end_time": f"2026-05-01T00:00:{second + 1:02}"}
    return row | {"inputs": {}, "outputs": {}, "status": "success", "extra": {"metadata": {}}} | fields


def model_call(name, second, parent, messages, answer, **fields):
    outputs = {"generations": [[{"text": "", "message": constructor(answer)}]]}
    return run(
        name, "llm", second, parent, inputs={"messages": [list(map(constructor, messages))]}, outputs=outputs, **fields
    )


MODEL = {"metadata": {"ls_model_name": "m-3", "ls_provider": "acme"}}


def traces():
    """Two traces of a thread: an agent with a tool, and a second prompt with the history."""
    thread = {"metadata": {"thread_id": "thread-1", "user_id": "u"}}
    prompt = {"type": "human", "content": "Where is the key?"}
    answer = {**LAST, "content": "It is locked."}
    second = {"type": "human", "content": "Where is the key?"}
    bye = {"type": "ai", "content": "Still locked."}
    plain = [{k: v for k, v in m.items() if k != "id"} for m in (AI, TOOL, answer)]
    feedback = {"stars": {"n": 1, "avg": 0.5}}
    return [
        run("T1", "chain", 1, inputs={"messages": [prompt]}, extra=thread, first_token_time="2026-05-01T00:00:01.5"),
        model_call("L1", 2, "T1", [prompt], plain[0], extra=MODEL),
        run("search", "tool", 3, "T1", outputs={"output": constructor(TOOL)}),
        model_call(
            "L2", 4, "T1", [prompt, plain[0], TOOL], answer, prompt_tokens=20, completion_tokens=4, total_cost=0.5
        ),
        run("T2", "chain", 11, inputs={"messages": [second]}, extra=thread, trace="T2", feedback_stats=feedback),
        model_call("L3", 12, "T2", [prompt, *plain, second], bye, trace="T2", total_tokens=0, prompt_tokens=0),
        run("T3", "chain", 21, inputs={"question": "Alone?"}, outputs={"answer": "Yes"}, trace="T3", error="boom"),
    ]


def test_runs_of_a_thread_are_a_session(tmp_path):
    (thread, alone), problems = read(tmp_path, traces()[::-1], ".jsonl")
    first, second = thread.runs

    assert not problems
    assert (thread.session_id, thread.session.user_id, thread.session.metadata["project"]) == ("thread-1", "u", "proj")
    assert [m.content for m in first.messages] == ["Where is the key?", "", "locked", "It is locked."]
    assert [m.content for m in second.messages] == ["Where is the key?", "Still locked."], "said twice, asked twice"
    assert first.messages[1].tool_calls[0].status == "failed"
    assert (first.messages[1].model, first.model_provider) == ("m-2", "acme")
    assert [m.usage.input_tokens for m in first.messages if m.usage] == [8, 20]
    assert (first.messages[3].usage.cost, second.messages[1].usage) == (0.5, None), "zeros are unknown"
    assert (first.time_to_first_token_s, first.duration_s) == (0.5, 1.0)
    assert thread.scores == {"stars": 0.5}
    assert (alone.session_id, alone.runs[0].status, alone.runs[0].error) == ("T3", "ERROR", "boom")
    assert [m.content for m in alone.runs[0].messages] == ["Alone?", "Yes"]


def test_nested_runs_and_flattened_prompts(tmp_path):
    """Runs with their ``child_runs``; a tracer that records a chat as one text, which repeats the messages."""
    system, prompt = {"type": "system", "content": "Be exact"}, {"type": "human", "content": "Where is the key?"}
    calls = [{"name": "search", "args": {"q": n}, "id": f"c{n}"} for n in (1, 2)]
    asks = {"type": "ai", "content": "", "tool_calls": calls, "usage_metadata": {"input_tokens": 8, "output_tokens": 1}}
    answer = {"type": "ai", "content": "Here"}

    def call(name, second, message, text):
        fields = {"inputs": {"prompts": [text]}, "outputs": {"generations": [[{"text": "", "message": message}]]}}
        return run(name, "llm", second, "node", **fields)

    def tool(second, number):
        fields = {"inputs": {"q": number}, "extra": {"tool_call_id": f"c{number}"}, "child_runs": None}
        return run("search", "tool", second, "node", outputs={"output": f"hit {number}"}, **fields) | {"id": number}

    children = [call("L1", 2, asks, "System: Be exact\nHuman: Where is the key?"), tool(3, 2), tool(4, 1)]
    children.append(call("L2", 5, answer, "System: Be exact\nHuman: Where is the key?\nAI: ..."))
    node = {"id": "node", "name": "agent", "run_type": "chain", "inputs": {}, "dotted_order": "1", "start_time": None}
    messages = [system, prompt]
    root = run("T1", "chain", 1, inputs={"messages": messages}, child_runs=[node | {"child_runs": children}])
    [draft], problems = read(tmp_path, [root], ".json")
    [first] = draft.runs

    assert not problems
    assert first.input == "Where is the key?"
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [(m.tool_call_id, m.content) for m in first.messages[3:5]] == [("c2", "hit 2"), ("c1", "hit 1")]
    assert (first.output, first.messages[2].usage.input_tokens) == ("Here", 8)


def test_a_tool_that_calls_models_is_a_nested_agent(tmp_path):
    """Two levels deep: each agent's messages are its own, and its call is the one that the tool answers."""
    thread = {"metadata": {"thread_id": "thread-1"}}

    def asks(name):
        return {"type": "ai", "content": "", "tool_calls": [{"name": name, "args": {}, "id": f"c-{name}"}]}

    def result(name, text):
        return constructor({"type": "tool", "content": text, "tool_call_id": f"c-{name}", "name": name})

    def says(text, kind="human"):
        return {"type": kind, "content": text}

    top, middle = {"inputs": {"messages": [says("Top")]}}, {"inputs": {"messages": [says("Middle")]}}
    rows = [
        run("T1", "chain", 1, extra=thread, **top),
        model_call("L1", 2, "T1", [says("Top")], asks("ask")),
        run("ask", "tool", 3, "T1", outputs={"output": result("ask", "middle said")}),
        run("agent", "chain", 4, "ask", extra=thread, **middle),
        model_call("L2", 5, "agent", [says("Middle")], asks("look")),
        run("look", "tool", 6, "agent", outputs={"output": "found"}, extra={"tool_call_id": "c-look"}),
        model_call("L3", 7, "look", [says("Deep one")], says("deep 1", "ai")),
        model_call("L4", 8, "look", [says("Deep two")], says("deep 2", "ai")),
        run("plain", "tool", 9, "agent", outputs={"output": "4"}),
        model_call("L5", 10, "agent", [says("Middle")], says("middle said", "ai")),
        model_call("L6", 11, "T1", [says("Top")], says("top said", "ai")),
    ]
    drafts, problems = read(tmp_path, rows, ".jsonl")

    assert not problems
    assert [(draft.session_id, draft.membership) for draft in drafts] == [
        ("thread-1", None),
        ("thread-1/ask", Membership("thread-1", "c-ask")),
        ("thread-1/look", Membership("thread-1/ask", "c-look")),
    ]
    contents = [[m.content for m in draft.runs[0].messages] for draft in drafts]
    assert contents[0] == ["Top", "", "middle said", "top said"]
    assert contents[1] == ["Middle", "", "found", "4", "middle said"]
    assert contents[2] == ["Deep one", "deep 1", "Deep two", "deep 2"]
    store = SqliteDb(tmp_path / "s.db")
    report = store.ingest(tmp_path / "history.jsonl")
    assert (report.sessions, report.runs, report.errors) == (1, 3, [])


def test_one_bad_run_in_a_list_and_the_times_of_a_thread(tmp_path):
    drafts, problems = read(tmp_path, [*traces()[:4], traces()[6], run("X", "chain", 30, trace="X", inputs=7)])
    assert (len(drafts), len(problems)) == (2, 1)
    times = {"created_at": "2026-05-01T00:00:00Z", "updated_at": "2026-05-01T00:01:00Z"}
    [thread], _ = read(tmp_path, {"thread_id": "t", "values": {"messages": MESSAGES}, **times})
    assert (thread.session.created_at, thread.session.updated_at) == (1_777_593_600, 1_777_593_660)


def test_a_bad_message_does_not_lose_its_trace(tmp_path):
    rows = traces()[:4]
    rows[1] = rows[1] | {"inputs": {"messages": [{"type": "human", "content": "Hi", "tool_calls": [5]}]}}
    [draft], [problem] = read(tmp_path, rows, ".jsonl")

    assert "Run 'L1' is not imported in full: a tool call must be an object" in problem
    assert [m.content for m in draft.runs[0].messages] == ["Where is the key?", "", "locked", "It is locked."]


def test_a_failed_tool_has_what_the_model_saw(tmp_path):
    """The run of the tool has the traceback, the next model call the message; also of a result that was not logged."""
    prompt = {"type": "human", "content": "Look"}
    calls = [{"name": "look", "args": {}, "id": f"c{n}"} for n in (1, 2)]
    asks = {"type": "ai", "content": "", "tool_calls": calls}
    results = [{"type": "tool", "content": f"Text {n}", "tool_call_id": f"c{n}", "id": f"r{n}"} for n in (1, 2)]
    rows = [
        run("T1", "chain", 1, inputs={"messages": [prompt]}),
        model_call("L1", 2, "T1", [prompt], asks),
        run("look", "tool", 3, "T1", error="Traceback ...", extra={"tool_call_id": "c1"}) | {"id": "A"},
        run("look", "tool", 4, "T1", outputs=None, extra={"tool_call_id": "c2"}) | {"id": "B"},
        model_call("L2", 5, "T1", [prompt, asks, *results], {"type": "ai", "content": "Seen"}),
    ]
    [draft], _ = read(tmp_path, rows, ".jsonl")

    results = draft.runs[0].messages[2:4]
    assert [(m.content, m.is_error, m.message_id) for m in results] == [("Text 1", True, "r1"), ("Text 2", None, "r2")]


def test_calls_of_other_libraries(tmp_path):
    """A wrapped client logs the chat API's layout; a tool states no call id."""
    calls = [{"id": "k", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    system, user = {"role": "system", "content": "Be exact"}, {"role": "user", "content": "1+1"}
    asks = {"role": "assistant", "content": None, "tool_calls": calls}
    usage = {
        "prompt_tokens": 6,
        "completion_tokens": 1,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    result, final = {"role": "tool", "tool_call_id": "k", "content": "2"}, {"role": "assistant", "content": "Two"}
    rows = [
        run("R", "chain", 1, inputs={"question": "1+1"}, outputs={"output": "Two"}),
        run(
            "O1",
            "llm",
            2,
            "R",
            inputs={"messages": [system, user]},
            outputs={"choices": [{"message": asks}], "usage": usage},
        ),
        run("add", "tool", 3, "R", outputs={"output": 2}),
        run(
            "O2",
            "llm",
            4,
            "R",
            inputs={"messages": [system, user, asks, result]},
            outputs={"choices": [{"message": final}]},
        ),
    ]
    [draft], _ = read(tmp_path, {"runs": rows})
    messages = draft.runs[0].messages

    assert [m.role for m in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[2].tool_calls[0].status == "completed"
    assert (messages[2].usage.input_tokens, messages[2].usage.cache_read_tokens) == (6, 2)


def test_other_layouts_are_not_recognized(tmp_path):
    for value in (
        {"messages": [{"role": "user", "content": "x"}]},
        [{"type": "text"}],
        {"id": 1, "run_type": "llm"},
        [[]],
    ):
        (tmp_path / "x.json").write_text(json.dumps(value))
        assert not LangChain().recognizes(Source(tmp_path / "x.json", "x.json"))


def test_damaged_files(tmp_path):
    """Nothing raises; the intact records are imported."""
    file = tmp_path / "x.json"
    for value in (*mistyped(traces(), 150), *mistyped([constructor(m) for m in MESSAGES], 100)):
        file.write_text("\n".join(map(json.dumps, value)) if isinstance(value[0], dict) else json.dumps(value))
        assert any(isinstance(item, Draft) for item in LangChain().read(Source(file, "x.json")))
    for data in truncated("\n".join(map(json.dumps, traces())).encode(), 50):
        file.write_bytes(data)
        list(LangChain().read(Source(file, "x.json")))


def test_a_second_import_stores_nothing(tmp_path):
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, traces())))
    store = SqliteDb(tmp_path / "s.db")
    first, second = (store.ingest(tmp_path / "runs.jsonl", progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls, first.errors) == (2, 3, 8, 1, [])
    assert (second.sessions, second.runs, second.messages, second.skipped) == (0, 0, 0, 2)
