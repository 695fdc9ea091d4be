"""Many concurrent writers of one session: no run is lost, duplicated or partial, and each has its own index."""

from __future__ import annotations

import threading
import time

import pytest
from samples import a_run, a_session, a_small_run, load_session, row_counts

from kern_nb.db import InMemoryDb, open_store
from kern_nb.errors import HasBranches, SessionNotFound
from kern_nb.records import Session


def at_once(*work):
    """Run functions in threads that start together; return the errors they raised."""
    errors = []
    start = threading.Barrier(len(work))

    def run(function):
        start.wait()
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - checked by the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_four_processes_append_a_hundred_runs_each_to_one_session(persistent_target, workers):
    """Indexes 0 to 399 once each, every run complete, in the order of each process; a reader sees only complete runs."""
    processes = workers(4)
    start = time.time() + 0.3
    for i, worker in enumerate(processes):
        worker.begin("append", target=persistent_target, session_id="chat", name=f"p{i}", runs=100, start=start)
    with open_store(persistent_target) as store:
        n_runs = 0
        for _ in range(4):
            runs = store.runs_df("chat")
            assert (runs.n_messages == 4).all()
            assert (runs.n_tool_calls == 1).all()
            assert runs.run_index.tolist() == list(range(len(runs)))
            assert n_runs <= len(runs)
            n_runs = len(runs)
            time.sleep(0.3)
        indexes = [worker.end() for worker in processes]
        session = load_session(store, "chat")

        assert sorted(index for own in indexes for index in own) == list(range(400))
        assert all(own == sorted(own) for own in indexes)
        assert [run.run_index for run in session.runs] == list(range(400))
        assert sorted(run.input for run in session.runs) == sorted(f"p{i} {n}" for i in range(4) for n in range(100))
        assert all([m.content for m in run.messages][::2] == [run.input, f"found {run.input}"] for run in session.runs)
        totals = store.sessions_df().iloc[0]
        assert (totals.n_runs, totals.n_messages, totals.n_tool_calls, totals.input_tokens) == (400, 1600, 400, 12000)
        assert store.check()


def test_two_processes_that_set_different_keys_keep_both(persistent_target, workers):
    """Each run starts from a state that may be stale at its end; no key is lost."""
    processes = workers(2)
    start = time.time() + 0.2
    for i, worker in enumerate(processes):
        worker.begin("set_keys", target=persistent_target, session_id="chat", name=f"p{i}", runs=20, start=start)
    for worker in processes:
        worker.end()
    with open_store(persistent_target) as store:
        session = load_session(store, "chat")

        assert session.session_state == {f"p{i} {n}": n for n in range(20) for i in range(2)}
        assert len(session.runs) == 40
        assert {run.status for run in session.runs} == {"COMPLETED"}


def test_eight_processes_create_the_tables_concurrently(persistent_target, workers):
    """There is one set of tables, with all writes."""
    processes = workers(8)
    start = time.time() + 0.3
    for i, worker in enumerate(processes):
        worker.begin("make", target=persistent_target, name=f"p{i}", start=start)
    run_ids = [worker.end() for worker in processes]
    with open_store(persistent_target) as store:
        assert sorted(store.runs_df().run_id) == sorted(run_ids)
        assert row_counts(store)["kern_schema"] == 1
        assert len(store.list_sessions()) == 8


def test_threads_append_to_one_session(store):
    """One store object, eight threads."""
    errors = at_once(
        *(lambda i=i: [store.append_run("chat", a_small_run(f"{i} {n}")) for n in range(12)] for i in range(8))
    )
    session = load_session(store, "chat")

    assert errors == []
    assert [run.run_index for run in session.runs] == list(range(96))
    assert sorted(run.input for run in session.runs) == sorted(f"{i} {n}" for i in range(8) for n in range(12))


def test_threads_append_to_separate_sessions(store):
    """Writers of different sessions and readers do not interfere."""

    def write(i):
        for n in range(8):
            store.append_run(f"s{i}", a_run(f"{i} {n}"))
            store.messages_df(f"s{i}")
            store.get_session(f"s{i}")

    errors = at_once(*(lambda i=i: write(i) for i in range(4)))

    assert errors == []
    assert store.sessions_df().set_index("session_id").n_runs.to_dict() == {f"s{i}": 8 for i in range(4)}


