"""A branch copies nothing, inherits its parent up to the branch point and nothing later, and continues its numbering."""

from __future__ import annotations

from typing import Any

import pytest
from samples import (
    a_run,
    a_session,
    a_small_run,
    all_rows,
    inputs,
    load_session,
    message_contents,
    parts_of,
    row_counts,
    statements,
)

from kern_nb.db import SessionStore
from kern_nb.errors import AmbiguousReference, BadUsage, MessageNotFound, RunNotFound, SessionExists, SessionNotFound
from kern_nb.records import Message, Run, Session, ToolCall


def seen(store: SessionStore, session_id: str) -> list[tuple[int, int]]:
    """The number of messages of each run in a session, by run index; the frame must agree."""
    session = load_session(store, session_id)
    found = [(run.run_index, len(run.messages)) for run in session.runs]
    frame = store.messages_df(session_id, lineage=True)
    assert [(int(index), int(n)) for index, n in frame.groupby("run_index").size().items()] == [
        f for f in found if f[1]
    ]
    assert store.runs_df(session_id, lineage=True).run_index.tolist() == [index for index, _ in found]
    return found


def test_a_branch_at_the_end_inherits_everything(store):
    """Neither after nor before means the end: all runs, the same rows."""
    parent = a_session(store)
    branch = store.branch("chat", new_session_id="b")

    assert (branch.parent_session_id, branch.fork_run_index, branch.fork_message_index) == ("chat", 2, None)
    assert load_session(store, "b").runs == parent.runs
    assert [run.session_id for run in load_session(store, "b").runs] == ["chat"] * 3


def test_a_branch_after_a_run_inherits_it_and_earlier_runs(store):
    """By index, by id, by a prefix of the id."""
    a_session(store)
    runs = load_session(store, "chat").runs
    for index, run in enumerate(runs):
        for place in (index, run.run_id, run.run_id[:12]):
            branch = store.branch("chat", after=place)

            assert load_session(store, branch.session_id).runs == runs[: index + 1]
            assert branch.fork_run_index == index


def test_a_branch_before_a_run_does_not_inherit_it(store):
    """Before run 0 it inherits nothing, and is a session like any other."""
    a_session(store)
    runs = load_session(store, "chat").runs
    for index, run in enumerate(runs):
        for place in (index, run.run_id):
            branch = store.branch("chat", before=place)

            assert load_session(store, branch.session_id).runs == runs[:index]
            assert branch.fork_run_index == index - 1


def test_a_branch_after_a_message_inherits_it_and_earlier_messages(store):
    """after=(run, message) includes the message, before=(run, message) does not; a cut run has no output, usage or end."""
    a_session(store, runs=2)
    whole = load_session(store, "chat").runs
    for run in (0, 1):
        for message in range(4):
            after = load_session(store, store.branch("chat", after=(run, message)).session_id)
            before = load_session(store, store.branch("chat", before=(run, message)).session_id)

            assert message_contents(after.runs[run].messages) == message_contents(whole[run].messages[: message + 1])
            assert len(after.runs) == run + 1
            assert message_contents(before.runs[run].messages if len(before.runs) > run else []) == message_contents(
                whole[run].messages[:message]
            )
            if message < 3:
                cut = after.runs[run]
                assert (cut.output, cut.usage, cut.finished_at, cut.duration_s, cut.error) == (None,) * 5
                assert cut.input == whole[run].input
            assert all(a == b for a, b in zip(after.runs[:run], whole[:run], strict=True))


def test_a_branch_point_by_run_id_equals_one_by_index(store):
    """(run id, message) and (prefix, message) are the same as (index, message)."""
    a_session(store)
    run_id = load_session(store, "chat").runs[1].run_id
    branches = [store.branch("chat", after=(place, 2)) for place in (1, run_id, run_id[:13])]

    assert {(b.fork_run_index, b.fork_message_index) for b in branches} == {(1, 2)}


