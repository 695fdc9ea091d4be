"""Session state under concurrent runs: each run's changes are kept, key by key, and the state after each run is stored."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_small_run, load_session

from kern_nb.db import InMemoryDb
from kern_nb.records import Session


def set_state(store, session_id, state):
    """Replace the state of a session, which may be new."""
    session = store.get_session(session_id, runs=False) or Session(session_id=session_id, revision=0)
    session.session_data = {"session_state": state}
    store.save_session(session, expected_revision=session.revision)


def at_once(store, base, first, second, session_id="chat"):
    """The state after two runs that both started from ``base`` and ended with ``first`` and ``second``."""
    set_state(store, session_id, base)
    a, b = store.start_run(session_id, input="a"), store.start_run(session_id, input="b")
    store.finish_run(a.run_id, session_state=first)
    store.finish_run(b.run_id, session_state=second)
    return load_session(store, session_id).session_state


def test_concurrent_runs_keep_their_different_keys(store):
    """In either order of ends, at every depth."""
    assert at_once(store, {}, {"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    assert at_once(store, {"n": 0}, {"n": 0, "a": 1}, {"n": 5}, "1") == {"n": 5, "a": 1}
    nested = at_once(store, {"x": {"y": {}}}, {"x": {"y": {"a": 1}}}, {"x": {"y": {"b": 2}, "z": 3}}, "2")
    assert nested == {"x": {"y": {"a": 1, "b": 2}, "z": 3}}
    assert at_once(store, {}, {"x": {"a": 1}}, {"x": {"b": 2}}, "3") == {"x": {"a": 1, "b": 2}}


def test_a_removed_key_is_removed(store):
    """Unless the other run changed it; the other's new keys are kept."""
    assert at_once(store, {"old": 1, "kept": 2}, {"kept": 2}, {"old": 1, "kept": 2, "new": 3}) == {"kept": 2, "new": 3}
    assert at_once(store, {"old": 1}, {"old": 1, "new": 3}, {}, "1") == {"new": 3}
    assert at_once(store, {"x": {"a": 1, "b": 2}}, {"x": {"b": 2}}, {"x": {"a": 1, "b": 2, "c": 3}}, "2") == {
        "x": {"b": 2, "c": 3}
    }
    assert at_once(store, {"x": {"a": 1}}, {}, {"x": {"a": 1}}, "3") == {}
    assert at_once(store, {"a": 1, "b": 1}, {"a": 1}, {"b": 1}, "4") == {}


def test_the_later_finish_wins_for_the_same_key(store):
    """There is one value; lists are values."""
    assert at_once(store, {"n": 0}, {"n": 1}, {"n": 2}) == {"n": 2}
    assert at_once(store, {"l": [0]}, {"l": [0, 1]}, {"l": [0, 2]}, "1") == {"l": [0, 2]}
    assert at_once(store, {"x": {"a": 1}}, {"x": {"a": 1, "b": 2}}, {"x": 5}, "2") == {"x": 5}
    assert at_once(store, {"x": 5}, {"x": 5}, {"x": {"a": 1}}, "3") == {"x": {"a": 1}}


def test_a_change_of_type_is_a_change(store):
    """1 to True, 0 to False, 1 to 1.0, 0.0 to -0.0: equal in Python, but not the same."""
    for i, (before, after) in enumerate([(1, True), (0, False), (True, 1), (1, 1.0), (0.0, -0.0), ([1], [True])]):
        state = at_once(store, {"x": before}, {"x": before}, {"x": after}, f"s{i}")

        assert repr(state) == repr({"x": after})


def test_an_unchanged_value_does_not_overwrite(store):
    """NaN is no change from NaN, nor a tuple from its list, nor an array from its list."""
    nan = float("nan")
    for i, (before, returned) in enumerate(
        [(nan, nan), ([1, 2], (1, 2)), ([1, 2], np.array([1, 2])), ({"a": [nan]}, {"a": [nan]})]
    ):
        state = at_once(store, {"x": before}, {"x": "set by the other"}, {"x": returned, "own": 1}, f"s{i}")

        assert state == {"x": "set by the other", "own": 1}


