"""Chats of Gemini CLI: the event log, resumes, rewinds, compactions, nested agents, and the documents of old versions."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

HEADER = {
    "sessionId": "s1",
    "projectHash": "h",
    "startTime": "2026-01-02T03:04:05Z",
    "lastUpdated": "2026-01-02T03:04:05Z",
}
CONTEXT = {
    "id": "ctx",
    "timestamp": "2026-01-02T03:04:05Z",
    "type": "user",
    "content": [{"text": "<session_context>\na"}],
}


def user(name, words, second=10):
    return {"id": name, "timestamp": f"2026-01-02T03:04:{second}Z", "type": "user", "content": [{"text": words}]}


def answer(name, words, second=11, **more):
    tokens = {"input": 100, "output": 10, "cached": 40, "thoughts": 5, "tool": 0, "total": 115}
    base = {"id": name, "timestamp": f"2026-01-02T03:04:{second}Z", "type": "gemini", "content": words, "thoughts": []}
    return base | {"tokens": tokens, "model": "g1"} | more


def response(call_id, output):
    return {"functionResponse": {"id": call_id, "name": "shell", "response": {"output": output}}}


def call(call_id, status="success", output="ok"):
    result = [response(call_id, output)] if output is not None else None
    record = {"id": call_id, "name": "shell", "args": {"x": 1}, "status": status, "result": result}
    return record | {"timestamp": "2026-01-02T03:04:12Z", "displayName": "Shell"}


THOUGHT = {"subject": "Checking", "description": "I look.", "timestamp": "2026-01-02T03:04:11Z"}
FIRST = answer("g1", "", thoughts=[THOUGHT])
TALK = (
    HEADER,
    {"$set": {"messages": [CONTEXT]}},
    user("u1", "one"),
    FIRST,
    FIRST | {"toolCalls": [call("c1")]},
    {"id": "r1", "timestamp": "2026-01-02T03:04:13Z", "type": "user", "content": [response("c1", "ok")]},
    answer("g2", "Done.", 14),
)
RESUME = (
    HEADER | {"startTime": "2026-01-02T04:00:00Z"},
    {"$set": {"messages": [CONTEXT | {"timestamp": "2026-01-02T04:00:01Z"}]}},
    {
        "$set": {
            "messages": [
                CONTEXT | {"timestamp": "2026-01-02T04:00:01Z"},
                user("u1", "one", 59),
                {
                    "id": "g1",
                    "timestamp": "2026-01-02T04:00:01Z",
                    "type": "gemini",
                    "content": [
                        {"text": "**Checking** I look.", "thought": True},
                        {"functionCall": {"id": "c1", "name": "shell", "args": {"x": 1}}},
                    ],
                },
                {
                    "id": "g1_response",
                    "timestamp": "2026-01-02T04:00:01Z",
                    "type": "user",
                    "content": [response("c1", "ok")],
                },
                {"id": "r1", "timestamp": "2026-01-02T04:00:01Z", "type": "user", "content": [response("c1", "ok")]},
                {"id": "g2", "timestamp": "2026-01-02T04:00:01Z", "type": "gemini", "content": [{"text": "Done."}]},
            ]
        }
    },
)


def read(folder, records, name="session-x.jsonl", importer=None):
    from kern_nb.ingest.importer import Draft
    from kern_nb.ingest.importers.gemini_cli import GeminiCli
    from kern_nb.ingest.source import Source

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = records if isinstance(records, bytes) else "".join(json.dumps(r) + "\n" for r in records).encode()
    path.write_bytes(data)
    source = Source(path, path.name)
    importer = importer or GeminiCli()
    importer.recognizes(source)
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if not isinstance(i, Draft)]


def roles(draft):
    return [[message.role for message in run.messages] for run in draft.runs]


def inputs(draft):
    return [run.input for run in draft.runs]


def test_the_events_are_folded(tmp_path):
    [draft], problems = read(tmp_path, [*TALK, user("u2", "two", 20), answer("g3", "Yes.", 21)])
    assert problems == []
    assert roles(draft) == [["user", "user", "assistant", "tool", "assistant"], ["user", "assistant"]]
    assert inputs(draft) == ["one", "two"]
    first = draft.runs[0].messages[2]
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.reasoning_tokens) == (100, 15, 5)
    assert (first.usage.cache_read_tokens, first.usage.total_tokens, first.model) == (40, 115, "g1")
    assert first.content == [{"type": "thinking", "thinking": "Checking: I look."}]
    [first_call] = first.tool_calls
    assert (first_call.tool_name, first_call.args, first_call.status, first_call.extra["displayName"]) == (
        "shell",
        {"x": 1},
        "completed",
        "Shell",
    )
    assert (draft.runs[0].messages[3].content, draft.runs[0].messages[3].is_error) == ("ok", False)
    assert draft.session.created_at == 1767323045


def test_a_resume_changes_nothing(tmp_path):
    [before], _ = read(tmp_path, TALK)
    [after], problems = read(tmp_path, [*TALK, *RESUME, user("u2", "two", 20)])
    assert problems == []
    assert after.keys[0] == before.keys[0]
    assert after.hashes[0] == before.hashes[0]
    assert inputs(after) == ["one", "two"]
    assert after.session.created_at == before.session.created_at


def test_a_history_of_the_api_alone_has_its_calls_and_results(tmp_path):
    [draft], _ = read(tmp_path, [HEADER, RESUME[2]])
    assert roles(draft) == [["user", "user", "assistant", "tool", "assistant"]]
    assert draft.runs[0].messages[2].tool_calls[0].status == "completed"


def test_what_a_rewind_removes_is_a_line_of_its_own(tmp_path):
    records = [*TALK, user("u2", "two", 20), answer("g3", "Yes.", 21), {"$rewindTo": "u2"}, user("u3", "three", 30)]
    drafts, problems = read(tmp_path, records)
    assert problems == []
    assert [inputs(draft) for draft in drafts] == [["one", "three"], ["one", "two"]]
    assert {draft.session_id for draft in drafts} == {"s1"}
    assert drafts[0].hashes[0] == drafts[1].hashes[0]
    _, [problem] = read(tmp_path, [*TALK, {"$rewindTo": "gone"}])
    assert problem.line == len(TALK) + 1


def test_the_store_keeps_both_lines_and_grows_with_the_file(tmp_path):
    from kern_nb.db import SqliteDb

    records = [*TALK, user("u2", "two", 20), answer("g3", "Yes.", 21), {"$rewindTo": "u2"}, user("u3", "three", 30)]
    store = SqliteDb(tmp_path / "s.db")
    shown = []
    history = [*RESUME[2]["$set"]["messages"], user("u3", "three", 30)]
    resumed = [*records, *RESUME[:2], {"$set": {"messages": history}}, user("u4", "four", 40)]
    for version in (records[:-2], records, resumed):
        read(tmp_path, version)
        report = store.ingest(tmp_path / "session-x.jsonl", progress=False)
        assert report.errors == []
        names = sorted(store.sessions_df()["session_id"])
        shown.append([[run.input for run in store.get_session(name).runs] for name in names])
    assert sorted(shown[1]) == [["one", "three"], ["one", "two"]]
    assert sorted(shown[2]) == [["one", "three", "four"], ["one", "two"]]
    assert store.sessions_df()["input_tokens"].sum() == 300


def test_a_shorter_list_of_messages_removes_the_others(tmp_path):
    drafts, _ = read(tmp_path, [*TALK, user("u2", "two", 20), {"$set": {"messages": RESUME[2]["$set"]["messages"]}}])
    assert [inputs(draft) for draft in drafts] == [["one"], ["one", "two"]]


def test_a_compaction_keeps_what_was_said(tmp_path):
    summary = user("n1", "<state_snapshot>We did A.</state_snapshot>", 22)
    records = [
        *TALK,
        {"$set": {"messages": [summary, answer("n2", "Got it.", 22, tokens=None)]}},
        user("u2", "two", 30),
    ]
    [draft], _ = read(tmp_path, records)
    assert inputs(draft) == ["one", "two"]
    assert [bool(m.extra.get("compaction")) for m in draft.runs[0].messages][-2:] == [True, False]


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [("success", "ok", ("completed", False)), ("error", "no", ("failed", True)), ("cancelled", None, (None, None))],
)
def test_the_status_of_a_call(tmp_path, status, output, expected):
    [draft], _ = read(tmp_path, [HEADER, user("u1", "one"), answer("g1", "", toolCalls=[call("c1", status, output)])])
    messages = draft.runs[0].messages
    assert messages[1].tool_calls[0].status == expected[0]
    assert [m.is_error for m in messages[2:]] == ([] if output is None else [expected[1]])


def test_what_the_client_says_is_no_prompt(tmp_path):
    error = {"id": "e", "timestamp": "2026-01-02T03:04:15Z", "type": "error", "content": "[API Error]"}
    cancelled = error | {"id": "i", "type": "info", "content": "Request cancelled."}
    [draft], _ = read(tmp_path, [HEADER, user("u1", "one"), error, user("u2", "two"), cancelled])
    assert [(run.status, run.error) for run in draft.runs] == [("ERROR", "[API Error]"), ("CANCELLED", None)]
    assert inputs(draft) == ["one", "two"]


def test_a_nested_agent_is_a_member_of_its_folder_s_session(tmp_path):
    records = [HEADER | {"sessionId": "sub", "kind": "subagent"}, user("u1", "task"), answer("g1", "ok")]
    [draft], _ = read(tmp_path, records, "chats/parent-id/sub.jsonl")
    assert draft.membership.session_id == "parent-id"


@pytest.mark.parametrize("kind", ["gemini", "qwen"])
def test_the_document_of_an_old_version(tmp_path, kind):
    from kern_nb.ingest.importers.gemini_cli import GeminiCli
    from kern_nb.ingest.source import Source

    messages = [
        {"id": "u1", "timestamp": "2026-01-02T03:04:10Z", "type": "user", "content": "one"},
        answer("g1", "Done.", toolCalls=[call("c1")]) | {"type": kind},
    ]
    data = json.dumps(HEADER | {"messages": messages, "summary": "Lint"}, indent=2).encode()
    [draft], problems = read(tmp_path, data, "session-x.json")
    assert problems == []
    assert roles(draft) == [["user", "assistant", "tool"]]
    assert (draft.session.session_name, draft.session.agent_id.partition("-")[0]) == ("Lint", kind)
    assert GeminiCli().recognizes(Source(tmp_path / "session-x.json", "session-x.json"))


def test_neighbouring_layouts_are_not_recognized(tmp_path):
    from kern_nb.ingest.importers.gemini_cli import GeminiCli
    from kern_nb.ingest.source import Source

    others = (
        {"sessionId": "s", "uuid": "u", "type": "user", "message": {"role": "user", "content": "x"}},
        {"sessionId": "s", "projectHash": "h", "messages": []},
        {"id": "a", "type": "user", "timestamp": "x", "content": "hi"},
        {"messages": [{"role": "user", "content": "x"}]},
    )
    for record in others:
        path = tmp_path / "x.jsonl"
        path.write_text(json.dumps(record) + "\n")
        assert not GeminiCli().recognizes(Source(path, "x.jsonl")), record


def test_damaged_files_raise_nothing(tmp_path):
    records = [*TALK, *RESUME, user("u2", "two"), {"$rewindTo": "u2"}, user("u3", "three"), answer("g9", "x")]
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(tmp_path, damaged)
    for changed in mistyped(records, 150):
        read(tmp_path, "".join(json.dumps(record) + "\n" for record in changed).encode())
    [draft], problems = read(tmp_path, [HEADER, 7, user("u1", "one"), {"x": 1}, user("u2", "two")])
    assert inputs(draft) == ["one", "two"]
    assert [problem.line for problem in problems] == [2, 4]


def test_a_damaged_later_version_of_a_file_takes_nothing_from_the_earlier_one(tmp_path, db):
    """It is reported, the stored session stays as it is, and the next intact version adds what is new."""
    path = tmp_path / "session-x.jsonl"
    records = [*TALK, user("u2", "two", 20), answer("g3", "Yes.", 21)]

    def ingest(values):
        path.write_text("".join(json.dumps(record) + "\n" for record in values))
        return db.ingest(path, "gemini_cli", progress=False)

    def stored():
        return [frame.to_dict("records") for frame in (db.sessions_df(), db.runs_df(), db.messages_df())]

    ingest(records)
    before = stored()
    at = records.index(next(record for record in records if record.get("id") == "u2"))
    for damage in ({"type": ["user"]}, {"type": None}, {"content": [[5]]}, {"content": None}):
        damaged = [*records[:at], records[at] | damage, *records[at + 1 :]]
        report = ingest(damaged)
        assert report.errors, damage
        assert (report.runs, stored()) == (0, before), damage
    report = ingest([*records, user("u3", "three", 30)])
    assert (report.errors, report.runs, report.sessions) == ([], 1, 0)


def test_the_sample_has_the_expected_figures(shared_data, tmp_path):
    from kern_nb.db import SqliteDb
    from kern_nb.records import Usage

    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    expected = expected.get("files", expected)
    for file in sorted((shared_data / "gemini_cli").glob("*.jsonl")):
        figures = expected[f"gemini_cli/{file.name}"]
        [draft], problems = read(tmp_path, file.read_bytes(), file.name)
        assert problems == []
        assert [draft.session_id] == figures["session_ids"]
        assert [[{"text": words}] for words in inputs(draft)] == [json.loads(words) for words in figures["prompts"]]
        messages = [message for run in draft.runs for message in run.messages]
        assert sum(m.role == "assistant" for m in messages) == figures["gemini_messages"]
        assert sum(len(m.tool_calls) for m in messages) == figures["tool_calls"]
        assert sum(m.role == "tool" for m in messages) == figures["tool_results"]
        total = Usage.total(m.usage for m in messages)
        assert total.input_tokens == figures["input_tokens"]
        assert total.output_tokens == figures["output_tokens"] + figures["reasoning_tokens"]
        assert total.cache_read_tokens == figures["cache_read_tokens"]
        assert total.total_tokens == figures["total_tokens_logged"]
        assert {m.model for m in messages if m.model} == set(figures["models"])
    store = SqliteDb(tmp_path / "s.db")
    first = store.ingest(shared_data / "gemini_cli", progress=False)
    assert (first.errors, first.sessions, first.runs) == ([], 1, 2)
    again = store.ingest(shared_data / "gemini_cli", progress=False)
    assert (again.sessions, again.runs, again.messages) == (0, 0, 0)


def test_documents_with_equal_short_ids_are_sessions_of_their_own(tmp_path):
    from kern_nb.db import SqliteDb

    messages = [{"id": "1", "type": "user", "content": "x"}, {"id": "2", "type": "gemini", "content": "y"}]
    documents = [{"sessionId": name, "projectHash": "h", "messages": messages} for name in ("s1", "s2")]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(documents[0]) + "\n" + json.dumps(documents[1]))
    with SqliteDb(tmp_path / "s.db") as store:
        report = store.ingest(path, progress=False)
        assert (report.sessions, report.messages, report.branches, report.errors) == (2, 4, 0, [])


def test_logs_joined_to_one_file_are_sessions(tmp_path):
    other = (HEADER | {"sessionId": "s2"}, user("u9", "two"), answer("g9", "B"))
    drafts, problems = read(tmp_path, (*TALK, HEADER, *other))
    assert problems == []
    assert [(d.session_id, inputs(d)) for d in drafts] == [("s1", ["one"]), ("s2", ["two"])]


def test_a_nested_agent_of_a_nested_agent(tmp_path):
    header = HEADER | {"sessionId": "s3", "kind": "subagent"}
    [draft], _ = read(tmp_path, (header, user("u1", "go"), answer("g1", "A")), "chats/s1/s2/session-s3.jsonl")
    assert draft.membership.session_id == "s2"


def test_the_folder_of_the_project(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / ".project_root").write_text("/home/a/shelf")
    [draft], _ = read(tmp_path / "p", TALK, "chats/session-x.jsonl")
    assert draft.session.metadata["project_root"] == "/home/a/shelf"
