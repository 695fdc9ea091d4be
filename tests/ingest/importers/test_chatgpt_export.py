"""The data export of ChatGPT: trees, tools, thoughts, hidden messages, split files and archives."""

from __future__ import annotations

import json
import zipfile

import pytest
from draft_reader import expected, import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.chatgpt_export import ChatGPTExport

    return ChatGPTExport()


def message(role, *parts, kind="text", second=0, name=None, **more):
    content = {"content_type": kind, "parts": list(parts)}
    content = more.pop("content", content)
    author = {"role": role, "name": name, "metadata": {}}
    base = {
        "author": author,
        "create_time": 1700000000.5 + second,
        "content": content,
        "status": "finished_successfully",
    }
    return (
        base
        | {"weight": 1.0, "recipient": "all", "metadata": {"model_slug": "m1"} if role == "assistant" else {}}
        | more
    )


def conversation(nodes, current, **more):
    """A conversation from (id, parent, message) triples."""
    mapping = {"root": {"id": "root", "parent": None, "children": [], "message": None}}
    for key, parent, body in nodes:
        mapping[key] = {"id": key, "parent": parent, "children": [], "message": body and {"id": key, **body}}
        if parent in mapping:
            mapping[parent]["children"].append(key)
    base = {"conversation_id": "c1", "title": "A chat", "create_time": 1700000000.5, "update_time": 1700000100.0}
    return (
        base | {"current_node": current, "mapping": mapping, "default_model_slug": "auto", "is_archived": False} | more
    )


TALK = (
    ("s", "root", message("system", "", metadata={"is_visually_hidden_from_conversation": True}, create_time=None)),
    ("u1", "s", message("user", "Which shelf?", second=1)),
    ("a1", "u1", message("assistant", "The third.", second=2)),
    ("a1b", "u1", message("assistant", "The fourth.", second=3)),
    ("u2", "a1", message("user", "Thanks", second=4)),
    ("u2b", "a1", message("user", "Sure?", second=5)),
    ("a2", "u2b", message("assistant", "Yes.", second=6)),
)


def test_each_leaf_is_a_line_and_the_shown_one_comes_first(importer, tmp_path):
    path = write(tmp_path, "conversations.json", [conversation(TALK, "u2")])
    assert recognized_by(path) == "chatgpt_export"
    drafts, problems = read(importer, path)
    assert problems == []
    assert [inputs(draft) for draft in drafts] == [
        ["Which shelf?", "Thanks"],
        ["Which shelf?", "Sure?"],
        ["Which shelf?"],
    ]
    assert {draft.session_id for draft in drafts} == {"c1"}
    assert roles(drafts[0]) == [["system", "user", "assistant"], ["user"]]
    assert messages(drafts[0])[0].extra["hidden"] is True
    assert messages(drafts[0])[0].created_at is None
    assert drafts[0].session.session_name == "A chat"
    assert drafts[0].session.metadata["default_model_slug"] == "auto"
    assert drafts[0].session.created_at == 1700000000
    assert [run.model for run in drafts[0].runs] == ["m1", None]
    assert messages(drafts[0])[1].created_at.isoformat() == "2023-11-14T22:13:21.500000+00:00"


def test_the_store_has_each_message_once(importer, tmp_path):
    store = import_twice(tmp_path, write(tmp_path, "conversations.json", [conversation(TALK, "u2")]))
    assert len(store.sessions_df()) == 3
    assert len(store.messages_df()) == len(TALK)


def test_an_edit_of_the_first_prompt(importer, tmp_path):
    nodes = [(key, "root" if parent == "s" else parent, body) for key, parent, body in TALK[1:]]
    nodes += [("u0", "root", message("user", "Which wall?", second=9)), ("a0", "u0", message("assistant", "None."))]
    path = write(tmp_path, "conversations.json", [conversation(nodes, "u2")])
    store = import_twice(tmp_path, path)
    assert sorted(words for words in store.runs_df()["input"].dropna() if words) == [
        "Sure?",
        "Thanks",
        "Which shelf?",
        "Which wall?",
    ]
    write(tmp_path, "conversations.json", [conversation(nodes, "a0")])
    assert store.ingest(path, progress=False).runs == 0


