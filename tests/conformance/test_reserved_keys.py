"""``extra`` belongs to the source: none of its keys changes a count, a history, a status or a call."""

from __future__ import annotations

import json

import pytest
from old_stores import downgrade
from samples import load_session

from kern_nb.db import key_upgrades
from kern_nb.records import Message, Run, ToolCall, Usage

WORDS = (
    "from_history",
    "partial",
    "unknown",
    "retry",
    "by_tool",
    "files",
    "parts",
    "response_id",
    "args",
    "duration_s",
)
WORDS += ("asked_args", "tool_calls", "internal", "kern_nb", "status", "rerun_of", "given_state", "step_path")
FOREIGN = {
    **{f"{word}={value!r}": {word: value} for word in WORDS for value in (True, False, 0, {"a": 1}, 1.5, "x", [{}])},
    "nested": {"src": {"from_history": True, "partial": True}},
    "a word in a text": {"note": 'it says "from_history": true, "partial": true'},
    "all": dict.fromkeys(WORDS, True),
}


def run_with(extra):
    """A run of four messages with a call, each with the source's keys."""
    call = ToolCall(tool_call_id="c", tool_name="look", args={"at": "sea"}, extra=extra)
    messages = [
        Message(role="user", content="x", extra=extra),
        Message(role="assistant", tool_calls=[call], usage=Usage(input_tokens=5, output_tokens=2), extra=extra),
        Message(role="tool", tool_call_id="c", tool_name="look", content="blue", extra=extra),
        Message(role="assistant", content="y", extra=extra),
    ]
    return Run(input="x", output="y", messages=messages, extra=extra)


def test_source_keys_in_extra_do_not_affect_an_appended_run(store):
    """Counts, tokens, history and calls are the same as without them, and the keys are read back unchanged."""
    for name, extra in FOREIGN.items():
        store.append_run(name, run_with(extra))
    runs = store.runs_df()

    assert len(runs) == len(FOREIGN)
    assert set(runs["n_messages"]) == {4}
    assert set(runs["total_tokens"]) == {7}
    assert set(runs["n_tool_calls"]) == {1}
    assert set(store.tool_calls_df()["status"]) == {"completed"}
    for name, extra in list(FOREIGN.items())[::5]:
        assert [m.role for m in store.history(name)] == ["user", "assistant", "tool", "assistant"]
        assert [m.role for m in store.history(name, last_messages=2)] == ["assistant"]
        run = load_session(store, name).runs[0]
        assert [m.extra for m in run.messages] == [extra] * 4
        assert (run.extra, run.tool_calls[0].extra) == (extra, extra)
        assert not any(m.is_partial or m.internal for m in run.messages)


def test_source_keys_in_extra_do_not_affect_a_live_run(store):
    """A tool's message ends its call, which keeps its arguments and gets the elapsed time."""
    for name, extra in list(FOREIGN.items())[::3]:
        run = store.start_run(name, input="x", extra=extra)
        finished = run_with(extra)
        for message in finished.messages:
            store.append_messages(run.run_id, [message])
        store.finish_run(run.run_id, output="y")
        [call] = load_session(store, name).runs[0].tool_calls

        assert (call.status, call.result, call.args, call.extra) == ("completed", "blue", {"at": "sea"}, extra)
        assert call.duration_s != 1.5
        assert len(store.history(name)) == 4
    assert set(store.runs_df()["n_messages"]) == {4}


def test_source_keys_in_extra_do_not_affect_an_imported_chat(store, tmp_path):
    """Each unknown key of a message is stored, and has no effect."""
    lines = []
    for name, extra in FOREIGN.items():
        foreign = {key: value for key, value in extra.items() if key != "tool_calls"}
        messages = [{"role": "user", "content": "x"} | foreign, {"role": "assistant", "content": "y"} | foreign]
        lines.append(json.dumps({"id": name, "messages": messages}))
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(lines))
    report = store.ingest(path, progress=False)

    assert (report.sessions, report.messages, report.errors) == (len(FOREIGN), 2 * len(FOREIGN), [])
    assert set(store.runs_df()["n_messages"]) == {2}
    for session_id in store.sessions_df()["session_id"].tolist()[::7]:
        assert [m.content for m in store.history(session_id)] == ["x", "y"]


