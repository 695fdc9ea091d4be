"""`put_run` stores a run whole, again and again under its id: with its index, its answers, and the state it had."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import get_args

import pytest
from samples import (
    WHEN,
    a_run,
    a_session,
    a_small_run,
    all_rows,
    load_session,
    message_contents,
    row_counts,
    statements,
)

from kern_nb.errors import BadUsage, HasBranches, OwnerMismatch, RequirementExists, RunExists, UnstorableValue
from kern_nb.records import Message, Requirement, Run, RunStatus, ToolCall, Usage

STATUSES = get_args(RunStatus)
QUESTION = Message(role="user", content="Q")
CALL = Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", tool_name="t", args={"n": 1})])
RESULT = Message(role="tool", tool_call_id="c", content="R")
ANSWER = Message(role="assistant", content="A", usage=Usage(input_tokens=3, cost=0.5))
STEPS = [[QUESTION], [QUESTION, CALL], [QUESTION, CALL, RESULT], [QUESTION, CALL, RESULT, ANSWER]]


def growing(messages, status="RUNNING", **fields):
    """A run as a framework saves it after each step."""
    copies = [message.model_copy(deep=True) for message in messages]
    return Run(run_id="r", input="Q", status=status, messages=copies, **fields)


def test_a_new_run_is_inserted(store):
    """As `append_run` does, in a session that it makes; what is returned is what is stored."""
    stored = store.put_run("chat", a_run(run_id="r", session_state={"n": 1}), user_id="alice")
    session = load_session(store, "chat")

    assert stored == store.get_run("r")
    assert (stored.session_id, stored.run_index, stored.user_id) == ("chat", 0, "alice")
    assert session.user_id == "alice"
    assert session.session_state == {"n": 1}
    assert store.append_run("chat", a_small_run()).run_index == 1


def test_a_run_is_replaced_under_its_id(store):
    """Saved after each of its steps between other runs: one run, with its index, as it was last."""
    a_session(store, "chat", runs=1)
    for number, messages in enumerate(STEPS):
        stored = store.put_run("chat", growing(messages))
        assert stored == store.get_run("r")
        assert stored.run_index == 1
        assert message_contents(stored.messages) == message_contents(messages)
        assert [call.status for call in stored.tool_calls] == ([], ["started"], ["completed"], ["completed"])[number]
        store.append_run("chat", a_small_run(f"{number}"))
    done = store.put_run("chat", growing(STEPS[-1], "COMPLETED", output="A", usage=Usage(total_tokens=9)))

    assert done == store.get_run("r")
    assert (done.run_index, done.status, done.output, done.usage.total_tokens) == (1, "COMPLETED", "A", 9)
    assert [run.run_index for run in load_session(store, "chat").runs] == list(range(6))
    assert store.check()


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_stored_and_replaced(store, status):
    """New, and from and to COMPLETED; an open run is not reported as interrupted."""
    store.put_run("new", a_run(run_id="n", status=status))
    store.put_run("chat", a_run(run_id="r"))
    assert store.put_run("chat", a_run(run_id="r", status=status)).status == status
    assert store.get_run("r").status == store.get_run("n").status == status
    assert store.check()
    assert store.put_run("chat", a_run(run_id="r")).status == "COMPLETED"
    assert store.check()


def test_fewer_and_other_messages_replace_the_stored_ones(store):
    """In the middle, at the end, all: no row of an earlier version is left."""
    for messages in (STEPS[3], STEPS[1], [ANSWER, QUESTION], [], [CALL, RESULT]):
        store.put_run("chat", growing(messages))
        run = store.get_run("r")
        assert message_contents(run.messages) == message_contents(messages)
        assert [m.message_index for m in run.messages] == list(range(len(messages)))
        assert len(run.tool_calls) == sum(len(m.tool_calls) for m in messages)
    counts = row_counts(store)

    assert (counts["agno_sessions_messages"], counts["agno_sessions_tool_calls"]) == (2, 1)


def test_values_that_are_equal_and_differ_are_replaced(store):
    """1, True and 1.0 are different contents; a run that is the same is not written again."""
    for value in (1, True, 1.0, "1", [1], [True], {"a": 1}, {"a": 1.0}, None):
        store.put_run("chat", growing([Message(role="user", content=value, extra={"v": value})]))
        content = store.get_run("r").messages[0].content
        assert (type(content), repr(content)) == (type(value), repr(value))
    with statements(store) as heard:
        store.put_run("chat", growing([Message(role="user", content=None, extra={"v": None})]))

    assert [s for s in heard.about("_messages") if not s.lstrip().upper().startswith("SELECT")] == []


def test_only_new_messages_are_inserted(store):
    """A run that is saved at each of its steps is not rewritten at each of them."""
    messages = [Message(role="user", content=f"{n}") for n in range(20)]
    store.put_run("chat", growing(messages))
    with statements(store) as heard:
        store.put_run("chat", growing([*messages, ANSWER]))

    assert [s for s in heard if s.lstrip().upper().startswith("DELETE")] == []
    assert len(heard) <= 10


def test_the_state_of_a_run_is_the_state_it_had(store):
    """The session gets the run's changes: other runs keep their keys, and a key that the run removes is removed."""
    store.put_run("chat", growing(STEPS[0], session_state={"a": 1, "b": 1}))
    store.append_run("chat", a_small_run(session_state={"c": 1}))
    store.put_run("chat", growing(STEPS[0], session_state={"a": 2}))

    assert store.get_run("r").session_state == {"a": 2}
    assert load_session(store, "chat").session_state == {"a": 2, "c": 1}
    store.put_run("chat", growing(STEPS[0]))
    assert store.get_run("r").session_state == {"a": 2}
    assert load_session(store, "chat").session_state == {"a": 2, "c": 1}