def test_calls_and_their_results(importer, tmp_path):
    nodes = [
        ("u", "root", message("user", "Add")),
        ("t", "u", message("assistant", kind="thoughts", content={
            "content_type": "thoughts", "thoughts": [{"summary": "Adding", "content": "I add."}]})),
        ("c", "t", message("assistant", recipient="python", content={
            "content_type": "code", "language": "python", "text": "1+1"})),
        ("o", "c", message("tool", name="python", content={"content_type": "execution_output", "text": "2"},
                           metadata={"aggregate_result": {"status": "success"}})),
        ("w", "o", message("assistant", '{"q": "x"}', recipient="web.run")),
        ("q", "w", message("tool", name="web", content={
            "content_type": "tether_quote", "url": "http://x", "text": "Quote", "title": "X"})),
        ("f", "q", message("assistant", recipient="python", content={
            "content_type": "code", "language": "json", "text": "{bad"})),
        ("e", "f", message("tool", name="python", content={"content_type": "system_error", "text": "no"})),
        ("r", "e", message("assistant", content={"content_type": "reasoning_recap", "content": "Thought for 1s"})),
        ("a", "r", message("assistant", "Two.")),
    ]  # fmt: skip
    [draft], problems = read(importer, write(tmp_path, "c.json", [conversation(nodes, "a")]))
    assert problems == []
    [run] = draft.runs
    assert (run.input, run.output) == ("Add", "Two.")
    thought, code, result = run.messages[1:4]
    assert thought.content == [{"type": "thinking", "thinking": "Adding\nI add."}]
    calls = [call for m in run.messages for call in m.tool_calls]
    assert [(c.tool_call_id, c.tool_name, c.args, c.status) for c in calls] == [
        ("c", "python", "1+1", "completed"),
        ("w", "web.run", {"q": "x"}, "completed"),
        ("f", "python", "{bad", "failed"),
    ]
    assert [call.extra.get("args_invalid") for call in calls] == [None, None, True]
    assert (code.content, result.content, result.tool_call_id, result.is_error) == (None, "2", "c", False)
    assert (run.messages[5].content, run.messages[5].extra["content"]["url"]) == ("Quote", "http://x")
    store = import_twice(tmp_path, tmp_path / "c.json")
    assert store.tool_calls_df()["result"].tolist() == ["2", "Quote", "no"]


def test_results_of_calls_at_once_and_of_tools_that_were_not_called(importer, tmp_path):
    """The former are in the order of the calls; the latter belong to no call that has its result."""
    code = {"content_type": "code", "language": "python"}
    nodes = [
        ("u", "root", message("user", "Add")),
        ("c1", "u", message("assistant", recipient="python", content=code | {"text": "1"})),
        ("c2", "c1", message("assistant", recipient="python", content=code | {"text": "2"})),
        ("o1", "c2", message("tool", "one", name="python")),
        ("o2", "o1", message("tool", "two", name="python")),
        ("o3", "o2", message("tool", "more", name="python")),
        ("i", "o3", message("tool", name="image", content={"content_type": "system_error", "text": "no"})),
    ]
    [draft], _ = read(importer, write(tmp_path, "c.json", [conversation(nodes, "i")]))

    assert [m.tool_call_id for m in draft.runs[0].messages[3:]] == ["c1", "c2", "c2", None]
    store = import_twice(tmp_path, tmp_path / "c.json")
    assert store.tool_calls_df()[["result", "status"]].to_numpy().tolist() == [
        ["one", "completed"],
        ["two", "completed"],
    ]


