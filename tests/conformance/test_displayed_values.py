"""Tool results, run inputs and outputs are displayed as the values they are; different values look different."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

import pytest
from old_stores import downgrade
from samples import load_session

from kern_nb import Agent
from kern_nb.analysis.compare import compare
from kern_nb.analysis.conversation import load_conversation
from kern_nb.db import SqliteDb
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run, ToolCall
from kern_nb.views.transcript import session_html

LISTS = [
    ["Alice", 30, None],
    [],
    ["one", "two"],
    [["nested", ["deep"]], "x"],
    [{"text": "Mugs", "url": "https://a.example", "score": 0.9}],
    [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
    [{"type": "refund", "text": "x"}],
    [1, 2.5, True],
    [None],
]


def with_result(value, **fields):
    """Return a run with a call that returned a value."""
    call = ToolCall(tool_call_id="c", tool_name="look")
    messages = [
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_call_id="c", tool_name="look", content=value, **fields),
    ]
    return Run(messages=messages)


def test_list_is_displayed_as_json_everywhere(store):
    """In messages, calls, run input and output; in frames, SQL, records and live runs."""
    for n, value in enumerate(LISTS):
        store.append_run(f"s{n}", with_result(value))
        store.append_run(f"s{n}", Run(tool_calls=[ToolCall(tool_name="look", result=value)]))
        live = store.start_run(f"s{n}", input="x")
        for message in with_result(value).messages:
            store.append_messages(live.run_id, [message])
        store.finish_run(live.run_id, output="y")
    results = store.sql("SELECT session_id, result FROM tool_calls ORDER BY session_id, run_index")
    contents = store.messages_df().query("role == 'tool'")

    for n, value in enumerate(LISTS):
        expected = [json.dumps(value)] * 3
        assert results[results.session_id == f"s{n}"]["result"].tolist() == expected
        assert store.tool_calls_df(f"s{n}")["result"].tolist() == expected
        assert contents[contents.session_id == f"s{n}"]["content"].tolist() == expected[:2]
        assert [run.tool_calls[0].result for run in load_session(store, f"s{n}").runs] == [value] * 3


def test_list_input_is_a_value_unless_texts_and_files(store):
    """Parts of a known type are read as text; a list of strings is a list."""
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "url": "https://a.example/1.png"}]
    store.append_run("s", Run(input=["a", "b"], output=[]))
    store.append_run("s", Run(input=parts, output=[{"type": "refund", "text": "x"}]))
    store.append_run("s", Run(messages=[Message(role="user", content=parts), Message(role="assistant", content=["a"])]))
    runs = store.runs_df("s")

    assert runs["input"].tolist()[:2] == ['["a", "b"]', "What is this?"]
    assert runs["output"].tolist()[:2] == ["[]", '[{"type": "refund", "text": "x"}]']
    assert store.messages_df("s")["content"].tolist() == ["What is this?", '["a"]']
    assert [run.input for run in load_session(store, "s").runs][:2] == [["a", "b"], parts]


def test_transcript_displays_returned_list_as_json(store):
    """Plain and HTML."""
    for n, value in enumerate(LISTS):
        store.append_run(f"s{n}", with_result(value))
        displayed = repr(store.get_session(f"s{n}")) + session_html(store.get_session(f"s{n}"))
        for word in ("Alice", "30", "Mugs", "0.9", "deep"):
            assert (word in displayed) == (word in json.dumps(value))


VALUES = {
    "none": None,
    "empty list": [],
    "empty dict": {},
    "empty text": "",
    "text of a list": "[]",
    "text of a dict": "{}",
    "null as text": "null",
    "1": 1,
    "1.0": 1.0,
    "true": True,
    "false": False,
    "0": 0,
    "text 1": "1",
    "text true": "true",
    "a dict": {"a": 1},
    "a dict as text": '{"a": 1}',
    "a dict of a text": {"a": "1"},
    "decimal": Decimal("1.0"),
    "longer decimal": Decimal("1.00"),
    "decimal as text": "1.0",
    "time": datetime(2026, 1, 1, tzinfo=UTC),
    "time as text": "2026-01-01T00:00:00+00:00",
    "infinity": float("inf"),
    "infinity as text": "inf",
    "bytes": b"a",
    "bytes as text": "a",
    "list of texts": ["a", "b"],
    "texts in lines": "a\nb",
    "parts": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
    "list in a list": [[]],
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "half a pair": "\ud800",
    "another half": "\ud801",
    "replaced": "\ufffd",
    "a blank": " ",
    "a blank more": "  ",
    "line end": "x\n",
    "no line end": "x",
    "long": "x" * 50_000 + "a",
    "as long": "x" * 50_000 + "b",
}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A session for each value: as the result of a tool, of a call without a message, and as run output."""
    with SqliteDb(tmp_path_factory.mktemp("values") / "values.db") as store:
        for name, value in VALUES.items():
            store.append_run(f"message {name}", with_result(value))
            store.append_run(f"call {name}", Run(input="x", tool_calls=[ToolCall(tool_name="look", result=value)]))
            store.append_run(f"output {name}", Run(input="x", output=value))
        yield store


