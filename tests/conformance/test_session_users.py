"""Sessions have users: a user reads only their own, and cannot write to another user's."""

from __future__ import annotations

import threading

import pytest
from samples import a_run, a_session, a_small_run, all_rows, load_session

from kern_nb.errors import OwnerMismatch
from kern_nb.records import Session


@pytest.fixture
def shared(store):
    """A session of each of two users, and one without a user."""
    a_session(store, "of alice", runs=2, user_id="alice")
    a_session(store, "of bob", runs=1, user_id="bob")
    a_session(store, "of nobody", runs=1)
    return store


def test_a_user_sees_only_their_own_sessions(shared):
    """In lists, frames and by id; without user_id, all."""
    assert [s.session_id for s in shared.list_sessions(user_id="alice")] == ["of alice"]
    assert len(shared.list_sessions()) == 3
    assert shared.get_session("of alice", user_id="alice").session_id == "of alice"
    for session_id, user in (("of alice", "bob"), ("of bob", "alice"), ("of nobody", "alice"), ("of alice", "")):
        assert shared.get_session(session_id, user_id=user) is None
    assert shared.get_session("of alice") is not None
    for name in ("sessions", "runs", "messages", "tool_calls"):
        found = getattr(shared, f"{name}_df")(user_id="alice")
        assert set(found.session_id) == {"of alice"}
        assert len(getattr(shared, f"{name}_df")("of bob", user_id="alice")) == 0
        assert len(getattr(shared, f"{name}_df")(user_id="")) == 0


def test_a_run_in_another_users_session_is_refused(shared):
    """By append_run, however the user is named, and start_run; nothing is written, not even the time."""
    before = all_rows(shared)
    for write in (
        lambda: shared.append_run("of bob", a_run(user_id="alice")),
        lambda: shared.append_run("of bob", a_run(), user_id="alice"),
        lambda: shared.append_run("of bob", a_run(user_id="bob"), user_id="alice"),
        lambda: shared.append_run("of bob", a_run(session_state={"stolen": True}), user_id="alice"),
        lambda: shared.append_run("of bob", a_run(), user_id=""),
        lambda: shared.start_run("of bob", input="x", user_id="alice"),
        lambda: shared.save_session(Session(session_id="of bob", user_id="alice", metadata={"mine": True})),
        lambda: shared.save_session(Session(session_id="of bob", user_id="alice", runs=[a_run()])),
    ):
        with pytest.raises(OwnerMismatch) as caught:
            write()
        assert "of bob" in str(caught.value)

    assert all_rows(shared) == before


def test_the_refusal_does_not_name_the_owner(shared):
    """The other user's name is private."""
    with pytest.raises(OwnerMismatch) as caught:
        shared.append_run("of bob", a_run(), user_id="alice")

    text = f"{caught.value} {caught.value.hint}".replace("of bob", "")
    assert "bob" not in text
    assert "alice" in text


def test_a_user_can_write_to_their_own_session(shared):
    """A run without a user can be written to any session: the owner is unchanged."""
    assert shared.append_run("of alice", a_small_run(), user_id="alice").run_index == 2
    assert shared.append_run("of alice", a_small_run()).run_index == 3
    run = shared.start_run("of alice", input="x")
    shared.finish_run(run.run_id)

    assert load_session(shared, "of alice").user_id == "alice"
    assert shared.save_session(Session(session_id="of alice", metadata={"a": 1})).user_id == "alice"
    assert load_session(shared, "of alice").user_id == "alice"


def test_the_first_user_to_write_owns_a_session_without_a_user(shared):
    """Then the session is theirs."""
    shared.append_run("of nobody", a_small_run(), user_id="alice")

    assert load_session(shared, "of nobody").user_id == "alice"
    with pytest.raises(OwnerMismatch):
        shared.append_run("of nobody", a_small_run(), user_id="bob")
    assert len(load_session(shared, "of nobody").runs) == 2


def test_a_branch_belongs_to_the_owner_of_its_parent(shared):
    """Alice's messages are hers in every branch."""
    shared.branch("of alice", new_session_id="b")

    assert load_session(shared, "b").user_id == "alice"
    assert shared.get_session("b", user_id="bob") is None
    with pytest.raises(OwnerMismatch):
        shared.append_run("b", a_small_run(), user_id="bob")
    assert len(shared.get_session("b", user_id="alice").runs) == 2


def test_users_with_hostile_names_are_separate(store):
    """Names that differ in a NUL, in case or in an accent's form are different users."""
    names = ["a", "A", "a\x00", "a\ud800", "á", "a\u0301", " a", "a ", "%", "_", ""]
    for i, name in enumerate(names):
        store.append_run(f"s{i}", a_small_run(), user_id=name)
    for i, name in enumerate(names):
        assert [s.session_id for s in store.list_sessions(user_id=name)] == [f"s{i}"]
        other = names[i - 1]
        with pytest.raises(OwnerMismatch):
            store.append_run(f"s{i}", a_small_run(), user_id=other)
        assert store.get_session(f"s{i}", user_id=other) is None


def test_one_of_several_concurrent_users_owns_a_new_session(store):
    """Four users write the same new session at once: one gets it, the others are refused, and all rows are the owner's."""
    for attempt in range(5):
        results: dict[str, str] = {}
        start = threading.Barrier(4)

        def write(user: str, session_id: str = f"s{attempt}", results=results, start=start) -> None:
            start.wait()
            try:
                store.append_run(session_id, a_small_run(user), user_id=user)
                results[user] = "stored"
            except OwnerMismatch:
                results[user] = "refused"
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                results[user] = repr(error)

        threads = [threading.Thread(target=write, args=(f"user {i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session = load_session(store, f"s{attempt}")

        assert sorted(results.values()) == ["refused", "refused", "refused", "stored"]
        assert results[session.user_id] == "stored"
        assert [run.user_id for run in session.runs] == [session.user_id]
