"""The state that a live run appends with its messages is merged immediately, and is kept whatever happens to the run."""

from __future__ import annotations

import pytest
from paused_runs import a_requirement
from samples import SPECIAL, a_run, a_session, a_small_run, all_rows, difference, load_session, message_contents
from test_many_writers import at_once

from kern_nb.db import open_store
from kern_nb.errors import RunClosed, RunNotFound, SessionNotFound, UnstorableValue
from kern_nb.records import Message, Session


def state_of(store, session_id="chat"):
    """A session's state."""
    return load_session(store, session_id).session_state


def append_state(store, run_id, state, *contents):
    """Append messages with the run's current state."""
    return store.append_messages(run_id, [Message(role="user", content=c) for c in contents], session_state=state)


def test_an_appended_state_is_readable_immediately(store, other_store):
    """For others, for a new run and in a branch; a run without a state changes nothing."""
    run = store.start_run("chat", input="x")
    append_state(store, run.run_id, {"n": 1}, "hi")
    assert state_of(other_store) == {"n": 1}
    assert other_store.start_run("chat", input="y").session_state == {"n": 1}
    assert message_contents(load_session(other_store, "chat").runs[0].messages) == ["hi"]
    branch = other_store.branch("chat", new_session_id="b")
    assert branch.session_state == state_of(other_store, "b") == {"n": 1}

    append_state(store, run.run_id, {"n": 2})
    append_state(store, run.run_id, None, "more")
    assert state_of(other_store) == {"n": 2}
    assert state_of(other_store, "b") == {"n": 1}
    store.finish_run(run.run_id)
    assert state_of(other_store) == load_session(store, "chat").runs[0].session_state == {"n": 2}


def test_an_appended_state_is_merged_with_concurrent_changes(store):
    """Key by key, at every depth: keys that the run did not change keep the other's value; also at its end."""
    store.update_session_state("chat", {"kept": 0, "n": 0, "deep": {"x": 0}})
    run = store.start_run("chat", input="x")
    base = run.session_state
    store.update_session_state("chat", {"theirs": 1, "n": 1, "deep": {"y": 1}})
    append_state(store, run.run_id, base | {"ours": 1, "deep": {"x": 1}})
    assert state_of(store) == {"kept": 0, "n": 1, "theirs": 1, "ours": 1, "deep": {"x": 1, "y": 1}}

    store.update_session_state("chat", {"ours": 2, "n": 2})
    append_state(store, run.run_id, base | {"ours": 1, "deep": {"x": 1}, "last": 1})
    assert state_of(store) == {"kept": 0, "n": 2, "theirs": 1, "ours": 2, "deep": {"x": 1, "y": 1}, "last": 1}
    store.finish_run(run.run_id, session_state={"n": 0, "ours": 1, "deep": {"x": 1}, "end": 1})
    expected = {"n": 2, "theirs": 1, "ours": 2, "deep": {"x": 1, "y": 1}, "end": 1}
    assert state_of(store) == store.branch("chat", after=0).session_state == expected
    assert load_session(store, "chat").runs[0].session_state == {"n": 0, "ours": 1, "deep": {"x": 1}, "end": 1}


def test_an_appended_key_can_be_removed(store):
    """All of them, too: an empty state is a state."""
    run = store.start_run("chat", input="x")
    append_state(store, run.run_id, {"a": 1, "b": {"c": 1, "d": 1}})
    append_state(store, run.run_id, {"b": {"d": 1}})
    assert state_of(store) == {"b": {"d": 1}}
    append_state(store, run.run_id, {})
    assert state_of(store) == {}
    append_state(store, run.run_id, {"a": 2})
    store.finish_run(run.run_id, session_state={})
    assert state_of(store) == {}


def test_concurrent_live_runs_keep_their_keys(store):
    """In any order of ends; neither reverts the other's keys."""
    a, b = store.start_run("chat", input="a"), store.start_run("chat", input="b")
    for i in range(3):
        append_state(store, a.run_id, {"a": i, f"a{i}": i})
        append_state(store, b.run_id, {"b": i, f"b{i}": i})
        assert state_of(store) == {"a": i, f"a{i}": i, "b": i, f"b{i}": i}
    store.finish_run(b.run_id, session_state={"b": 9})
    store.finish_run(a.run_id, session_state={"a": 9})

    assert state_of(store) == {"a": 9, "b": 9}