def test_the_state_before_the_first_run_is_kept(store):
    """A branch before it starts with the state that the session had."""
    store.update_session_state("chat", {"start": True})
    store.put_run("chat", growing(STEPS[0], session_state={"start": False}))
    store.put_run("chat", growing(STEPS[1], "COMPLETED", session_state={"start": False, "n": 1}))

    assert store.branch("chat", before=0, new_session_id="b").session_state == {"start": True}
    assert "state_before" not in store.get_run("r").extra


def test_times_and_user_are_kept_where_they_are_not_stated(store):
    """A framework that does not know them does not erase them."""
    first = store.put_run("chat", growing(STEPS[0], created_at=WHEN), user_id="alice")
    assert first.created_at == WHEN
    again = store.put_run("chat", growing(STEPS[1]))
    assert (again.created_at, again.user_id) == (WHEN, "alice")
    later = datetime(2027, 1, 1, tzinfo=UTC)
    assert store.put_run("chat", growing(STEPS[1], created_at=later)).created_at == later


def test_a_run_of_another_session_is_refused(store):
    """Also one that the session inherits; nothing is changed, and the other session is not named."""
    store.put_run("private name", a_run(run_id="r"), user_id="alice")
    store.branch("private name", new_session_id="branch")
    before = all_rows(store)
    for session_id, user in (("chat", "bob"), ("branch", "alice")):
        with pytest.raises(RunExists) as caught:
            store.put_run(session_id, a_small_run(run_id="r"), user_id=user)
        assert "private" not in f"{caught.value} {caught.value.hint}"

    assert all_rows(store) == before


def test_another_users_session_is_refused(store):
    """As by `append_run`."""
    store.put_run("chat", a_run(run_id="r"), user_id="alice")
    before = all_rows(store)
    with pytest.raises(OwnerMismatch):
        store.put_run("chat", a_small_run(run_id="r"), user_id="bob")

    assert all_rows(store) == before


def test_a_failed_replacement_changes_nothing(store):
    """All of it is one transaction."""
    store.put_run("chat", growing(STEPS[3]))
    before = all_rows(store)
    with pytest.raises(UnstorableValue):
        store.put_run("chat", growing([QUESTION, Message(role="user", content={"x": object()})]))

    assert all_rows(store) == before