def test_runs_of_a_branch_are_numbered_from_the_branch_point(store):
    """An index is one run in a branch, however many runs the parent adds."""
    a_session(store)
    store.branch("chat", after=1, new_session_id="b")
    store.branch("chat", before=0, new_session_id="from 0")
    store.append_run("chat", a_small_run("later"))

    assert store.append_run("b", a_small_run("own 2")).run_index == 2
    assert store.append_run("b", a_small_run("own 3")).run_index == 3
    assert store.start_run("b", input="own 4").run_index == 4
    assert [run.run_index for run in load_session(store, "b").runs] == [0, 1, 2, 3, 4]
    assert inputs(load_session(store, "b")) == ["chat 0", "chat 1", "own 2", "own 3", "own 4"]
    assert store.append_run("from 0", a_small_run("own 0")).run_index == 0
    assert inputs(load_session(store, "from 0")) == ["own 0"]
    assert inputs(load_session(store, "chat")) == ["chat 0", "chat 1", "chat 2", "later"]


def test_a_run_saved_with_a_branch_is_numbered_from_the_branch_point(store):
    """save_session numbers like append_run, though the record has no branch point."""
    a_session(store)
    store.branch("chat", after=1, new_session_id="b")
    store.save_session(Session(session_id="b", runs=[a_small_run("own 2"), a_small_run("own 3")]))

    assert [run.run_index for run in load_session(store, "b").runs] == [0, 1, 2, 3]
    assert inputs(load_session(store, "b")) == ["chat 0", "chat 1", "own 2", "own 3"]


def test_saving_a_loaded_branch_copies_nothing(store):
    """Its inherited runs stay the parent's; saving it unchanged adds no row and does not move the branch point."""
    a_session(store)
    store.branch("chat", after=(1, 2), new_session_id="b")
    before, counts = load_session(store, "b"), row_counts(store)
    store.save_session(before)

    assert row_counts(store) == counts
    assert load_session(store, "b").model_dump(exclude={"updated_at"}) == before.model_dump(exclude={"updated_at"})


def test_later_runs_of_the_parent_are_not_inherited(store):
    """Runs, and messages of a run that was open, however the branch point was named."""
    a_session(store, runs=1)
    run = store.start_run("chat", input="open")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    places: dict[str, dict[str, Any]] = {
        "end": {},
        "run": {"after": 1},
        "id": {"after": run.run_id},
        "message": {"after": (1, 0)},
    }
    for name, place in places.items():
        store.branch("chat", **place, new_session_id=name)
    before = {name: parts_of(load_session(store, name)) for name in places}
    store.append_messages(run.run_id, [Message(role="assistant", content="after")])
    store.finish_run(run.run_id, output="done")
    store.append_run("chat", a_small_run())

    for name in places:
        assert seen(store, name) == [(0, 4), (1, 1)], name
        assert message_contents(load_session(store, name).runs[1].messages) == ["before"]
        assert load_session(store, name).runs[1].output is None
        assert [p["messages"] for p in parts_of(load_session(store, name))] == [p["messages"] for p in before[name]]


@pytest.mark.parametrize("status", ["PAUSED", "PENDING"])
def test_a_branch_after_a_paused_run_does_not_get_its_later_messages(store, status):
    """A paused run gets more messages when it is resumed; the branch does not."""
    run = store.start_run("chat", input="waits")
    store.append_messages(run.run_id, [Message(role="user", content="before")])
    store.finish_run(run.run_id, status=status)
    store.branch("chat", new_session_id="end")
    store.branch("chat", after=0, new_session_id="run")
    store.append_messages(run.run_id, [Message(role="assistant", content="after")])
    store.finish_run(run.run_id, output="done")

    for name in ("end", "run"):
        assert seen(store, name) == [(0, 1)]
        assert load_session(store, name).runs[0].output is None


def test_an_open_run_without_messages_is_not_inherited(store):
    """It has no messages yet."""
    a_session(store, runs=1)
    store.start_run("chat", input="open")
    branch = store.branch("chat", new_session_id="b")

    assert branch.fork_run_index == 0
    assert seen(store, "b") == [(0, 4)]
    assert store.append_run("b", a_small_run("own")).run_index == 1


