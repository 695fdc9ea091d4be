"""Deleting runs and messages: all of their rows and no other's; a branch keeps what it inherits, or the delete is refused."""

from __future__ import annotations

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

from kern_nb.errors import HasBranches, KernError, OwnerMismatch, RunClosed, RunNotFound, SessionNotFound
from kern_nb.records import Message, Requirement, Run, Session, ToolCall


def run_ids(store, session_id="chat"):
    """The ids of a session's runs."""
    return [run.run_id for run in load_session(store, session_id).runs]


def test_a_run_is_deleted_with_all_its_rows(store):
    """Messages, calls, requirements, scores; every other row is as before, and later runs keep their indexes."""
    a_session(store, "other")
    a_session(store, "chat", runs=2)
    store.add_score("chat", "reward", 1)
    kept = all_rows(store)
    extra = store.append_run("chat", a_run(requirements=[Requirement(kind="confirmation")]))
    store.add_score("chat", "reward", 0, run_id=extra.run_id)
    store.append_run("chat", a_run(run_id="last"))
    store.delete_run(extra.run_id)
    assert [run.run_index for run in load_session(store, "chat").runs] == [0, 1, 3]
    store.delete_run("last")

    after = all_rows(store)
    assert {name: rows for name, rows in after.items() if name != "agno_sessions"} == {
        name: rows for name, rows in kept.items() if name != "agno_sessions"
    }
    assert store.check()
    with pytest.raises(RunNotFound, match="last"):
        store.delete_run("last")


def test_members_runs_are_deleted_with_their_run(store):
    """At every depth; a run between them is not."""
    for run_id, parent in (("team", None), ("m", "team"), ("next", None), ("mm", "m"), ("of next", "next")):
        store.append_run("chat", a_small_run(run_id=run_id, parent_run_id=parent))
    store.delete_run("team")

    assert run_ids(store) == ["next", "of next"]
    store.delete_run("of next")
    assert run_ids(store) == ["next"]


def test_an_open_run_can_be_deleted(store):
    """Its writer is told at its next step."""
    run = store.start_run("chat", input="x")
    store.append_messages(run.run_id, [Message(role="user", content="x")])
    store.delete_run(run.run_id)
    again = store.start_run("chat", input="y")

    assert again.run_index == 1
    for write in (
        lambda: store.append_messages(run.run_id, [Message(role="user", content="lost")]),
        lambda: store.finish_run(run.run_id),
    ):
        with pytest.raises((RunNotFound, RunClosed)):
            write()
    assert store.get_run(again.run_id).messages == []
    assert row_counts(store)["agno_sessions_messages"] == 0


@pytest.mark.parametrize(("after", "kept"), [(None, 0), (0, 1), (1, 2), (3, 4), ("id", 3), ("prefix", 3)])
def test_runs_after_a_run_are_deleted(store, after, kept):
    """By index, id or prefix; the number is returned, and the session goes on."""
    for number in range(4):
        store.append_run("chat", a_run(f"{number}", run_id=f"run-{number}-of-chat"))
    names = {"id": "run-2-of-chat", "prefix": "run-2"}
    assert store.delete_runs("chat", after=names.get(after, after)) == 4 - kept

    assert inputs(load_session(store, "chat")) == [f"{number}" for number in range(kept)]
    assert store.append_run("chat", a_small_run()).run_index == 4
    assert store.check()


def test_members_of_a_kept_run_are_kept(store):
    """Wherever they are; naming a member is naming its run. What is left is what a branch after it would have."""
    rows = (("a", None), ("b", None), ("of a", "a"), ("c", None), ("of b", "b"), ("of c", "c"), ("of of a", "of a"))
    for run_id, parent in rows:
        store.append_run("chat", a_small_run(run_id=run_id, parent_run_id=parent))
    store.append_run("chat", a_small_run(run_id="d"))
    store.append_run("chat", a_small_run(run_id="of d", parent_run_id="d"))
    store.append_run("chat", a_small_run(run_id="of of c", parent_run_id="of c"))
    assert store.delete_runs("chat", after="of a") == 2  # the last member of a is after c
    assert run_ids(store) == ["a", "b", "of a", "c", "of b", "of c", "of of a", "of of c"]
    assert store.delete_runs("chat", after="b") == 0  # all that follow are members of a and c, which is before b's


