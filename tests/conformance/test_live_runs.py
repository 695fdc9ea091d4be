"""A live run: each step is stored immediately and visible to others, and an ended run cannot be written."""

from __future__ import annotations

import threading

import pytest
from samples import a_session, a_small_run, all_rows, load_session, message_contents

from kern_nb.errors import RunClosed, RunNotFound
from kern_nb.records import Message, Run, ToolCall, Usage


def call_message(*ids: str) -> Message:
    """An assistant's message with tool calls."""
    return Message(
        role="assistant", tool_calls=[ToolCall(tool_call_id=i, tool_name=f"tool {i}", args={"i": i}) for i in ids]
    )


def result_message(tool_call_id: str, content: object = "done", **fields: object) -> Message:
    """A tool's message."""
    return Message(role="tool", tool_call_id=tool_call_id, content=content, **fields)


def statuses(store, session_id="chat") -> dict[str, str]:
    """The status of each tool call."""
    found = store.tool_calls_df(session_id)
    return dict(zip(found.tool_call_id, found.status, strict=True))


def test_rows_appear_as_they_happen(store, other_store):
    """The run before the model is called, each message when it is written, the end when it ends."""
    run = store.start_run("chat", input="question", model="m", agent_id="a", user_id="u")
    seen = load_session(other_store, "chat").runs[0]
    assert (seen.status, seen.input, seen.model, seen.run_id, seen.messages) == (
        "RUNNING",
        "question",
        "m",
        run.run_id,
        [],
    )
    assert (load_session(other_store, "chat").user_id, load_session(other_store, "chat").agent_id) == ("u", "a")

    store.append_messages(run.run_id, [Message(role="user", content="question")])
    assert message_contents(load_session(other_store, "chat").runs[0].messages) == ["question"]
    store.append_messages(run.run_id, [call_message("a")])
    assert statuses(other_store) == {"a": "started"}
    store.append_messages(run.run_id, [result_message("a"), Message(role="assistant", content="answer")])
    assert statuses(other_store) == {"a": "completed"}
    assert other_store.sessions_df().status.tolist() == ["RUNNING"]

    store.finish_run(run.run_id, output="answer", usage=Usage(input_tokens=5, cost=0.5))
    seen = load_session(other_store, "chat").runs[0]
    assert (seen.status, seen.output, seen.usage.input_tokens) == ("COMPLETED", "answer", 5)
    assert message_contents(seen.messages) == ["question", None, "done", "answer"]
    assert seen.created_at <= seen.finished_at
    assert 0 <= seen.duration_s < 60
    assert all(seen.created_at <= message.created_at <= seen.finished_at for message in seen.messages)


def test_a_started_run_has_its_index_and_state(store):
    """Index, session and the state it starts from."""
    a_session(store, runs=2, session_state={"n": 1})
    run = store.start_run("chat", input={"any": ["value"]}, session_type="team", team_id="t", parent_run_id="p")

    assert (run.run_index, run.session_id, run.status, run.session_state) == (2, "chat", "RUNNING", {"n": 1})
    stored = load_session(store, "chat").runs[2]
    assert (stored.input, stored.run_type, stored.team_id, stored.parent_run_id) == (
        {"any": ["value"]},
        "team",
        "t",
        "p",
    )
    assert store.start_run("new", input=None).session_state is None or load_session(store, "new").session_state == {}


def test_messages_are_numbered_across_writes(store):
    """Across batches; an empty batch adds none."""
    run = store.start_run("chat", input="x")
    numbers = []
    for n in (1, 3, 0, 2):
        batch = [Message(role="user", content=f"{n}") for _ in range(n)]
        numbers += [message.message_index for message in store.append_messages(run.run_id, batch)]

    assert numbers == [0, 1, 2, 3, 4, 5]
    assert [m.message_index for m in load_session(store, "chat").runs[0].messages] == numbers
    assert store.messages_df().content.tolist() == ["1", "3", "3", "3", "2", "2"]