def test_branches_of_branches_to_depth_five(store):
    """Each inherits its parent up to the branch point, and numbers its own runs after it."""
    a_session(store, "b0", runs=2)
    expected = ["b0 0", "b0 1"]
    for depth in range(1, 6):
        store.branch(f"b{depth - 1}", new_session_id=f"b{depth}")
        assert inputs(load_session(store, f"b{depth}")) == expected
        for i in range(2):
            assert store.append_run(f"b{depth}", a_run(f"b{depth} {i}")).run_index == len(expected) + i
        expected += [f"b{depth} 0", f"b{depth} 1"]
    for depth in range(5):
        store.append_run(f"b{depth}", a_run("later"))

    session = load_session(store, "b5")
    assert inputs(session) == expected
    assert [run.run_index for run in session.runs] == list(range(12))
    assert [run.session_id for run in session.runs] == [f"b{i // 2}" for i in range(12)]
    assert seen(store, "b5") == [(i, 4) for i in range(12)]
    assert [m for m in message_contents(store.history("b5")) if str(m).startswith("b")] == expected


def test_a_branch_of_a_branch_can_have_a_branch_point_in_the_grandparent(store):
    """At any inherited run or message: it then inherits nothing of the branch's own."""
    a_session(store, "a", runs=4)
    store.branch("a", after=2, new_session_id="b")
    a_session(store, "b", runs=2)
    for index in range(3):
        branch = store.branch("b", after=index)
        assert seen(store, branch.session_id) == [(i, 4) for i in range(index + 1)]
        assert store.append_run(branch.session_id, a_small_run()).run_index == index + 1
        within = store.branch("b", after=(index, 1))
        assert seen(store, within.session_id) == [*((i, 4) for i in range(index)), (index, 2)]
        before = store.branch("b", before=(index, 1))
        assert seen(store, before.session_id) == [*((i, 4) for i in range(index)), (index, 1)]
    own = store.branch("b", before=4)
    assert inputs(load_session(store, own.session_id)) == ["a 0", "a 1", "a 2", "b 0"]


def test_a_cut_run_stays_cut_in_branches_of_the_branch(store):
    """No descendant inherits more of it."""
    a_session(store, "a", runs=3)
    store.branch("a", after=(1, 1), new_session_id="b")
    forks = {
        "end": store.branch("b", new_session_id="end"),
        "run": store.branch("b", after=1, new_session_id="run"),
        "message": store.branch("b", after=(1, 1), new_session_id="message"),
        "less": store.branch("b", after=(1, 0), new_session_id="less"),
    }
    store.append_run("b", a_run("b 2"))
    forks["before own"] = store.branch("b", before=2, new_session_id="before own")
    forks["own"] = store.branch("b", after=2, new_session_id="own")
    for name, branch in forks.items():
        expected = {"less": [(0, 4), (1, 1)], "own": [(0, 4), (1, 2), (2, 4)]}.get(name, [(0, 4), (1, 2)])
        assert seen(store, name) == expected, name
        if name != "own":
            assert branch.fork_message_index == expected[-1][1] - 1, name
    with pytest.raises(MessageNotFound):
        store.branch("b", after=(1, 2))
    with pytest.raises(RunNotFound):
        store.branch("end", after=2)


def test_a_branch_after_a_cut_open_run_has_the_cut_as_branch_point(store):
    """The branch point is the last inherited message, though the run has more by now."""
    run = store.start_run("a", input="open")
    store.append_messages(run.run_id, [Message(role="user", content=f"{i}") for i in range(2)])
    store.branch("a", new_session_id="b")
    store.append_messages(run.run_id, [Message(role="user", content=f"{i}") for i in range(2, 5)])
    branch = store.branch("b", new_session_id="c")

    assert seen(store, "c") == [(0, 2)]
    assert (branch.fork_run_index, branch.fork_message_index) == (0, 1)


