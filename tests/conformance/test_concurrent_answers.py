"""Under concurrency a requirement is resolved once, and a run is claimed by one process."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from paused_runs import PAST, a_paused_run, a_requirement, stored_requirement
from samples import all_rows, load_session, row_counts
from test_many_writers import at_once

from kern_nb.db import PostgresDb, open_store
from kern_nb.errors import AlreadyClaimed, AlreadyResolved, KernError, RequirementNotFound, StillWaiting
from kern_nb.records import Message

ROUNDS, APART_S = 12, 0.05
NAMES = [f"ask {i}" for i in range(ROUNDS)]


@pytest.fixture
def paused_runs(persistent_target):
    """Runs that each have one pending requirement."""
    with open_store(persistent_target) as store:
        return [a_paused_run(store, "chat", a_requirement(name, "external_execution")).run_id for name in NAMES]


def competing(workers, target, names, *calls):
    """Processes that each make one call at the same instant; the outcomes, round by round."""
    processes = workers(len(calls))
    start = time.time() + 0.2
    for i, (worker, call) in enumerate(zip(processes, calls, strict=True)):
        worker.begin("compete", target=target, what=call, names=names, by=f"p{i}", start=start, apart=APART_S)
    return list(zip(*(worker.end() for worker in processes), strict=True))


def test_one_of_eight_processes_resolves(persistent_target, paused_runs, workers):
    """Its answer is stored; each of the others gets AlreadyResolved."""
    rounds = competing(workers, persistent_target, NAMES, *["resolve"] * 8)
    with open_store(persistent_target) as store:
        for name, run_id, told in zip(NAMES, paused_runs, rounds, strict=True):
            assert Counter(told) == {"won": 1, "AlreadyResolved": 7}
            winner = f"p{told.index('won')}"
            found = stored_requirement(store, name)
            assert (found.status, found.answer, found.resolved_by) == ("resolved", winner, winner)
            assert store.get_run(run_id).requirements == [found]
        assert len(store.requirements(status=None)) == ROUNDS


def test_one_of_eight_processes_claims_a_run(persistent_target, paused_runs, workers):
    """The others get AlreadyClaimed: its tool runs once."""
    with open_store(persistent_target) as store:
        for name in NAMES:
            store.resolve(name, value=1)
    rounds = competing(workers, persistent_target, paused_runs, *["claim_run"] * 8)

    assert [Counter(told) for told in rounds] == [{"won": 1, "AlreadyClaimed": 7}] * ROUNDS
    with open_store(persistent_target) as store:
        assert set(store.runs_df().status) == {"RUNNING"}
        assert store.check().problems == []


def test_concurrent_claims_answers_and_handoffs_leave_one_answer(persistent_target, paused_runs, workers):
    """A claim and an answer exclude others; a handoff came before the answer, or was refused."""
    calls = ["resolve", "claim", "handoff", "resolve", "claim", "handoff", "resolve", "handoff"]
    names = NAMES[:12]
    rounds = competing(workers, persistent_target, names, *calls)
    with open_store(persistent_target) as store:
        for name, told in zip(names, rounds, strict=True):
            won = [(call, f"p{i}") for i, (call, what) in enumerate(zip(calls, told, strict=True)) if what == "won"]
            takers = [by for call, by in won if call != "handoff"]
            movers = [by for call, by in won if call == "handoff"]
            found = stored_requirement(store, name)

            assert len(takers) == 1, told
            assert takers[0] == (found.resolved_by or found.claimed_by)
            assert found.answer == found.resolved_by
            assert found.assignee in (movers or [None])
            assert set(told) <= {"won", "AlreadyResolved" if found.resolved_by else "AlreadyClaimed"}


def test_one_of_several_threads_resolves_and_claims(store):
    """With threads that share one store, as with processes; also in memory."""
    for i in range(6):
        run = a_paused_run(store, "chat", a_requirement(f"ask {i}", "user_input"))
        answers = [lambda i=i, n=n: store.resolve(f"ask {i}", value=n, by=f"{n}") for n in range(6)]
        errors = at_once(*answers, lambda run=run: store.claim_run(run.run_id))
        late = [error for error in errors if isinstance(error, AlreadyResolved)]
        early = [error for error in errors if isinstance(error, StillWaiting)]
        assert len(late) == 5
        assert len(early) == len(errors) - 5 <= 1
        assert stored_requirement(store, f"ask {i}").resolved_by == f"{stored_requirement(store, f'ask {i}').answer}"

        claims = at_once(*[lambda run=run: store.claim_run(run.run_id)] * 6)
        assert {type(error) for error in claims} == {AlreadyClaimed}
        assert len(claims) == 6 - len(early)


def test_runs_of_a_killed_process_are_claimed_once(persistent_target, workers):
    """Their started calls are unknown then; while the process lived, they could not be claimed."""
    worker = workers(1)[0]
    run_ids = worker.do("begin_many", target=persistent_target, session_id="chat", runs=10)
    with open_store(persistent_target) as store:
        before = all_rows(store)
        for run_id in run_ids:
            with pytest.raises(AlreadyClaimed, match=str(worker.process.pid)):
                store.claim_run(run_id)
        assert all_rows(store) == before
    worker.kill()
    rounds = competing(workers, persistent_target, run_ids, *["claim_run"] * 4)
    with open_store(persistent_target) as store:
        assert [Counter(told) for told in rounds] == [{"won": 1, "AlreadyClaimed": 3}] * len(run_ids)
        for run in load_session(store, "chat").runs:
            assert (run.status, [call.status for call in run.tool_calls]) == ("RUNNING", ["unknown"])


def test_a_run_is_claimed_again_after_a_second_kill(persistent_target, workers):
    """Its answers are stored and not asked for again."""
    with open_store(persistent_target) as store:
        run = a_paused_run(store)
        store.resolve("ask", approve=False, note="no")
    worker = workers(1)[0]
    alone = {"what": "claim_run", "names": [run.run_id], "by": "x", "start": 0.0, "apart": 0.0}
    assert worker.do("compete", target=persistent_target, **alone) == ["won"]
    with open_store(persistent_target) as store:
        with pytest.raises(AlreadyClaimed):
            store.claim_run(run.run_id)
        worker.kill()
        found = store.claim_run(run.run_id)

        assert [(r.approved, r.note) for r in found.requirements] == [(False, "no")]
        assert [call.status for call in found.tool_calls] == ["unknown"]
        store.finish_run(run.run_id)


def test_a_kill_loses_at_most_the_answer_being_written(persistent_target, workers):
    """Acknowledged answers are complete, the others are pending."""
    names = [f"ask {i:04}" for i in range(3000)]
    with open_store(persistent_target) as store:
        run = store.start_run("chat", input="x")
        store.pause_run(run.run_id, [a_requirement(name, "user_input") for name in names])
    worker = workers(1)[0].begin("answer", target=persistent_target, names=names)
    heard = [worker.hear() for _ in range(5)]
    heard += worker.kill()
    told = [said["answered"] for said in heard if "answered" in said]
    with open_store(persistent_target) as store:
        found = store.requirements(status=None)
        answered = [r for r in found if r.status == "resolved"]

        assert len(found) == len(names)
        assert len(told) <= len(answered) <= len(told) + 1 < len(names)
        assert told == names[: len(told)]
        for r in found:
            given = (r.status, r.approved, r.answer, r.resolved_by, r.resolved_at is None)
            done = ("resolved", True, {"answer": r.requirement_id}, "worker", False)
            assert given == (done if r in answered else ("pending", None, None, None, True))


# PostgreSQL, where two transactions really are at work at once ----------------------------------------------------


@pytest.fixture
def postgres_store(postgres_database_url):
    """An empty store."""
    with PostgresDb(postgres_database_url) as store:
        yield store


class Blocked:
    """A thread that waits for a lock held by this test, so that the order of events is fixed."""

    def __init__(self, store, work):
        self.errors = []
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()
        waits = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while self._thread.is_alive():
            with store.engine.connect() as connection:
                if connection.execute(waits).scalar():
                    return
        raise AssertionError(f"it did not wait: {self.errors}")

    def _run(self, work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test decides what may happen
            self.errors.append(error)

    def result(self):
        """The errors of the threads."""
        self._thread.join()
        return self.errors


WRITERS = {
    "append": lambda store, run_id: store.append_messages(run_id, [Message(role="user")], session_state={"x": 1}),
    "finish": lambda store, run_id: store.finish_run(run_id, session_state={"x": 1}),
    "pause": lambda store, run_id: store.pause_run(run_id, [a_requirement("ask")], session_state={"x": 1}),
}


@pytest.mark.parametrize("name", ["append", "finish", "pause"])
def test_writers_of_a_run_lock_its_session_first(postgres_store, name):
    """Locking the run before the session in one writer and after it in another would be a deadlock."""
    store = postgres_store
    run = store.start_run("chat", input="x")
    s, r = store.tables.sessions, store.tables.runs
    with store.engine.connect() as connection:
        connection.execute(sa.select(s).where(s.c.session_id == "chat").with_for_update())
        blocked = Blocked(store, lambda: WRITERS[name](store, run.run_id))
        with store.engine.connect() as other:
            query = sa.select(r.c.run_id).where(r.c.run_id == run.run_id).with_for_update(skip_locked=True)
            free = other.execute(query).scalar()
    assert blocked.result() == []
    assert free == run.run_id


def test_writers_of_one_session_do_not_deadlock(postgres_database_url):
    """Threads that append with a state, finish, set keys and hand off: no cycle of locks."""
    with PostgresDb(postgres_database_url) as store:

        def work(n):
            for i in range(8):
                run = store.start_run("chat", input="x")
                state = (run.session_state or {}) | {f"{n} {i}": i}
                store.append_messages(run.run_id, [Message(role="user", content="x")], session_state=state)
                store.update_session_state("chat", {f"set {n} {i}": i})
                store.finish_run(run.run_id, session_state=state)

        assert at_once(*(lambda n=n: work(n) for n in range(4))) == []
        assert len(load_session(store, "chat").session_state) == 64
    with (
        PostgresDb(postgres_database_url) as store,
        store.engine.connect() as connection,
    ):  # the others have left: all is counted
        count = sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert connection.execute(count).scalar() == 0


@pytest.mark.parametrize("name", ["resolve", "claim", "handoff"])
def test_a_concurrent_delete_is_reported_as_not_found(postgres_store, name):
    """The error is not a driver's."""
    store = postgres_store
    a_paused_run(store)
    calls = {
        "resolve": lambda: store.resolve("ask", approve=True),
        "claim": lambda: store.claim("ask", by="x"),
        "handoff": lambda: store.handoff("ask", to="x"),
    }
    with store.engine.begin() as connection:
        connection.execute(store.tables.requirements.delete())
        blocked = Blocked(store, calls[name])
    assert [type(error) for error in blocked.result()] == [RequirementNotFound]


def test_a_run_can_be_claimed_while_another_process_stores_the_expiry(postgres_store):
    """Both saw the expiry: that does not refuse the claim."""
    store = postgres_store
    run = a_paused_run(store, "chat", a_requirement("ask", expires_at=PAST))
    with store.engine.begin() as connection:
        connection.execute(store.tables.requirements.update().values(status="expired"))
        blocked = Blocked(store, lambda: store.claim_run(run.run_id))
    assert blocked.result() == []
    assert store.get_run(run.run_id).status == "RUNNING"


def test_a_concurrent_answer_and_delete_leave_no_orphan(store):
    """The session and its requirements are deleted; the answer came first or is refused."""
    for i in range(6):
        a_paused_run(store, f"s{i}", a_requirement(f"ask {i}"))
        errors = at_once(
            lambda i=i: store.delete_session(f"s{i}"),
            lambda i=i: store.handoff(f"ask {i}", to="bob"),
        )
        assert all(isinstance(error, KernError) for error in errors), errors
    assert row_counts(store)["agno_sessions_requirements"] == 0
    assert store.check().problems == []
