"""Deleting removes all rows of a session and none of another's: rows that a branch inherits are kept, or copied first."""

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
    rows_naming,
)

from kern_nb.errors import HasBranches, SessionNotFound
from kern_nb.records import Message, Session


def nameless(messages):
    """Messages without the ids of their runs."""
    return [m.model_dump() for m in messages]


def test_a_delete_removes_all_rows_of_a_session(store):
    """Sessions, runs, messages, tool calls, requirements, scores: no row in any table; other sessions are unchanged."""
    a_session(store, "other")
    kept = all_rows(store)
    run = a_session(store, "chat").runs[0]
    store.add_score("chat", "reward", 1)
    store.add_score("chat", "reward", 1, run_id=run.run_id)
    open_run = store.start_run("chat", input="open")
    store.append_messages(open_run.run_id, [Message(role="user", content="x")])
    store.delete_session("chat")

    assert store.get_session("chat") is None
    assert rows_naming(store, "chat") == {}
    assert all_rows(store) == kept


def test_the_id_of_a_deleted_session_can_be_reused(store):
    """Its runs start at 0."""
    a_session(store, "chat")
    store.delete_session("chat")

    assert store.append_run("chat", a_small_run("new")).run_index == 0
    assert inputs(load_session(store, "chat")) == ["new"]


def test_an_unknown_session_cannot_be_deleted(store):
    """The error names it, and the hint a similar one."""
    with pytest.raises(SessionNotFound, match="chat"):
        store.delete_session("chat")
    a_session(store, "conversation")
    before = all_rows(store)
    with pytest.raises(SessionNotFound) as caught:
        store.delete_session("conversatoin")

    assert "'conversation'" in caught.value.hint
    assert all_rows(store) == before


def test_deleting_an_inherited_session_is_refused_with_the_branches(store):
    """The error names all such branches, and nothing is deleted."""
    a_session(store)
    store.branch("chat", new_session_id="what-if")
    store.branch("chat", after=(0, 1), new_session_id="or-else")
    before = all_rows(store)
    with pytest.raises(HasBranches) as caught:
        store.delete_session("chat")

    assert "'what-if'" in str(caught.value)
    assert "'or-else'" in str(caught.value)
    assert "detach_branches" in caught.value.hint
    assert all_rows(store) == before


def test_branches_that_inherit_nothing_do_not_prevent_a_delete(store):
    """A branch before run 0, or of an empty session, becomes a session without a parent."""
    a_session(store)
    store.branch("chat", before=0, new_session_id="b")
    store.append_run("b", a_small_run("own"))
    store.save_session(Session(session_id="empty"))
    store.branch("empty", new_session_id="of empty")
    store.delete_session("chat")
    store.delete_session("empty")

    for name in ("b", "of empty"):
        session = load_session(store, name)
        assert (session.parent_session_id, session.fork_run_index, session.fork_message_index) == (None, None, None)
    assert inputs(load_session(store, "b")) == ["own"]
    assert store.append_run("b", a_small_run()).run_index == 1
    assert store.append_run("of empty", a_small_run()).run_index == 0
    assert store.check()


def test_a_branch_can_be_deleted_without_its_parent(store):
    """The parent keeps all its rows."""
    before = a_session(store)
    store.branch("chat", new_session_id="b")
    a_session(store, "b", runs=2)
    store.delete_session("b")

    assert load_session(store, "chat").runs == before.runs
    assert rows_naming(store, "b") == {}


def test_detached_branches_keep_their_inherited_rows(store):
    """Runs, messages, tool calls, state, indexes, history: as before, except ids of copied rows."""
    a_session(store, runs=3, session_state={"n": 1}, duration_s=1.5)
    for i, place in enumerate(({}, {"after": 1}, {"after": (1, 1)}, {"before": (2, 3)}, {"before": 0})):
        store.branch("chat", **place, new_session_id=f"b{i}")
        if i % 2 == 0:
            store.append_run(f"b{i}", a_run("own"))
    names = [f"b{i}" for i in range(5)]
    before = {name: load_session(store, name) for name in names}
    history = {name: nameless(store.history(name)) for name in names}
    store.delete_session("chat", detach_branches=True)

    assert store.get_session("chat") is None
    assert rows_naming(store, "chat") == {}
    for name in names:
        after = load_session(store, name)
        assert parts_of(after) == parts_of(before[name]), name
        assert nameless(store.history(name)) == history[name], name
        apart = {"runs", "parent_session_id", "fork_run_index", "fork_message_index", "updated_at"}
        assert after.model_dump(exclude=apart) == before[name].model_dump(exclude=apart), name
        assert {run.session_id for run in after.runs} <= {name}
        assert (after.parent_session_id, after.fork_run_index) == (None, None)
        last = before[name].runs[-1].run_index if before[name].runs else -1
        assert store.append_run(name, a_small_run()).run_index == last + 1
    assert store.check()


def test_ids_are_unique_after_a_detach(store):
    """Each copy is a run with a new id, and its messages and calls belong to it."""
    a_session(store)
    for name in ("b1", "b2"):
        store.branch("chat", new_session_id=name)
    store.delete_session("chat", detach_branches=True)
    runs, messages, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()

    assert len(runs) == 6
    assert runs.run_id.is_unique
    assert len(messages) == 24
    assert not messages.duplicated(["run_id", "message_index"]).any()
    assert len(messages.merge(runs, on=["session_id", "run_id", "run_index"])) == 24
    assert len(calls.merge(runs, on=["session_id", "run_id", "run_index"])) == 6