def test_tool_calls_after_the_branch_point_are_not_inherited(store):
    """A call is inherited with its message; its result only with the result's message."""
    a_session(store, runs=1)
    for message, expected in {0: [], 1: [(None, "unknown")], 2: [("found chat 0", "completed")]}.items():
        branch = store.branch("chat", after=(0, message))
        run = load_session(store, branch.session_id).runs[0]

        assert [(call.result, call.status) for call in run.tool_calls] == expected, message
        assert [call.status for m in run.messages for call in m.tool_calls] == [status for _, status in expected]
        frame = store.tool_calls_df(branch.session_id, lineage=True)
        assert [None if value is None else value for value in frame.status] == [status for _, status in expected]
        assert frame.result.isna().tolist() == [result is None for result, _ in expected]


def test_frames_and_records_agree_on_a_cut_run(store):
    """Output and tokens describe the whole run, not the part that a branch inherits."""
    store.append_run("chat", a_run(duration_s=2.0, error="late"))
    store.branch("chat", after=(0, 1), new_session_id="b")
    frame, run = store.runs_df("b", lineage=True).iloc[0], load_session(store, "b").runs[0]

    assert run.output is None
    assert frame.n_messages == len(run.messages) == 2
    assert frame[["output", "duration_s", "error", "finished_at"]].isna().all()


def test_usage_and_title_are_not_inherited(store):
    """The branch has no usage and its own title; it inherits the owner."""
    a_session(store, user_id="u", agent_id="a")
    store.rename_session("chat", "the parent")
    plain = store.branch("chat", new_session_id="plain")
    named = store.branch("chat", name="what if", new_session_id="named")

    assert (plain.session_name, named.session_name) == (None, "what if")
    assert (plain.user_id, plain.agent_id, plain.session_type) == ("u", "a", "agent")
    stored = load_session(store, "plain")
    assert stored.model_dump(exclude={"runs"}) == plain.model_dump(exclude={"runs"})
    totals = store.sessions_df("plain").iloc[0]
    assert totals[["input_tokens", "output_tokens", "total_tokens", "cost", "session_name"]].isna().all()


def test_the_state_is_that_at_the_branch_point(store):
    """After the run, or before the run that is cut; later changes of parent or branch do not affect each other."""
    for i in range(3):
        store.append_run("chat", a_run(f"{i}", session_state={"n": i, f"k{i}": True}))
    expected = {-1: {}, 0: {"n": 0, "k0": True}, 1: {"n": 1, "k0": True, "k1": True}}
    expected[2] = {"n": 2, "k0": True, "k1": True, "k2": True}
    for index in range(3):
        for branch, state in (
            (store.branch("chat", after=index), expected[index]),
            (store.branch("chat", before=index), expected[index - 1]),
            (store.branch("chat", after=(index, 1)), expected[index - 1]),
            (store.branch("chat", before=(index, 1)), expected[index - 1]),
        ):
            assert branch.session_state == state
            assert load_session(store, branch.session_id).session_state == state
    store.append_run("chat", a_small_run(session_state={"n": 99}))
    branch = store.branch("chat", after=2, new_session_id="b")
    store.append_run("b", a_small_run(session_state={"own": 1}))
    assert load_session(store, "b").session_state == expected[2] | {"own": 1}
    assert load_session(store, "chat").session_state == expected[2] | {"n": 99}
    assert store.branch("b", before=3).session_state == expected[2]
    assert branch.session_state == expected[2]


def test_a_branch_at_the_end_has_the_parents_state(store):
    """Also a state that was set without a run, and one that concurrent runs merged."""
    store.save_session(Session(session_id="set", session_data={"session_state": {"set": 1}}))
    store.append_run("set", a_small_run())
    first, second = store.start_run("two", input="1"), store.start_run("two", input="2")
    store.finish_run(second.run_id, session_state={"b": 1})
    store.finish_run(first.run_id, session_state={"a": 1})

    assert store.branch("set").session_state == load_session(store, "set").session_state == {"set": 1}
    assert store.branch("two").session_state == load_session(store, "two").session_state == {"a": 1, "b": 1}


def test_a_branch_of_a_branch_without_runs_has_its_state(store):
    """State is inherited through a chain of empty branches."""
    store.append_run("a", a_small_run(session_state={"n": 1}))
    store.branch("a", new_session_id="b")
    store.branch("b", new_session_id="c")

    assert store.branch("c").session_state == {"n": 1}