def test_stores_in_memory_are_independent(tmp_path):
    """Two of them share nothing, even when used from threads."""
    with InMemoryDb() as first, InMemoryDb() as second:
        errors = at_once(
            *(
                lambda s=s: [s.append_run("chat", a_small_run()) for _ in range(20)]
                for s in (first, second, first, second)
            )
        )

        assert errors == []
        assert (len(load_session(first, "chat").runs), len(load_session(second, "chat").runs)) == (40, 40)
    assert list(tmp_path.iterdir()) == []


def test_concurrent_branch_and_delete_leave_no_orphan(store, store_factory, engine_name):
    """Either the branch comes first and the delete is refused, or the branch finds no session."""
    other = store if engine_name == "memory" else store_factory()
    for i in range(6):
        a_session(store, f"s{i}", runs=1)
        errors = at_once(
            lambda i=i: store.branch(f"s{i}", new_session_id=f"b{i}"),
            lambda i=i: other.delete_session(f"s{i}"),
        )
        assert [type(error) for error in errors] in ([HasBranches], [SessionNotFound]), errors
        if isinstance(errors[0], HasBranches):
            assert len(load_session(store, f"b{i}").runs) == 1
        else:
            assert store.get_session(f"b{i}") is None
    assert store.check()


def test_concurrent_detach_and_append_to_the_branch(store, store_factory, engine_name):
    """The branch's new run does not get the index of an inherited run."""
    other = store if engine_name == "memory" else store_factory()
    for i in range(5):
        a_session(store, f"s{i}", runs=3)
        store.branch(f"s{i}", new_session_id=f"b{i}")
        errors = at_once(
            lambda i=i: store.delete_session(f"s{i}", detach_branches=True),
            lambda i=i: other.append_run(f"b{i}", a_small_run("own")),
        )
        assert errors == []
        assert [run.input for run in load_session(store, f"b{i}").runs] == [f"s{i} 0", f"s{i} 1", f"s{i} 2", "own"]
        assert [run.run_index for run in load_session(store, f"b{i}").runs] == [0, 1, 2, 3]


def test_one_of_several_concurrent_branches_of_one_name_is_created(store, store_factory, engine_name):
    """The others raise SessionExists."""
    other = store if engine_name == "memory" else store_factory()
    a_session(store, runs=2)
    errors = at_once(*(lambda s=s: s.branch("chat", new_session_id="b") for s in (store, other, store, other)))

    assert len(errors) == 3
    assert {type(error).__name__ for error in errors} == {"SessionExists"}
    assert len(load_session(store, "b").runs) == 2


def test_concurrent_titles_and_states_are_both_stored(store, store_factory, engine_name):
    """They share one column, but do not overwrite each other."""
    other = store if engine_name == "memory" else store_factory()
    store.save_session(Session(session_id="chat", session_data={"other": 1}))
    for i in range(6):
        run = store.start_run("chat", input="x")
        state = (run.session_state or {}) | {f"k{i}": i}
        errors = at_once(
            lambda run=run, state=state: store.finish_run(run.run_id, session_state=state),
            lambda i=i: other.rename_session("chat", f"title {i}"),
        )
        assert errors == []
        session = load_session(store, "chat")
        assert session.session_name == f"title {i}"
        assert session.session_state == {f"k{j}": j for j in range(i + 1)}
        assert session.session_data["other"] == 1


@pytest.mark.parametrize("name", ["finish", "append"])
def test_sessions_locked_in_both_orders_do_not_deadlock(store, store_factory, engine_name, name):
    """Writers of two sessions in different order all finish."""
    other = store if engine_name == "memory" else store_factory()

    def write(store, first, second):
        for _ in range(10):
            for session_id in (first, second):
                if name == "append":
                    store.append_run(session_id, a_small_run(session_state={first: 1}))
                else:
                    run = store.start_run(session_id, input="x")
                    store.finish_run(run.run_id, session_state={second: 1})

    errors = at_once(lambda: write(store, "a", "b"), lambda: write(other, "b", "a"))

    assert errors == []
    assert store.sessions_df().n_runs.tolist() == [20, 20]
