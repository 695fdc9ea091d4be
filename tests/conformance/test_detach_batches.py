"""Branches of a deleted session copy their inherited rows in batches; in between, everything is readable."""

from __future__ import annotations

import pytest
from samples import a_small_run, load_session

from kern_nb.db import session_deletes
from kern_nb.records import Message, Run

BATCH = 4


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """A few runs per transaction."""
    monkeypatch.setattr(session_deletes, "BATCH_RUNS", BATCH)


def family(store):
    """A session of 15 runs, a branch that cuts run 12, a branch of the branch, and an early branch."""
    for i in range(15):
        parent = "run 5" if i in (6, 8) else None
        store.append_run("chat", a_small_run(f"{i}", run_id=f"run {i}", parent_run_id=parent, session_state={"at": i}))
    store.branch("chat", after=(12, 0), new_session_id="cut")
    store.append_run("cut", a_small_run("own"))
    store.branch("cut", after=7, new_session_id="deep")
    store.branch("cut", new_session_id="whole")
    store.append_run("deep", a_small_run("own of deep"))
    store.branch("chat", after=2, new_session_id="early")
    return "cut", "deep", "early", "whole"


def contents(store, names):
    """The content of each session: indexes, inputs, messages, and the session of each run."""
    result = {}
    for name in names:
        runs = load_session(store, name).runs
        by_id = {run.run_id: run.run_index for run in runs}
        result[name] = [
            (run.run_index, run.input, [m.content for m in run.messages], by_id.get(run.parent_run_id)) for run in runs
        ]
    return result


def test_batches_leave_every_branch_unchanged(store):
    """Their runs, messages and members' runs are the same after each batch, and after the delete."""
    names = family(store)
    before = contents(store, names)

    sizes = []
    while n := store.write(lambda connection: session_deletes.detach_batch(connection, store, "chat", "cut")):
        sizes.append(n)
        assert contents(store, names) == before
        assert store.check()
    assert sizes == [4, 4, 4, 1]
    assert load_session(store, "cut").parent_session_id is None

    store.delete_session("chat", detach_branches=True)
    assert contents(store, names) == before
    assert store.check()


def test_an_interrupted_delete_is_continued(store):
    """After one batch both sessions exist and can be appended to, and a second call completes the delete."""
    names = family(store)
    before = contents(store, names)
    store.write(lambda connection: session_deletes.detach_batch(connection, store, "chat", "cut"))
    assert len(load_session(store, "chat").runs) == 15

    assert store.append_run("cut", a_small_run("later")).run_index == 14
    assert store.append_run("chat", a_small_run("later")).run_index == 15
    with pytest.raises(ValueError, match="inherit"):
        store.delete_session("chat")
    store.delete_session("chat", detach_branches=True)

    assert store.get_session("chat") is None
    after = contents(store, names)
    assert [run[1] for run in after.pop("cut")] == [run[1] for run in before.pop("cut")] + ["later"]
    assert after == before
    assert store.check()


def test_a_batch_has_a_bounded_number_of_messages(store, monkeypatch):
    """A run of many messages is a batch of its own."""
    monkeypatch.setattr(session_deletes, "BATCH_MESSAGES", 10)
    for i in range(6):
        store.append_run(
            "chat", Run(messages=[Message(role="user", content=f"{i}.{j}") for j in range(3 + 20 * (i == 2))])
        )
    store.branch("chat", new_session_id="all")

    sizes = []
    while n := store.write(lambda connection: session_deletes.detach_batch(connection, store, "chat", "all")):
        sizes.append(n)
    assert sizes == [3, 1, 2]
    assert len(store.messages_df("all")) == 5 * 3 + 23


def test_branches_of_a_branch_copy_inherited_rows(store):
    """The session in the middle of three is deleted; the last keeps all rows, whatever the batches."""
    names = family(store)
    before = contents(store, names)
    store.delete_session("cut", detach_branches=True, progress=False)

    rest = ("deep", "early", "whole")
    assert contents(store, rest) == {name: before[name] for name in rest}
    assert load_session(store, "whole").parent_session_id is None
    assert load_session(store, "deep").parent_session_id == "chat"
    assert store.check()