def test_unknown_names_are_refused(store):
    """Nothing is deleted."""
    a_session(store)
    before = all_rows(store)
    for after in (7, -1, "nothing"):
        with pytest.raises(RunNotFound):
            store.delete_runs("chat", after=after)
    for call in (store.delete_runs, store.clear_session, store.pop_message):
        with pytest.raises(SessionNotFound, match="chatt"):
            call("chatt")
        with pytest.raises(OwnerMismatch):
            call("chat", user_id="bob")

    assert all_rows(store) == before


def test_a_cleared_session_keeps_what_is_its_own(store):
    """Title, state, tags, metadata, scores, users, ancestors; not the summary of what is deleted."""
    a_session(store, "trunk", runs=2)
    store.branch("trunk", after=0, new_session_id="chat")
    a_session(store, "chat", runs=3, session_state={"n": 1})
    store.rename_session("chat", "title")
    store.tag_session("chat", ["tag"])
    store.add_score("chat", "reward", 0.5)
    store.save_summary("chat", {"summary": "secret", "last_run_index": 2})
    before = load_session(store, "chat")
    assert store.clear_session("chat") == 3

    after = load_session(store, "chat")
    changed = {"runs", "updated_at", "summary"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert after.summary is None
    assert inputs(after) == ["trunk 0"]
    assert store.scores_df("chat").value.tolist() == [0.5]
    assert store.clear_session("chat") == 0
    assert store.append_run("chat", a_small_run()).run_index == 4
    assert store.check()


def test_a_summary_of_kept_runs_is_kept(store):
    """One that includes a deleted run is not."""
    a_session(store, "chat", runs=4)
    store.save_summary("chat", {"summary": "x", "last_run_index": 1})
    store.delete_runs("chat", after=2)
    store.delete_runs("chat", after=1)
    assert load_session(store, "chat").summary is not None
    store.delete_run(run_ids(store)[1])
    assert load_session(store, "chat").summary is None


DELETES = {
    "run": lambda s, **o: s.delete_run(s.get_session("chat").runs[1].run_id, **o),
    "runs": lambda s, **o: s.delete_runs("chat", after=0, **o),
    "clear": lambda s, **o: s.clear_session("chat", **o),
}


@pytest.mark.parametrize("name", DELETES)
def test_runs_that_a_branch_inherits_are_not_deleted(store, name):
    """The error names the branches that inherit one of them, and nothing is deleted."""
    a_session(store)
    store.branch("chat", after=0, new_session_id="early")
    store.branch("chat", after=(1, 0), new_session_id="within")
    store.branch("chat", new_session_id="late")
    before = all_rows(store)
    with pytest.raises(HasBranches, match="'late'") as caught:
        DELETES[name](store)

    assert "'within'" in str(caught.value)
    assert ("'early'" in str(caught.value)) is (name == "clear")
    assert "detach_branches" in caught.value.hint
    assert all_rows(store) == before


@pytest.mark.parametrize("name", DELETES)
def test_detached_branches_keep_what_they_inherit(store, name):
    """Also branches of branches; other branches are not copied."""
    a_session(store)
    places = {"early": {"after": 0}, "within": {"after": (1, 1)}, "late": {}}
    for branch, place in places.items():
        store.branch("chat", **place, new_session_id=branch)
    store.append_run("late", a_run("own"))
    store.branch("late", after=(2, 1), new_session_id="below")
    store.branch("late", new_session_id="end")
    names = [*places, "below", "end"]
    before = {branch: parts_of(load_session(store, branch)) for branch in names}
    DELETES[name](store, detach_branches=True)

    assert {branch: parts_of(load_session(store, branch)) for branch in names} == before
    assert len(load_session(store, "chat").runs) == {"run": 2, "runs": 1, "clear": 0}[name]
    assert (load_session(store, "early").parent_session_id is None) is (name == "clear")
    assert store.append_run("chat", a_run("new")).run_index == 3
    assert {branch: parts_of(load_session(store, branch)) for branch in names} == before
    assert store.check()


def test_a_branch_does_not_get_runs_that_follow_deleted_ones(store):
    """Where runs before its branch point, and those after it, were deleted."""
    a_session(store, "chat", runs=4)
    store.delete_run(run_ids(store)[2])
    store.branch("chat", before=3, new_session_id="b")
    store.branch("chat", before=(3, 0), new_session_id="c")
    store.delete_runs("chat", after=1)
    assert store.append_run("chat", a_run("new")).run_index == 4

    for name in "bc":
        assert inputs(load_session(store, name)) == ["chat 0", "chat 1"]
        assert store.append_run(name, a_small_run()).run_index == 2


def test_files_that_only_deleted_runs_have_are_deleted(store):
    """One that another run has is kept."""
    own, shared = store.put_blob(b"own"), store.put_blob(b"shared")

    def picture(sha256):
        return Message(role="user", content=[{"type": "image", "source": {"sha256": sha256}}])

    store.append_run("chat", Run(messages=[picture(shared)]))
    store.append_run("chat", Run(run_id="r", messages=[picture(shared), picture(own)]))
    store.delete_run("r")

    assert store.get_blob(own) is None
    assert store.get_blob(shared) is not None


def test_pop_message_takes_messages_from_the_end(store):
    """One after the other, over all runs of the session's own; each is returned as it was."""
    a_session(store, "trunk", runs=1)
    store.branch("trunk", new_session_id="chat")
    a_session(store, "chat", runs=2)
    store.append_run("chat", Run(input="no messages"))
    expected = [m for run in load_session(store, "chat").runs[1:] for m in run.messages]
    popped = [store.pop_message("chat") for _ in range(8)]

    for call in (expected[1].tool_calls[0], expected[5].tool_calls[0]):
        call.result, call.status = None, "unknown"  # its result was popped before
    assert popped == expected[::-1]
    assert store.pop_message("chat") is None
    assert row_counts(store)["agno_sessions_messages"] == 4
    assert row_counts(store)["agno_sessions_tool_calls"] == 1
    assert len(load_session(store, "chat").runs) == 4
    assert store.check()


def test_a_popped_message_takes_its_calls_and_results_along(store):
    """The answer is no longer the output; a call whose result is popped is unknown: it may have taken effect."""
    run = store.append_run("chat", a_run())
    store.pop_message("chat")
    assert store.get_run(run.run_id).output is None
    assert store.get_run(run.run_id).tool_calls[0].status == "completed"
    store.pop_message("chat")
    (call,) = store.get_run(run.run_id).tool_calls
    assert (call.status, call.result) == ("unknown", None)
    store.pop_message("chat")
    stored = store.get_run(run.run_id)
    assert (stored.tool_calls, message_contents(stored.messages)) == ([], ["hello"])
    store.append_run("chat", a_small_run("next"))
    assert message_contents(store.history("chat")) == ["hello", "next", "answer to next"]


def test_popping_from_an_open_run(store):
    """Its next message gets the index of the popped one; an id that is used twice loses its last result only."""
    run = store.start_run("chat", input="x")
    for number in range(2):
        call = ToolCall(tool_call_id="c", tool_name="t", args={"n": number})
        store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
        store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content=f"{number}")])
    assert store.pop_message("chat").content == "1"

    assert [(call.status, call.result) for call in store.get_run(run.run_id).tool_calls] == [
        ("completed", "0"),
        ("unknown", None),
    ]
    (message,) = store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content="again")])
    assert message.message_index == 3
    assert [call.result for call in store.get_run(run.run_id).tool_calls] == ["0", "again"]