@pytest.mark.parametrize("status", ["COMPLETED", "ERROR", "CANCELLED"])
def test_the_state_after_a_live_run_is_complete(store, status):
    """Concurrent changes included, though the run has no state at its end; its own is the one that it had."""
    other, run = store.start_run("chat", input="other"), store.start_run("chat", input="x")
    store.finish_run(other.run_id, session_state={"theirs": 1})
    append_state(store, run.run_id, {"ours": 1}, "x")
    store.finish_run(run.run_id, status=status)

    assert state_of(store) == {"theirs": 1, "ours": 1}
    assert load_session(store, "chat").runs[1].session_state == {"ours": 1}
    assert store.branch("chat", after=1).session_state == {"theirs": 1, "ours": 1}
    assert store.branch("chat", after=0).session_state == {"theirs": 1}


def test_a_resumed_run_continues_from_its_state(store):
    """Changes of others during the pause are kept."""
    run = store.start_run("chat", input="x")
    append_state(store, run.run_id, {"a": 1})
    store.pause_run(run.run_id, [a_requirement("ask")], session_state={"a": 2})
    store.update_session_state("chat", {"theirs": 1})
    assert state_of(store) == {"a": 2, "theirs": 1}
    store.resolve("ask", approve=True)
    state = store.claim_run(run.run_id).session_state
    append_state(store, run.run_id, state | {"b": 1})
    store.finish_run(run.run_id, session_state=state | {"b": 2})

    assert state["a"] == 2
    assert state_of(store) == {"a": 2, "theirs": 1, "b": 2}


def test_any_value_is_a_state(store):
    """Hostile keys and values are read back unchanged, also after a merge."""
    state = {text: {text: [text, i]} for i, text in enumerate(SPECIAL)} | {"long": "\x00\ud800" + "ü" * 1_000_000}
    run = store.start_run("chat", input="x")
    append_state(store, run.run_id, state)
    assert difference(state, state_of(store)) is None
    store.finish_run(run.run_id, session_state=state | {"n": 1})
    assert difference(state | {"n": 1}, state_of(store)) is None
    assert (
        difference({"\x00": None, "\ud800": {}}, store.update_session_state("s", {"\x00": None, "\ud800": {}})) is None
    )


def test_an_unstorable_state_changes_nothing(store):
    """Neither messages nor state: they are one transaction."""
    run = store.start_run("chat", input="x")
    ended = store.append_run("chat", a_run())
    before = all_rows(store)
    for error, call in (
        (UnstorableValue, lambda: append_state(store, run.run_id, {"x": object()}, "lost")),
        (UnstorableValue, lambda: append_state(store, run.run_id, {"x": 1}, object())),
        (RunClosed, lambda: append_state(store, ended.run_id, {"x": 1}, "late")),
        (RunNotFound, lambda: append_state(store, "nowhere", {"x": 1}, "lost")),
        (UnstorableValue, lambda: store.update_session_state("chat", {"x": object()})),
        (UnstorableValue, lambda: store.update_session_state("new", {"x": object()})),
        (UnstorableValue, lambda: store.save_summary("chat", {"x": object()})),
        (SessionNotFound, lambda: store.save_summary("nowhere", {"summary": "x"})),
    ):
        with pytest.raises(error):
            call()

    assert all_rows(store) == before


def test_state_can_be_updated_without_a_run(store):
    """At every depth, beside other keys and the title; a new session is created; a branch has its own state."""
    assert store.update_session_state("chat", {"a": {"x": 1}}) == {"a": {"x": 1}} == state_of(store)
    store.rename_session("chat", "title")
    assert store.update_session_state("chat", {"a": {"y": 2}, "b": None}) == {"a": {"x": 1, "y": 2}, "b": None}
    assert store.update_session_state("chat", {}) == {"a": {"x": 1, "y": 2}, "b": None}
    store.branch("chat", new_session_id="b")
    assert store.update_session_state("b", {"a": 5}) == {"a": 5, "b": None} == state_of(store, "b")

    session = load_session(store, "chat")
    assert (session.session_name, session.runs) == ("title", [])
    assert session.session_state == {"a": {"x": 1, "y": 2}, "b": None}


def test_a_summary_is_stored_and_removed(store):
    """Other fields of the session are not changed."""
    before = a_session(store, runs=1, session_state={"n": 1})
    summary = {"summary": "a\x00\ud800", "topics": ["x"] * 3, "n": 1.0}
    store.save_summary("chat", summary)
    assert difference(summary, load_session(store, "chat").summary) is None
    store.save_summary("chat", None)
    after = load_session(store, "chat")
    assert after.model_dump() == before.model_dump()
    assert after.revision == before.revision + 2


