"""The history of an execution of Kubiya's control plane: tool results are tool messages with their calls."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest.importers.anthropic import Anthropic
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.importers.kubiya import Kubiya
from kern_nb.ingest.source import Source


def said(role, content, second, number, **fields):
    message = {"role": role, "content": content, "timestamp": f"2026-01-01T00:00:{second:02}Z"}
    return message | {"message_id": f"e_{role}_{number}"} | fields


def tool(call_id, second, output="42", status="success", role="user", **fields):
    """A message with a tool's result."""
    block = {"type": "tool_result", "tool_use_id": call_id, "content": output, "is_error": status == "failed"}
    message = said(role, [block], second, 0, message_type="tool_result", tool_name="calc", tool_execution_id=call_id)
    message |= {"tool_input": {"x": 1}, "tool_output": output, "tool_error": None, "tool_status": status}
    return message | {"message_id": f"e_tool_{call_id}"} | fields


MESSAGES = [
    said("user", "What is 6 times 7?", 0, 1, user_id="ann", user_name=None),
    said("assistant", "Let me look.", 1, "1_pre", phase="pre"),
    tool("t1", 2),
    tool("t2", 3, "no", "failed", role="system"),
    said("assistant", "42", 4, 1),
    said("user", "And 6 times 8?", 5, 4),
    tool("t3", 6),
    said("assistant", "48", 7, 4),
]
METADATA = {"agent_id": "a", "organization_id": "o", "runtime_type": "default", "turn_count": 8}
BODY = {"session_id": "s", "user_id": "ann", "messages": MESSAGES, "metadata": METADATA}


@pytest.fixture
def read(tmp_path):
    """Write records as lines of a file and return its drafts; no other importer takes it."""

    def write(*records):
        path = tmp_path / "body.json"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        source = Source(path, path.name)
        assert Kubiya().recognizes(source)
        assert not any(kind().recognizes(source) for kind in (Chat, Anthropic))
        return list(Kubiya().read(source))

    return write


def test_a_body(read):
    """Two runs of a user, calls with their arguments and results, all with ids and times."""
    [draft] = read(BODY)
    first, second = draft.runs

    assert (draft.session_id, draft.session.user_id, draft.session.agent_id) == ("s", "ann", "a")
    assert [m.role for m in first.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [m.role for m in second.messages] == ["user", "assistant", "tool", "assistant"]
    calls = [call for run in draft.runs for m in run.messages for call in m.tool_calls]
    assert [(c.tool_call_id, c.tool_name, c.args, c.status) for c in calls] == [
        ("t1", "calc", {"x": 1}, "completed"),
        ("t2", "calc", {"x": 1}, "failed"),
        ("t3", "calc", {"x": 1}, "completed"),
    ]
    assert [m.content for m in first.messages[2:4]] == ["42", "no"]
    assert draft.keys[0][:3] == ["e_user_1", "e_assistant_1_pre", "e_tool_t1"]
    assert all(m.created_at for run in draft.runs for m in run.messages)
    assert (first.input, first.output, first.duration_s) == ("What is 6 times 7?", "42", 4.0)
    assert draft.session.metadata["organization_id"] == "o"
    assert draft.has_record_ids


def test_a_reply(read):
    """It names its execution, and may be out of order and repeat messages."""
    messages = [*MESSAGES[::-1], MESSAGES[2]]
    [draft] = read(
        {"execution_id": "e", "session_id": "s", "messages": messages, "message_count": 9, "metadata": METADATA}
    )

    assert draft.session_id == "e"
    assert draft.session.metadata["session_id"] == "s"
    assert [len(run.messages) for run in draft.runs] == [5, 4]


def test_missing_fields(read):
    """Messages without ids or zones; a result only in ``tool_output`` or ``tool_error``."""
    messages = [{"role": "user", "content": "hi", "timestamp": "2026-01-01T00:00:00"}]
    messages += [
        tool("t1", 1, content=None),
        tool("t2", 2, content=None, tool_output=None, tool_error="bad", tool_status=None),
    ]
    for message in messages:
        message.pop("message_id", None)
    [draft] = read({"session_id": "s", "messages": messages})

    assert [(m.content, m.is_error) for m in draft.runs[0].messages[2:]] == [("42", False), ("bad", True)]
    assert draft.session.metadata["time_zone"] == "unknown"
    assert not draft.has_record_ids


def test_stored_twice(tmp_path):
    """The second import stores nothing."""
    path = tmp_path / "body.json"
    path.write_text(json.dumps(BODY, indent=1))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls) == (1, 2, 9, 3)
    assert (second.sessions, second.runs) == (0, 0)
    assert sorted(store.tool_calls_df()["result"]) == ["42", "42", "no"]


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported."""
    good = BODY | {"session_id": "good"}
    for number, bad in enumerate(mistyped(BODY, 200)):
        path = tmp_path / f"typed{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, (bad, good))))
        source = Source(path, path.name)
        Kubiya().recognizes(source)
        assert "good" in [getattr(item, "session_id", "") for item in Kubiya().read(source)]
    data = "\n".join(map(json.dumps, (good, BODY))).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        Kubiya().recognizes(source)
        list(Kubiya().read(source))


def test_bodies_without_metadata(read):
    """Their own fields and the ids of messages tell them apart: the session is the execution."""
    [draft] = read(
        {"session_id": "s", "execution_id": "e", "message_count": 1, "messages": MESSAGES[:1], "metadata": {}}
    )
    assert draft.session_id == "e"
    [draft] = read({"session_id": "s", "user_id": None, "messages": MESSAGES[:1], "metadata": {}})
    assert draft.session_id == "s"


def test_counted_message_ids_make_no_branch(tmp_path):
    """Two executions whose clients count their messages have nothing in common; ids with an execution are copies."""
    from kern_nb.db import SqliteDb

    def body(execution, prefix, *texts):
        messages = [
            {
                "role": role,
                "content": text,
                "message_id": f"{prefix}{number}",
                "timestamp": f"2026-01-01T00:00:0{number}Z",
            }
            for number, (role, text) in enumerate(zip(("user", "assistant"), texts, strict=False))
        ]
        return {"session_id": "s", "execution_id": execution, "messages": messages, "metadata": METADATA}

    store = SqliteDb(tmp_path / "s.db")
    copied = "e3_user_"
    bodies = [body("e1", "m", "A", "B"), body("e2", "m", "X", "Y"), body("e3", copied, "C", "D")]
    bodies.append(body("e4", copied, "C", "D"))
    path = tmp_path / "bodies.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in bodies))
    report = store.ingest(path, progress=False)
    assert (report.sessions, report.branches, report.messages) == (4, 1, 6)
    assert [m.content for m in store.get_session("e2").runs[0].messages] == ["X", "Y"]


def test_an_output_that_is_longer_than_the_content(read):
    result = {"type": "tool_result", "tool_use_id": "t", "content": "short"}
    tool = {"role": "user", "content": [result], "message_type": "tool_result", "tool_execution_id": "t"}
    [draft] = read({"session_id": "s", "messages": [MESSAGES[0], tool | {"tool_output": "long"}], "metadata": METADATA})
    message = draft.runs[0].messages[-1]
    assert (message.content, message.extra["tool_output"]) == ("short", "long")
    [draft] = read(
        {"session_id": "s", "messages": [MESSAGES[0], tool | {"tool_output": "short"}], "metadata": METADATA}
    )
    assert "tool_output" not in draft.runs[0].messages[-1].extra