def test_a_message_that_a_branch_inherits_is_not_popped(store):
    """Refused with the branch's name, or detached; one after the branch point can be popped."""
    a_session(store, "chat", runs=2)
    store.branch("chat", after=(1, 2), new_session_id="b")
    before = parts_of(load_session(store, "b"))
    assert store.pop_message("chat").content == "answer to chat 1"
    rows = all_rows(store)
    with pytest.raises(HasBranches, match=r"message chat/1.2: 'b'"):
        store.pop_message("chat")
    assert all_rows(store) == rows
    assert store.pop_message("chat", detach_branches=True).role == "tool"
    assert parts_of(load_session(store, "b")) == before
    assert store.check()


def test_deletes_of_a_session_without_rows(store):
    """They do nothing."""
    store.save_session(Session(session_id="chat"))

    assert store.delete_runs("chat") == store.clear_session("chat") == 0
    assert store.pop_message("chat") is None


def test_the_error_names_no_branch_of_another_user(store):
    """As `delete_session` does."""
    store.append_run("trunk", a_small_run(run_id="r"))
    for session_id, user in (("hers", "alice"), ("private", "bob"), ("trunk", "alice")):
        if session_id != "trunk":
            store.branch("trunk", new_session_id=session_id)
        store.append_run(session_id, a_small_run(), user_id=user)
    for call in (
        lambda: store.delete_run("r", user_id="alice"),
        lambda: store.delete_runs("trunk", user_id="alice"),
        lambda: store.clear_session("trunk", user_id="alice"),
    ):
        with pytest.raises(HasBranches, match="'hers'") as caught:
            call()
        assert "private" not in f"{caught.value} {caught.value.hint}"


