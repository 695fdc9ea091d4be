"""Message histories of pydantic-ai, written by pydantic-ai itself: every part is read, runs and copies are recognized."""

from __future__ import annotations

import asyncio
import json

import pytest
from mutations import mistyped, torn, truncated

pytest.importorskip("pydantic_ai")


@pytest.fixture
def store(tmp_path):
    """A SQLite store."""
    from kern_nb.db import SqliteDb

    return SqliteDb(str(tmp_path / "s.db"))


@pytest.fixture
def ingest(store, tmp_path):
    """Write a history to a file and take it in, twice: the second time nothing is stored."""

    def write(data, name="history.json"):
        path = tmp_path / name
        path.write_bytes(data)
        report = store.ingest(path)
        again = store.ingest(path)
        assert (again.sessions, again.runs, again.messages) == (0, 0, 0)
        return report

    return write


def drafts_of(path):
    """The drafts and problems that the importer yields for a file."""
    from kern_nb.ingest.importers.pydantic_ai import PydanticAI
    from kern_nb.ingest.source import Source

    source = Source(path, path.name)
    importer = PydanticAI()
    items = list(importer.read(source)) if importer.recognizes(source) else []
    return [d for d in items if hasattr(d, "runs")], [p for p in items if not hasattr(p, "runs")]


def total_usage(run):
    from kern_nb.records import Usage

    return Usage.total(message.usage for message in run.messages)


def shop_agent():
    """An agent whose model calls two tools, one of which asks for a retry, and then answers."""
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart, UserPromptPart
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.usage import RequestUsage

    def respond(messages, _):
        usage = RequestUsage(input_tokens=10, output_tokens=3, cache_read_tokens=4)
        if any(isinstance(part, UserPromptPart) for part in messages[-1].parts):
            calls = [ToolCallPart("look", {"x": 1}, "c1"), ToolCallPart("look", {"x": 2}, "c2")]
            return ModelResponse(parts=[ThinkingPart("look first"), TextPart("A moment."), *calls], usage=usage)
        return ModelResponse(parts=[TextPart("Done.")], usage=usage)

    agent = Agent(FunctionModel(respond, model_name="m-1"), instructions="Be brief.", system_prompt="You sell.")

    @agent.tool_plain
    def look(x: int) -> dict[str, int]:
        if x == 2:
            raise ModelRetry("not that one")
        return {"seen": x}

    return agent


def test_a_conversation_of_two_runs(store, ingest):
    """A run of the agent is a run; the instructions, which each request repeats, are no messages."""
    agent = shop_agent()
    first = asyncio.run(agent.run("Hello", conversation_id="talk-1"))
    second = asyncio.run(agent.run("Again", message_history=first.all_messages(), conversation_id="talk-1"))
    report = ingest(second.all_messages_json())
    session = store.get_session("talk-1")

    assert (report.sessions, report.runs, report.messages, report.tool_calls) == (1, 2, 11, 4)
    assert [(run.input, run.output, run.model) for run in session.runs] == [
        ("Hello", "Done.", "m-1"),
        ("Again", "Done.", "m-1"),
    ]
    run = session.runs[0]
    assert [m.role for m in run.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert run.messages[2].content == [
        {"type": "thinking", "thinking": "look first"},
        {"type": "text", "text": "A moment."},
    ]
    calls = [(c.tool_call_id, c.args, c.result, c.status) for c in run.tool_calls]
    assert calls == [("c1", {"x": 1}, {"seen": 1}, "completed"), ("c2", {"x": 2}, "not that one", "failed")]
    usage = total_usage(run)
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cost) == (20, 6, 8, None)
    assert session.agent_data["system_instructions"] == "Be brief."
    assert all(m.created_at for m in run.messages)


def test_a_longer_version_adds_its_runs(ingest, tmp_path):
    """The history after one run, then that after two: in two files or on two lines."""
    agent = shop_agent()
    first = asyncio.run(agent.run("Hello", conversation_id="talk-1"))
    second = asyncio.run(agent.run("Again", message_history=first.all_messages(), conversation_id="talk-1"))
    ingest(first.all_messages_json())
    report = ingest(second.all_messages_json(), name="later.json")
    assert (report.sessions, report.runs, report.errors) == (0, 1, [])

    lines = b"\n".join([first.all_messages_json(), second.all_messages_json()])
    new = b"\n".join([first.all_messages_json(), second.new_messages_json()])
    for name, data in (("all.jsonl", lines), ("new.jsonl", new)):
        path = tmp_path / name
        path.write_bytes(data)
        [[draft], problems] = drafts_of(path)
        assert problems == []
        assert [run.input for run in draft.runs] == ["Hello", "Again"]


