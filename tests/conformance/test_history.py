"""The messages for a model: completed runs in order, inherited ones included, tool calls and results never separated."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from samples import a_run, a_session, a_small_run, message_contents

from kern_nb.db import InMemoryDb
from kern_nb.errors import SessionNotFound
from kern_nb.records import Message, Run, ToolCall

STATUSES = ("PENDING", "RUNNING", "PAUSED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")


def call_message(*ids: str, content: str | None = None) -> Message:
    """An assistant's message with tool calls."""
    return Message(role="assistant", content=content, tool_calls=[ToolCall(tool_call_id=i, tool_name="t") for i in ids])


def result_message(tool_call_id: str) -> Message:
    """A tool's message."""
    return Message(role="tool", tool_call_id=tool_call_id, content=f"result of {tool_call_id}")


def text_message(text: str, role: str = "user") -> Message:
    """A message without tool calls."""
    return Message(role=role, content=text)


def check_pairs(messages: list[Message]) -> None:
    """Each call is followed by its result before any other message, and each result follows its call, as models require."""
    waiting: Counter[str | None] = Counter()
    for message in messages:
        if message.role == "tool":
            assert waiting[message.tool_call_id] > 0, f"a result without its call: {message}"
            waiting[message.tool_call_id] -= 1
        else:
            assert waiting.total() == 0, f"calls without results: {waiting}"
            waiting.update(c.tool_call_id for c in message.tool_calls)
    assert waiting.total() == 0, f"calls without results: {waiting}"


def test_history_is_the_messages_of_all_runs_in_order(store):
    """Without limits, all messages with their calls."""
    a_session(store, runs=2)
    found = store.history("chat")

    assert message_contents(found) == [
        *("chat 0", None, "found chat 0", "answer to chat 0"),
        *("chat 1", None, "found chat 1", "answer to chat 1"),
    ]
    assert found[1].tool_calls[0].args == {"query": "chat 0"}
    check_pairs(found)


def test_runs_without_an_answer_are_left_out(store):
    """Failed, cancelled, open and paused runs."""
    store.append_run("chat", a_run("first"))
    for status in STATUSES:
        store.append_run("chat", a_run(status, status=status))
    store.append_run("chat", a_run("last"))

    assert message_contents(store.history("chat"))[::4] == ["first", "last"]
    assert message_contents(store.history("chat", last_runs=2))[::4] == ["first", "last"]


def test_system_messages_and_members_runs_are_left_out(store):
    """Each agent has its own instructions, and members' runs are internal to a team."""
    team = store.append_run(
        "chat",
        Run(messages=[text_message("rules", "system"), text_message("hi"), text_message("new rules", "developer")]),
    )
    store.append_run("chat", a_small_run("member", parent_run_id=team.run_id))

    assert message_contents(store.history("chat")) == ["hi"]


def test_last_runs_returns_the_newest_runs(store):
    """In order; a larger limit returns all, 0 none."""
    for i in range(4):
        store.append_run("chat", a_small_run(f"{i}"))
    for n in (0, 1, 2, 4, 9):
        assert message_contents(store.history("chat", last_runs=n))[::2] == ["0", "1", "2", "3"][4 - min(n, 4) :]


def test_last_messages_returns_the_newest_messages(store):
    """The end of the history, never half a tool call."""
    a_session(store)
    whole = message_contents(store.history("chat"))
    for n in range(15):
        found = store.history("chat", last_messages=n)

        check_pairs(found)
        assert len(found) <= n
        assert message_contents(found) == (whole[-len(found) :] if found else [])
    assert message_contents(store.history("chat", last_messages=2)) == ["answer to chat 2"]
    assert message_contents(store.history("chat", last_messages=3)) == [None, "found chat 2", "answer to chat 2"]
    assert message_contents(store.history("chat", last_messages=4)) == [
        "chat 2",
        None,
        "found chat 2",
        "answer to chat 2",
    ]


def test_runs_without_history_messages_do_not_count_towards_the_limit(store):
    """Runs without messages, or with system messages only: the limit counts history messages."""
    store.append_run("chat", a_small_run("first"))
    store.append_run("chat", Run(input="no messages"))
    store.append_run("chat", Run(messages=[text_message("rules", "system")]))

    assert message_contents(store.history("chat", last_messages=2)) == ["first", "answer to first"]
    assert message_contents(store.history("chat", last_messages=1)) == ["answer to first"]


def test_both_limits_apply_together(store):
    """The last messages of the last runs."""
    for i in range(4):
        store.append_run("chat", a_small_run(f"{i}"))

    assert message_contents(store.history("chat", last_runs=2, last_messages=3)) == ["answer to 2", "3", "answer to 3"]
    assert message_contents(store.history("chat", last_runs=1, last_messages=3)) == ["3", "answer to 3"]
    assert message_contents(store.history("chat", last_runs=3, last_messages=1)) == ["answer to 3"]