def test_the_state_of_a_branch_is_the_base_of_its_first_run(store):
    """start_run returns the state at the branch point, not the parent's current one."""
    store.append_run("a", a_small_run(session_state={"n": 1}))
    store.branch("a", new_session_id="b")
    store.append_run("a", a_small_run(session_state={"n": 2, "late": True}))
    run = store.start_run("b", input="x")
    store.finish_run(run.run_id, session_state={"n": 1, "own": True})

    assert run.session_state == {"n": 1}
    assert load_session(store, "b").session_state == {"n": 1, "own": True}


def test_a_branch_copies_no_rows(store):
    """One more row, the session's, whatever it inherits."""
    a_session(store, runs=4)
    before = row_counts(store)
    store.branch("chat", after=(2, 1))
    after = row_counts(store)

    assert after == before | {"agno_sessions": before["agno_sessions"] + 1}


def test_branch_cost_does_not_depend_on_session_length(store):
    """The same number of statements and of rows read for a session of 3 runs and of 60."""
    costs = []
    for name, runs in {"short": 3, "long": 60}.items():
        for i in range(runs):
            store.append_run(name, a_small_run(f"{i}", session_state={"n": i}))
        for place in ({}, {"after": 1}, {"before": 2}, {"after": (1, 1)}):
            with statements(store) as heard:
                store.branch(name, **place)
            costs.append((name, len(heard), heard.rows))
    half = len(costs) // 2

    assert [cost[1:] for cost in costs[:half]] == [cost[1:] for cost in costs[half:]]


def test_an_empty_session_can_be_branched(store):
    """It inherits nothing, also not what the session gets later."""
    store.save_session(Session(session_id="s"))
    branch = store.branch("s", new_session_id="b")
    store.append_run("s", a_small_run("later"))

    assert branch.fork_run_index == -1
    assert load_session(store, "b").runs == []
    assert store.append_run("b", a_small_run()).run_index == 0
    assert store.messages_df("b", lineage=True).inherited.tolist() == [False, False]


def test_members_runs_are_inherited_with_the_team_run(store):
    """Runs with a parent run are counted and numbered like others."""
    team = store.append_run("chat", a_small_run("team", run_type="team"))
    store.append_run("chat", a_small_run("member", parent_run_id=team.run_id))
    store.append_run("chat", a_small_run("next", run_type="team"))
    store.branch("chat", after=1, new_session_id="b")

    assert [run.parent_run_id for run in load_session(store, "b").runs] == [None, team.run_id]


def test_runs_can_be_open_in_parent_and_branch(store):
    """Each is written independently."""
    run = store.start_run("chat", input="parent")
    store.append_messages(run.run_id, [Message(role="user", content="1")])
    store.branch("chat", new_session_id="b")
    own = store.start_run("b", input="branch")
    store.append_messages(own.run_id, [Message(role="user", content="own")])
    store.append_messages(run.run_id, [Message(role="assistant", content="2")])
    store.finish_run(own.run_id, output="branch")
    store.finish_run(run.run_id, output="parent")

    assert [message_contents(r.messages) for r in load_session(store, "chat").runs] == [["1", "2"]]
    assert [message_contents(r.messages) for r in load_session(store, "b").runs] == [["1"], ["own"]]
    assert load_session(store, "b").runs[1].output == "branch"


def test_unknown_branch_points_are_refused(store):
    """And no session is created."""
    a_session(store, runs=2)
    store.append_run("chat", Run(run_id="abc-1"))
    store.append_run("chat", Run(run_id="abc-2"))
    before = all_rows(store)
    for place in (
        {"after": 4},
        {"after": -1},
        {"before": 9},
        {"after": "nope"},
        {"after": ""},
        {"before": ("nope", 0)},
    ):
        with pytest.raises((RunNotFound, AmbiguousReference), match="chat"):
            store.branch("chat", **place)
    for place in ({"after": (0, 4)}, {"after": (0, -1)}, {"before": (1, 9)}, {"after": (2, 0)}):
        with pytest.raises(MessageNotFound, match="chat"):
            store.branch("chat", **place)
    with pytest.raises(AmbiguousReference, match=r"abc-1.*abc-2"):
        store.branch("chat", after="abc")
    with pytest.raises(SessionNotFound, match="no such"):
        store.branch("no such")
    with pytest.raises(SessionExists, match="chat"):
        store.branch("chat", new_session_id="chat")
    with pytest.raises(BadUsage):
        store.branch("chat", after=0, before=1)

    assert all_rows(store) == before


