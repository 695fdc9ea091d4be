"""Savers of one session: a compare-and-set by revision, and session_data that is merged key by key."""

from __future__ import annotations

import threading

import pytest
from samples import a_session, a_small_run, all_rows, load_session, statements

from kern_nb.errors import BadUsage, StaleSession
from kern_nb.records import Run, Session


def data_of(store):
    """The stored session_data."""
    return load_session(store, "chat").session_data


def test_each_change_of_a_session_is_a_revision(store):
    """By any method that changes its fields; runs are rows of their own, unless they change the state."""
    assert store.save_session(Session(session_id="chat")).revision == 1
    changes = [
        lambda: store.rename_session("chat", "title"),
        lambda: store.tag_session("chat", ["a"]),
        lambda: store.save_summary("chat", {"summary": "x"}),
        lambda: store.update_session_state("chat", {"n": 1}),
        lambda: store.append_run("chat", a_small_run(session_state={"m": 1})),
        lambda: store.save_session(load_session(store, "chat")),
    ]
    for n, change in enumerate(changes):
        change()
        assert load_session(store, "chat").revision == n + 2
    run = store.start_run("chat", input="x")
    store.finish_run(run.run_id, session_state={"n": 1, "m": 1})
    store.append_run("chat", a_small_run())
    store.add_score("chat", "good", 1)
    assert load_session(store, "chat").revision == len(changes) + 1
    assert store.list_sessions()[0].revision == len(changes) + 1
    assert store.rename_session("chat", "other").revision == load_session(store, "chat").revision
    assert store.branch("chat", new_session_id="b").revision == store.get_session("b").revision == 0
    store.append_run("new", a_small_run())
    assert store.get_session("new").revision == 0


def test_a_stale_saver_is_refused(store):
    """Nothing of it is stored, and its hint says how to go on; the revision it expects can be 0, of a new session."""
    first = store.save_session(Session(session_id="chat", metadata={"n": 1}), expected_revision=0)
    second = load_session(store, "chat")
    first.metadata = {"n": 2}
    assert store.save_session(first, expected_revision=first.revision).metadata == {"n": 2}
    before = all_rows(store)
    second.metadata, second.runs = {"n": 3}, [a_small_run()]
    with pytest.raises(StaleSession, match="revision 2, not 1") as refused:
        store.save_session(second, expected_revision=second.revision)
    assert "Load it again" in refused.value.hint
    with pytest.raises(StaleSession):
        store.save_session(Session(session_id="chat"), expected_revision=0)
    with pytest.raises(StaleSession):
        store.save_session(Session(session_id="deleted"), expected_revision=1)
    for wrong in (-1, "1", 1.0, True):
        with pytest.raises(BadUsage, match="expected_revision"):
            store.save_session(second, expected_revision=wrong)

    assert all_rows(store) == before


def test_an_expected_revision_stores_the_data_as_it_is(store):
    """Keys can be removed, also all of them, by a record that was not read."""
    store.save_session(Session(session_id="chat", session_data={"a": 1, "session_state": {"x": 1, "y": 2}}))
    saved = store.save_session(
        Session(session_id="chat", session_data={"session_state": {"y": 3}}), expected_revision=1
    )
    assert saved.session_data == data_of(store) == {"session_state": {"y": 3}}
    store.save_session(Session(session_id="chat"), expected_revision=2)
    assert data_of(store) is None


def test_two_savers_keep_their_own_keys(store):
    """At every depth; what one removed stays removed, and what the other renamed meanwhile stays renamed."""
    data = {"session_name": "old", "gone": 1, "session_state": {"both": {"z": 0}, "gone": [1]}, "list": [1, 2]}
    store.save_session(Session(session_id="chat", session_data=data))
    first, second = load_session(store, "chat"), load_session(store, "chat")
    store.rename_session("chat", "new")
    first.session_data["session_state"]["a"] = 1
    first.session_data["session_state"]["both"]["x"] = 1
    first.session_data["list"].append(3)
    del first.session_data["gone"], first.session_data["session_state"]["gone"]
    second.session_data = second.session_data | {"metrics": {"n": 1}}
    second.session_data["session_state"] = {"b": 2, "both": {"y": 2, "z": 0}, "gone": [1]}
    assert "a" not in second.session_data["session_state"]
    store.save_session(first)
    saved = store.save_session(second)

    both = {"x": 1, "y": 2, "z": 0}
    expected = {"session_name": "new", "list": [1, 2, 3], "metrics": {"n": 1}}
    expected["session_state"] = {"a": 1, "b": 2, "both": both}
    assert saved.session_data == data_of(store) == expected


