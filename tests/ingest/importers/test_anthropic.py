"""Logs of Anthropic's Messages API: blocks are calls and results, each request's history is stored once."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.ingest.importers.anthropic import Anthropic
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.source import Source
from kern_nb.records import text_of

ASK = {"role": "user", "content": "Is the shop open?"}
USE = [
    {"type": "thinking", "thinking": "Look.", "signature": "s"},
    {"type": "text", "text": "Let me look.", "citations": None},
    {"type": "tool_use", "id": "t1", "name": "hours", "input": {"day": "mon"}},
    {"type": "tool_use", "id": "t2", "name": "holidays", "input": {}},
]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "t2", "content": "timeout", "is_error": True},
    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "9-17"}]},
]
CALLS = {"role": "assistant", "content": USE}
ANSWERED = {"role": "user", "content": RESULTS}
DONE = {"role": "assistant", "content": "It opens at nine."}
USAGE = {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 80, "output_tokens": 7}


def response(content, number=1, **fields):
    """The answer of the API."""
    content = [{"type": "text", "text": content}] if isinstance(content, str) else content
    record = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "claude-x", "content": content}
    return record | {"stop_reason": "end_turn", "usage": USAGE} | fields


def request(*messages, **fields):
    """A request with a system prompt."""
    record = {"model": "claude-x", "max_tokens": 100, "system": [{"type": "text", "text": "Be brief."}]}
    return record | {"messages": list(messages)} | fields


@pytest.fixture
def read(tmp_path):
    """Write records as lines of a file and return its drafts; neither importer takes the files of the other."""

    def write(*records, name="log.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        source = Source(path, name)
        assert Anthropic().recognizes(source)
        assert not Chat().recognizes(source)
        return list(Anthropic().read(source))

    return write


def roles(draft):
    return [message.role for run in draft.runs for message in run.messages]


@pytest.mark.parametrize(
    "records",
    [
        [{"id": "trip", "messages": [ASK, CALLS, ANSWERED, DONE]}],
        [[ASK, CALLS, ANSWERED, DONE]],
        [ASK, CALLS, ANSWERED, DONE],
    ],
)
def test_conversations_with_blocks(read, records):
    """A tool reply is no turn of the user; calls, results and failures are seen, in all three variants."""
    [draft] = read(*records)
    [run] = draft.runs

    assert roles(draft) == ["user", "assistant", "tool", "tool", "assistant"]
    assert [(c.tool_name, c.args, c.status) for c in run.messages[1].tool_calls] == [
        ("hours", {"day": "mon"}, "completed"),
        ("holidays", {}, "failed"),
    ]
    assert [(m.content, m.tool_name, m.is_error) for m in run.messages[2:4]] == [
        ("timeout", "holidays", True),
        ("9-17", "hours", None),
    ]
    assert run.messages[1].content == [USE[0], {"type": "text", "text": "Let me look."}]


def test_a_prompt_in_the_message_with_results_starts_a_run(read):
    """A client merges the next prompt into it; a note in a tag is the client's own."""
    prompt = {"role": "user", "content": [*RESULTS, {"type": "text", "text": "And on Tuesday?"}]}
    note = {"role": "user", "content": [*RESULTS, {"type": "text", "text": "<system-reminder>x</system-reminder>"}]}
    drafts = read({"messages": [ASK, CALLS, prompt, DONE]}, {"messages": [ASK, CALLS, note, DONE]})

    assert [[run.input for run in draft.runs] for draft in drafts] == [
        [ASK["content"], "And on Tuesday?"],
        [ASK["content"]],
    ]


def test_results_of_the_providers_tools(read):
    """They stand in the answer that calls the tool."""
    content = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "hours"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "server_tool_use", "id": "s2", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s2", "content": {"type": "web_search_tool_result_error"}},
        {"type": "text", "text": "Nine."},
    ]
    [draft] = read({"request": request(ASK), "response": response(content)})
    [run] = draft.runs

    assert [(call.status, bool(call.result)) for call in run.messages[-1].tool_calls] == [
        ("completed", True),
        ("failed", True),
    ]


