"""OpenAI's Responses API: items are messages and calls, responses form trees, histories are stored once."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest.importers.anthropic import Anthropic
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.importers.openai_responses import OpenAIResponses
from kern_nb.ingest.source import Source

USER = {"role": "user", "content": "Is it open?"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "hours", "arguments": '{"day": "mon"}'}
BROKEN = {"type": "function_call", "call_id": "c2", "name": "hours", "arguments": '{"day": '}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "9-17"}
USAGE = {
    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 80}, "output_tokens": 9, "total_tokens": 109,
    "output_tokens_details": {"reasoning_tokens": 4},
}  # fmt: skip


def said(text, number=1):
    """A message of the model."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
    return {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part]}


def response(number, *output, **fields):
    """A response object."""
    record = {"id": f"resp_{number}", "object": "response", "created_at": 1_790_000_000 + number, "model": "m"}
    return record | {"status": "completed", "output": list(output), "usage": USAGE, "error": None} | fields


@pytest.fixture
def read(tmp_path):
    """Write records as lines of a file and return its drafts; no other importer takes it."""

    def write(*records, name="log.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        source = Source(path, name)
        assert OpenAIResponses().recognizes(source)
        assert not Chat().recognizes(source)
        assert not Anthropic().recognizes(source)
        return list(OpenAIResponses().read(source))

    return write


def roles(draft):
    return [message.role for run in draft.runs for message in run.messages]


ITEMS = [USER, REASONING, CALL, BROKEN, RESULT, said("At nine."), USER | {"type": "message"}, said("Still.", 2)]


@pytest.mark.parametrize(
    "records", [ITEMS, [ITEMS], [{"session_id": "log", "items": ITEMS}], [{"object": "list", "data": ITEMS}]]
)
def test_items(read, records):
    """One a line, a list, an object with a list, a page of the API: the same runs."""
    [draft] = read(*records)
    first, second = draft.runs
    answer = first.messages[1]

    assert roles(draft) == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert answer.content == [{"type": "reasoning", "summary": REASONING["summary"]}]
    assert [(c.tool_call_id, c.args, c.status) for c in answer.tool_calls] == [
        ("c1", {"day": "mon"}, "completed"),
        ("c2", '{"day": ', None),
    ]
    assert answer.tool_calls[1].extra["args_invalid"] is True
    assert (first.output, second.output) == ("At nine.", "Still.")
    assert first.messages[2].tool_name == "hours"


def test_items_of_hosted_tools(read):
    """Their results are inside; other items stay in extra."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "hours"}}
    failed = {"type": "code_interpreter_call", "id": "ci_1", "status": "failed", "code": "1/0", "outputs": None}
    mcp = {"type": "mcp_call", "id": "mcp_1", "name": "look", "arguments": "{}", "output": "seen", "error": None}
    custom = {"type": "custom_tool_call", "call_id": "x", "name": "patch", "input": "*** Begin"}
    listed = {"type": "mcp_list_tools", "id": "m", "tools": []}
    done = {"type": "custom_tool_call_output", "call_id": "x", "output": [{"type": "input_text", "text": "done"}]}
    [draft] = read([USER, listed, search, failed, mcp, said("Nine."), custom, done])
    [run] = draft.runs

    assert roles(draft) == ["user", "assistant", "tool"]
    assert [(c.tool_name, c.args, c.result, c.status) for c in run.messages[1].tool_calls] == [
        ("web_search", {"query": "hours"}, None, "completed"),
        ("code_interpreter", {"code": "1/0"}, None, "failed"),
        ("look", {}, "seen", "completed"),
        ("patch", "*** Begin", None, "completed"),
    ]
    assert run.messages[2].content == "done"
    assert run.messages[0].extra == {"items": [listed]}


def test_a_refusal_is_the_answer(read):
    """Its text is shown."""
    refusal = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    [draft] = read([USER, refusal])

    assert draft.runs[0].output == [{"type": "refusal", "refusal": "No.", "text": "No."}]


def test_responses_form_a_tree(read):
    """Newest first, as the API lists them; two that continue one are two lines of a session, the later first."""
    first = response(1, REASONING, CALL, input=[USER | {"type": "message"}], instructions="Be brief.")
    second = response(2, said("At nine."), previous_response_id="resp_1", input=[RESULT])
    third = response(3, said("On Sunday."), previous_response_id="resp_2", input="When not?")
    other = response(4, said("No idea."), previous_response_id="resp_2", input="When not?")
    main, branch = read({"object": "list", "data": [other, third, second, first]})

    assert main.session_id == branch.session_id == "resp_1"
    assert roles(main) == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [[run.output for run in draft.runs][-1] for draft in (main, branch)] == ["No idea.", "On Sunday."]
    usages = [message.usage for message in main.runs[0].messages if message.usage]
    assert [(u.input_tokens, u.cache_read_tokens, u.reasoning_tokens, u.total_tokens) for u in usages] == [
        (100, 80, 4, 109)
    ] * 2
    assert main.session.created_at == 1_790_000_001
    assert main.runs[0].messages[2].extra["response_id"] == "resp_1"


def test_a_conversation_is_linear(read):
    """Its responses follow each other without naming the one before."""
    conversation = {"conversation": {"id": "conv_1"}}
    [draft] = read(
        response(1, said("Hi."), input="hello", **conversation), response(2, said("Bye."), input="bye", **conversation)
    )

    assert (draft.session_id, [run.output for run in draft.runs]) == ("conv_1", ["Hi.", "Bye."])


def test_logs_that_repeat_the_history(read):
    """Without ``previous_response_id`` each request has all items so far."""
    first = [USER]
    second = [*first, CALL, RESULT]
    third = [*second, said("At nine."), {"role": "user", "content": "Sure?"}]
    [draft] = read(
        {"request": {"model": "m", "input": "Is it open?"}, "response": response(1, REASONING, CALL)},
        {"request": {"model": "m", "input": second}, "response": response(2, said("At nine."))},
        {"request": {"model": "m", "input": third}, "response": response(3, said("Yes."))},
    )

    assert [run.output for run in draft.runs] == ["At nine.", "Yes."]
    assert sum(message.usage is not None for run in draft.runs for message in run.messages) == 3


def test_failed_and_cancelled_responses(read):
    """The status of the run, and the error."""
    error = {"code": "server_error", "message": "Sorry."}
    failed, cancelled = read(
        response(1, input="hi", status="failed", error=error, usage=None), response(2, input="hi", status="cancelled")
    )

    assert [(d.runs[0].status, d.runs[0].error) for d in (failed, cancelled)] == [
        ("ERROR", "server_error: Sorry."),
        ("CANCELLED", "cancelled"),
    ]


def test_responses_that_are_not_finished(read):
    """They are no completed runs, and no failed ones."""
    drafts = read(*(response(n, input="hi", status=s, usage=None) for n, s in enumerate(("queued", "in_progress"))))

    assert [(d.runs[0].status, d.runs[0].error) for d in drafts] == [("INTERRUPTED", None)] * 2


def test_a_failure_beside_a_request(read):
    """The run failed."""
    ask = {"model": "m", "input": "hi"}
    drafts = read(
        {"request": ask, "response": response(1, said("Hi."))},
        {"request": ask, "response": None, "error": {"message": "boom"}},
    )

    assert sorted((d.runs[0].status, d.runs[0].error) for d in drafts) == [("COMPLETED", None), ("ERROR", "boom")]


def test_a_response_that_is_logged_twice_counts_once(read):
    """While it ran and when it was complete."""
    [draft] = read(response(1, input="hi", status="in_progress", usage=None), response(1, said("Hi."), input="hi"))

    assert roles(draft) == ["user", "assistant"]


def test_an_early_file_of_codex_is_not_taken(tmp_path):
    """It has bare items, too, after a header."""
    path = tmp_path / "rollout.jsonl"
    header = {"id": "x", "timestamp": "2025-06-01T10:00:00Z", "instructions": None}
    path.write_text("\n".join(map(json.dumps, (header, USER | {"type": "message"}))))

    assert not OpenAIResponses().recognizes(Source(path, path.name))


def test_stored_twice(tmp_path):
    """The second import stores nothing."""
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, ITEMS)))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls) == (1, 2, 6, 2)
    assert (second.sessions, second.runs) == (0, 0)


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported."""
    good = response(9, said("fine"), input="hi")
    log = {
        "request": {"model": "m", "input": ITEMS},
        "response": response(3, REASONING, CALL, previous_response_id="r"),
    }
    for kind, original in enumerate((log, log["response"], {"session_id": "x", "items": ITEMS}, ITEMS)):
        for number, bad in enumerate(mistyped(original, 100)):
            path = tmp_path / f"typed{kind}-{number}.jsonl"
            path.write_text("\n".join(map(json.dumps, (bad, good))))
            source = Source(path, path.name)
            OpenAIResponses().recognizes(source)
            items = list(OpenAIResponses().read(source))
            assert "resp_9" in [getattr(item, "session_id", "") for item in items]
    data = "\n".join(map(json.dumps, (good, log, *ITEMS))).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        OpenAIResponses().recognizes(source)
        list(OpenAIResponses().read(source))
