"""Runs, messages and tool calls keep their order, numbered from 0."""

from __future__ import annotations

import pytest
from samples import WHEN, a_run, a_small_run, inputs, load_session, message_contents

from kern_nb.errors import KernError
from kern_nb.records import Message, Run, ToolCall


def test_runs_are_numbered_from_0_in_the_order_they_were_appended(store):
    """Whatever their times and ids: the order of appends counts."""
    appended = [
        store.append_run(
            "chat", a_small_run(f"question {i}", run_id=f"{9 - i}", created_at=WHEN.replace(year=2040 - i))
        )
        for i in range(5)
    ]
    session = load_session(store, "chat")

    assert [run.run_index for run in appended] == [0, 1, 2, 3, 4]
    assert [run.run_index for run in session.runs] == [0, 1, 2, 3, 4]
    assert inputs(session) == [f"question {i}" for i in range(5)]
    assert store.runs_df("chat").input.tolist() == inputs(session)


def test_each_session_numbers_its_own_runs(store):
    """A run's index is its position in its session, however appends to several sessions interleave."""
    for i in range(3):
        for name in ("a", "b", "a\x00"):
            assert store.append_run(name, a_small_run()).run_index == i


def test_more_than_ten_messages_keep_their_order(store):
    """The order is numeric: message 10 follows message 9."""
    contents = [f"message {i}" for i in range(25)]
    store.append_run("chat", Run(messages=[Message(role="user", content=text) for text in contents]))

    assert message_contents(load_session(store, "chat").runs[0].messages) == contents
    assert message_contents(store.history("chat")) == contents
    assert store.messages_df().content.tolist() == contents
    assert store.messages_df().message_index.tolist() == list(range(25))


def test_tool_calls_keep_their_order(store):
    """By message and position in it, not by id."""
    ids = [["z", "y", "10"], ["9", "a", "B"]]
    messages = [
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id=i, tool_name=f"tool {i}") for i in of_message])
        for of_message in ids
    ]
    store.append_run("chat", Run(messages=messages))
    run = load_session(store, "chat").runs[0]

    assert [[call.tool_call_id for call in m.tool_calls] for m in run.messages] == ids
    assert [call.tool_call_id for call in run.tool_calls] == [*ids[0], *ids[1]]
    assert store.tool_calls_df().tool_call_id.tolist() == [*ids[0], *ids[1]]
    assert store.tool_calls_df().message_index.tolist() == [0, 0, 0, 1, 1, 1]


def test_calls_with_one_id_are_two_calls(store):
    """With an id that a provider reused in a run, neither call is lost, and each gets its own result, in order."""
    messages = [
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="call_0", tool_name="first")]),
        Message(role="tool", tool_call_id="call_0", content="one"),
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="call_0", tool_name="second")]),
        Message(role="tool", tool_call_id="call_0", content="two"),
    ]
    store.append_run("chat", Run(messages=messages))
    calls = load_session(store, "chat").runs[0].tool_calls

    assert [(call.tool_name, call.result, call.status) for call in calls] == [
        ("first", "one", "completed"),
        ("second", "two", "completed"),
    ]
    assert len({call.tool_call_id for call in calls}) == 2


def test_a_call_in_a_message_and_in_the_run_is_one_call(store):
    """The run's list has more fields than the message; together they are one row."""
    on_message = ToolCall(tool_call_id="c", tool_name="look_up", args={"q": 1})
    beside = ToolCall(tool_call_id="c", tool_name="look_up", result=[1, 2], status="completed", duration_s=0.5)
    alone = ToolCall(tool_call_id="d", tool_name="other", status="failed", result="no")
    run = Run(messages=[Message(role="assistant", tool_calls=[on_message])], tool_calls=[beside, alone])
    store.append_run("chat", run)
    first, second = load_session(store, "chat").runs[0].tool_calls

    assert (first.tool_call_id, first.args, first.result, first.duration_s) == ("c", {"q": 1}, [1, 2], 0.5)
    assert first.message_index == 0
    assert (second.tool_call_id, second.status, second.is_error, second.message_index) == ("d", "failed", True, None)


def test_calls_without_an_id_are_stored(store):
    """None is lost."""
    calls = [ToolCall(tool_name="a"), ToolCall(tool_name="b", tool_call_id="call_2"), ToolCall(tool_name="c")]
    store.append_run("chat", Run(messages=[Message(role="assistant", tool_calls=calls)]))
    found = load_session(store, "chat").runs[0].tool_calls

    assert [call.tool_name for call in found] == ["a", "b", "c"]
    assert len({call.tool_call_id for call in found}) == 3
    assert store.sessions_df().n_tool_calls.tolist() == [3]


def test_a_call_without_a_result_in_a_finished_run_is_unknown(store):
    """It may have taken effect."""
    store.append_run("chat", Run(messages=[Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c")])]))
    call = store.tool_calls_df().iloc[0]

    assert call.status == "unknown"
    assert call[["is_error", "result"]].isna().all()


def test_a_run_id_is_stored_once(store):
    """A second run with the id raises RunExists, the first is unchanged, and the session can be appended to."""
    store.append_run("chat", a_run("first", run_id="r"))
    for session_id in ("chat", "other"):
        with pytest.raises(KernError, match=r"'?r'?"):
            store.append_run(session_id, a_run("second", run_id="r"))

    assert inputs(load_session(store, "chat")) == ["first"]
    assert store.get_session("other") is None
    assert store.append_run("chat", a_run("third")).run_index == 1


def test_the_stored_run_is_returned(store):
    """append_run returns what get_session returns, so that no second read is needed."""
    given_back = store.append_run("chat", a_run(session_state={"a": 1}), user_id="alice")

    assert given_back.model_dump() == load_session(store, "chat").runs[0].model_dump()
    assert given_back.user_id == "alice"


def test_the_callers_records_are_not_changed(store):
    """Neither the run nor its messages: a caller can store it again elsewhere."""
    run = a_run(run_id="r", session_state={"a": {"b": 1}})
    before = run.model_copy(deep=True)
    store.append_run("chat", run)
    store.append_run("chat", run.model_copy(update={"run_id": "r2", "session_state": {"a": {"c": 2}}}))

    assert run.model_dump() == before.model_dump()