def test_text_beside_results_of_any_tool_of_the_provider(read):
    """Is the output."""
    kinds = [
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "web_fetch_tool_result",
        "mcp_tool_result",
    ]
    content = [{"type": kind, "tool_use_id": "s1", "content": {}} for kind in kinds]
    [draft] = read({"request": request(ASK), "response": response([*content, {"type": "text", "text": "Nine."}])})

    assert text_of(draft.runs[0].output) == "Nine."


def test_the_input_of_a_call_may_be_json_text(read):
    """In a column of a dataset."""
    use = {"type": "tool_use", "id": "t", "name": "hours", "input": '{"day": "mon"}'}
    [draft] = read({"messages": [ASK, {"role": "assistant", "content": [use, use | {"id": "u", "input": "{"}]}]})

    calls = draft.runs[0].messages[-1].tool_calls
    assert [(call.args, call.extra) for call in calls] == [({"day": "mon"}, {}), ("{", {"args_invalid": True})]


def test_an_exchange_that_is_logged_twice_counts_once(read):
    """Answers of one id that say something else are others: a mock has one id for all."""
    first, second = {"request": request(ASK), "response": response("Yes.")}, request(ASK, DONE, ASK)
    [draft] = read(first, first, {"request": request(ASK, {"role": "assistant", "content": "Yes."}, ASK),
                                  "response": response("No.")})  # fmt: skip
    assert [run.output for run in draft.runs] == ["Yes.", "No."]

    drafts = read(first, {"request": second, "response": response("Yes.")})
    assert sum(len(draft.runs) for draft in drafts) == 3


def test_a_log_in_any_order(read):
    """The newest request may be first; each answer has its own record and its usage."""
    no = {"role": "assistant", "content": "No."}
    log = [
        {"request": request(ASK), "response": response("No.", 1)},
        {"request": request(ASK, no, ASK), "response": response("Yes.", 2)},
        {"request": request(ASK, no, ASK, DONE, ASK), "response": response("So.", 3)},
    ]
    for records in (log[::-1], [log[1], log[0], log[2]]):
        drafts = read(*records)
        answers = {m.message_id: m.usage for d in drafts for run in d.runs for m in run.messages if m.message_id}
        assert len({draft.session_id for draft in drafts}) == 1
        assert sorted(answers) == ["msg_1", "msg_2", "msg_3"]
        assert all(answers.values())


def test_another_attempt_at_the_first_prompt(read):
    """Parts from the conversation there, although later requests repeat that prompt."""
    log = {"session_id": "s"}
    drafts = read(
        log | {"request": request(ASK), "response": response("No.", 1)},
        log | {"request": request(ASK, {"role": "assistant", "content": "No."}, ASK), "response": response("So.", 2)},
        log | {"request": request(ASK), "response": response("Yes.", 3)},
    )

    assert [[run.output for run in draft.runs] for draft in drafts] == [["Yes."], ["No.", "So."]]


def test_two_responses_with_the_same_text(read, tmp_path):
    """Are one message with the usage of both, which an import stores once."""
    log = {"request": request(ASK)}
    [draft] = read(
        log | {"response": response("No.", 1)}, log | {"session_id": "log-1", "response": response("No.", 2)}
    )

    assert draft.runs[0].messages[-1].usage.output_tokens == 14
    store = InMemoryDb()
    assert [store.ingest(tmp_path / "log.jsonl", progress=False).runs for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"response": None, "error": "timeout"}, "timeout"),
        ({"error": {"type": "connection", "message": "reset"}}, "connection: reset"),
        ({"response": {"status_code": 502, "body": "Bad gateway"}}, "status 502"),
    ],
)
def test_failures_beside_a_request(read, fields, error):
    """The run failed."""
    drafts = read({"request": request(ASK), "response": response("Yes.")}, {"request": request(DONE), **fields})

    assert [(draft.runs[0].status, draft.runs[0].error) for draft in drafts] == [("COMPLETED", None), ("ERROR", error)]


