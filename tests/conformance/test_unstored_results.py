"""Without stored results, no result is anywhere; that the tool has run, and how it ended, is stored."""

from __future__ import annotations

import pytest
from paused_runs import asks
from samples import everything, loaded, said

from kern_nb.records import Message, ToolCall

SECRET = "s3cret-result"
RESULTS = [SECRET, {"deep": [SECRET, {SECRET: 1}]}, [{"type": "text", "text": SECRET}], 7.25, "", None]


def calling(*ids, **fields) -> Message:
    """An assistant's message with tool calls."""
    return Message(role="assistant", tool_calls=[ToolCall(tool_call_id=i, tool_name="look_up", **fields) for i in ids])


def result(tool_call_id, content=SECRET, **fields) -> Message:
    """A tool's message with its result in every field."""
    return Message(
        role="tool", tool_call_id=tool_call_id, content=content, tool_name="look_up", extra={"raw": content}, **fields
    )


def told(store, run_id, *messages):
    """Append messages without storing their results."""
    return store.append_messages(run_id, messages, store_results=False)


def statuses(store):
    """The status of each call."""
    return {call.tool_call_id: call.status for call in loaded(store, "chat").runs[0].tool_calls}


def assert_nowhere(store, secret=SECRET):
    """In no table, record, frame, history or SQL."""
    session = loaded(store, "chat")
    views = ("sessions", "runs", "messages", "tool_calls", "scores", "requirements")
    places = {
        "tables": everything(store),
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
    told(store, run.run_id, Message(role="user", content="question"), calling(*names, args={"q": 1}))
    assert set(statuses(store).values()) == {"started"}
    returned = told(store, run.run_id, *(result(n, r, is_error=n == "c1") for n, r in zip(names, RESULTS, strict=True)))
    assert returned == []
    told(store, run.run_id, Message(role="assistant", content="answer"))
    store.finish_run(run.run_id, output="answer")

    assert_nowhere(store)
    assert_nowhere(store, "7.25")
    assert statuses(store) == {name: "failed" if name == "c1" else "completed" for name in names}
    calls = store.tool_calls_df()
    assert calls.result.isna().all()
    assert calls.is_error.tolist() == [n == "c1" for n in names]
    assert calls.duration_s.between(0, 60).all()
    assert all(call.args == {"q": 1} for call in loaded(store, "chat").runs[0].tool_calls)


def test_stored_messages_are_numbered_without_gaps(store):
    """And each call refers to its message."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, Message(role="user", content="q"), calling("a"), result("a"), calling("b"))
    kept = told(store, run.run_id, result("b"), Message(role="assistant", content="answer"))
    store.finish_run(run.run_id)
    messages = loaded(store, "chat").runs[0].messages

    assert [m.message_index for m in messages] == [0, 1, 2, 3]
    assert said(messages) == ["q", None, None, "answer"]
    assert [[call.tool_call_id for call in m.tool_calls] for m in messages] == [[], ["a"], ["b"], []]
    assert [m.message_index for m in kept] == [3]
    assert store.check().problems == []
    assert_nowhere(store)


def test_calls_without_stored_results_are_not_in_the_history(store):
    """The history has no calls without results."""
    run = store.start_run("chat", input="x")
    looking = calling("a").model_copy(update={"content": "let me look"})
    told(store, run.run_id, Message(role="user", content="q"), looking, result("a"), calling("b"), result("b"))
    told(store, run.run_id, Message(role="assistant", content="answer"))
    store.finish_run(run.run_id)

    assert said(store.history("chat")) == ["q", "let me look", "answer"]
    assert all(not message.tool_calls for message in store.history("chat"))


def test_a_reused_call_id_ends_the_right_call(store):
    """In order, in any split into writes; a result without a call is ignored."""
    for batches in ([1, 1, 1, 1], [4], [2, 2], [1, 2, 1], [3, 1]):
        store.start_run("chat", input="x", run_id=f"{batches}")
        written = iter([calling("a"), result("a"), calling("a"), result("a", is_error=True)])
        for n in batches:
            told(store, f"{batches}", *(next(written) for _ in range(n)))
        told(store, f"{batches}", result("nobody"))

        assert [call.status for call in store.get_run(f"{batches}").tool_calls] == ["completed", "failed"], batches
        store.delete_session("chat")


def test_a_result_before_its_call_does_not_end_it(store):
    """As with stored results: a late result of an ended call, before the next call with its id."""
    for keep in (True, False):
        run = store.start_run("chat", input="x")
        store.append_messages(run.run_id, [result("a", "early"), calling("a")], store_results=keep)
        assert [call.status for call in store.get_run(run.run_id).tool_calls] == ["started"], keep


def test_the_first_result_ends_a_call(store):
    """Whatever index its message had elsewhere; later ones change nothing."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, Message(role="user", content="q"), calling("a"))
    told(store, run.run_id, result("a", message_index=0))
    told(store, run.run_id, result("a", is_error=True))

    assert statuses(store) == {"a": "completed"}
    assert_nowhere(store)


def test_a_result_in_the_call_is_not_stored_either(store):
    """A call with its result has ended; further results are ignored."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, calling("a", "b", result=SECRET), calling("c", result={"x": SECRET}, status="failed"))
    told(store, run.run_id, calling("d", result="", duration_s=0.5))
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "completed", "b": "completed", "c": "failed", "d": "completed"}
    assert_nowhere(store)
    assert store.tool_calls_df().result.isna().all()


def test_results_are_stored_again_on_request(store):
    """The choice is per write; earlier unstored results stay unknown."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, calling("a", "b"), result("a"))
    store.append_messages(run.run_id, [result("b", "kept"), result("a", "again")])

    assert {c.tool_call_id: (c.status, c.result) for c in loaded(store, "chat").runs[0].tool_calls} == {
        "a": ("completed", None),
        "b": ("completed", "kept"),
    }


def test_a_paused_run_can_resume_without_results(store):
    """The open call ends."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, calling("a"))
    store.pause_run(run.run_id, [asks("ask", tool_call_id="a")])
    store.resolve("ask", approve=True)
    store.claim_run(run.run_id)
    told(store, run.run_id, result("a"))
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "completed"}
    assert_nowhere(store)


def test_answers_can_be_forgotten(store):
    """The value in a person's answer; who gave it, and the approval, is kept, and so are other runs' answers."""
    for name in ("other", "chat"):
        run = store.start_run(name, input="x")
        kinds = {"a": "external_execution", "b": "confirmation", "c": "user_input"}
        store.pause_run(run.run_id, [asks(f"{name} {key}", kind) for key, kind in kinds.items()])
        store.resolve(f"{name} a", value=f"{SECRET} of {name}", by="alice")
        store.resolve(f"{name} b", args={"to": "eve"})
        store.resolve(f"{name} c", value={"text": f"{SECRET} of {name}"})
    store.forget_answers(run.run_id)

    found = [(r.status, r.approved, r.answer, r.resolved_by) for r in store.get_run(run.run_id).requirements]
    edited = {"to": "eve", "text": "hi"}
    assert found == [("resolved", True, a, by) for a, by in ((None, "alice"), (edited, None), (None, None))]
    assert f"{SECRET} of chat" not in repr(everything(store))
    assert repr(everything(store)).count(f"{SECRET} of other") == 2


@pytest.mark.parametrize("place", [{}, {"after": 0}, {"after": (0, 1)}])
def test_a_branch_has_no_results_either(store, place):
    """Nor a detached one."""
    run = store.start_run("chat", input="x")
    told(store, run.run_id, Message(role="user", content="q"), calling("a"), result("a"), calling("b"))
    store.branch("chat", **place, new_session_id="b")
    told(store, run.run_id, result("b"))
    store.finish_run(run.run_id)
    store.branch("chat", new_session_id="later")
    store.delete_session("chat", detach_branches=True)

    assert SECRET not in repr(everything(store))
    assert loaded(store, "later").runs[0].tool_calls[0].status == "completed"