def test_an_exact_run_id_takes_precedence_over_a_prefix(store):
    """An id that is a prefix of another is still its own run."""
    store.append_run("chat", Run(run_id="r1"))
    store.append_run("chat", Run(run_id="r10"))

    assert store.branch("chat", after="r1").fork_run_index == 0
    assert store.branch("chat", after="r10").fork_run_index == 1


def test_runs_of_another_session_are_not_branch_points(store):
    """Nor those of the parent after the branch point."""
    a_session(store, "a")
    other = a_session(store, "other").runs[0]
    late = load_session(store, "a").runs[2]
    store.branch("a", after=0, new_session_id="b")
    for session_id, place in (("a", other.run_id), ("b", late.run_id), ("b", 1)):
        with pytest.raises(RunNotFound):
            store.branch(session_id, after=place)


def test_sql_in_ids_is_not_executed(store):
    """% and _ in a run id match themselves."""
    store.append_run("chat", Run(run_id="a%c"))
    store.append_run("chat", Run(run_id="abc"))
    store.append_run("chat", Run(run_id="x_y"))
    store.append_run("chat", Run(run_id="xzy"))

    assert store.branch("chat", after="a%").fork_run_index == 0
    assert store.branch("chat", after="x_").fork_run_index == 2


def test_results_are_not_joined_across_runs(store):
    """Providers reuse ids in the next run: only results of the same run count."""
    for i in range(2):
        store.append_run(
            "chat",
            Run(
                messages=[
                    Message(role="assistant", tool_calls=[ToolCall(tool_call_id="same", tool_name="t")]),
                    Message(role="tool", tool_call_id="same", content=f"{i}"),
                ]
            ),
        )
    branch = store.branch("chat", after=(1, 0))
    runs = load_session(store, branch.session_id).runs

    assert [run.tool_calls[0].result for run in runs] == ["0", None]
    assert [run.tool_calls[0].status for run in runs] == ["completed", "unknown"]


def a_family(store, session_id="chat", leader="team", **fields):
    """A run of a team or a workflow with two members' runs, one of which has a run of its own: four runs."""
    top = store.append_run(session_id, a_small_run(leader, run_id=leader, run_type="team", **fields))
    first = store.append_run(session_id, a_small_run("one", run_id=f"{leader}.1", parent_run_id=top.run_id))
    store.append_run(session_id, a_small_run("deep", run_id=f"{leader}.1.1", parent_run_id=first.run_id))
    store.append_run(session_id, a_small_run("two", run_id=f"{leader}.2", parent_run_id=top.run_id))
    return [leader, f"{leader}.1", f"{leader}.1.1", f"{leader}.2"]


def test_a_branch_after_a_run_inherits_its_members_and_steps_runs(store):
    """At every depth; before it there are none of them; a member's run stands for its top-level run."""
    first, second = a_family(store, leader="a"), a_family(store, leader="b")
    store.append_run("chat", a_small_run("last", run_id="last"))
    places = {
        "after 0": ({"after": 0}, first),
        "after the last of a": ({"after": 3}, first),
        "after a member of b": ({"after": "b.1"}, first + second),
        "after b": ({"after": "b"}, first + second),
        "before b": ({"before": "b"}, first),
        "before a member of b": ({"before": "b.1.1"}, first),
        "before a": ({"before": 0}, []),
        "after the last run": ({"after": "last"}, [*first, *second, "last"]),
        "at the end": ({}, [*first, *second, "last"]),
        "within b": ({"after": ("b", 0)}, [*first, "b"]),
    }
    for name, (place, expected) in places.items():
        branch = store.branch("chat", new_session_id=name, **place)
        assert [run.run_id for run in load_session(store, name).runs] == expected, name
        assert sorted(store.runs_df(name, lineage=True)["run_id"]) == sorted(expected), name
        again = store.branch(name, new_session_id=f"again {name}")
        assert [run.run_id for run in load_session(store, again.session_id).runs] == expected, name
        assert store.append_run(name, a_small_run()).run_index == branch.fork_run_index + 1
    assert [m.content for m in store.history("after 0")][:2] == ["a", "answer to a"]
    assert len(store.history("after 0")) == 4