def test_calls_without_results_and_results_without_calls_are_left_out(store):
    """Other content of the message is kept."""
    messages = [
        text_message("question"),
        result_message("nobody asked"),
        call_message("a", "b", content="thinking"),
        result_message("a"),
        call_message("c"),
        text_message("answer", "assistant"),
    ]
    store.append_run("chat", Run(messages=messages))
    found = store.history("chat")

    check_pairs(found)
    assert message_contents(found) == ["question", "thinking", "result of a", "answer"]
    assert [c.tool_call_id for c in found[1].tool_calls] == ["a"]


def test_calls_that_share_an_id_keep_their_results(store):
    """Within a run and across runs: as many calls as results, in pairs."""
    for _ in range(2):
        store.append_run(
            "chat",
            Run(
                messages=[
                    text_message("q"),
                    call_message("x"),
                    result_message("x"),
                    call_message("x"),
                    result_message("x"),
                    text_message("a", "assistant"),
                ]
            ),
        )
    found = store.history("chat")

    check_pairs(found)
    assert len(found) == 12


def test_parallel_calls_keep_all_their_results(store):
    """A limit between parallel calls and their results leaves all of them out."""
    store.append_run(
        "chat",
        Run(
            messages=[
                text_message("q"),
                call_message("x", "y", "z"),
                result_message("x"),
                result_message("y"),
                result_message("z"),
                text_message("a"),
            ]
        ),
    )
    for n in range(8):
        found = store.history("chat", last_messages=n)
        check_pairs(found)
        assert len(found) == {5: 5, 6: 6, 7: 6}.get(n, min(n, 1)), n


def test_history_of_a_branch_ends_at_the_fork(store):
    """At each message: without a call whose result is after the branch point; its own runs follow."""
    a_session(store, runs=2)
    expected = {0: ["chat 1"], 1: ["chat 1"], 2: ["chat 1", None, "found chat 1"]}
    expected[3] = ["chat 1", None, "found chat 1", "answer to chat 1"]
    for message, end in expected.items():
        branch = store.branch("chat", after=(1, message)).session_id
        store.append_run(branch, a_small_run("own"))
        found = store.history(branch)

        check_pairs(found)
        assert message_contents(found)[4:] == [*end, "own", "answer to own"]
        assert message_contents(store.history(branch, last_runs=1)) == ["own", "answer to own"]
        assert message_contents(store.history(branch, last_runs=2)) == [*end, "own", "answer to own"]
        assert message_contents(store.history("chat")) == message_contents(store.history("chat", last_runs=9))


def test_history_of_a_branch_includes_the_open_run_it_was_taken_in(store):
    """Its messages up to the branch point are in the history, though the run never completed."""
    run = store.start_run("chat", input="x")
    store.append_messages(
        run.run_id, [text_message("asked"), call_message("a"), result_message("a"), call_message("b")]
    )
    branch = store.branch("chat").session_id
    store.finish_run(run.run_id, status="ERROR")

    assert message_contents(store.history(branch)) == ["asked", None, "result of a"]
    assert store.history("chat") == []


def test_history_across_five_forks(store):
    """Each run once, in order, whichever session it is in."""
    store.append_run("b0", a_run("0"))
    for depth in range(1, 6):
        store.branch(f"b{depth - 1}", new_session_id=f"b{depth}")
        store.append_run(f"b{depth - 1}", a_run("not seen"))
        store.append_run(f"b{depth}", a_run(f"{depth}"))
    found = store.history("b5")

    check_pairs(found)
    assert message_contents(found)[::4] == ["0", "1", "2", "3", "4", "5"]
    assert message_contents(store.history("b5", last_runs=2))[::4] == ["4", "5"]


def test_history_of_an_empty_session(store):
    """An unknown session raises, also before the first write; one without runs has an empty history."""
    with pytest.raises(SessionNotFound, match="chat"):
        store.history("chat")
    a_session(store, "other", runs=1)
    with pytest.raises(SessionNotFound, match="chat"):
        store.history("chat")
    assert store.history(store.branch("other", before=0).session_id) == []


ids = st.sampled_from(["a", "b", "c"])


def test_workflow_history_is_inputs_and_outputs(store):
    """Of completed runs, without those of steps, within the same limits; a branch inherits them."""
    for n in range(3):
        top = store.append_run("flow", Run(input=f"in {n}", output={"out": n}, run_type="workflow", workflow_id="w"))
        store.append_run("flow", a_small_run(f"step {n}", parent_run_id=top.run_id))
    store.append_run("flow", Run(input="in 3", error="no", status="ERROR", run_type="workflow"))
    expected = ["in 0", {"out": 0}, "in 1", {"out": 1}, "in 2", {"out": 2}]

    assert message_contents(store.history("flow")) == expected
    for n in range(7):
        assert message_contents(store.history("flow", last_messages=n)) == expected[6 - n :]
    assert message_contents(store.history("flow", last_runs=2)) == expected[2:]
    assert message_contents(store.history("flow", last_runs=1, last_messages=3)) == expected[4:]
    assert message_contents(store.history("flow", last_runs=3, last_messages=1)) == expected[5:]
    assert message_contents(store.chat_history("flow")) == [*expected, "in 3"]
    assert message_contents(store.chat_history("flow", last_runs=2)) == [*expected[4:], "in 3"]
    store.branch("flow", after=2, new_session_id="branch")
    assert message_contents(store.history("branch")) == message_contents(store.chat_history("branch")) == expected[:4]


