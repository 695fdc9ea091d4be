"""Conversations in OpenAI's chat layout are imported without loss, in all three variants."""

from __future__ import annotations

import json

import pandas as pd
import pytest

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    {"role": "assistant", "content": "done"},
    {"role": "user", "content": "and now?"},
    {"role": "assistant", "content": "nothing"},
]


@pytest.fixture
def store(db):
    """What an engine does with the rows is tested elsewhere."""
    return db


@pytest.fixture
def ingest(store, tmp_path):
    """Write records as lines of a file and take them in."""

    def write(*records, name="chats.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return store.ingest(path)

    return write


def only_session(store):
    [row] = store.list_sessions()
    return store.get_session(row.session_id)


def test_one_conversation_per_line(store, ingest):
    """Each line is a session; its other fields are metadata, with its own metadata at the top level."""
    record = {
        "messages": TALK,
        "id": "talk",
        "model": "m-1",
        "tools": [{"type": "function"}],
        "metadata": {"task_id": 7},
    }
    report = ingest(record, {"messages": TALK[:2]})
    session = store.get_session("talk")

    assert (report.sessions, report.runs, report.messages, report.tool_calls) == (2, 3, 9, 1)
    assert session.metadata["task_id"] == 7
    assert session.metadata["tools"] == [{"type": "function"}]
    assert [(run.input, run.output, run.model) for run in session.runs] == [
        ("hi", "done", "m-1"),
        ("and now?", "nothing", "m-1"),
    ]
    assert store.get_session("chats-2") is not None, "without an id the session is named after file and line"


def test_one_list_of_messages_per_line(store, ingest):
    """A line may be a list of messages."""
    ingest(TALK, TALK)

    assert sorted(s.session_id for s in store.list_sessions()) == ["chats-1", "chats-2"]
    assert [m.role for m in store.get_session("chats-2").runs[0].messages] == [m["role"] for m in TALK[:5]]


def test_one_message_per_line(store, ingest):
    """Single messages are one session, named after the file."""
    report = ingest(*TALK)

    assert (report.sessions, report.runs, report.messages) == (1, 2, 7)
    assert [m.content for r in only_session(store).runs for m in r.messages] == [m["content"] for m in TALK]
    assert only_session(store).session_id == "chats"


def test_a_document_with_one_conversation(store, tmp_path):
    """The same object, written over several lines, is imported too."""
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"messages": TALK}, indent=2))
    store.ingest(path)

    assert len(only_session(store).runs) == 2


def test_a_document_with_a_list_of_conversations(store, tmp_path):
    """Each object of the list is a session."""
    path = tmp_path / "many.json"
    path.write_text(json.dumps([{"id": "a", "messages": TALK}, {"messages": TALK}, {"messages": 5}], indent=2))
    report = store.ingest(path)

    assert sorted(s.session_id for s in store.list_sessions()) == ["a", "many-1.2"]
    assert len(report.errors) == 1


def test_fields_that_the_layout_lacks_are_unknown(store, ingest):
    """Times, tokens and cost are missing, never 0 or the current time."""
    ingest({"messages": TALK})

    for frame in (store.sessions_df(), store.runs_df(), store.messages_df(), store.tool_calls_df()):
        unknown = [c for c in frame.columns if c.endswith(("_tokens", "_at", "_s")) or c == "cost"]
        assert frame[unknown].isna().all(axis=None), unknown


@pytest.mark.parametrize(
    "content", [None, "", "text", [{"type": "text", "text": "a"}, {"type": "image_url"}], {"x": 1}]
)
def test_content_is_stored_exactly(store, ingest, content):
    """Null, text, parts and any other value are unchanged."""
    contents = ["hi", content, content]
    ingest(
        {
            "messages": [
                {"role": role, "content": c} for role, c in zip(("system", "user", "assistant"), contents, strict=True)
            ]
        }
    )

    assert [m.content for m in only_session(store).runs[0].messages] == contents


def test_invalid_arguments_are_stored_as_text(store, ingest):
    """Invalid JSON of a model is stored unchanged and marked; valid arguments are decoded."""
    broken = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"x": '}}
    ingest({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [CALL, broken]}]})
    good, bad = only_session(store).runs[0].tool_calls

    assert (good.args, good.extra) == ({"x": 1}, {})
    assert (bad.args, bad.extra) == ('{"x": ', {"args_invalid": True})


def test_unmatched_calls_and_results_are_stored(store, ingest):
    """An unanswered call is unknown, neither failed nor pending; a result without a call is a message."""
    ingest(
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "other", "content": "stray"},
            ]
        }
    )
    [run] = only_session(store).runs

    assert [(c.tool_call_id, c.status, c.result) for c in run.tool_calls] == [("c1", "unknown", None)]
    assert run.messages[-1].content == "stray"


def test_a_result_is_matched_within_its_run_first(store, ingest):
    """Ids repeat between runs: a result belongs to the call in its run, else to a pending call of an earlier run."""
    turn = [{"role": "user", "content": "again"}, {"role": "assistant", "tool_calls": [CALL]}]
    answer = {"role": "tool", "tool_call_id": "c1"}
    ingest({"messages": [*turn, *turn, answer | {"content": "second"}, answer | {"content": "late"}]})
    first, second = store.tool_calls_df()["result"]

    assert (first, second) == ("late", "second")


def test_function_calls_of_the_older_variant(store, ingest):
    """``function_call`` and the role ``function`` are a call and its result, without ids."""
    ingest(
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
                {"role": "function", "name": "look", "content": "seen"},
                {"role": "assistant", "content": "done"},
            ]
        }
    )
    [run] = only_session(store).runs

    assert [(c.tool_name, c.args, c.result, c.status) for c in run.tool_calls] == [("look", {}, "seen", "completed")]
    assert run.messages[2].role == "function"


def test_other_fields_of_messages_are_stored_in_extra(store, ingest):
    """Names, refusals and any other field; the names of tools are columns."""
    ingest(
        [
            {"role": "user", "name": "ann", "content": "hi"},
            {"role": "assistant", "refusal": "no", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "ok"},
        ]
    )
    [run] = only_session(store).runs

    assert [m.extra for m in run.messages] == [{"name": "ann"}, {"refusal": "no"}, {}]
    assert run.messages[2].tool_name == "look"


def test_hostile_text_is_stored_unchanged(store, tmp_path):
    """NUL, lone surrogates, line separators and a line of a megabyte are ordinary text."""
    texts = ["a\x00b", "\ud800 alone", "one\u2028line", "x" * 1_000_000, "\u0010", "<script>", "\u202ertl"]
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join(json.dumps({"messages": [{"role": "user", "content": t}]}) for t in texts))
    report = store.ingest(path)
    contents = [store.get_session(f"hostile-{n}").runs[0].messages[0].content for n in range(1, len(texts) + 1)]

    assert not report.errors
    assert contents == texts


def test_unicode_line_separators_do_not_end_a_line(store, tmp_path):
    """U+2028 is valid in JSON text: lines end at line feeds only."""
    path = tmp_path / "raw.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "one\u2028line\x85"}]}\r\n', encoding="utf-8")
    report = store.ingest(path)

    assert (report.sessions, report.errors) == (1, [])
    assert pd.notna(store.messages_df()["content"].iloc[0])