def test_a_bundle_separates_source_keys_and_reserved_keys(store, store_factory, tmp_path):
    """Both are read back unchanged from another store."""
    import kern_nb

    run = run_with({"from_history": True, "partial": True, "internal": {"files": True}})
    run.messages.insert(0, Message(role="user", content="earlier", from_history=True))
    run.messages.append(Message(role="assistant", content="brok", partial=True, internal={"retry": True}))
    store.append_run("chat", run)
    kern_nb.export("chat", path=str(tmp_path / "b.json"), store=store)
    other = store_factory("other")
    other.ingest(tmp_path / "b.json", progress=False)

    assert other.runs_df()["n_messages"].tolist() == store.runs_df()["n_messages"].tolist() == [5]
    assert [m.content for m in other.history("chat")] == ["x", None, "blue", "y"]
    read, written = (one.get_session("chat").runs[0].messages for one in (other, store))
    assert [m.model_dump() for m in read] == [m.model_dump() for m in written]


OLD = [
    ("user", {"from_history": True}, {"from_history": True}, {}),
    ("assistant", {"from_history": True, "tool_calls": [{"tool_name": "look", "args": {}}]}, {"from_history": True}, {"tool_calls": [{"tool_name": "look", "args": {}}]}),
    ("assistant", {"partial": True}, {"partial": True}, {}),
    ("user", {"by_tool": True}, {"internal": {"by_tool": True}}, {}),
    ("user", {"retry": True}, {"internal": {"retry": True}}, {}),
    ("tool", {"files": True}, {"internal": {"files": True}}, {}),
    ("tool", {"files": True, "duration_s": 0.5}, {"internal": {"files": True}}, {"duration_s": 0.5}),
    ("assistant", {"parts": [{"content": "hm", "part_kind": "thinking"}], "response_id": "r"}, {"internal": {"parts": [{"content": "hm", "part_kind": "thinking"}], "response_id": "r"}}, {}),
    ("user", {"from_history": False}, {}, {"from_history": False}),
    ("user", {"src": {"from_history": True}}, {}, {"src": {"from_history": True}}),
    ("user", {"note": '"partial": true'}, {}, {"note": '"partial": true'}),
    ("assistant", {"partial": 0}, {}, {"partial": 0}),
    ("assistant", {"parts": [{"text": "x"}]}, {}, {"parts": [{"text": "x"}]}),
    ("assistant", {"parts": []}, {}, {"parts": []}),
    ("tool", {"files": ["a"]}, {}, {"files": ["a"]}),
    ("user", {"files": True}, {}, {"files": True}),
]  # fmt: skip
"""Of version 3: a role, what stood in ``extra``, the fields it is now, and what stays in ``extra``."""


@pytest.fixture
def old_store(store_factory):
    """A store of schema version 3."""

    store = store_factory("old")
    messages = [Message(role=role, content=str(n), extra=extra) for n, (role, extra, _, _) in enumerate(OLD)]
    step = {"step": "a", "step_path": "1"}
    store.append_run("chat", Run(run_id="r", messages=messages, extra=step))

    downgrade(store, 3)
    if store.url.endswith(":memory:"):
        store._found = False
        return store
    store.close()
    return store_factory("old")


def test_an_upgrade_moves_reserved_keys_and_keeps_source_keys(old_store):
    """Values that kern_nb wrote have an exact form."""
    run = old_store.get_run("r")

    for message, (_, _, fields, extra) in zip(run.messages, OLD, strict=True):
        blank = {"from_history": None, "partial": None, "internal": {}}
        assert message.model_dump(include=set(blank)) == blank | fields
        assert message.extra == extra
    assert run.internal["step_path"] == "1"
    assert run.extra == {"step": "a", "step_path": "1"}


def test_an_older_bundle_is_upgraded_as_a_store_is():
    """However a message of version 3 is read."""
    for role, before, fields, extra in OLD:
        row = key_upgrades.upgrade_row("messages", {"role": role, "extra": before})
        assert row == {"role": role, "extra": extra or None} | fields