def test_a_tool_message_ends_its_call(store):
    """With its result, of any type, and its duration; other calls of the message are still started."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message("a", "b", "c", "d")])
    store.append_messages(run.run_id, [result_message("b", {"any": [1]})])
    store.append_messages(run.run_id, [result_message("a", None), result_message("d", "")])
    calls = {call.tool_call_id: call for call in load_session(store, "chat").runs[0].tool_calls}

    assert statuses(store) == {"a": "completed", "b": "completed", "c": "started", "d": "completed"}
    assert (calls["b"].result, calls["a"].result, calls["d"].result) == ({"any": [1]}, None, "")
    assert 0 <= calls["b"].duration_s < 60
    assert calls["c"].duration_s is None
    assert store.tool_calls_df().is_error.tolist()[:2] == [False, False]


def test_a_tool_that_failed_is_failed(store):
    """Its message is marked so; its content is stored."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message("a", "b")])
    store.append_messages(
        run.run_id, [result_message("a", "Traceback", is_error=True), result_message("b", "fine", is_error=False)]
    )
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "failed", "b": "completed"}
    assert load_session(store, "chat").runs[0].tool_calls[0].result == "Traceback"
    assert load_session(store, "chat").runs[0].messages[1].is_error is True
    assert store.tool_calls_df().is_error.tolist() == [True, False]
    assert store.sessions_df().n_tool_errors.tolist() == [1]


def test_call_and_result_can_be_in_one_write(store):
    """Also beside calls of earlier writes."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message("a")])
    store.append_messages(
        run.run_id,
        [result_message("a", "1"), call_message("b", "c"), result_message("c", "3"), result_message("b", "2")],
    )
    found = load_session(store, "chat").runs[0].tool_calls

    assert [(call.tool_call_id, call.result, call.status) for call in found] == [
        ("a", "1", "completed"),
        ("b", "2", "completed"),
        ("c", "3", "completed"),
    ]


def test_a_reused_call_id_is_another_call(store):
    """The second call with an id in one run gets the second result, in any split into writes."""
    for batches in ([1, 1, 1, 1], [4], [2, 2], [1, 2, 1], [3, 1]):
        session_id = str(batches)
        run = store.start_run(session_id, input="x")
        written = iter(
            [call_message("a"), result_message("a", "first"), call_message("a"), result_message("a", "second")]
        )
        for n in batches:
            store.append_messages(run.run_id, [next(written) for _ in range(n)])
        store.finish_run(run.run_id)
        stored = load_session(store, session_id).runs[0]

        assert [(call.result, call.status) for call in stored.tool_calls] == [
            ("first", "completed"),
            ("second", "completed"),
        ]
        assert [len(message.tool_calls) for message in stored.messages] == [1, 0, 1, 0]
        assert message_contents(store.history(session_id)) == [None, "first", None, "second"]


def test_a_late_result_does_not_change_an_ended_call(store):
    """The first result is kept."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message("a"), result_message("a", "first")])
    store.append_messages(run.run_id, [result_message("a", "again")])

    assert [call.result for call in load_session(store, "chat").runs[0].tool_calls] == ["first"]
    assert message_contents(load_session(store, "chat").runs[0].messages) == [None, "first", "again"]


def test_calls_without_a_result_become_unknown_at_the_end(store):
    """With any final status; ended calls keep theirs."""
    for status in ("COMPLETED", "ERROR", "CANCELLED"):
        run = store.start_run(status, input="x")
        store.append_messages(run.run_id, [call_message("a", "b"), result_message("a")])
        store.finish_run(run.run_id, status=status, error="e" if status == "ERROR" else None)

        assert statuses(store, status) == {"a": "completed", "b": "unknown"}
        assert store.runs_df(status).status.tolist() == [status]
        assert load_session(store, status).runs[0].error == ("e" if status == "ERROR" else None)


