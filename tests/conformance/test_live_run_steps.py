"""A live run: the cost of each step, and that cached keys never mislead a step."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from samples import a_small_run, load_session, statements

from kern_nb.errors import OwnerMismatch, RunClosed, RunNotFound
from kern_nb.records import Message, Run, ToolCall, Usage


def run_messages() -> list[Message]:
    """The messages of a run with one tool call."""
    call = ToolCall(tool_call_id="c", tool_name="t", args={"n": 1})
    return [
        Message(role="user", content="question"),
        Message(role="assistant", tool_calls=[call], usage=Usage(input_tokens=3)),
        Message(role="tool", tool_call_id="c", tool_name="t", content="result", internal={"duration_s": 0.5}),
        Message(role="assistant", content="answer", usage=Usage(output_tokens=2)),
    ]


def write_in_steps(store, session_id: str) -> Run:
    """A run as an agent writes it, one transaction per step."""
    first, asked, result, last = run_messages()
    run = store.start_run(session_id, input="question", messages=[first])
    store.append_messages(run.run_id, [asked])
    store.append_messages(run.run_id, [result])
    store.finish_run(run.run_id, output="answer", state_unchanged=True, messages=[last])
    return run


def without_begin(found: list[str]) -> list[str]:
    """Statements without those that begin a transaction."""
    return [statement for statement in found if not statement.startswith("BEGIN")]


def test_a_live_run_needs_at_most_three_times_the_statements_of_an_append(store):
    """With one tool call, in four transactions."""
    whole = Run(input="question", output="answer", messages=run_messages())
    store.append_run("chat", whole)
    write_in_steps(store, "chat")
    commits: list[object] = []

    def count(connection: sa.Connection) -> None:
        commits.append(connection)

    with statements(store) as appended:
        store.append_run("chat", Run(input="question", output="answer", messages=run_messages()))
    sa.event.listen(store.engine, "commit", count)
    with statements(store) as steps:
        write_in_steps(store, "chat")
    sa.event.remove(store.engine, "commit", count)

    assert len(without_begin(steps)) <= 3 * len(without_begin(appended))
    assert len(steps) <= 3 * len(appended)
    assert len(commits) == 4


def test_a_live_run_is_stored_as_an_appended_one(store):
    """Except times and ids."""
    write_in_steps(store, "steps")
    store.append_run("at once", Run(input="question", output="answer", messages=run_messages(), session_state={}))
    unlike = {"run_id", "session_id", "created_at", "finished_at", "duration_s", "message_id", "usage", "session_state"}

    def comparable(run: Run) -> dict:
        fields = run.model_dump(exclude=unlike | {"messages", "tool_calls"})
        messages = [m.model_dump(exclude={"created_at", "tool_calls"}) for m in run.messages]
        calls = [call.model_dump(exclude={"created_at", "duration_s"}) for call in run.tool_calls]
        return fields | {"messages": messages, "tool_calls": calls}

    steps, at_once = load_session(store, "steps").runs[0], load_session(store, "at once").runs[0]
    assert comparable(steps) == comparable(at_once)
    assert steps.tool_calls[0].duration_s == 0.5
    assert steps.duration_s >= 0


def test_two_stores_can_write_one_run(store, other_store):
    """Each numbers after the other's messages."""
    run = store.start_run("chat", input="x", messages=[Message(role="user", content="0")])
    numbers = []
    for n in range(1, 6):
        writer = store if n % 2 else other_store
        call = ToolCall(tool_call_id="same", tool_name="t")
        stored = writer.append_messages(run.run_id, [Message(role="assistant", content=f"{n}", tool_calls=[call])])
        numbers += [message.message_index for message in stored]
    other_store.finish_run(run.run_id, messages=[Message(role="assistant", content="end")])
    stored_run = load_session(store, "chat").runs[0]

    assert numbers == [1, 2, 3, 4, 5]
    assert [m.message_index for m in stored_run.messages] == [0, 1, 2, 3, 4, 5, 6]
    assert [call.tool_call_id for call in stored_run.tool_calls] == ["same", *(f"same~{n}" for n in range(2, 6))]
    with pytest.raises(RunClosed):
        store.append_messages(run.run_id, [Message(role="user", content="late")])
    with pytest.raises(RunClosed):
        store.finish_run(run.run_id)


def test_a_deleted_run_cannot_be_written(store, other_store):
    """Though its writer has cached its key, and another run has that key now."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    other_store.delete_session("chat")
    later = other_store.start_run(
        "chat", input="y", messages=[Message(role="assistant", tool_calls=run_messages()[1].tool_calls)]
    )
    assert later.run_index == run.run_index

    with pytest.raises(RunNotFound):
        store.append_messages(run.run_id, [Message(role="user", content="after")])
    with pytest.raises(RunNotFound):
        store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content="z")])
    with pytest.raises(RunNotFound):
        store.finish_run(run.run_id, session_state={"mine": 1})
    stored = load_session(store, "chat")
    assert [r.run_id for r in stored.runs] == [later.run_id]
    assert stored.runs[0].status == "RUNNING"
    assert [call.status for call in stored.runs[0].tool_calls] == ["started"]
    assert stored.session_state == {}


def test_a_reused_run_id_is_the_new_run(store, other_store):
    """A run of another session with the id of a deleted one."""
    store.start_run("first", input="x", run_id="r")
    other_store.delete_session("first")
    other_store.start_run("second", input="y", run_id="r")
    store.append_messages("r", [Message(role="user", content="hello")])
    store.finish_run("r", output="done")

    stored = load_session(store, "second").runs[0]
    assert (stored.status, stored.output, [m.content for m in stored.messages]) == ("COMPLETED", "done", ["hello"])


def test_an_unchanged_state_is_the_one_that_the_run_had(store):
    """Concurrent changes of another run are in the session's state, which a branch after this one has."""
    store.append_run("chat", a_small_run(session_state={"a": 1}))
    run = store.start_run("chat", input="x")
    store.update_session_state("chat", {"b": 2})
    end = store.finish_run(run.run_id, state_unchanged=True)

    assert end.session_state == load_session(store, "chat").runs[1].session_state == {"a": 1}
    assert store.branch("chat", after=1).session_state == {"a": 1, "b": 2}
    assert end.finished_at == load_session(store, "chat").runs[1].finished_at


def test_another_users_session_is_refused_before_anything_is_written(store):
    """With the run's first messages."""
    store.append_run("chat", a_small_run(), user_id="alice")
    with pytest.raises(OwnerMismatch):
        store.start_run("chat", input="x", user_id="bob", messages=[Message(role="user", content="x")])

    assert len(load_session(store, "chat").runs) == 1
    assert len(store.messages_df()) == len(load_session(store, "chat").runs[0].messages)
