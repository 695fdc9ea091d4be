"""Chats of Qwen Code: the tree of records, usage, rewinds, branches, compressions and nested agents."""

from __future__ import annotations

import json

from mutations import mistyped, torn, truncated


def record(name, parent, kind, parts=None, **more):
    base = {"uuid": name, "parentUuid": parent, "sessionId": "s1", "timestamp": "2026-01-02T03:04:05Z", "type": kind}
    role = "model" if kind == "assistant" else "user"
    message = {} if parts is None else {"message": {"role": role, "parts": parts}}
    return base | {"cwd": "/w", "version": "1"} | message | more


def user(name, parent, words, **more):
    return record(name, parent, "user", [{"text": words}], **more)


def answer(name, parent, *parts, **more):
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 30,
    }
    return record(
        name, parent, "assistant", list(parts), model="q1", usageMetadata=usage | {"totalTokenCount": 110}, **more
    )


CALL = {"functionCall": {"id": "c1", "name": "shell", "args": {"x": 1}}}
RESPONSE = {"functionResponse": {"id": "c1", "name": "shell", "response": {"error": "no"}}}
TALK = (
    user("u1", None, "one"),
    answer("a1", "u1", {"text": "hm", "thought": True}, {"text": "Let me see."}, CALL),
    record("t1", "a1", "tool_result", [RESPONSE], toolCallResult={"callId": "c1", "status": "error"}),
    record("x1", "t1", "system", subtype="ui_telemetry", systemPayload={"uiEvent": {}}),
    answer("a2", "x1", {"text": "Done."}),
)


def read(tmp_path, records, name="s1.jsonl"):
    from kern_nb.ingest.importer import Draft
    from kern_nb.ingest.importers.qwen_code import QwenCode
    from kern_nb.ingest.source import Source

    path = tmp_path / name
    data = records if isinstance(records, bytes) else "".join(json.dumps(r) + "\n" for r in records).encode()
    path.write_bytes(data)
    source = Source(path, name)
    QwenCode().recognizes(source)
    items = list(QwenCode().read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if not isinstance(i, Draft)]


def inputs(draft):
    return [run.input for run in draft.runs]


def test_the_path_to_the_last_record_is_the_session(tmp_path):
    title = record("x2", "a2", "system", subtype="custom_title", systemPayload={"customTitle": "Lint"})
    [draft], problems = read(tmp_path, [*TALK, title])
    assert problems == []
    [run] = draft.runs
    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    first, result = run.messages[1:3]
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.cache_read_tokens) == (100, 10, 30)
    assert (first.tool_calls[0].status, result.content, result.is_error) == ("failed", "no", True)
    assert (run.output, run.model, draft.session.session_name) == ("Done.", "q1", "Lint")


def test_a_rewind_leaves_two_lines(tmp_path):
    tail = [user("u2", "a2", "two"), answer("a3", "u2", {"text": "Yes."})]
    rewind = record("x2", "a2", "system", subtype="rewind", systemPayload={"truncatedCount": 2})
    drafts, _ = read(tmp_path, [*TALK, *tail, rewind, user("u3", "x2", "three")])
    assert [inputs(draft) for draft in drafts] == [["one", "three"], ["one", "two"]]


def test_a_branch_has_the_keys_of_its_parent(tmp_path):
    [parent], _ = read(tmp_path, TALK)
    copies = [r | {"sessionId": "s2", "forkedFrom": {"sessionId": "s1", "messageUuid": r["uuid"]}} for r in TALK]
    [fork], _ = read(tmp_path, [*copies, user("u9", "a2", "new", sessionId="s2")])
    assert (fork.session_id, fork.has_record_ids) == ("s2", True)
    assert fork.keys[0] == parent.keys[0]
    assert fork.hashes[0] == parent.hashes[0]
    assert fork.session.metadata["parent_session"] == "s1"


def test_a_nested_agent_is_a_session_of_its_own(tmp_path):
    nested = {"isSidechain": True, "agentId": "explore-1"}
    own = [user("n1", "a1", "task", **nested), answer("n2", "n1", {"text": "ok"}, **nested)]
    main, member = read(tmp_path, [*TALK[:2], *own, *TALK[2:]])[0]
    assert inputs(main) == ["one"]
    assert (member.session_id, member.membership.session_id, inputs(member)) == ("s1/explore-1", "s1", ["task"])


def test_harness_messages_and_compressions_are_no_prompts(tmp_path):
    payload = {"info": {}, "compressedHistory": [{"role": "user", "parts": [{"text": "We did A."}]}]}
    compression = record("x2", "a2", "system", subtype="chat_compression", systemPayload=payload)
    notice = user("n1", "x2", "<task-notification />", subtype="notification")
    [draft], _ = read(tmp_path, [*TALK, compression, notice])
    assert inputs(draft) == ["one"]
    assert draft.runs[0].messages[-2].content == "We did A."
    assert draft.runs[0].messages[-2].extra["compaction"] is True


def test_only_records_with_parts_are_recognized(tmp_path):
    from kern_nb.ingest.importers.qwen_code import QwenCode
    from kern_nb.ingest.source import Source

    other = {
        "uuid": "u",
        "parentUuid": None,
        "sessionId": "s",
        "type": "user",
        "message": {"role": "user", "content": "x"},
    }
    for value, expected in ((other, False), (TALK[0], True)):
        path = tmp_path / "x.jsonl"
        path.write_text(json.dumps(value) + "\n")
        assert QwenCode().recognizes(Source(path, "x.jsonl")) is expected


def test_damaged_files_raise_nothing(tmp_path):
    records = [*TALK, user("u2", "a2", "two"), user("u3", "a2", "three")]
    data = "".join(json.dumps(value) + "\n" for value in records).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(tmp_path, damaged)
    for changed in mistyped(records, 150):
        read(tmp_path, "".join(json.dumps(value) + "\n" for value in changed).encode())
    [draft], problems = read(tmp_path, [*TALK[:2], *TALK[4:]])
    assert [message.role for message in draft.runs[0].messages] == ["user", "assistant", "assistant"]
    assert [problem.line for problem in problems] == [3]


def test_a_second_import_stores_nothing(tmp_path):
    from kern_nb.db import SqliteDb

    read(tmp_path, [*TALK, user("u2", "a2", "two")])
    store = SqliteDb(tmp_path / "s.db")
    first = store.ingest(tmp_path / "s1.jsonl", progress=False)
    assert (first.errors, first.sessions, first.runs) == ([], 1, 2)
    again = store.ingest(tmp_path / "s1.jsonl", progress=False)
    assert (again.sessions, again.runs, again.messages) == (0, 0, 0)


def test_short_ids_of_two_sessions_are_not_those_of_copies(tmp_path):
    from kern_nb.db import SqliteDb

    for name in ("s1", "s2"):
        records = [user("u1", None, "same"), answer("a1", "u1", {"text": f"Of {name}."})]
        read(tmp_path, [record | {"sessionId": name} for record in records], f"{name}.jsonl")
    with SqliteDb(tmp_path / "s.db") as store:
        store.ingest(tmp_path, progress=False)
        assert sorted(store.messages_df().query("role == 'assistant'")["content"]) == ["Of s1.", "Of s2."]