def test_requirements_are_stored_and_answers_are_kept(store):
    """The framework's copy of a requirement may be older than the answer that a person stored."""
    ask = Requirement(requirement_id="ask", kind="confirmation", tool_call_id="c")
    store.put_run("chat", growing(STEPS[1], "PAUSED", requirements=[ask]))
    store.resolve("ask", approve=True, by="alice")
    more = Requirement(requirement_id="more", kind="user_input")
    stored = store.put_run("chat", growing(STEPS[1], "PAUSED", requirements=[ask, more]))

    assert [(r.requirement_id, r.status, r.approved) for r in stored.requirements] == [
        ("ask", "resolved", True),
        ("more", "pending", None),
    ]
    assert stored == store.get_run("r")
    # The framework's own answer; an unanswered one cannot be answered any more once the run has ended.
    answered = more.model_copy(update={"status": "resolved", "answer": {"x": 1}})
    last = Requirement(requirement_id="last", kind="confirmation")
    store.put_run("chat", growing(STEPS[1], "PAUSED", requirements=[answered, last]))
    ended = store.put_run("chat", growing(STEPS[3], "COMPLETED"))
    assert {r.requirement_id: (r.status, r.answer) for r in ended.requirements} == {
        "ask": ("resolved", None),
        "more": ("resolved", {"x": 1}),
        "last": ("expired", None),
    }


def test_a_paused_teams_run_can_be_stored_as_it_was_read(store):
    """`get_run` adds the requirements of members' runs; they stay with those."""
    team = store.put_run("chat", a_small_run(run_id="team", status="PAUSED"))
    ask = Requirement(requirement_id="ask", kind="confirmation")
    store.put_run("chat", a_small_run(run_id="member", status="PAUSED", parent_run_id="team", requirements=[ask]))
    read = store.get_run(team.run_id)
    assert [r.run_id for r in read.requirements] == ["member"]
    before = all_rows(store)["agno_sessions_requirements"]
    store.put_run("chat", read)

    assert all_rows(store)["agno_sessions_requirements"] == before
    other = store.put_run("chat", a_small_run(run_id="other", status="PAUSED", requirements=[ask]))
    assert [(r.requirement_id, r.run_id) for r in other.requirements] == [("ask", "other")]  # ids are unique in a run
    new = Requirement(requirement_id="new", kind="confirmation")
    with pytest.raises(RequirementExists):
        store.put_run("chat", a_small_run(run_id="other", status="PAUSED", requirements=[new, new]))
    elsewhere = Requirement(requirement_id="unknown", kind="confirmation", run_id="elsewhere")
    with pytest.raises(BadUsage, match="elsewhere"):
        store.put_run("chat", a_small_run(run_id="team", status="PAUSED", requirements=[elsewhere]))


def test_the_inline_steps_of_a_workflow_are_rows_of_its_run(store):
    """However deep; each is replaced by itself, has an index of its own and is deleted with the workflow's run."""
    steps = (("flow", None), ("draft", "flow"), ("check", "flow"), ("check again", "check"))

    def put(status):
        for run_id, parent in steps:
            run = a_small_run(run_id, run_id=run_id, parent_run_id=parent, status=status, run_type="workflow")
            store.put_run("chat", run, user_id="ann")

    put("RUNNING")
    put("COMPLETED")
    assert [run.run_index for run in store.get_session("chat").runs] == [0, 1, 2, 3]
    assert [run.run_id for run in store.member_runs("flow")] == ["draft", "check"]
    assert [run.run_id for run in store.member_runs("check")] == ["check again"]
    df = store.runs_df("chat").set_index("run_id")
    assert df.loc[["draft", "check", "check again"], "parent_run_id"].tolist() == ["flow", "flow", "check"]
    assert set(df["status"]) == {"COMPLETED"}
    assert [message.content for message in store.history("chat")][0::2] == ["flow"]
    counts = row_counts(store)
    store.branch("chat", new_session_id="what-if")
    assert row_counts(store) == counts | {"agno_sessions": 2}
    assert [run.run_id for run in store.get_session("what-if").runs] == [run_id for run_id, _ in steps]
    store.delete_session("what-if")
    store.delete_run("flow")
    assert store.get_session("chat").runs == []
    assert store.check()