def test_each_request_repeats_the_history(read):
    """One session with three prompts, its usage counted once per answer; cache marks and thinking may differ."""
    marked = {
        "role": "user",
        "content": [{"type": "text", "text": ASK["content"], "cache_control": {"type": "ephemeral"}}],
    }
    without_thinking = {"role": "assistant", "content": USE[1:]}
    more = {"role": "user", "content": "Thanks. Sunday?"}
    [draft] = read(
        {"request": request(ASK), "response": response(USE, 1), "timestamp": "2026-09-01T10:00:00Z"},
        {"request": request(marked, without_thinking, ANSWERED), "response": response("It opens at nine.", 2)},
        {"request": request(ASK, CALLS, ANSWERED, DONE, more), "response": response("Closed.", 3)},
    )

    assert roles(draft) == ["system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant"]
    assert [run.output for run in draft.runs] == ["It opens at nine.", "Closed."]
    usages = [message.usage for run in draft.runs for message in run.messages if message.usage]
    assert [(u.input_tokens, u.cache_read_tokens, u.cache_write_tokens, u.output_tokens) for u in usages] == [
        (95, 80, 5, 7)
    ] * 3
    assert draft.runs[0].messages[2].extra["usage"] == USAGE
    assert draft.runs[0].messages[2].message_id == "msg_1"
    assert draft.runs[0].model == "claude-x"


def test_requests_that_part_are_a_tree(read):
    """Two answers to one history are two drafts of one session, the later line first; other conversations are apart."""
    talk = [ASK, DONE]
    drafts = read(
        {"request": request(ASK), "response": response("It opens at nine.")},
        {"request": request(*talk, {"role": "user", "content": "Sunday?"}), "response": response("No.")},
        {"request": request(*talk, {"role": "user", "content": "Monday?"}), "response": response("Yes.")},
        {"request": request(ASK), "response": response("Who knows.")},
    )

    assert [[run.output for run in draft.runs] for draft in drafts] == [
        ["It opens at nine.", "Yes."],
        ["It opens at nine.", "No."],
        ["Who knows."],
    ]
    assert drafts[0].session_id == drafts[1].session_id != drafts[2].session_id


def test_a_stated_session_id(read):
    """In the record, the request or its metadata."""
    drafts = read(
        {"session_id": "s", "request": request(ASK), "response": response("Nine.")},
        {"request": request(ASK, metadata={"session_id": "t"}), "response": response("Nine.")},
    )

    assert [draft.session_id for draft in drafts] == ["s", "t"]


def test_a_failed_request(read):
    """Its run has the error; a later attempt that succeeds replaces it."""
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    [draft] = read({"request": request(ASK), "response": failure})
    assert (draft.runs[0].status, draft.runs[0].error) == ("ERROR", "overloaded_error: Overloaded")

    [draft] = read(
        {"session_id": "s", "request": request(ASK), "response": failure},
        {"session_id": "s", "request": request(ASK), "response": response("Nine.")},
    )
    assert (draft.runs[0].status, draft.runs[0].output) == ("COMPLETED", "Nine.")


def test_batches(tmp_path):
    """Results are paired with the requests beside them, in any order."""
    asks = [{"custom_id": f"r{n}", "params": request({"role": "user", "content": f"q{n}"})} for n in range(4)]
    results = [
        {"custom_id": "r2", "result": {"type": "succeeded", "message": response("a2", 2)}},
        {"custom_id": "r0", "result": {"type": "succeeded", "message": response("a0", 0)}},
        {"custom_id": "r1", "result": {"type": "errored", "error": {"type": "invalid_request", "message": "bad"}}},
        {"custom_id": "r3", "result": {"type": "expired"}},
    ]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, asks)))
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, results)))
    (tmp_path / "other.json").write_text('{"custom_id": 5}')
    source = Source(tmp_path / "results.jsonl", "results.jsonl")
    drafts = list(Anthropic().read(source))

    assert list(Anthropic().companions(source)) == [tmp_path / "requests.jsonl"]
    assert [(d.session_id, d.runs[0].input, d.runs[0].output, d.runs[0].status, d.runs[0].error) for d in drafts] == [
        ("results-r2", "q2", "a2", "COMPLETED", None),
        ("results-r0", "q0", "a0", "COMPLETED", None),
        ("results-r1", "q1", None, "ERROR", "invalid_request: bad"),
        ("results-r3", "q3", None, "ERROR", "expired"),
    ]