def test_media_and_custom_instructions(importer, tmp_path):
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x", "width": 3}
    nodes = [
        ("i", "root", message("user", content={"content_type": "user_editable_context", "user_profile": "I am Ann."})),
        ("u", "i", message("user", image, "What is it?", kind="multimodal_text")),
        ("a", "u", message("assistant", "A du", metadata={"finish_details": {"type": "interrupted"}})),
    ]
    [draft], _ = read(importer, write(tmp_path, "c.json", [conversation(nodes, "a")]))
    assert roles(draft) == [["user", "user", "assistant"]]
    assert messages(draft)[0].extra["hidden"] is True
    assert draft.runs[0].input == [image | {"type": "image"}, {"type": "text", "text": "What is it?"}]
    assert (draft.runs[0].status, messages(draft)[2].partial) == ("CANCELLED", True)


def test_equal_short_ids_of_two_conversations_are_no_copies(importer, tmp_path):
    both = [conversation(TALK[:3], "a1"), conversation(TALK[:4], "a1b", conversation_id=None, id="c2")]
    path = write(tmp_path, "conversations.json", both)
    store = import_twice(tmp_path, path)
    assert store.sessions_df()["parent_session_id"].isna().sum() == 2


def test_conversations_without_an_id_are_named_after_the_file(importer, tmp_path):
    both = [conversation(TALK[:n], "a1", conversation_id=None) for n in (2, 3)]
    store = import_twice(tmp_path, write(tmp_path, "conversations.json", both))
    assert store.sessions_df()["session_id"].str.startswith("conversations-").sum() == 2


def test_an_archive_with_split_files(importer, tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chat.html", "<html>")
        for number in (0, 1):
            record = conversation(TALK[:3], "a1", conversation_id=f"c{number}")
            archive.writestr(f"conversations-00{number}.json", json.dumps([record]))
    store = import_twice(tmp_path, tmp_path / "export.zip")
    assert sorted(store.sessions_df()["session_id"]) == ["c0", "c1"]


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        [{"id": "x", "mapping": {}}],
        [{"id": "x", "mapping": {"a": {"message": None, "parent": None, "children": []}}}],
        [{"uuid": "x", "chat_messages": [{"uuid": "m", "sender": "human", "text": "x"}]}],
        {"mapping": {"a": "b"}},
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.json", value)) != "chatgpt_export"


def test_damaged_files_raise_nothing(importer, tmp_path):
    talk = [conversation(TALK, "u2"), conversation(TALK, "a2", conversation_id="c2")]
    data = json.dumps(talk, indent=1).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50), *truncated(json.dumps(talk).encode(), 20)):
        read(importer, write(tmp_path, "x.json", damaged))
    for changed in mistyped(talk, 300):
        drafts, _ = read(importer, write(tmp_path, "x.json", changed))
        if len(changed) == 2:
            assert drafts
    [*_, last], [problem] = read(importer, write(tmp_path, "x.json", json.dumps(talk)[:-10].encode()))
    assert last.session_id == "c1"
    assert "the part before is imported" in problem.reason
    [draft], [problem] = read(importer, write(tmp_path, "x.json", [7, conversation(TALK[:3], "a1")]))
    assert (problem.line, draft.line()) == (2, 3)


def test_the_sample_has_the_expected_figures(importer, shared_data, tmp_path):
    figures = expected(shared_data, "chatgpt_export/conversations.json")
    drafts, problems = read(importer, shared_data / "chatgpt_export" / "conversations.json")
    assert problems == []
    assert [draft.session_id for draft in drafts] == figures["session_ids"]
    store = import_twice(tmp_path, shared_data / "chatgpt_export")
    assert len(store.runs_df()) == figures["runs"]
    assert store.messages_df()["role"].value_counts().to_dict() == figures["messages_by_role"]
    assert store.messages_df()["model"].value_counts().to_dict() == figures["models"]
    assert store.messages_df()["created_at"].min().isoformat() == "2023-11-14T22:13:30+00:00"