def test_a_stored_state_that_is_not_a_dict_is_ignored(store):
    """Another program's record can have any value there; runs work."""
    store.save_session(Session(session_id="chat", session_data={"session_state": [1], "other": 1}))
    run = store.start_run("chat", input="x")
    append_state(store, run.run_id, {"a": 1})
    store.finish_run(run.run_id, session_state={"a": 2})
    store.append_run("chat", a_small_run(session_state={"b": 1}))
    store.update_session_state("chat", {"c": 1})

    assert state_of(store) == {"a": 2, "b": 1, "c": 1}


def test_states_of_concurrent_threads_are_all_kept(store, other_store):
    """Appended, finished and set without a run; no deadlock, and no lost write."""

    def work(who, n):
        for i in range(4):
            run = who.start_run("chat", input="x")
            append_state(who, run.run_id, (run.session_state or {}) | {f"{n} {i}": "told"}, "x")
            who.update_session_state("chat", {f"set {n} {i}": i})
            who.finish_run(run.run_id, session_state=(run.session_state or {}) | {f"{n} {i}": "ended"})

    errors = at_once(
        *(lambda who=who, n=n: work(who, n) for n, who in enumerate((store, other_store, store, other_store)))
    )

    assert errors == []
    expected = {f"{n} {i}": "ended" for n in range(4) for i in range(4)}
    assert state_of(store) == expected | {f"set {n} {i}": i for n in range(4) for i in range(4)}
    assert store.check().problems == []


def test_a_kill_does_not_lose_an_appended_state(persistent_target, workers):
    """Message and state are one transaction: the state is that of the last stored message, and the run continues from it."""
    worker = workers(1)[0].begin("tell_state", target=persistent_target, session_id="chat")
    heard = [worker.hear() for _ in range(4)]
    heard += worker.kill()
    told = max(message_contents["told"] for message_contents in heard if "told" in message_contents)
    with open_store(persistent_target) as store:
        messages = load_session(store, "chat").runs[0].messages
        last = len(messages) - 1
        state = {"n": last} | {f"k{i % 5}": i for i in range(max(0, last - 4), last + 1)}

        assert last in (told, told + 1)
        assert message_contents(messages) == [f"message {i}" for i in range(last + 1)]
        assert state_of(store) == state
        run = store.claim_run(heard[0]["run_id"])
        assert run.session_state == state
        store.finish_run(run.run_id, session_state=run.session_state | {"after": 1})
        assert state_of(store) == state | {"after": 1}


def test_the_state_after_an_interrupted_run_is_complete(persistent_target, workers):
    """Concurrent changes included."""
    worker = workers(1)[0]
    with open_store(persistent_target) as store:
        other = store.start_run("chat", input="other")
        worker.begin("tell_state", target=persistent_target, session_id="chat")
        assert worker.hear()["told"] == 0
        store.finish_run(other.run_id, session_state={"theirs": 1})
        while worker.hear()["told"] < 3:
            pass
        worker.kill()
        store.check(repair=True)

        assert store.branch("chat", after=1).session_state == state_of(store)
        assert "theirs" in state_of(store)


def test_the_state_of_a_run_is_the_state_it_had(store):
    """Of a run that is appended, finished, paused, unchanged or without one; a branch after it has the session's."""
    store.append_run("chat", a_small_run(session_state={"a": 1}))
    silent, unchanged, own = (store.start_run("chat", input=text) for text in ("silent", "unchanged", "own"))
    store.append_run("chat", a_small_run(session_state={"b": 1}))
    store.finish_run(silent.run_id)
    store.finish_run(unchanged.run_id, state_unchanged=True)
    store.pause_run(own.run_id, [a_requirement("ask")], session_state={"a": 2})
    assert store.get_run(own.run_id).session_state == {"a": 2}
    end = store.finish_run(own.run_id, status="CANCELLED", session_state={"a": 3})

    assert end.session_state == {"a": 3}
    states = [run.session_state for run in load_session(store, "chat").runs]
    assert states == [{"a": 1}, {"a": 1}, {"a": 1}, {"a": 3}, {"b": 1}]
    after = [store.branch("chat", after=index).session_state for index in range(5)]
    assert after == [{"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 1, "b": 1}]


def test_a_run_that_started_without_a_state_had_none(store):
    """Though its session got one meanwhile, which a branch after the run has."""
    run = store.start_run("chat", input="x")
    store.update_session_state("chat", {"theirs": 1})
    store.finish_run(run.run_id)

    assert store.get_run(run.run_id).session_state == {}
    assert store.branch("chat", after=0).session_state == {"theirs": 1}