def test_the_cost_of_a_pop_does_not_grow_with_the_session(store):
    """Statements and rows at two lengths."""
    from test_append_cost import lengthen

    store.append_run("chat", a_small_run())
    costs = set()
    for length in (10, 400):
        lengthen(store, length)
        store.append_run("chat", a_run())
        with statements(store) as heard:
            store.pop_message("chat")
        costs.add((len(heard), heard.rows))

    assert len(costs) == 1


def test_a_failed_delete_changes_nothing(store, monkeypatch):
    """All of it is one transaction."""
    a_session(store)
    store.branch("chat", new_session_id="b")
    before = all_rows(store)
    monkeypatch.setattr(store, "insert_rows", lambda *_: (_ for _ in ()).throw(KernError("the disk is full")))
    with pytest.raises(KernError, match="disk"):
        store.clear_session("chat", detach_branches=True)

    assert all_rows(store) == before


def test_the_index_of_a_deleted_run_is_not_used_again(store):
    """A reference such as chat/2 never means another run, however a run is added or the last ones are deleted."""
    for name in ("chat", "other"):
        for number in range(3):
            store.append_run(name, a_small_run(run_id=f"{name} {number}"))
    store.delete_run("chat 2")
    assert store.append_run("chat", a_small_run()).run_index == 3
    store.delete_run("chat 0")
    assert store.start_run("chat", input="x", run_id="open").run_index == 4
    store.finish_run("open", status="COMPLETED")
    assert store.put_run("chat", a_small_run(run_id="put")).run_index == 5
    store.delete_runs("chat", after=1)
    store.handoff("chat", to="bob", by="ann")
    assert store.save_session(Session(session_id="chat", runs=[Run(run_id="saved")])).revision
    assert [run.run_index for run in load_session(store, "chat").runs] == [1, 6, 7]
    store.clear_session("chat")
    assert store.append_run("chat", a_small_run()).run_index == 8
    assert store.append_run("other", a_small_run()).run_index == 3
    with pytest.raises(RunNotFound):
        store.find_run("chat/7")
    assert store.check()


def test_a_branch_before_the_first_run_has_the_state_it_started_from(store):
    """Also if earlier runs were deleted, and before the messages of that run."""
    store.append_run("chat", a_small_run(session_state={"step": 1}))
    store.clear_session("chat")
    run = store.append_run("chat", a_run(session_state={"step": 2}))
    assert store.branch("chat", before=run.run_index).session_state == {"step": 1}
    assert store.branch("chat", after=(run.run_index, 0)).session_state == {"step": 1}
    assert store.branch("chat", after=run.run_index).session_state == {"step": 2}


def test_a_branch_goes_on_after_its_branch_point_and_after_its_deleted_runs(store):
    """Whichever is later; deleting from its parent changes nothing for it."""
    for number in range(3):
        store.append_run("chat", a_small_run(run_id=f"r{number}"))
    store.branch("chat", after=1, new_session_id="b")
    assert store.append_run("b", a_small_run(run_id="b2")).run_index == 2
    store.delete_run("b2")
    assert store.append_run("b", a_small_run(run_id="b3")).run_index == 3
    store.delete_run("r2")
    store.branch("chat", new_session_id="c")
    assert store.append_run("c", a_small_run()).run_index == 2
    assert store.append_run("chat", a_small_run()).run_index == 3
    store.delete_session("chat", detach_branches=True)
    store.delete_run("b3")
    assert store.append_run("b", a_small_run()).run_index == 4
    assert store.check()
