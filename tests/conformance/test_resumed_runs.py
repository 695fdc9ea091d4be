"""An interrupted or failed run is resumed; its inherited part and its started calls stay as they were."""

from __future__ import annotations

import pytest
from paused_runs import a_paused_run
from samples import a_run, load_session, message_contents

from kern_nb.errors import (
    AlreadyClaimed,
)
from kern_nb.records import Message, ToolCall, Usage


def interrupt(store, run_id):
    """Make a run's process look dead, and let `check` repair it."""
    r = store.tables.runs
    nobody = r.update().where(r.c.run_id == run_id).values(process=None)
    store.write(lambda connection: connection.execute(nobody))
    assert store.check(repair=True)


def call_message():
    """An assistant's message with a tool call."""
    return Message(role="assistant", tool_calls=[ToolCall(tool_call_id="call", tool_name="send_mail")])


def test_an_interrupted_run_can_be_resumed(store):
    """It has its messages, and its started call is unknown: whoever resumes it decides."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message()])
    interrupt(store, run.run_id)
    found = store.claim_run(run.run_id)

    assert (found.status, [c.status for c in found.tool_calls]) == ("RUNNING", ["unknown"])
    with pytest.raises(AlreadyClaimed):
        store.claim_run(run.run_id)
    store.finish_run(run.run_id, output="after all")
    assert load_session(store, "chat").runs[0].status == "COMPLETED"


def test_a_repeated_call_gets_its_own_result(store):
    """With a reused id, the interrupted call stays unknown."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message()])
    interrupt(store, run.run_id)
    store.claim_run(run.run_id)
    store.append_messages(run.run_id, [call_message()])
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="call", content="sent")])

    found = [(call.status, call.result) for call in store.get_run(run.run_id).tool_calls]
    assert found == [("unknown", None), ("completed", "sent")]


def test_an_interrupted_call_can_get_its_result(store):
    """Whoever resumes it found out how it ended."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message()])
    interrupt(store, run.run_id)
    store.claim_run(run.run_id)
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="call", content="was sent")])

    assert [(call.status, call.result) for call in store.get_run(run.run_id).tool_calls] == [("completed", "was sent")]


def test_a_loaded_message_can_be_appended(store):
    """Its call belongs to the new message, and its result ends it."""
    read = a_paused_run(store, "other").messages[1]
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [read])
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="call", content="sent")])
    found = store.get_run(run.run_id)

    assert [len(message.tool_calls) for message in found.messages] == [1, 0]
    assert [(call.status, call.result) for call in found.tool_calls] == [("completed", "sent")]


def test_a_failed_run_can_be_resumed(store):
    """The error and the finishing time are cleared."""
    run = store.start_run("chat", input="x")
    store.finish_run(run.run_id, status="ERROR", error="the model is down", usage=Usage(input_tokens=3))
    again = store.claim_run(run.run_id)

    assert (again.status, again.error, again.finished_at) == ("RUNNING", None, None)
    store.finish_run(run.run_id, output="done", usage=Usage(input_tokens=5))
    assert load_session(store, "chat").runs[0].usage.input_tokens == 5


@pytest.mark.parametrize("status", ["CANCELLED", "ERROR"])
def test_a_failed_run_with_an_expired_requirement_can_be_resumed(store, status):
    """Its requirement expired without an answer, and its call is unknown: no tool runs because of it."""
    run = a_paused_run(store)
    store.finish_run(run.run_id, status=status)
    again = store.claim_run(run.run_id)

    assert [(r.status, r.approved, r.answer) for r in again.requirements] == [("expired", None, None)]
    assert [call.status for call in again.tool_calls] == ["unknown"]


@pytest.mark.parametrize("status", ["INTERRUPTED", "ERROR"])
def test_a_branch_keeps_a_resumed_run_as_it_was(store, status):
    """Though the run is resumed later."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    if status == "ERROR":
        store.finish_run(run.run_id, status="ERROR", error="e")
    else:
        interrupt(store, run.run_id)
    store.branch("chat", new_session_id="b")
    store.claim_run(run.run_id)
    store.append_messages(run.run_id, [Message(role="assistant", content="after")])
    store.finish_run(run.run_id, output="after")

    assert message_contents(load_session(store, "b").runs[0].messages) == ["before"]
    assert load_session(store, "b").runs[0].output is None


def test_a_branch_after_a_later_run_gets_messages_of_a_resumed_run(store):
    """A branch point is one position: an open run before it is still the parent's, with its later messages."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    store.pause_run(run.run_id, [])
    store.append_run("chat", a_run("later"))
    store.branch("chat", new_session_id="b")
    store.claim_run(run.run_id)
    store.append_messages(run.run_id, [Message(role="assistant", content="after")])
    store.finish_run(run.run_id, output="after")

    assert load_session(store, "b").runs == load_session(store, "chat").runs
    assert message_contents(load_session(store, "b").runs[0].messages) == ["before", "after"]


def test_a_branch_of_a_branch_keeps_a_resumed_run_as_it_was(store):
    """Though its parent is not the session of the run."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    store.finish_run(run.run_id, status="ERROR")
    store.append_run("chat", a_run("later"))
    store.branch("chat", new_session_id="b")
    store.branch("b", after=0, new_session_id="c")
    store.claim_run(run.run_id)
    store.append_messages(run.run_id, [Message(role="assistant", content="after")])

    assert message_contents(load_session(store, "c").runs[0].messages) == ["before"]