def test_a_branch_keeps_members_runs_when_the_parent_is_deleted(store):
    """A copied run is complete, and its members' runs are the copy's."""
    a_family(store)
    store.append_run("chat", a_small_run("next"))
    store.branch("chat", after=0, new_session_id="b")
    store.delete_session("chat", detach_branches=True)
    runs = load_session(store, "b").runs

    assert [run.input for run in runs] == ["team", "one", "deep", "two"]
    assert [run.parent_run_id for run in runs] == [None, runs[0].run_id, runs[1].run_id, runs[0].run_id]


def test_the_state_after_a_team_run_is_the_teams(store):
    """A state that a leader sets after its members ended is in the branch, also before the next run."""
    top = store.start_run("chat", input="x", session_type="team")
    member = store.start_run("chat", input="y", parent_run_id=top.run_id)
    store.finish_run(member.run_id, session_state={"by": "member"})
    store.finish_run(top.run_id, session_state={"by": "leader"})
    store.append_run("chat", a_small_run(session_state={"by": "next"}))

    assert store.branch("chat", after=0).session_state == {"by": "leader"}
    assert store.branch("chat", after=1).session_state == {"by": "leader"}
    assert store.branch("chat", before=2).session_state == {"by": "leader"}


def test_a_branch_after_an_open_team_run_does_not_get_later_messages(store):
    """The leader's run is cut at its latest message, though a member's run has ended since."""
    top = store.start_run("chat", input="x", session_type="team")
    store.append_messages(top.run_id, [Message(role="user", content="1")])
    member = store.start_run("chat", input="y", parent_run_id=top.run_id)
    store.finish_run(member.run_id, output="z")
    store.branch("chat", new_session_id="b")
    store.append_messages(top.run_id, [Message(role="assistant", content="2")])
    store.finish_run(top.run_id, output="2")

    assert [message_contents(run.messages) for run in load_session(store, "b").runs] == [["1"]]


def test_a_branch_after_a_team_run_is_unchanged_when_it_resumes(store):
    """A failed run gets more messages when it is resumed, and the branch gets none of them."""
    top = store.start_run("chat", input="x", session_type="team")
    store.append_messages(top.run_id, [Message(role="user", content="1")])
    member = store.start_run("chat", input="y", parent_run_id=top.run_id)
    store.finish_run(member.run_id, output="z")
    store.finish_run(top.run_id, status="ERROR", error="broke")
    store.branch("chat", after=0, new_session_id="b")
    store.claim_run(top.run_id)
    store.append_messages(top.run_id, [Message(role="assistant", content="2")])
    store.finish_run(top.run_id, output="2")

    assert message_contents(load_session(store, "b").runs[0].messages) == ["1"]


@pytest.mark.parametrize("how", ["start_run", "append_run", "default_state"])
def test_a_branch_before_the_first_run_has_the_initial_state(store, how):
    """A state that was set without a run, or is the agent's default."""
    if how == "default_state":
        run = store.start_run("chat", input="x", default_state={"set": 1})
        store.finish_run(run.run_id, session_state={"set": 2})
    else:
        store.update_session_state("chat", {"set": 1})
        if how == "append_run":
            store.append_run("chat", a_small_run(session_state={"set": 2}))
        else:
            run = store.start_run("chat", input="x")
            store.append_messages(run.run_id, [Message(role="user", content="1")])
            store.finish_run(run.run_id, session_state={"set": 2})
    store.append_run("chat", a_small_run(session_state={"set": 3}))

    assert store.branch("chat", before=0).session_state == {"set": 1}
    assert store.branch("chat", before=1).session_state == {"set": 2}
    if how != "default_state":
        assert store.branch("chat", after=(0, 0)).session_state == {"set": 1}
