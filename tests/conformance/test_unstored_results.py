"""Without stored results, no result is anywhere; that the tool has run, and how it ended, is stored."""

from __future__ import annotations

import pytest
from paused_runs import a_requirement
from samples import all_rows, load_session, message_contents

from kern_nb.records import Message, ToolCall

SECRET = "s3cret-result"
RESULTS = [SECRET, {"deep": [SECRET, {SECRET: 1}]}, [{"type": "text", "text": SECRET}], 7.25, "", None]


def call_message(*ids, **fields) -> Message:
    """An assistant's message with tool calls."""
    return Message(role="assistant", tool_calls=[ToolCall(tool_call_id=i, tool_name="look_up", **fields) for i in ids])


def result_message(tool_call_id, content=SECRET, **fields) -> Message:
    """A tool's message with its result in every field."""
    return Message(
        role="tool", tool_call_id=tool_call_id, content=content, tool_name="look_up", extra={"raw": content}, **fields
    )


def append_unstored(store, run_id, *messages):
    """Append messages without storing their results."""
    return store.append_messages(run_id, messages, store_results=False)


def statuses(store):
    """The status of each call."""
    return {call.tool_call_id: call.status for call in load_session(store, "chat").runs[0].tool_calls}


def assert_nowhere(store, secret=SECRET):
    """In no table, record, frame, history or SQL."""
    session = load_session(store, "chat")
    views = ("sessions", "runs", "messages", "tool_calls", "scores", "requirements")
    places = {
        "tables": all_rows(store),
        "session": session.model_dump(),
        "run": store.get_run(session.runs[0].run_id).model_dump(),
        "history": [message.model_dump() for message in store.history("chat")],
        "frames": [getattr(store, f"{name}_df")().to_dict() for name in views[:-1]],
        "sql": [store.sql(f"SELECT * FROM {name}").to_dict() for name in views],
    }
    assert [name for name, what in places.items() if secret in repr(what)] == []


def test_an_unstored_result_is_in_no_table(store):
    """Of any type; the calls have ended with their status and duration."""
    run = store.start_run("chat", input="x")
    names = [f"c{i}" for i in range(len(RESULTS))]
    append_unstored(store, run.run_id, Message(role="user", content="question"), call_message(*names, args={"q": 1}))
    assert set(statuses(store).values()) == {"started"}
    returned = append_unstored(
        store, run.run_id, *(result_message(n, r, is_error=n == "c1") for n, r in zip(names, RESULTS, strict=True))
    )
    assert returned == []
    append_unstored(store, run.run_id, Message(role="assistant", content="answer"))
    store.finish_run(run.run_id, output="answer")

    assert_nowhere(store)
    assert_nowhere(store, "7.25")
    assert statuses(store) == {name: "failed" if name == "c1" else "completed" for name in names}
    calls = store.tool_calls_df()
    assert calls.result.isna().all()
    assert calls.is_error.tolist() == [n == "c1" for n in names]
    assert calls.duration_s.between(0, 60).all()
    assert all(call.args == {"q": 1} for call in load_session(store, "chat").runs[0].tool_calls)


def test_stored_messages_are_numbered_without_gaps(store):
    """And each call refers to its message."""
    run = store.start_run("chat", input="x")
    append_unstored(
        store, run.run_id, Message(role="user", content="q"), call_message("a"), result_message("a"), call_message("b")
    )
    kept = append_unstored(store, run.run_id, result_message("b"), Message(role="assistant", content="answer"))
    store.finish_run(run.run_id)
    messages = load_session(store, "chat").runs[0].messages

    assert [m.message_index for m in messages] == [0, 1, 2, 3]
    assert message_contents(messages) == ["q", None, None, "answer"]
    assert [[call.tool_call_id for call in m.tool_calls] for m in messages] == [[], ["a"], ["b"], []]
    assert [m.message_index for m in kept] == [3]
    assert store.check().problems == []
    assert_nowhere(store)


def test_calls_without_stored_results_are_not_in_the_history(store):
    """The history has no calls without results."""
    run = store.start_run("chat", input="x")
    looking = call_message("a").model_copy(update={"content": "let me look"})
    append_unstored(
        store,
        run.run_id,
        Message(role="user", content="q"),
        looking,
        result_message("a"),
        call_message("b"),
        result_message("b"),
    )
    append_unstored(store, run.run_id, Message(role="assistant", content="answer"))
    store.finish_run(run.run_id)

    assert message_contents(store.history("chat")) == ["q", "let me look", "answer"]
    assert all(not message.tool_calls for message in store.history("chat"))