def test_history_of_a_member(store):
    """The completed runs of one agent or team within other runs, in order, in a branch too."""
    for n in range(3):
        top = store.append_run("chat", a_small_run(f"top {n}", team_id="crew", run_type="team"))
        store.append_run("chat", a_small_run(f"one {n}", parent_run_id=top.run_id, agent_id="one"))
        inner = a_small_run(f"inner {n}", parent_run_id=top.run_id, team_id="inner", run_type="team")
        inner = store.append_run("chat", inner)
        store.append_run("chat", a_small_run(f"two {n}", parent_run_id=inner.run_id, agent_id="two"))
    store.append_run("chat", a_small_run("failed", parent_run_id=top.run_id, agent_id="one", status="ERROR"))
    store.append_run("chat", a_small_run("alone", agent_id="one"))

    for member_id in ("one", "inner", "two"):
        by_run = store.history_by_run("chat", member_id=member_id)
        assert [m[0].content for m in by_run.values()] == [f"{member_id} {n}" for n in range(3)]
    last = store.history_by_run("chat", member_id="one", last_messages=3)
    assert [m.content for messages in last.values() for m in messages] == [
        "answer to one 1",
        "one 2",
        "answer to one 2",
    ]
    assert [m[0].content for m in store.history_by_run("chat", member_id="two", last_runs=1).values()] == ["two 2"]
    store.branch("chat", after=0, new_session_id="branch")
    assert [m[0].content for m in store.history_by_run("branch", member_id="two").values()] == ["two 0"]


def test_chat_history_is_users_and_assistants(store):
    """Of runs of every status, without instructions, copies and partial messages; results of tools on request."""
    messages = [
        text_message("Be brief.", "system"),
        text_message("old").model_copy(update={"from_history": True}),
        text_message("question"),
        call_message("c1"),
        result_message("c1"),
        call_message("c2", content="unanswered"),
        Message(role="assistant", content="broken off", partial=True),
    ]
    for status in (*STATUSES, "COMPLETED"):
        store.append_run("chat", Run(status=status, messages=[m.model_copy(deep=True) for m in messages]))
    run = store.last_runs("chat", 1)[0]
    store.append_run("chat", a_small_run("of a member", parent_run_id=run.run_id))
    expected = ["question", None, "unanswered"]

    assert message_contents(store.chat_history("chat")) == expected * (len(STATUSES) + 1)
    assert message_contents(store.chat_history("chat", last_runs=1)) == expected
    with_tools = store.chat_history("chat", last_runs=1, tool_messages=True)
    assert message_contents(with_tools) == ["question", None, "result of c1", "unanswered"]
    assert store.chat_history("chat", last_runs=0) == []
    with pytest.raises(SessionNotFound):
        store.chat_history("unknown")


messages = st.one_of(
    st.builds(text_message, st.just("text"), st.sampled_from(["user", "assistant", "system"])),
    st.builds(lambda found: call_message(*found), st.lists(ids, min_size=1, max_size=2, unique=True)),
    st.builds(result_message, ids),
)
runs = st.lists(st.lists(messages, max_size=7), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def one_store():
    """One store for all examples."""
    with InMemoryDb() as store:
        yield store


@settings(max_examples=60, phases=[Phase.generate, Phase.shrink])
@given(runs=runs, n=st.integers(0, 12), cut=st.integers(0, 6))
def test_any_history_is_valid_for_a_model(one_store, runs, n, cut):
    """For any mix of calls and results and any limit or branch point: results follow their calls, calls have results."""
    session_id = str(uuid4())
    for of_run in runs:
        one_store.append_run(session_id, Run(messages=of_run))
    check_results_follow_calls(one_store.history(session_id))
    some = one_store.history(session_id, last_messages=n)
    check_results_follow_calls(some)
    assert len(some) <= n
    if runs[-1]:
        branch = one_store.branch(session_id, after=(len(runs) - 1, min(cut, len(runs[-1]) - 1)))
        check_results_follow_calls(one_store.history(branch.session_id))


def check_results_follow_calls(found: list[Message]) -> None:
    """As many results as calls of each id, none before its call."""
    waiting: Counter[str | None] = Counter()
    for message in found:
        if message.role == "tool":
            waiting[message.tool_call_id] -= 1
            assert waiting[message.tool_call_id] >= 0, found
        waiting.update(c.tool_call_id for c in message.tool_calls)
    assert waiting.total() == 0, found
