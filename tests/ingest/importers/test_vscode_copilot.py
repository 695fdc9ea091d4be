"""Chat sessions of Visual Studio Code: documents, logs of operations, calls, results, outcomes."""

from __future__ import annotations

import json

import pytest
from draft_reader import expected, import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.vscode_copilot import VSCodeCopilot

    return VSCodeCopilot()


def request(number, text, *response, **fields):
    base = {"requestId": f"request_{number}", "timestamp": 1786000000000 + number * 1000, "modelId": "copilot/m1"}
    base |= {"message": {"text": text, "parts": [{"kind": "text", "text": text}]}, "response": list(response)}
    return base | {"agent": {"id": "github.copilot.editsAgent"}, "variableData": {"variables": []}} | fields


def invocation(call_id, tool="copilot_readFile", **fields):
    base = {"kind": "toolInvocationSerialized", "toolId": tool, "toolCallId": call_id, "isComplete": True}
    return base | {"isConfirmed": {"type": 1}, "pastTenseMessage": {"value": "Read"}} | fields


DONE = request(
    1,
    "Sort the shelf",
    {"kind": "thinking", "value": ["I look.", "Hm."]},
    {"value": "First "},
    {"kind": "inlineReference", "inlineReference": {"path": "/a"}},
    invocation(
        "t1", resultDetails={"input": '{"path": "a"}', "output": [{"type": "embed", "value": "A"}], "isError": False}
    ),
    invocation("t2", isConfirmed={"type": 0}),
    invocation("t3", "run_in_terminal", toolSpecificData={"kind": "terminal", "terminalCommandOutput": {"text": "ok"}}),
    {"kind": "undoStop", "id": "x"},
    {"value": "done."},
    result={
        "timings": {"firstProgress": 500, "totalElapsed": 2500},
        "metadata": {"promptTokens": 100, "outputTokens": 10, "resolvedModel": "m1-x"},
    },
    modelState={"value": 1, "completedAt": 1786000005000},
)
SESSION = {
    "version": 3,
    "sessionId": "s1",
    "creationDate": 1786000000000,
    "lastMessageDate": 1786000009000,
    "customTitle": "Shelf",
    "responderUsername": "GitHub Copilot",
    "requests": [
        DONE,
        request(2, "Again", {"value": "Wh"}, isCanceled=True),
        request(3, "Once more", result={"errorDetails": {"message": "No quota."}}),
    ],
}
LOG = (
    {"kind": 0, "v": SESSION | {"requests": []}},
    {"kind": 2, "k": ["requests"], "v": [request(1, "Sort the shelf"), request(9, "gone")]},
    {"kind": 2, "k": ["requests"], "v": SESSION["requests"][1:], "i": 1},
    {"kind": 2, "k": ["requests", 0, "response"], "v": DONE["response"][:3]},
    {"kind": 2, "k": ["requests", 0, "response"], "v": DONE["response"][2:], "i": 2},
    {"kind": 1, "k": ["requests", 0, "result"], "v": DONE["result"]},
    {"kind": 1, "k": ["requests", 0, "modelState"], "v": DONE["modelState"]},
    {"kind": 1, "k": ["draft"], "v": "text"},
    {"kind": 3, "k": ["draft"]},
)


def test_a_session(importer, tmp_path):
    path = write(tmp_path, "w/chatSessions/s1.json", SESSION)
    write(tmp_path, "w/workspace.json", {"folder": "file:///home/ann/my%20shelf"})
    assert recognized_by(path) == "vscode_copilot"
    [draft], problems = read(importer, path)
    assert problems == []
    assert (draft.session.session_name, draft.session.metadata["cwd"]) == ("Shelf", "/home/ann/my shelf")
    assert inputs(draft) == ["Sort the shelf", "Again", "Once more"]
    assert roles(draft) == [["user", "assistant", "tool", "tool"], ["user", "assistant"], ["user"]]
    assert [(run.status, run.error) for run in draft.runs] == [
        ("COMPLETED", None),
        ("CANCELLED", None),
        ("ERROR", "No quota."),
    ]
    run, answer = draft.runs[0], messages(draft)[1]
    assert (run.duration_s, run.time_to_first_token_s, run.model) == (2.5, 0.5, "m1-x")
    assert answer.content == [
        {"type": "thinking", "thinking": "I look.\nHm."},
        {"type": "text", "text": "First done."},
    ]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 10)
    assert answer.extra["parts"] == [DONE["response"][2]]
    assert [(c.tool_name, c.args, c.status) for c in answer.tool_calls] == [
        ("copilot_readFile", {"path": "a"}, "completed"),
        ("copilot_readFile", None, None),
        ("run_in_terminal", None, "completed"),
    ]
    assert [m.content for m in messages(draft)[2:4]] == ["A", "ok"]
    assert run.created_at.isoformat() == "2026-08-06T07:06:41+00:00"
    store = import_twice(tmp_path, tmp_path / "w")
    assert len(store.sessions_df()) == 1


def test_a_log_is_replayed(importer, tmp_path):
    [document], _ = read(importer, write(tmp_path, "a.json", SESSION))
    path = write(tmp_path, "a.jsonl", LOG)
    assert recognized_by(path) == "vscode_copilot"
    [draft], problems = read(importer, path)
    assert problems == []
    assert (draft.hashes, draft.keys) == (document.hashes, document.keys)
    assert draft.session_hash == document.session_hash
    _, [problem] = read(importer, write(tmp_path, "a.jsonl", (*LOG, {"kind": 1, "k": ["no", "path"], "v": 1})))
    assert problem.line == len(LOG) + 1