def test_detached_copies_are_not_counted_twice(store):
    """Copied usage belongs to the parent: the branch's tokens and cost are its own."""
    a_session(store)
    for name in ("b1", "b2"):
        store.branch("chat", new_session_id=name)
        store.append_run(name, a_run("own", duration_s=2.0))
    columns = ["input_tokens", "output_tokens", "total_tokens", "duration_s"]
    before = store.sessions_df(["b1", "b2"]).set_index("session_id")[columns]
    store.delete_session("chat", detach_branches=True)
    after = store.sessions_df().set_index("session_id")[columns]

    assert after.sort_index().to_dict() == before.sort_index().to_dict()


def test_copied_members_runs_keep_their_parent_run(store):
    """parent_run_id is the copy of the team's run."""
    team = store.append_run("chat", a_small_run("team"))
    store.append_run("chat", a_small_run("member", parent_run_id=team.run_id))
    store.branch("chat", new_session_id="b")
    store.delete_session("chat", detach_branches=True)
    first, second = load_session(store, "b").runs

    assert second.parent_run_id == first.run_id != team.run_id


def test_the_middle_of_a_chain_can_be_deleted(store):
    """Branches below keep their inherited rows, through the branch that got the copy."""
    a_session(store, "a", runs=2)
    store.branch("a", new_session_id="b")
    a_session(store, "b", runs=2)
    store.branch("b", after=2, new_session_id="c")
    a_session(store, "c", runs=2)
    store.branch("c", after=(3, 1), new_session_id="d")
    before = {name: parts_of(load_session(store, name)) for name in "acd"}
    with pytest.raises(HasBranches, match="'c'"):
        store.delete_session("b")
    store.delete_session("b", detach_branches=True)

    assert {name: parts_of(load_session(store, name)) for name in "acd"} == before
    assert rows_naming(store, "b") == {}
    assert store.check()
    store.delete_session("a")
    assert parts_of(load_session(store, "d")) == before["d"]


def test_branches_of_a_deleted_middle_move_to_the_grandparent(store):
    """They become branches of the grandparent: nothing is copied, and inherited rows and cuts are the same."""
    a_session(store, "a", runs=3)
    store.branch("a", after=(1, 2), new_session_id="b")
    places = {
        "at the cut": {"after": 1},
        "within": {"after": (1, 0)},
        "earlier": {"after": 0},
        "end": {},
        "none": {"before": 0},
    }
    for name, place in places.items():
        store.branch("b", **place, new_session_id=name)
    store.append_run("b", a_run("own"))
    store.append_run("end", a_run("own of end"))
    before = {name: parts_of(load_session(store, name)) for name in places}
    counts = row_counts(store)["agno_sessions_runs"]
    store.delete_session("b")

    assert row_counts(store)["agno_sessions_runs"] == counts - 1
    assert {name: parts_of(load_session(store, name)) for name in places} == before
    assert load_session(store, "end").parent_session_id == "a"
    assert store.append_run("at the cut", a_small_run()).run_index == 2
    assert store.append_run("none", a_small_run()).run_index == 0
    with pytest.raises(HasBranches):
        store.delete_session("a")
    assert store.check()


def test_a_chain_of_five_can_be_deleted_from_the_top(store):
    """One after the other, each branch gets its copy, and the last still has all rows."""
    for depth in range(6):
        a_session(store, f"b{depth}", runs=1)
        if depth < 5:
            store.branch(f"b{depth}", new_session_id=f"b{depth + 1}")
    before = parts_of(load_session(store, "b5"))
    for depth in range(5):
        store.delete_session(f"b{depth}", detach_branches=True)

    assert parts_of(load_session(store, "b5")) == before
    assert [s.session_id for s in store.list_sessions()] == ["b5"]
    assert store.check()


def test_detaching_a_cut_run_copies_only_inherited_rows(store):
    """Messages after the branch point are deleted with the parent; the copy is cut at the branch point."""
    a_session(store, runs=2)
    store.branch("chat", after=(1, 1), new_session_id="b")
    store.branch("b", after=(1, 0), new_session_id="c")
    before = {name: parts_of(load_session(store, name)) for name in "bc"}
    store.delete_session("chat", detach_branches=True)

    assert {name: parts_of(load_session(store, name)) for name in "bc"} == before
    assert message_contents(load_session(store, "b").runs[1].messages) == ["chat 1", None]
    assert rows_naming(store, "b")["agno_sessions_messages"] == 6


def test_a_refused_delete_changes_nothing(store, monkeypatch):
    """A failure in the middle of a detach changes nothing."""
    a_session(store)
    store.branch("chat", new_session_id="b1")
    store.branch("chat", new_session_id="b2")
    before = all_rows(store)
    original, inserted = store.insert_rows, []

    def failing(connection, table, rows):
        inserted.append(table.name)
        if len(inserted) > 4:
            raise RuntimeError("the disk is full")
        original(connection, table, rows)

    monkeypatch.setattr(store, "insert_rows", failing)
    with pytest.raises(RuntimeError, match="disk"):
        store.delete_session("chat", detach_branches=True)

    assert all_rows(store) == before