@pytest.mark.parametrize("where", ["message", "call", "output"])
def test_different_values_never_compare_equal(values, where, monkeypatch):
    """Each value is compared with itself and with values that look similar."""
    monkeypatch.setattr("kern_nb.analysis.compare.load_conversation", cache(load_conversation))  # each is read once
    names = list(VALUES)
    alike = ["none", "empty text", "empty list", "text of a list", "parts", "texts in lines", "list of texts"]
    for a, b in {
        *itertools.pairwise(names),
        *itertools.combinations(alike, 2),
        ("1", "text 1"),
        ("1", "true"),
        ("1.0", "decimal as text"),
    }:
        found = compare(f"{where} {a}", f"{where} {b}", store=values)
        assert found.divergence is not None, (a, b)
        assert (
            found.divergence.a_text != found.divergence.b_text
            or found.divergence.a_calls != found.divergence.b_calls
            or None in (found.divergence.a, found.divergence.b)
        ), (a, b)
        assert "matched" not in found.turns["status"].tolist()[-1:]
    for name in names[::6]:
        assert compare(f"{where} {name}", (f"{where} {name}", values), store=values).divergence is None


def test_key_order_is_ignored(store):
    """Objects with the same keys in another order are equal."""
    store.append_run("a", with_result({"a": 1, "b": [{"x": 1, "y": 2}]}))
    store.append_run("b", with_result({"b": [{"y": 2, "x": 1}], "a": 1}))

    assert compare("a", "b", store=store).divergence is None


def test_failed_call_and_partial_answer_differ(store):
    """In turns and in the divergence, with different words."""
    store.append_run("fine", with_result("42"))
    store.append_run("failed", with_result("42", is_error=True))
    for name, status in (("call fine", "completed"), ("call failed", "failed")):
        store.append_run(name, Run(tool_calls=[ToolCall(tool_name="look", result="42", status=status)]))
    for name, partial in (("whole", None), ("partial", True)):
        store.append_run(name, Run(messages=[Message(role="assistant", content="Once", partial=partial)]))
    for a, b, label in (
        ("fine", "failed", "(failed)"),
        ("call fine", "call failed", "failed"),
        ("whole", "partial", "(partial)"),
    ):
        found = compare(a, b, store=store)
        assert found.turns["status"].tolist()[-1] == "changed"
        assert label in f"{found.divergence.b_text} {found.divergence.b_calls}"
        assert label not in f"{found.divergence.a_text} {found.divergence.a_calls}"
        assert label in repr(found)


def test_image_without_message_is_displayed(store):
    """In a result without a message, and in the input of a run without messages."""
    for name in ("a", "b"):
        picture = {"type": "image", "media_type": "image/png", "size": 1, "sha256": name * 64}
        store.append_run(f"in {name}", Run(input=[{"type": "text", "text": "this"}, picture], output="x"))
        store.append_run(f"output {name}", Run(input="x", tool_calls=[ToolCall(tool_name="look", result=[picture])]))
    for where in ("in", "output"):
        found = compare(f"{where} a", f"{where} b", store=store)
        assert found.divergence is not None
        assert "bbbb" in f"{found.divergence.b_text} {found.divergence.b_calls}"


def test_tool_result_list_is_stored_as_list(store):
    """In a live run; the model gets the same value."""
    heard = []

    def script(messages):
        heard.extend(m.content for m in messages if m.role == "tool")
        return "done" if heard else call("look")

    def look():
        return ["Alice", 30, None]

    Agent(ScriptedModel(script), db=store, session_id="s", tools=[look]).run("go")

    assert store.tool_calls_df("s")["result"].tolist() == ['["Alice", 30, null]']
    assert heard[-1] == ["Alice", 30, None]


def test_lists_of_old_store_are_values_after_upgrade(store_factory):
    """Version 3 stored lists of texts as such; parts of a prompt stay texts."""
    store = store_factory("old")
    parts = [{"type": "text", "text": "this"}, {"type": "image", "sha256": "a" * 64}]
    store.append_run("s", with_result(["Alice", 30]))
    store.append_run("s", Run(input=["a", "b"], output=[], messages=[Message(role="user", content=parts)]))

    def back(connection):
        t, m, r = store.tables.tool_calls, store.tables.messages, store.tables.runs
        connection.execute(t.update().values(result="Alice"))
        connection.execute(m.update().where(m.c.role == "tool").values(content="Alice"))
        connection.execute(r.update().where(r.c.run_index == 1).values(input="a\nb", output=None))

    store.write(back)
    downgrade(store, 3)
    if store.url.endswith(":memory:"):
        store._found = False
    else:
        store.close()
        store = store_factory("old")

    assert store.tool_calls_df("s")["result"].tolist() == ['["Alice", 30]']
    assert store.messages_df("s").query("role != 'assistant'")["content"].tolist() == ['["Alice", 30]', "this"]
    assert store.runs_df("s")[["input", "output"]].values.tolist()[1] == ['["a", "b"]', "[]"]
