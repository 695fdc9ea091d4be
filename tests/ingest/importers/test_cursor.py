"""Sessions of Cursor: transcripts as JSON lines and as text, and the database of the editor."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest
from draft_reader import import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.cursor import Cursor

    return Cursor()


def said(role, *blocks):
    content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    return {"role": role, "message": {"content": content}}


QUERY = "<attached>a.py</attached>\n<user_query>\nSort the shelf\n</user_query>"
TALK = (
    said("user", QUERY),
    said("assistant", "I look.", {"type": "tool_use", "id": "t1", "name": "Shell", "input": {"command": "ls"}}),
    said("user", {"type": "tool_result", "tool_use_id": "t1", "content": "a b", "is_error": False}),
    said("assistant", "Done."),
    {"role": "user", "message": {"content": "Thanks"}},
)
TEXT = """user:
<user_query>
Sort the shelf
</user_query>

assistant:
[Thinking] I look
  around.
[Tool call] Shell
  command=ls
  timeout=5
[Tool result] Shell
  a b
    c
Hm.

assistant:
[Tool call] Edit
  *** Begin Patch
  +x
Done.
user:
Thanks
"""


def test_a_transcript(importer, tmp_path):
    path = write(tmp_path, "projects/home-ann-shelf/agent-transcripts/id-1/id-1.jsonl", TALK)
    assert recognized_by(path) == "cursor"
    [draft], problems = read(importer, path)
    assert (problems, draft.session_id) == ([], "id-1")
    assert draft.session.metadata["project"] == "home-ann-shelf"
    assert roles(draft) == [["user", "assistant", "tool", "assistant"], ["user"]]
    assert (inputs(draft), draft.runs[0].output) == (["Sort the shelf", "Thanks"], "Done.")
    assert messages(draft)[0].extra["context"] == ["<attached>a.py</attached>"]
    [call] = messages(draft)[1].tool_calls
    assert (call.tool_name, call.args, call.status) == ("Shell", {"command": "ls"}, "completed")
    assert draft.runs[0].created_at is None
    import_twice(tmp_path, path)


def test_a_transcript_as_text(importer, tmp_path):
    path = write(tmp_path, "id-2.txt", TEXT.encode())
    assert recognized_by(path) == "cursor"
    [draft], problems = read(importer, path)
    assert problems == []
    assert roles(draft) == [["user", "assistant", "tool", "assistant"], ["user"]]
    assert inputs(draft) == ["Sort the shelf", "Thanks"]
    thought = {"type": "thinking", "thinking": "I look\n  around."}
    assert messages(draft)[1].content == [thought, {"type": "text", "text": "Hm."}]
    assert (messages(draft)[3].content, messages(draft)[3].tool_calls[0].args) == ("Done.", "*** Begin Patch\n+x")
    [call] = messages(draft)[1].tool_calls
    assert (call.tool_name, call.args, call.status) == ("Shell", {"command": "ls", "timeout": 5}, "completed")
    assert messages(draft)[2].content == "a b\n  c"
    import_twice(tmp_path, path)


def test_records_of_other_versions(importer, tmp_path):
    """In the folder of the program, messages may have more fields, and there are other records."""
    talk = [value | {"timestamp": f"2026-01-02T03:04:0{number}Z", "id": "x"} for number, value in enumerate(TALK)]
    ended = {"type": "turn_ended", "status": "success"}
    path = write(tmp_path, "projects/p/agent-transcripts/id-1.jsonl", (*talk, ended))
    assert recognized_by(path) == "cursor"
    assert recognized_by(write(tmp_path, "id-1.jsonl", tuple(talk))) != "cursor"
    [draft], problems = read(importer, path)
    assert problems == []
    assert draft.session.agent_data["cursor"]["events"] == [ended]
    assert draft.session.updated_at - draft.session.created_at == 4
    assert messages(draft)[0].extra["id"] == "x"


def test_the_id_of_a_result_is_a_part_of_its_record(importer, tmp_path):
    """A file that is corrected changes the run."""
    hashes = set()
    for call_id in ("t1", "t2"):
        result = said("user", {"type": "tool_result", "tool_use_id": call_id, "content": "a b"})
        [draft], _ = read(importer, write(tmp_path, "a.jsonl", (*TALK[:2], result)))
        hashes.add(draft.hashes[0])
    assert len(hashes) == 2


def test_a_folder_has_transcripts_as_text(tmp_path):
    """Only in the folder where the program writes them."""
    write(tmp_path, "x/projects/p/agent-transcripts/id-2.txt", TEXT.encode())
    write(tmp_path, "x/notes.txt", TEXT.encode())
    assert import_twice(tmp_path, tmp_path / "x").sessions_df()["session_id"].tolist() == ["id-2"]


def test_a_nested_agent_is_a_member(importer, tmp_path):
    folder = "projects/home-ann-shelf/agent-transcripts/id-1"
    write(tmp_path, f"{folder}/id-1.jsonl", TALK)
    path = write(tmp_path, f"{folder}/subagents/id-9.jsonl", TALK[:2])
    [draft], _ = read(importer, path)
    assert (draft.session_id, draft.membership.session_id) == ("id-9", "id-1")
    store = import_twice(tmp_path, tmp_path / "projects")
    assert store.sessions_df()["session_id"].tolist() == ["id-1"]


def database(path, rows):
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ItemTable (key TEXT, value BLOB)")
        connection.execute("CREATE TABLE cursorDiskKV (key TEXT UNIQUE, value BLOB)")
        values = [(key, value if isinstance(value, str) or value is None else json.dumps(value)) for key, value in rows]
        connection.executemany("INSERT INTO cursorDiskKV VALUES (?, ?)", values)
        connection.commit()
    return path


CALL = {
    "name": "run_terminal_cmd",
    "toolCallId": "t1",
    "rawArgs": '{"command": "ls"}',
    "status": "error",
    "result": "no",
}
BUBBLES = [
    {"bubbleId": "b1", "type": 1, "text": "Sort", "tokenCount": {"inputTokens": 0, "outputTokens": 0}},
    {"bubbleId": "b2", "type": 2, "text": "", "thinking": {"text": "Hm."}, "toolFormerData": CALL},
    {"bubbleId": "b3", "type": 2, "text": "Done.", "tokenCount": {"inputTokens": 50, "outputTokens": 5},
     "modelInfo": {"modelName": "m1"}, "createdAt": "2026-01-02T03:04:05.000Z"},
]  # fmt: skip
HEADERS = [{"bubbleId": value["bubbleId"], "type": value["type"]} for value in BUBBLES]
COMPOSER = {"composerId": "c1", "name": "Shelf", "createdAt": 1767323045000, "fullConversationHeadersOnly": HEADERS}
ROWS = [
    ("composerData:c0", {"composerId": "c0", "fullConversationHeadersOnly": []}),
    ("composerData:c1", COMPOSER),
    ("composerData:c2", {"composerId": "c2", "conversation": BUBBLES[:1]}),
    ("composerData:c3", "broken"),
    *((f"bubbleId:c1:{value['bubbleId']}", value) for value in BUBBLES),
]


def test_the_database(importer, tmp_path):
    path = database(tmp_path / "state.vscdb", ROWS)
    assert recognized_by(path) == "cursor"
    [draft, old], [problem] = read(importer, path)
    assert "composerData:c3" in problem.reason
    assert (draft.session_id, draft.session.session_name, draft.session.created_at) == ("c1", "Shelf", 1767323045)
    assert roles(draft) == [["user", "assistant", "tool", "assistant"]]
    assert messages(draft)[1].content == [{"type": "thinking", "thinking": "Hm."}]
    [call] = messages(draft)[1].tool_calls
    assert (call.args, call.status, messages(draft)[2].is_error) == ({"command": "ls"}, "failed", True)
    assert [(m.usage.input_tokens, m.model) for m in messages(draft) if m.usage] == [(50, "m1")]
    assert (old.session_id, inputs(old)) == ("c2", ["Sort"])
    import_twice(tmp_path, database(path, [row for row in ROWS if row[1] != "broken"]))


def test_a_message_that_the_database_lacks_is_reported(importer, tmp_path):
    pictured = BUBBLES[0] | {"images": [{"uuid": "i"}]}
    rows = [("composerData:c1", COMPOSER), ("bubbleId:c1:b1", pictured), ("bubbleId:c1:b3", BUBBLES[2])]
    [draft], [problem] = read(importer, database(tmp_path / "state.vscdb", rows))
    assert "Message 1 of 'c1'" in problem.reason
    assert roles(draft) == [["user", "assistant"]]
    assert messages(draft)[0].extra == {"images": [{"uuid": "i"}]}


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        {"role": "user", "content": "x"},
        {"role": "user", "message": {"content": "x"}, "uuid": "u", "type": "user"},
        {"role": "user", "message": {"content": []}},
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.jsonl", (value,))) != "cursor"
    assert recognized_by(write(tmp_path, "notes.txt", b"user manual\n")) is None


def test_damaged_files_raise_nothing(importer, tmp_path):
    data = "".join(json.dumps(record) + "\n" for record in TALK).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.jsonl", damaged))
    for damaged in truncated(TEXT.encode(), 50):
        read(importer, write(tmp_path, "x.txt", damaged))
    for changed in mistyped(list(TALK), 200):
        read(importer, write(tmp_path, "x.jsonl", tuple(changed)))
    for changed in mistyped([value for _, value in ROWS], 60):
        if len(changed) == len(ROWS):
            rows = [(key, value) for (key, _), value in zip(ROWS, changed, strict=True) if value != "\ud800"]
            read(importer, database(tmp_path / "x.vscdb", rows))
    [draft], problems = read(importer, write(tmp_path, "x.jsonl", (TALK[0], 5, {"role": "user"}, TALK[3])))
    assert (roles(draft), [problem.line for problem in problems]) == ([["user", "assistant"]], [2, 3])