def test_a_log_that_grows(importer, tmp_path):
    from kern_nb.db import SqliteDb

    store = SqliteDb(tmp_path / "s.db")
    for n in (3, 5, len(LOG)):
        assert store.ingest(write(tmp_path, "a.jsonl", LOG[:n]), progress=False).errors == []
    assert len(store.sessions_df()) == 1
    assert store.messages_df()["role"].tolist().count("assistant") == 2


def test_outcomes_and_times_of_other_versions(importer, tmp_path):
    """A failed state without details, the errors of old versions, -1 for no time, an answer without a time."""
    timings = {"timings": {"totalElapsed": 2500}}
    requests = [
        request(1, "a", modelState={"value": 3}),
        request(2, "b", responseErrorDetails={"message": "No quota."}),
        request(3, "c", {"value": "x"}, timestamp=-1),
        request(4, "d", {"value": "x"}, result=timings),
    ]
    [draft], _ = read(importer, write(tmp_path, "a.json", SESSION | {"requests": requests, "creationDate": 0}))
    first, second, third, fourth = draft.runs
    assert (first.status, first.error) == ("ERROR", "The request failed.")
    assert (second.status, second.error) == ("ERROR", "No quota.")
    assert (third.created_at, third.messages[0].created_at) == (None, None)
    assert (fourth.finished_at - fourth.created_at).total_seconds() == fourth.duration_s == 2.5
    assert draft.session.created_at == 1786000001


def test_the_result_of_a_nested_agent(importer, tmp_path):
    nested = {"kind": "subagent", "prompt": "Look.", "result": "It is red."}
    single = request(1, "x", invocation("t1", "runSubagent", toolSpecificData=nested))
    [draft], _ = read(importer, write(tmp_path, "a.json", SESSION | {"requests": [single]}))
    assert (messages(draft)[2].role, messages(draft)[2].content) == ("tool", "It is red.")


def test_the_rounds_of_the_model_have_the_arguments(importer, tmp_path):
    rounds = [{"toolCalls": [{"id": "call_1__vscode-7", "name": "read_file", "arguments": '{"p": 1}'}]}]
    metadata = {"toolCallRounds": rounds, "toolCallResults": {"call_1__vscode-7": {"content": [{"value": "A"}]}}}
    single = request(1, "x", invocation("other"), result={"metadata": metadata})
    [draft], _ = read(importer, write(tmp_path, "a.json", SESSION | {"requests": [single]}))
    assert messages(draft)[1].tool_calls[0].args == {"p": 1}
    assert messages(draft)[2].content == "A"


def test_an_export_and_an_empty_session(importer, tmp_path):
    path = write(tmp_path, "chat.json", {"responderUsername": "GitHub Copilot", "requests": [DONE]})
    [draft], _ = read(importer, path)
    assert draft.session_id == "chat"
    path = write(tmp_path, "empty.json", SESSION | {"requests": []})
    assert recognized_by(path) == "vscode_copilot"
    assert read(importer, path) == ([], [])


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        {"requests": []},
        {"requests": [{"url": "x"}]},
        {"kind": 0, "v": {"a": 1}},
        {"kind": 1, "k": ["requests"]},
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.json", value)) != "vscode_copilot"


def test_damaged_files_raise_nothing(importer, tmp_path):
    data = "".join(json.dumps(record) + "\n" for record in LOG).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50), *truncated(json.dumps(SESSION, indent=1).encode(), 50)):
        read(importer, write(tmp_path, "x.jsonl", damaged))
    for changed in mistyped(list(LOG), 200):
        read(importer, write(tmp_path, "x.jsonl", tuple(changed)))
    for changed in mistyped(SESSION, 200):
        read(importer, write(tmp_path, "x.json", changed))
    broken = SESSION | {"requests": [DONE, 5, {"requestId": "x"}, request(2, "Again")]}
    [draft], problems = read(importer, write(tmp_path, "x.json", broken))
    assert (inputs(draft), len(problems)) == (["Sort the shelf", "Again"], 2)


def test_the_sample_has_the_expected_figures(importer, shared_data, tmp_path):
    figures = expected(shared_data, "vscode_copilot/oplog.jsonl")
    [draft], problems = read(importer, shared_data / "vscode_copilot" / "oplog.jsonl")
    assert problems == []
    assert [draft.session_id] == figures["session_ids"]
    assert inputs(draft) == figures["prompts"]
    assert [run.output for run in draft.runs] == figures["answers"]
    store = import_twice(tmp_path, shared_data / "vscode_copilot")
    stored, calls = store.messages_df(), store.tool_calls_df()
    assert (stored["role"] == "assistant").sum() == figures["assistant_messages"]
    assert (stored["role"] == "tool").sum() == figures["tool_results"]
    assert calls["tool_name"].value_counts().to_dict() == figures["tool_calls_by_name"]
    assert (calls["status"] == "failed").sum() == figures["failed_calls"]
    assert stored["model"].value_counts().to_dict() == figures["models"]
    assert stored["created_at"].min().isoformat().startswith("2026-08-06T07:11:31.425")
