"""`last_runs` and `last_messages`: the end of what `get_session` has, at a cost that does not grow with the session."""

from __future__ import annotations

from typing import get_args

import pytest
from samples import a_run, a_session, a_small_run, inputs, load_session, message_contents, statements
from test_append_cost import lengthen, steps

from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, SessionNotFound
from kern_nb.records import Message, Requirement, Run, RunStatus, ToolCall

COUNTS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 100)


def all_messages(store, session_id):
    """All messages of a session, as `get_session` has them."""
    return [message for run in load_session(store, session_id).runs for message in run.messages]


def require_ends(store, session_id):
    """Compare the newest runs and messages with the end of the whole session."""
    runs, messages = load_session(store, session_id).runs, all_messages(store, session_id)
    for n in COUNTS:
        assert store.last_runs(session_id, n) == runs[max(0, len(runs) - n) :], n
        assert store.last_messages(session_id, n) == messages[max(0, len(messages) - n) :], n


def test_they_are_the_end_of_the_session(store):
    """Of runs of every status, with any number of messages, instructions and copies included."""
    for number, status in enumerate(get_args(RunStatus)):
        messages = a_run(f"{number}").messages[: number % 5]
        messages += [Message(role="system", content="x"), Message(role="user", content="y", from_history=True)]
        store.append_run("chat", a_run(f"{number}", status=status, messages=messages[: number % 7]))
    a_session(store, "other")
    require_ends(store, "chat")

    assert message_contents(store.last_messages("chat", 2)) == message_contents(all_messages(store, "chat")[-2:])


def test_a_status_selects_runs(store):
    """The newest of that status, however far back."""
    for number in range(12):
        store.append_run("chat", a_small_run(f"{number}", status="ERROR" if number in (1, 3, 4) else "COMPLETED"))

    assert [run.input for run in store.last_runs("chat", 2, status="ERROR")] == ["3", "4"]
    assert [run.input for run in store.last_runs("chat", 9, status="ERROR")] == ["1", "3", "4"]
    assert [run.input for run in store.last_runs("chat", 1, status="COMPLETED")] == ["11"]
    assert store.last_runs("chat", 1, status="PAUSED") == []


def test_a_branch_continues_with_inherited_rows(store):
    """Of several ancestors, cut within a run, with rows of its own or without."""
    a_session(store, "a", runs=3)
    store.branch("a", after=(2, 1), new_session_id="cut")
    store.branch("cut", new_session_id="below")
    a_session(store, "cut", runs=1)
    a_session(store, "below", runs=2)
    store.branch("below", after=(3, 2), new_session_id="deep")
    store.branch("below", after=1, new_session_id="early")
    store.branch("a", before=0, new_session_id="none")
    for session_id in ("cut", "below", "deep", "early", "none"):
        require_ends(store, session_id)
    store.append_run("early", a_run("own"))
    require_ends(store, "early")

    last = store.last_messages("deep", 4)
    assert [call.status for message in last for call in message.tool_calls] == ["unknown", "completed"]
    (call,) = store.last_messages("cut", 100)[9].tool_calls
    assert (call.status, call.result) == ("unknown", None)


def test_runs_without_messages_are_passed_over(store):
    """Also many of them."""
    store.append_run("chat", a_run("first"))
    for _ in range(60):
        store.append_run("chat", Run(input="nothing"))
    require_ends(store, "chat")

    assert message_contents(store.last_messages("chat", 1)) == ["answer to first"]


def test_the_end_of_one_long_run(store):
    """Tool calls belong to their messages, also where an id is used twice."""
    messages = []
    for number in range(30):
        call = ToolCall(tool_call_id=f"c{number % 10}", tool_name="t", args={"n": number})
        messages += [
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id=f"c{number % 10}", content=f"{number}"),
        ]
    store.append_run("chat", Run(messages=messages))
    require_ends(store, "chat")


def test_a_paused_teams_run_has_the_requirements_of_its_members(store):
    """As in `get_session`; those of other runs are not read."""
    store.append_run("chat", a_small_run(requirements=[Requirement(kind="confirmation") for _ in range(3)]))
    store.append_run("chat", a_small_run(run_id="team", status="PAUSED"))
    ask = Requirement(requirement_id="ask", kind="confirmation")
    store.append_run("chat", a_small_run(run_id="m", status="PAUSED", parent_run_id="team", requirements=[ask]))
    require_ends(store, "chat")

    assert [r.requirement_id for r in store.last_runs("chat", 2)[0].requirements] == ["ask"]


def test_wrong_arguments_are_refused(store):
    """By name; an unknown session is not found."""
    store.append_run("chat", a_small_run())
    for call in (store.last_runs, store.last_messages):
        for n in (-1, 1.5, "2", None, True):
            with pytest.raises(BadUsage, match="n must be"):
                call("chat", n)
        with pytest.raises(SessionNotFound):
            call("chatt", 1)


READS = {
    "runs": lambda store: store.last_runs("chat", 3),
    "runs of a status": lambda store: store.last_runs("chat", 3, status="COMPLETED"),
    "messages": lambda store: store.last_messages("chat", 10),
}


def test_statements_and_rows_do_not_grow_with_the_session(store):
    """At three lengths."""
    store.append_run("chat", a_small_run())
    costs = {}
    for length in (10, 100, 1000):
        lengthen(store, length)
        for name, read in READS.items():
            with statements(store) as heard:
                read(store)
            costs.setdefault(name, set()).add((len(heard), heard.rows))

    assert {name: cost for name, cost in costs.items() if len(cost) > 1} == {}
    assert max(n for cost in costs.values() for n, _ in cost) <= 6


def test_engine_steps_do_not_grow_with_the_session(tmp_path):
    """SQLite counts them: a hidden scan would show."""
    with SqliteDb(tmp_path / "s.db") as store:
        store.append_run("chat", a_small_run())
        costs = {}
        for length in (10, 100, 1000):
            lengthen(store, length)
            for name, read in READS.items():
                read(store)
                with steps(store) as counted:
                    read(store)
                costs.setdefault(name, []).append(counted[0])

    assert {name: cost for name, cost in costs.items() if max(cost) > 1.25 * min(cost)} == {}


def test_inputs_of_a_long_branch(store):
    """The parent's rows are read from its end, too."""
    store.append_run("chat", a_small_run())
    lengthen(store, 200)
    store.branch("chat", after=150, new_session_id="b")
    with statements(store) as heard:
        runs = store.last_runs("b", 3)
        messages = store.last_messages("b", 4)

    assert [run.input for run in runs] == inputs(load_session(store, "b"))[-3:]
    assert message_contents(messages) == ["149", "answer to 149", "150", "answer to 150"]
    assert heard.rows < 30
