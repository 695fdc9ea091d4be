"""The data export of Claude.ai: linear and tree-shaped conversations, calls, thinking, attachments."""

from __future__ import annotations

import json
import zipfile

import pytest
from draft_reader import expected, import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated

ROOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.claude_ai_export import ClaudeAiExport

    return ClaudeAiExport()


def message(uuid, sender, *blocks, parent=None, second=0, **more):
    content = [
        {"type": "text", "text": block, "citations": []} if isinstance(block, str) else block for block in blocks
    ]
    time = f"2026-01-02T03:04:{second:02}.000000Z"
    base = {"uuid": uuid, "text": "Plain text", "content": content, "sender": sender, "created_at": time}
    base |= {"updated_at": time, "attachments": [], "files": []}
    return base | ({"parent_message_uuid": parent} if parent else {}) | more


def conversation(*chat_messages, uuid="c1", **more):
    base = {"uuid": uuid, "name": "A chat", "summary": "", "created_at": "2026-01-02T03:04:00Z"}
    base |= {"updated_at": "2026-01-02T04:00:00Z", "account": {"uuid": "acct"}}
    return base | {"chat_messages": list(chat_messages)} | more


TREE = (
    message("u1", "human", "Which shelf?", parent=ROOT),
    message("a1", "assistant", "The third.", parent="u1", second=1),
    message("a1b", "assistant", "The fourth.", parent="u1", second=2),
    message("u2", "human", "Thanks", parent="a1b", second=3),
    message("u0", "human", "Which wall?", parent=ROOT, second=4),
)


def test_a_linear_conversation(importer, tmp_path):
    record = conversation(message("u1", "human", "Hi"), message("a1", "assistant", "Hello", second=7))
    path = write(tmp_path, "conversations.json", [record, conversation(uuid="c2", name="")])
    assert recognized_by(path) == "claude_ai_export"
    [draft, empty], problems = read(importer, path)
    assert problems == []
    assert roles(draft) == [["user", "assistant"]]
    assert (draft.runs[0].input, draft.runs[0].output, draft.runs[0].duration_s) == ("Hi", "Hello", 7)
    assert (draft.session.session_name, draft.session.created_at) == ("A chat", 1767323040)
    assert (empty.runs, empty.session.session_name) == ([], None)
    store = import_twice(tmp_path, path)
    assert len(store.sessions_df()) == 2


def test_each_leaf_is_a_line(importer, tmp_path):
    path = write(tmp_path, "conversations.json", [conversation(*TREE)])
    drafts, _ = read(importer, path)
    assert [inputs(draft) for draft in drafts] == [["Which shelf?", "Thanks"], ["Which shelf?"], ["Which wall?"]]
    store = import_twice(tmp_path, path)
    assert len(store.sessions_df()) == 3
    assert len(store.messages_df()) == len(TREE)
    [*_, shown], _ = read(importer, write(tmp_path, "x.json", [conversation(*TREE, current_leaf_message_uuid="a1")]))
    assert inputs(shown) == ["Which wall?"]


def test_calls_thinking_and_attachments(importer, tmp_path):
    blocks = (
        {"type": "thinking", "thinking": "I look.", "start_timestamp": "2026-01-02T03:04:05Z"},
        "Let me see.",
        {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "x"}},
        {"type": "tool_result", "tool_use_id": "t1", "name": "search", "content": [{"type": "text", "text": "no"}],
         "is_error": True},
        {"type": "tool_use", "name": "repl", "input": {"code": "1"}},
        {"type": "tool_result", "name": "repl", "content": "1", "is_error": False},
        {"type": "token_budget", "remaining": 5},
        "There.",
    )  # fmt: skip
    file = {"file_name": "a.txt", "file_size": 3, "extracted_content": "abc"}
    prompt = message("u1", "human", "See", attachments=[file], files=[{"file_name": "b.png"}])
    path = write(tmp_path, "c.json", [conversation(prompt, message("a1", "assistant", *blocks))])
    [draft], problems = read(importer, path)
    assert problems == []
    assert roles(draft) == [["user", "assistant", "tool", "tool"]]
    user, answer, *_ = messages(draft)
    assert [part["type"] for part in user.content] == ["text", "document", "file"]
    assert [part["type"] for part in answer.content] == ["thinking", "text", "text"]
    assert answer.extra["parts"] == [blocks[6]]
    calls = import_twice(tmp_path, path).tool_calls_df()
    assert calls["status"].tolist() == ["failed", "completed"]
    assert calls["result"].tolist() == ["no", "1"]


def test_a_message_with_text_only(importer, tmp_path):
    old = [message("u1", "human", content=[]), message("a1", "assistant", content=None, text="Words")]
    [draft], _ = read(importer, write(tmp_path, "c.json", [conversation(*old)]))
    assert (draft.runs[0].input, draft.runs[0].output) == ("Plain text", "Words")


def test_an_archive(importer, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("users.json", "[]")
        archive.writestr("conversations.json", json.dumps([conversation(*TREE)]))
    assert len(import_twice(tmp_path, tmp_path / "data.zip").sessions_df()) == 3


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        [{"uuid": "x", "full_name": "Ann"}],
        [{"uuid": "x", "chat_messages": [{"a": 1}]}],
        [{"chat_messages": []}],
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.json", value)) != "claude_ai_export"


def test_damaged_files_raise_nothing(importer, tmp_path):
    talk = [conversation(*TREE), conversation(TREE[0], TREE[1], uuid="c2")]
    data = json.dumps(talk, indent=1).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.json", damaged))
    for changed in mistyped(talk, 300):
        drafts, _ = read(importer, write(tmp_path, "x.json", changed))
        if len(changed) == 2:
            assert drafts
    broken = conversation(TREE[0], 5, {"sender": "human"}, TREE[1])
    [draft], problems = read(importer, write(tmp_path, "x.json", [broken]))
    assert roles(draft) == [["user", "assistant"]]
    assert len(problems) == 2


def test_the_sample_has_the_expected_figures(importer, shared_data, tmp_path):
    figures = expected(shared_data, "claude_ai_export/conversations.json")
    drafts, problems = read(importer, shared_data / "claude_ai_export" / "conversations.json")
    assert problems == []
    assert [draft.session_id for draft in drafts] == figures["session_ids"]
    assert [len(messages(draft)) for draft in drafts] == [v["messages"] for v in figures["per_session"].values()]
    store = import_twice(tmp_path, shared_data / "claude_ai_export")
    assert len(store.runs_df()) == figures["runs"]
    counts = store.messages_df()["role"].value_counts().to_dict()
    assert [counts["user"], counts["assistant"]] == list(figures["messages_by_sender"].values())
    assert store.messages_df()["created_at"].max().isoformat() == "2026-01-17T08:00:00+00:00"