def test_scores_and_estimated_costs_stay_marked(store):
    """A score belongs to the run; a cost that is the same is still an estimate."""
    run = store.put_run("chat", growing(STEPS[3], "COMPLETED", usage=Usage(cost=0.5)))
    store.add_score("chat", "good", 1.0, run_id="r")
    r, m = store.tables.runs, store.tables.messages

    def mark(connection):
        connection.execute(r.update().values(cost_source="estimated"))
        connection.execute(m.update().where(m.c.cost.is_not(None)).values(cost_source="estimated"))

    store.write(mark)
    first = run.messages[0].model_copy(update={"content": "changed"})
    store.put_run("chat", run.model_copy(update={"messages": [first, *run.messages[1:]]}))
    assert store.runs_df("chat").cost_source.tolist() == ["estimated"]
    assert store.messages_df("chat").cost_source.dropna().tolist() == ["estimated"]
    assert len(store.scores_df("chat")) == 1
    store.put_run("chat", run.model_copy(update={"usage": Usage(cost=0.75)}))
    assert store.runs_df("chat").cost_source.tolist() == ["stated"]


def test_a_branch_keeps_the_messages_that_it_inherits(store):
    """Messages that follow are not its own; to change or remove one that it has is refused with its name."""
    store.put_run("chat", growing(STEPS[2], "PAUSED"))
    store.branch("chat", after=0, new_session_id="after")
    store.branch("chat", after=(0, 0), new_session_id="within")
    store.put_run("chat", growing(STEPS[3], "COMPLETED", output="A"))

    assert message_contents(load_session(store, "after").runs[0].messages) == message_contents(STEPS[2])
    assert message_contents(load_session(store, "within").runs[0].messages) == ["Q"]
    assert len(store.get_run("r").messages) == 4
    store.put_run("chat", growing([*STEPS[2], QUESTION]))  # no branch has the fourth
    assert message_contents(load_session(store, "after").runs[0].messages) == message_contents(STEPS[2])
    before = all_rows(store)
    with pytest.raises(HasBranches, match="'after'") as caught:
        store.put_run("chat", growing(STEPS[1]))
    assert "'within'" not in str(caught.value)
    with pytest.raises(HasBranches, match=r"message 0 of run chat/0.*'within'"):
        store.put_run("chat", growing([ANSWER]))
    assert all_rows(store) == before


def test_a_finished_run_that_a_branch_inherits_can_be_stored_again(store):
    """As it is, or with another status: a framework saves all runs of a session, and marks some."""
    runs = a_session(store, "chat", runs=2).runs
    store.branch("chat", new_session_id="b")
    store.append_run("b", a_small_run("own"))
    for run in runs:
        store.put_run("chat", run.model_copy(update={"status": "REGENERATED"}))

    assert [run.status for run in load_session(store, "b").runs] == ["REGENERATED", "REGENERATED", "COMPLETED"]
    assert [len(run.messages) for run in load_session(store, "b").runs] == [4, 4, 2]


def test_runs_of_several_writers_keep_their_indexes(store, other_store):
    """Two processes that save their runs at each step lose none, and none is there twice."""
    store.append_run("chat", a_small_run())

    def work(number):
        target = (store, other_store)[number % 2]
        for messages in STEPS:
            run = growing(messages).model_copy(update={"run_id": f"{number}", "session_state": {f"{number}": 1}})
            target.put_run("chat", run)
        return target.put_run("chat", run.model_copy(update={"status": "COMPLETED"})).run_index

    with ThreadPoolExecutor(4) as pool:
        indexes = list(pool.map(work, range(8)))
    session = load_session(store, "chat")

    assert sorted(indexes) == list(range(1, 9))
    assert [(run.run_index, len(run.messages)) for run in session.runs[1:]] == [(i, 4) for i in range(1, 9)]
    assert session.session_state == {f"{number}": 1 for number in range(8)}


def test_a_run_written_as_it_happens_can_be_replaced(store):
    """And the other way round: an open run that was put can be appended to."""
    run = store.start_run("chat", input="x", run_id="r")
    store.append_messages("r", [QUESTION])
    store.put_run("chat", growing(STEPS[1]))
    store.append_messages("r", [RESULT])
    store.finish_run("r", output="A", messages=[ANSWER])
    stored = store.get_run("r")

    assert (stored.run_index, stored.status) == (run.run_index, "COMPLETED")
    assert message_contents(stored.messages) == message_contents(STEPS[3])
    assert [(call.status, call.result) for call in stored.tool_calls] == [("completed", "R")]