def test_a_paused_run_keeps_its_calls_open(store):
    """PAUSED is not an end: no call becomes unknown, there is no finishing time, and the result can be appended."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [call_message("a")])
    store.finish_run(run.run_id, status="PAUSED")
    paused = load_session(store, "chat").runs[0]
    assert (paused.status, paused.finished_at, paused.duration_s) == ("PAUSED", None, None)
    assert statuses(store) == {"a": "started"}

    store.append_messages(run.run_id, [result_message("a")])
    store.finish_run(run.run_id, output="done")
    assert statuses(store) == {"a": "completed"}
    assert load_session(store, "chat").runs[0].status == "COMPLETED"


def test_an_ended_run_cannot_be_written(store):
    """RunClosed from either call, and nothing is changed; an unknown run is RunNotFound."""
    for status in ("COMPLETED", "ERROR", "CANCELLED"):
        run = store.start_run("chat", input="x")
        store.append_messages(run.run_id, [Message(role="user", content="kept")])
        store.finish_run(run.run_id, status=status, output="kept")
        before = all_rows(store)
        with pytest.raises(RunClosed, match=status):
            store.append_messages(run.run_id, [Message(role="user", content="late")])
        with pytest.raises(RunClosed, match=status):
            store.finish_run(run.run_id, output="late", session_state={"late": True})
        assert all_rows(store) == before
    appended = store.append_run("chat", a_small_run())
    with pytest.raises(RunClosed):
        store.append_messages(appended.run_id, [])
    for write in (lambda: store.append_messages("no such", []), lambda: store.finish_run("no such")):
        with pytest.raises(RunNotFound, match="no such"):
            write()


def test_an_unknown_run_is_refused(store):
    """A store without tables raises the same error."""
    with pytest.raises(RunNotFound):
        store.finish_run("no such")


def test_one_of_two_concurrent_finishes_succeeds(store, other_store):
    """Two threads finish the same run: one end is stored, the other is refused."""
    for attempt in range(4):
        run = store.start_run("chat", input="x")
        outcomes: list[str] = []
        start = threading.Barrier(2)

        def finish(who, name, run_id=run.run_id, outcomes=outcomes, start=start):
            start.wait()
            try:
                who.finish_run(run_id, output=name, session_state={"by": name})
                outcomes.append(name)
            except RunClosed:
                outcomes.append("closed")
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                outcomes.append(repr(error))

        threads = [threading.Thread(target=finish, args=args) for args in ((store, "first"), (other_store, "second"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = load_session(store, "chat")

        assert outcomes.count("closed") == 1, (attempt, outcomes)
        assert stored.runs[-1].output in outcomes
        assert stored.session_state == {"by": stored.runs[-1].output}


def test_messages_of_concurrent_writers_are_all_stored(store, other_store):
    """Parallel tools write their results from threads: each message gets its own index, none is lost."""
    run = store.start_run("chat", input="x")
    ids = [f"call {i}" for i in range(24)]
    store.append_messages(run.run_id, [call_message(*ids)])
    errors: list[BaseException] = []

    def answer(who, part):
        try:
            for tool_call_id in part:
                who.append_messages(run.run_id, [result_message(tool_call_id, f"result of {tool_call_id}")])
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [
        threading.Thread(target=answer, args=(who, ids[i::4]))
        for i, who in enumerate((store, other_store, store, other_store))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = load_session(store, "chat").runs[0]

    assert errors == []
    assert [m.message_index for m in stored.messages] == list(range(25))
    assert {call.tool_call_id: call.result for call in stored.tool_calls} == {i: f"result of {i}" for i in ids}
    assert set(statuses(store).values()) == {"completed"}


def test_a_calls_own_status_takes_precedence(store):
    """A message can have calls that have ended already, as those of importers and replays."""
    ended = [
        ToolCall(tool_call_id="a", tool_name="t", status="failed", result="no", duration_s=0.5),
        ToolCall(tool_call_id="b", tool_name="t", result="yes"),
    ]
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=ended)])
    store.finish_run(run.run_id)

    assert statuses(store) == {"a": "failed", "b": "completed"}
    assert load_session(store, "chat").runs[0].tool_calls[0].duration_s == 0.5


def test_concurrent_runs_of_one_session_are_separate(store):
    """Their messages and calls, though the ids of the calls are the same."""
    first, second = store.start_run("chat", input="1"), store.start_run("chat", input="2")
    for run, text in ((second, "two"), (first, "one")):
        store.append_messages(run.run_id, [call_message("same")])
        store.append_messages(run.run_id, [result_message("same", text)])
    store.finish_run(second.run_id, output="two")
    store.finish_run(first.run_id, status="ERROR")
    runs = load_session(store, "chat").runs

    assert [run.tool_calls[0].result for run in runs] == ["one", "two"]
    assert [run.status for run in runs] == ["ERROR", "COMPLETED"]
    assert [run.run_index for run in runs] == [0, 1]


def test_a_run_appended_as_open_stays_open(store):
    """A record of an open run is stored as such, its unanswered calls as started."""
    store.append_run("chat", Run(status="RUNNING", messages=[call_message("a")]))

    assert statuses(store) == {"a": "started"}
    assert store.runs_df().status.tolist() == ["RUNNING"]