def test_a_conversation_that_goes_on_from_another_one(store, tmp_path):
    """It begins with the other one's records, which are the same in every copy: the store makes it a branch."""
    agent = shop_agent()
    first = asyncio.run(agent.run("Hello", conversation_id="talk-1"))
    second = asyncio.run(agent.run("Again", message_history=first.all_messages(), conversation_id="talk-2"))
    keys = []
    for result in (first, second):
        path = tmp_path / "x.json"
        path.write_bytes(result.all_messages_json())
        [[draft], _] = drafts_of(path)
        assert draft.has_record_ids
        keys.append((draft.session_id, draft.keys[0], draft.hashes[0]))

    assert [k[0] for k in keys] == ["talk-1", "talk-2"]
    assert keys[0][1:] == keys[1][1:]
    for name, result in (("1.json", first), ("2.json", second)):
        path = tmp_path / name
        path.write_bytes(result.all_messages_json())
        assert store.ingest(path).errors == []
    branch = store.get_session("talk-2")
    assert (branch.parent_session_id, branch.fork_run_index) == ("talk-1", 0)
    assert [run.input for run in branch.runs] == ["Hello", "Again"]


def dump(*messages):
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    return ModelMessagesTypeAdapter.dump_json(list(messages))


def test_every_kind_of_part(store, ingest):
    """Media stay parts, calls of the provider's tools have their results, a retry without a tool begins no run."""
    from pydantic_ai import messages as m

    media = [m.ImageUrl(url="https://example.org/x.png"), m.BinaryContent(data=b"abc", media_type="audio/wav")]
    native = m.NativeToolCallPart("web_search", '{"q": "x"}', "n1")
    no_hits = m.NativeToolReturnPart("web_search", {"hits": 0}, "n1")
    report = ingest(
        dump(
            m.ModelRequest(parts=[m.UserPromptPart(content=["Look", *media, m.CachePoint()])]),
            m.ModelResponse(parts=[native, no_hits, m.ToolCallPart("final_result", "{broken", "c1")]),
            m.ModelRequest(
                parts=[
                    m.RetryFeedbackPart(
                        content="Answer again.", retry=m.RetryInfo(cause="no_output", attempt=1, max_retries=2)
                    )
                ]
            ),
            m.ModelResponse(parts=[m.ToolCallPart("final_result", {"total": 3}, "c2")], state="interrupted"),
        )
    )
    [run] = store.get_session("history").runs

    assert report.errors == []
    assert [x.role for x in run.messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert [part["type"] for part in run.messages[0].content] == ["text", "image_url", "audio"]
    calls = [(c.tool_call_id, c.args, c.status, c.extra) for c in run.tool_calls]
    assert calls[0] == ("n1", {"q": "x"}, "completed", {"native": True})
    assert calls[1] == ("c1", "{broken", "unknown", {"args_invalid": True})
    assert run.output == {"total": 3}
    assert (run.status, run.messages[-1].partial) == ("INTERRUPTED", True)
    assert run.messages[1].usage is None


def test_older_histories(store, ingest):
    """Versions before 1.0 have no run ids, other names of counts, and retries as parts of their own."""
    usage = {"requests": 1, "request_tokens": 7, "response_tokens": 2, "total_tokens": 9, "details": None}
    prompt = {"content": "Hello", "timestamp": "2025-01-01T10:00:00Z", "part_kind": "user-prompt"}
    call = {"tool_name": "look", "args": '{"x": 1}', "tool_call_id": "c1", "part_kind": "tool-call"}
    retry = {"content": "no", "tool_name": "look", "tool_call_id": "c1", "part_kind": "retry-prompt"}
    feedback = {"content": "Again, please.", "tool_name": None, "tool_call_id": "z", "part_kind": "retry-prompt"}
    response = {"kind": "response", "model_name": "m-1", "timestamp": "2025-01-01T10:00:01Z", "usage": usage}
    said = response | {"parts": [{"content": "Hi.", "part_kind": "text"}]}
    ingest(
        json.dumps(
            [
                {"kind": "request", "parts": [prompt]},
                response | {"parts": [call]},
                {"kind": "request", "parts": [retry]},
                response | {"parts": []},
                {"kind": "request", "parts": [feedback]},
                said,
                {"kind": "request", "parts": [prompt | {"content": "More"}, {"part_kind": "novelty", "x": 1}]},
                said,
            ]
        ).encode()
    )
    runs = store.get_session("history").runs

    assert [(run.input, run.output) for run in runs] == [("Hello", "Hi."), ("More", "Hi.")]
    assert (runs[0].tool_calls[0].args, runs[0].tool_calls[0].status) == ({"x": 1}, "failed")
    assert (total_usage(runs[0]).input_tokens, total_usage(runs[0]).output_tokens) == (21, 6)
    assert runs[1].messages[0].extra["parts"] == [{"part_kind": "novelty", "x": 1}]


def test_one_message_per_line(store, ingest):
    """Single messages are one conversation, named after the file; one that is malformed does not reject the others."""
    from pydantic_ai import messages as m

    history = json.loads(
        dump(
            m.ModelRequest(parts=[m.UserPromptPart(content="Hello")]),
            m.ModelResponse(parts=[m.TextPart("Hi.")], model_name="m-1"),
        )
    )
    lines = [history[0], {"kind": "request", "parts": [7]}, history[1]]
    report = ingest("\n".join(map(json.dumps, lines)).encode(), name="log.jsonl")

    assert [(p.line, p.reason) for p in report.errors] == [
        (2, "A message is not imported: a part must be an object with a part_kind.")
    ]
    [run] = store.get_session("log").runs
    assert (run.input, run.output) == ("Hello", "Hi.")


def test_conversations(store, ingest):
    """A ``Conversation`` has an id and the calls that it waits for; a file may have several, or plain histories."""
    prompt = {"kind": "request", "parts": [{"content": "Delete it", "part_kind": "user-prompt"}]}
    call = {"tool_name": "delete", "args": {}, "tool_call_id": "c1", "part_kind": "tool-call"}
    answer = {"kind": "response", "parts": [call], "model_name": "m-1"}
    said = {"kind": "response", "parts": [{"content": "Hi.", "part_kind": "text"}]}
    waiting = {"calls": [], "approvals": [call], "metadata": {}}
    talk = {"messages": [prompt, answer], "conversation_id": "talk-1", "deferred_tool_requests": waiting, "usage": {}}
    other = {"messages": [prompt, said], "conversation_id": 7, "deferred_tool_requests": None}
    report = ingest(json.dumps([talk, other, [prompt, said], [], [prompt]]).encode())

    assert (report.sessions, report.errors) == (4, [])
    session = store.get_session("talk-1")
    [run] = session.runs
    assert (run.status, run.input) == ("INTERRUPTED", "Delete it")
    assert session.agent_data == {"deferred_tool_requests": waiting}
    assert [run.output for run in store.get_session("7").runs] == ["Hi."]
    assert [len(store.get_session(name).runs[0].messages) for name in ("history-3", "history-4")] == [2, 1]

    ingest(json.dumps({"messages": [prompt, said]}).encode(), name="single.json")
    assert store.get_session("single").runs[0].output == "Hi."


def test_other_files_are_not_recognized(tmp_path):
    """Records with a kind, parts or messages of other programs."""
    path = tmp_path / "x.json"
    for value in ([], [{"kind": "request"}], {"kind": "request", "parts": []}, {"messages": []}, [{"role": "user"}]):
        path.write_text(json.dumps(value))
        assert drafts_of(path) == ([], [])


def test_damaged_files(tmp_path):
    """Whatever is damaged, nothing is raised, and the intact messages come in."""
    agent = shop_agent()
    result = asyncio.run(agent.run("Hello", conversation_id="talk-1"))
    history = json.loads(result.all_messages_json())
    lines = "".join(json.dumps(message) + "\n" for message in history).encode()
    path = tmp_path / "x.jsonl"
    for damaged in (*truncated(lines, 50), *torn(lines, 50), *truncated(result.all_messages_json(), 50)):
        path.write_bytes(damaged)
        drafts_of(path)
    for value in mistyped(history, 150):
        path.write_text(json.dumps(value))
        drafts, problems = drafts_of(path)
        assert sum(len(run.messages) for draft in drafts for run in draft.runs) >= 2, problems