def test_results_without_their_requests(read):
    """The answer is stored; a result with neither is reported."""
    draft, problem = read(
        {"custom_id": "r2", "result": {"type": "succeeded", "message": response("a2")}},
        {"custom_id": "r3", "result": {"type": "succeeded"}},
    )[::-1]

    assert (draft.runs[0].input, draft.runs[0].output) == (None, "a2")
    assert problem.line == 2


def test_failed_and_cancelled_requests_of_a_batch(read, tmp_path):
    """A cancelled one is no failure; the problem of one without its request has the error."""
    failed = {"type": "errored", "error": {"type": "error", "error": {"type": "invalid", "message": "Too long"}}}
    results = [{"custom_id": "a", "result": failed}, {"custom_id": "b", "result": {"type": "canceled"}}]
    [problem, _] = read(*results, name="out.jsonl")
    assert "invalid: Too long" in problem.reason

    requests = [{"custom_id": key, "params": request(ASK)} for key in "ab"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in requests))
    drafts = read(*results, name="out.jsonl")
    assert [(draft.runs[0].status, draft.runs[0].error) for draft in drafts] == [
        ("ERROR", "invalid: Too long"),
        ("CANCELLED", "canceled"),
    ]


def test_requests_and_answers_alone(read):
    """A log of requests repeats the history, too; an answer without one is a session."""
    [draft] = read(request(ASK), request(ASK, CALLS, ANSWERED), request(ASK, CALLS, ANSWERED, DONE, ASK))
    assert len(draft.runs) == 2

    [draft] = read(response("Nine."))
    assert (draft.runs[0].output, draft.session_id) == ("Nine.", "log-1")


def test_stored_twice(tmp_path):
    """The second import stores nothing."""
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"request": request(ASK, CALLS, ANSWERED), "response": response("Nine.")}))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls) == (1, 1, 6, 2)
    assert (second.sessions, second.runs) == (0, 0)
    assert list(store.runs_df()["n_tool_errors"]) == [1]


def test_a_tree_in_a_store(tmp_path):
    """The lines are branches; the usage of what they share is counted once, and the second import stores nothing."""
    records = [
        {"request": request(ASK), "response": response("It opens at nine.")},
        {"request": request(ASK, DONE, {"role": "user", "content": "Sunday?"}), "response": response("No.", 2)},
        {"request": request(ASK, DONE, {"role": "user", "content": "Monday?"}), "response": response("Yes.", 3)},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.branches, first.runs, first.errors) == (2, 1, 3, [])
    assert (second.sessions, second.runs, second.errors) == (0, 0, [])
    assert store.runs_df()["input_tokens"].sum() == 3 * 95
    assert sorted(store.runs_df()["output"]) == ["It opens at nine.", "No.", "Yes."]


def test_conversations_of_one_id_that_share_nothing(read):
    """An agent and its helper: sessions of their own."""
    drafts = read(
        {"session_id": "s", "request": request(ASK, system=None), "response": response("Nine.")},
        {"session_id": "s", "request": request(DONE | {"role": "user"}, system=None), "response": response("Title")},
    )

    assert [(draft.session_id, draft.runs[0].output) for draft in drafts] == [("s", "Nine."), ("s-2", "Title")]


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported."""
    good = {"session_id": "good", "request": request(ASK), "response": response("fine")}
    record = {"request": request(ASK, CALLS, ANSWERED, DONE), "response": response(USE), "timestamp": 1_790_000_000}
    batch = {"custom_id": "r", "result": {"type": "succeeded", "message": response(USE)}, "params": request(ASK)}
    store = InMemoryDb()
    for kind, original in enumerate((record, batch, {"id": "x", "messages": [ASK, CALLS, ANSWERED, DONE]})):
        for number, bad in enumerate(mistyped(original, 100)):
            path = tmp_path / f"{kind}" / f"{number}" / "typed.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(map(json.dumps, (bad, good))))
            source = Source(path, path.name)
            list(Anthropic().companions(source))
            items = list(Anthropic().read(source))
            assert "good" in [getattr(item, "session_id", "") for item in items]
            if number % 20 == 0:
                store.ingest(path, format="anthropic", progress=False)
    data = "\n".join(map(json.dumps, (good, record, batch))).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        Anthropic().recognizes(source)
        list(Anthropic().read(source))