def test_values_that_do_not_compare_are_stored(store):
    """Arrays, signalling NaN: a merge compares stored values, without ==."""
    for i, value in enumerate((np.array([1, 2]), np.float64("nan"), Decimal("sNaN"), {"a": np.array([[1]])})):
        store.append_run(f"s{i}", a_small_run(session_state={"x": value}))
        store.append_run(f"s{i}", a_small_run(session_state={"x": value, "y": 1}))
        run = store.start_run(f"s{i}", input="x")
        store.finish_run(run.run_id, session_state={"x": value, "z": 2})

        assert set(load_session(store, f"s{i}").session_state) == {"x", "z"}


def test_a_finished_run_merges_key_by_key_when_appended(store):
    """A stored run's state is merged into the session's: another run's keys are kept."""
    store.append_run("chat", a_small_run(session_state={"a": 1, "n": {"x": 1}}))
    store.append_run("chat", a_small_run(session_state={"b": 2, "n": {"y": 2}}))
    store.append_run("chat", a_small_run())

    assert load_session(store, "chat").session_state == {"a": 1, "b": 2, "n": {"x": 1, "y": 2}}


def test_the_state_after_each_run_is_stored(store):
    """Each run has the state after it, whatever followed."""
    for i in range(4):
        run = store.start_run("chat", input=f"{i}")
        state = (run.session_state or {}) | {f"k{i}": i}
        store.finish_run(run.run_id, session_state=state)
    states = [run.session_state for run in load_session(store, "chat").runs]

    assert states == [{f"k{j}": j for j in range(i + 1)} for i in range(4)]
    assert [store.branch("chat", after=i).session_state for i in range(4)] == states


def test_a_run_without_a_state_does_not_change_it(store):
    """Neither removed nor reset, though another run changed it meanwhile."""
    store.append_run("chat", a_small_run(session_state={"a": 1}))
    silent, other = store.start_run("chat", input="silent"), store.start_run("chat", input="other")
    store.finish_run(other.run_id, session_state={"a": 2, "b": 3})
    store.finish_run(silent.run_id, output="x")

    assert load_session(store, "chat").session_state == {"a": 2, "b": 3}


def test_an_empty_state_removes_the_initial_keys(store):
    """An empty dict is a state, None is not."""
    store.append_run("chat", a_small_run(session_state={"a": 1}))
    run = store.start_run("chat", input="x")
    store.finish_run(run.run_id, session_state={})

    assert load_session(store, "chat").session_state == {}
    assert load_session(store, "chat").runs[1].session_state == {}


def test_state_does_not_affect_other_session_data(store):
    """The title and other session_data are not changed by runs, nor the state by a title."""
    data = {"session_name": "title", "other": [1], "session_state": {"a": 1}}
    store.save_session(Session(session_id="chat", session_data=data))
    run = store.start_run("chat", input="x")
    store.rename_session("chat", "new title")
    store.finish_run(run.run_id, session_state={"a": 1, "b": 2})

    expected = {"session_name": "new title", "other": [1], "session_state": {"a": 1, "b": 2}}
    assert load_session(store, "chat").session_data == expected


values = st.one_of(st.integers(0, 2), st.just("x"))
flat = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)
states = st.dictionaries(st.sampled_from("abcd"), st.one_of(values, flat), max_size=4)


@pytest.fixture(scope="module")
def one_store():
    """One store for all examples."""
    with InMemoryDb() as store:
        yield store


@settings(max_examples=30)
@given(base=flat, first=flat, second=flat)
def test_every_change_of_concurrent_runs_is_kept(one_store, base, first, second):
    """Whatever a run set or removed is stored, unless the later one set or removed the same key."""
    state = at_once(one_store, base, first, second)
    missing = object()
    for key in "abcd":
        before = base.get(key, missing)
        expected = second.get(key, missing)
        if expected == before:
            expected = first.get(key, missing)
        assert state.get(key, missing) == expected, key


@settings(max_examples=30)
@given(state=states, other=states)
def test_a_single_run_sets_the_state(one_store, state, other):
    """Without a concurrent run, the state is exactly the run's."""
    set_state(one_store, "alone", state)
    run = one_store.start_run("alone", input="x")
    one_store.finish_run(run.run_id, session_state=other)

    assert load_session(one_store, "alone").session_state == other