def test_a_reused_call_id_ends_the_right_call(store):
    """In order, in any split into writes; a result without a call is ignored."""
    for batches in ([1, 1, 1, 1], [4], [2, 2], [1, 2, 1], [3, 1]):
        store.start_run("chat", input="x", run_id=f"{batches}")
        written = iter([call_message("a"), result_message("a"), call_message("a"), result_message("a", is_error=True)])
        for n in batches:
            append_unstored(store, f"{batches}", *(next(written) for _ in range(n)))
        append_unstored(store, f"{batches}", result_message("nobody"))

        assert [call.status for call in store.get_run(f"{batches}").tool_calls] == ["completed", "failed"], batches
        store.delete_session("chat")


def test_a_result_before_its_call_does_not_end_it(store):
    """As with stored results: a late result of an ended call, before the next call with its id."""
    for keep in (True, False):
        run = store.start_run("chat", input="x")
        store.append_messages(run.run_id, [result_message("a", "early"), call_message("a")], store_results=keep)
        assert [call.status for call in store.get_run(run.run_id).tool_calls] == ["started"], keep


def test_the_first_result_ends_a_call(store):
    """Whatever index its message had elsewhere; later ones change nothing."""
    run = store.start_run("chat", input="x")
    append_unstored(store, run.run_id, Message(role="user", content="q"), call_message("a"))
    append_unstored(store, run.run_id, result_message("a", message_index=0))
    append_unstored(store, run.run_id, result_message("a", is_error=True))

    assert statuses(store) == {"a": "completed"}
    assert_nowhere(store)


def test_a_result_in_the_call_is_not_stored_either(store):
    """A call with its result has ended; further results are ignored."""
    run = store.start_run("chat", input="x")
    append_unstored(
        store,
        run.run_id,
        call_message("a", "b", result=SECRET),
        call_message("c", result={"x": SECRET}, status="failed"),
    )
    append_unstored(store, run.run_id, call_message("d", result="", duration_s=0.5))
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "completed", "b": "completed", "c": "failed", "d": "completed"}
    assert_nowhere(store)
    assert store.tool_calls_df().result.isna().all()


def test_results_are_stored_again_on_request(store):
    """The choice is per write; earlier unstored results stay unknown."""
    run = store.start_run("chat", input="x")
    append_unstored(store, run.run_id, call_message("a", "b"), result_message("a"))
    store.append_messages(run.run_id, [result_message("b", "kept"), result_message("a", "again")])

    assert {c.tool_call_id: (c.status, c.result) for c in load_session(store, "chat").runs[0].tool_calls} == {
        "a": ("completed", None),
        "b": ("completed", "kept"),
    }


def test_a_paused_run_can_resume_without_results(store):
    """The open call ends."""
    run = store.start_run("chat", input="x")
    append_unstored(store, run.run_id, call_message("a"))
    store.pause_run(run.run_id, [a_requirement("ask", tool_call_id="a")])
    store.resolve("ask", approve=True)
    store.claim_run(run.run_id)
    append_unstored(store, run.run_id, result_message("a"))
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "completed"}
    assert_nowhere(store)


def test_answers_can_be_forgotten(store):
    """The value in a person's answer; who gave it, and the approval, is kept, and so are other runs' answers."""
    for name in ("other", "chat"):
        run = store.start_run(name, input="x")
        kinds = {"a": "external_execution", "b": "confirmation", "c": "user_input"}
        store.pause_run(run.run_id, [a_requirement(f"{name} {key}", kind) for key, kind in kinds.items()])
        store.resolve(f"{name} a", value=f"{SECRET} of {name}", by="alice")
        store.resolve(f"{name} b", args={"to": "eve"})
        store.resolve(f"{name} c", value={"text": f"{SECRET} of {name}"})
    store.forget_answers(run.run_id)

    found = [(r.status, r.approved, r.answer, r.resolved_by) for r in store.get_run(run.run_id).requirements]
    edited = {"to": "eve", "text": "hi"}
    assert found == [("resolved", True, a, by) for a, by in ((None, "alice"), (edited, None), (None, None))]
    assert f"{SECRET} of chat" not in repr(all_rows(store))
    assert repr(all_rows(store)).count(f"{SECRET} of other") == 2


@pytest.mark.parametrize("place", [{}, {"after": 0}, {"after": (0, 1)}])
def test_a_branch_has_no_results_either(store, place):
    """Nor a detached one."""
    run = store.start_run("chat", input="x")
    append_unstored(
        store, run.run_id, Message(role="user", content="q"), call_message("a"), result_message("a"), call_message("b")
    )
    store.branch("chat", **place, new_session_id="b")
    append_unstored(store, run.run_id, result_message("b"))
    store.finish_run(run.run_id)
    store.branch("chat", new_session_id="later")
    store.delete_session("chat", detach_branches=True)

    assert SECRET not in repr(all_rows(store))
    assert load_session(store, "later").runs[0].tool_calls[0].status == "completed"
