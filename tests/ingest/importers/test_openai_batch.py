"""Batches, stored completions and logs of OpenAI's chat API: results are paired, histories are stored once."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest.importers.anthropic import Anthropic
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.importers.openai_batch import OpenAIBatch
from kern_nb.ingest.importers.openai_responses import OpenAIResponses
from kern_nb.ingest.source import Source

USAGE = {
    "prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 80}, "completion_tokens": 9, "total_tokens": 109,
    "completion_tokens_details": {"reasoning_tokens": 4},
}  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "hours", "arguments": "{}"}}


def ask(text, *before, **fields):
    """A request to the chat API."""
    return {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, *before, user(text)]} | fields


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **fields):
    return {"role": "assistant", "content": text} | fields


def completion(*texts, number=1, **fields):
    """A completion with a choice for each text."""
    choices = [{"index": i, "message": assistant(text), "finish_reason": "stop"} for i, text in enumerate(texts)]
    record = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1_790_000_000 + number}
    return record | {"model": "m-1", "choices": choices, "usage": USAGE} | fields


def result(custom_id, body, status=200, error=None):
    """A line of a result file."""
    return {
        "id": f"batch_req_{custom_id}",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": "x", "body": body},
        "error": error,
    }


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Source(path, path.name)


@pytest.fixture
def read(tmp_path):
    """Write records as lines of a file and return its drafts; no other importer takes it."""

    def read_records(*records, name="log.jsonl"):
        source = write(tmp_path / name, records)
        assert OpenAIBatch().recognizes(source)
        assert not any(kind().recognizes(source) for kind in (Chat, Anthropic, OpenAIResponses))
        return list(OpenAIBatch().read(source))

    return read_records


def facts(drafts):
    return [(d.session_id, d.runs[0].input, d.runs[0].output, d.runs[0].status, d.runs[0].error) for d in drafts]


def test_results_are_paired_with_their_requests(tmp_path):
    """By ``custom_id``, whatever their order; errors are in a file of their own."""
    requests = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": ask(f"q{n}")} for n in range(3)
    ]
    requests.append({"custom_id": "r3", "url": "/v1/responses", "body": {"model": "m", "input": "q3"}})
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a3"}]}
    body = {"id": "resp_1", "object": "response", "output": [item], "usage": {"input_tokens": 5}}
    source = write(tmp_path / "input.jsonl", requests)
    output = write(
        tmp_path / "output.jsonl", [result("r2", completion("a2")), result("r3", body), result("r0", completion("a0"))]
    )
    errors = write(tmp_path / "errors.jsonl", [result("r1", {"error": {"code": "bad", "message": "Too long."}}, 400)])

    assert list(OpenAIBatch().companions(output)) == list(OpenAIBatch().companions(errors)) == [source.path]
    assert list(OpenAIBatch().companions(source)) == []
    assert facts(OpenAIBatch().read(output)) == [
        ("output-r2", "q2", "a2", "COMPLETED", None),
        ("output-r3", "q3", "a3", "COMPLETED", None),
        ("output-r0", "q0", "a0", "COMPLETED", None),
    ]
    assert facts(OpenAIBatch().read(errors)) == [("errors-r1", "q1", None, "ERROR", "bad: Too long.")]
    usage = next(OpenAIBatch().read(output)).runs[0].messages[-1].usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens, usage.reasoning_tokens) == (100, 80, 9, 4)


def test_a_folder_of_a_batch(tmp_path):
    """The file with the requests is read with the results only, and no session is stored twice."""
    requests = [{"custom_id": f"r{n}", "url": "/v1/chat/completions", "body": ask(f"q{n}")} for n in range(3)]
    write(tmp_path / "a_input.jsonl", requests)
    write(tmp_path / "b_output.jsonl", [result("r2", completion("a2")), result("r0", completion("a0"))])
    write(tmp_path / "c_errors.jsonl", [result("r1", None, error={"code": "expired"})])
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(tmp_path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.errors) == (3, 3, [])
    assert (second.sessions, second.runs) == (0, 0)
    assert sorted(store.runs_df()["status"]) == ["COMPLETED", "COMPLETED", "ERROR"]


@pytest.mark.parametrize(
    ("names", "prompts"),
    [(("input_1", "input_2", "output_1", "output_2"), ["q1", "q2"]), (("a", "b", "x", "y"), [None, None])],
)
def test_two_batches_with_the_same_ids(tmp_path, names, prompts):
    """The names of the files tell which requests belong to which results; if they do not, none do."""
    for number, name in enumerate(names[:2], 1):
        write(
            tmp_path / f"{name}.jsonl", [{"custom_id": "r", "url": "/v1/chat/completions", "body": ask(f"q{number}")}]
        )
    sources = [write(tmp_path / f"{name}.jsonl", [result("r", completion("a"))]) for name in names[2:]]

    assert [draft.runs[0].input for source in sources for draft in OpenAIBatch().read(source)] == prompts


def test_results_and_requests_alone(read):
    """An answer without a prompt, a prompt without an answer; an error without both is reported."""
    draft, problem = read(result("r1", completion("a")), result("r2", None, error={"code": "expired"}))[::-1]
    assert facts([draft]) == [("log-r1", None, "a", "COMPLETED", None)]
    assert (problem.line, "expired" in problem.reason) == (2, True)

    [draft] = read({"custom_id": "r1", "url": "/v1/chat/completions", "body": ask("q")})
    assert facts([draft]) == [("log-r1", "q", None, "COMPLETED", None)]


def test_embeddings_are_not_taken(tmp_path):
    """Nobody speaks in them."""
    request = {"custom_id": "r", "url": "/v1/embeddings", "body": {"model": "m", "input": "text"}}

    assert not OpenAIBatch().recognizes(write(tmp_path / "in.jsonl", [request]))


def test_stored_completions(read):
    """As the API lists them; a further choice is a further line of the session, or another one without a prompt."""
    listed = {"object": "list", "data": [completion("a", "b", number=1), completion("c", number=2)], "has_more": False}
    drafts = read(listed)
    assert [(d.session_id, d.runs[0].output) for d in drafts] == [
        ("chatcmpl-1", "a"),
        ("chatcmpl-1-2", "b"),
        ("chatcmpl-2", "c"),
    ]

    main, other = read(completion("a", "b", messages=[user("q")], metadata={"topic": "x"}))
    assert main.session_id == other.session_id
    assert [run.input for draft in (main, other) for run in draft.runs] == ["q", "q"]
    assert main.session.metadata["topic"] == "x"
    assert [draft.runs[0].messages[-1].usage is None for draft in (main, other)] == [False, True]


@pytest.mark.parametrize("layout", ["nested", "flat", "text"])
def test_logs_that_repeat_the_history(read, layout):
    """One session, the usage and cost of each answer once."""

    def log(request, response, **rest):
        if layout == "flat":
            return request | {"response": response} | rest
        if layout == "text":
            request, response = json.dumps(request), {"status_code": 200, "body": json.dumps(response)}
        return {"request": request, "response": response} | rest

    called = assistant(None, tool_calls=[CALL])
    answered = {"role": "tool", "tool_call_id": "c1", "content": "9-17"}
    first = completion("", number=1)
    first["choices"][0]["message"] = called | {"refusal": None}
    [draft] = read(
        log(ask("Open?"), first, cost=0.5, timestamp="2026-09-01T10:00:00Z"),
        log(
            {"model": "m", "messages": [*ask("Open?")["messages"], called, answered]},
            completion("At nine.", number=2),
            cost=0.25,
        ),
        log(ask("Sure?", user("Open?"), called, answered, assistant("At nine.")), completion("Yes.", number=3)),
    )
    messages = [message for run in draft.runs for message in run.messages]

    assert [m.role for m in messages] == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [run.output for run in draft.runs] == ["At nine.", "Yes."]
    assert [(m.usage.total_tokens, m.usage.cost) for m in messages if m.usage] == [(109, 0.5), (109, 0.25), (109, None)]
    assert messages[2].tool_calls[0].status == "completed"
    assert messages[-1].extra["finish_reason"] == "stop"


def test_a_log_of_ollama(read):
    """Its answers have one message and counts of their own."""
    answer = {"model": "m", "created_at": "2026-09-01T10:00:00Z", "message": assistant("a"), "done": True}
    [draft] = read({"messages": [user("q")], "response": answer | {"prompt_eval_count": 5, "eval_count": 2}})
    message = draft.runs[0].messages[-1]

    assert (message.content, message.usage.input_tokens, message.usage.output_tokens) == ("a", 5, 2)


def test_a_completion_that_is_logged_twice_counts_once(read):
    """As the id and the texts are the same."""
    log = {"request": ask("q"), "response": completion("a")}
    [draft] = read(log, log, {"request": ask("more", user("q"), assistant("a")), "response": completion("b")})

    assert [run.output for run in draft.runs] == ["a", "b"]


def test_the_conversation_goes_on_with_the_second_choice(read):
    """One session; the usage of both choices counts once."""
    log = {"request": ask("q"), "response": completion("a", "b")}
    drafts = read(log, {"request": ask("more", user("q"), assistant("b")), "response": completion("c", number=2)})

    assert {draft.session_id for draft in drafts} == {"log-1"}
    assert [[run.output for run in draft.runs] for draft in drafts] == [["b", "c"], ["a"]]


def test_failures_beside_a_request(read):
    """An error or a status that is not in the body."""
    drafts = read(
        {"request": ask("p"), "response": completion("a")},
        {"request": ask("q"), "response": None, "error": "timeout"},
        {"request": ask("r"), "response": {"status_code": 500, "body": "oops"}},
    )

    assert [fact[3:] for fact in facts(drafts)] == [("COMPLETED", None), ("ERROR", "timeout"), ("ERROR", "status 500")]


def test_other_requests_of_a_batch_are_problems(read):
    """An embedding is no conversation."""
    other = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    chat = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": ask("q")}
    problem, draft = read(chat, other)

    assert ("/v1/embeddings" in problem.reason, draft.session_id) == (True, "log-c")


def test_failed_requests(read):
    """The run has the error; an attempt that succeeds continues it."""
    [draft] = read(
        {"request": ask("q"), "response": {"error": {"message": "Busy"}}},
        {"request": ask("q"), "response": completion("a")},
    )

    assert facts([draft]) == [("log-1", "q", "a", "COMPLETED", None)]


def test_stored_twice(tmp_path):
    """The second import stores nothing."""
    source = write(tmp_path / "log.jsonl", [{"request": ask("q"), "response": completion("a")}])
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(source.path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages) == (1, 1, 3)
    assert (second.sessions, second.runs) == (0, 0)
    assert list(store.runs_df()["input_tokens"]) == [100]


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported."""
    good = {"session_id": "good", "request": ask("q"), "response": completion("a")}
    log = {"request": ask("q", assistant(None, tool_calls=[CALL])), "response": completion("a", "b"), "cost": 0.1}
    batch = {**result("r1", completion("a")), "body": ask("q"), "url": "/v1/chat/completions"}
    stored = completion("a", messages=[user("q")])
    for kind, original in enumerate((log, batch, stored)):
        for number, bad in enumerate(mistyped(original, 100)):
            folder = tmp_path / str(kind) / str(number)
            folder.mkdir(parents=True)
            source = write(folder / "typed.jsonl", [bad, good])
            OpenAIBatch().recognizes(source)
            list(OpenAIBatch().companions(source))
            items = list(OpenAIBatch().read(source))
            assert "good" in [getattr(item, "session_id", "") for item in items]
    data = "\n".join(map(json.dumps, (good, log, batch, stored))).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        OpenAIBatch().recognizes(source)
        list(OpenAIBatch().read(source))