def test_savers_that_read_nothing_keep_their_own_keys(store):
    """A new record, as a framework makes one, sets its keys and removes none; None has no keys."""
    store.save_session(
        Session(session_id="chat", session_data={"session_name": "t", "session_state": {"a": 1, "n": 1}})
    )
    store.save_session(Session(session_id="chat", session_data={"session_state": {"b": 2, "n": 1.0}}))
    store.save_session(Session(session_id="chat", session_data=None))
    store.save_session(Session(session_id="chat", session_data={}))

    state = data_of(store)["session_state"]
    assert data_of(store) == {"session_name": "t", "session_state": {"a": 1, "n": 1.0, "b": 2}}
    assert type(state["n"]) is float
    session = load_session(store, "chat")
    session.session_data = None
    assert store.save_session(session).session_data is None


def test_a_copy_knows_what_was_read(store):
    """As a listed session does, which was read without its runs; it equals one that does not know."""
    store.save_session(Session(session_id="chat", session_data={"a": 1, "b": 1}))
    listed = store.list_sessions()[0]
    assert listed == Session(**listed.model_dump(), revision=1)
    store.update_session_state("chat", {"s": 1})
    store.save_session(listed.model_copy(update={"session_data": {"a": 2}}))

    assert data_of(store) == {"a": 2, "session_state": {"s": 1}}


def test_no_key_of_concurrent_savers_is_lost(store, other_store):
    """Each of four threads, on two connections, reads, adds its own key to the state, and saves, 25 times."""
    a_session(store, runs=1)
    errors = []

    def save(number: int) -> None:
        own = (store, other_store)[number % 2]
        try:
            for n in range(25):
                session = own.get_session("chat", runs=False)
                state = dict((session.session_data or {}).get("session_state", {}))
                session.session_data = (session.session_data or {}) | {"session_state": state | {f"{number}.{n}": n}}
                own.save_session(session)
        except Exception as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    keys = {f"{number}.{n}" for number in range(4) for n in range(25)}
    assert keys <= data_of(store)["session_state"].keys()
    assert load_session(store, "chat").revision >= 100


def test_one_of_several_savers_of_a_revision_succeeds(store, other_store):
    """The others are refused, so that a counter that each increases after reading it loses nothing."""
    store.save_session(Session(session_id="chat", metadata={"n": 0}))
    stale, errors = [], []

    def count(own) -> None:
        done = 0
        while done < 10 and not errors:
            try:
                session = own.get_session("chat", runs=False)
                session.metadata = {"n": session.metadata["n"] + 1}
                own.save_session(session, expected_revision=session.revision)
                done += 1
            except StaleSession as error:
                stale.append(error)
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                errors.append(error)

    threads = [threading.Thread(target=count, args=(own,)) for own in (store, other_store, store, other_store)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    session = load_session(store, "chat")
    assert (session.metadata, session.revision) == ({"n": 40}, 41)


def test_the_state_of_a_run_is_what_that_run_had(store):
    """Two runs at once: the session has both their keys, each run the state after it ended."""
    store.save_session(Session(session_id="chat", session_data={"session_state": {"n": 0}}))
    a, b = store.start_run("chat", input="a"), store.start_run("chat", input="b")
    store.finish_run(a.run_id, session_state={"n": 0, "a": 1})
    store.finish_run(b.run_id, session_state={"n": 0, "b": 1})
    c = store.append_run("chat", Run(input="c", session_state={"c": 1}))
    store.update_session_state("chat", {"n": 9, "a": 9})

    assert load_session(store, "chat").session_state == {"n": 9, "a": 9, "b": 1, "c": 1}
    states = [store.get_run(run.run_id).session_state for run in (a, b, c)]
    assert states[0] == {"n": 0, "a": 1}
    assert [run.session_state for run in load_session(store, "chat").runs] == states


def test_a_revision_costs_no_statement(store):
    """An append to a session has as many as it had."""
    a_session(store, runs=2)
    with statements(store) as executed:
        store.append_run("chat", a_small_run())

    assert len(executed.about("UPDATE")) == 1
