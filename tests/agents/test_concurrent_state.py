"""Session state of several: branches start from the state as it was there, and runs at once keep each other's keys."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from recording_models import RecordingModel, calls_once

from kern_nb import Agent
from kern_nb.models.scripted import call

WAIT_S = 30


def counting(db, **options):
    """An agent whose every run adds one to n, and whose session is named by the run."""

    def count(session_state) -> int:
        session_state["n"] = session_state.get("n", 0) + 1
        session_state.setdefault("seen", {})[f"at {session_state['n']}"] = True
        return session_state["n"]

    return Agent(calls_once("count"), db=db, tools=[count], **options)


def states(db, session_id):
    """The n after each run that a session sees."""
    return [(run.session_state or {}).get("n") for run in db.get_session(session_id).runs]


def test_branch_has_state_at_branch_point(store):
    """On every engine: after a run, before a run, at the end; and neither parent nor branch sees what the other sets then."""
    agent = counting(store)
    for _ in range(4):
        agent.run("count", session_id="main")

    for place, n in (({"after": 1}, 2), ({"before": 1}, 1), ({"before": 0}, None), ({}, 4)):
        branch = store.branch("main", **place)
        assert branch.session_state.get("n") == n
        agent.run("count", session_id=branch.session_id)
        assert agent.get_session_state(branch.session_id)["n"] == (n or 0) + 1
    assert agent.get_session_state("main")["n"] == 4
    agent.run("count", session_id="main")
    assert agent.get_session_state("main")["n"] == 5


def test_branch_of_branch_has_state_of_lineage(store):
    """On every engine: states are found across forks."""
    agent = counting(store)
    for _ in range(2):
        agent.run("count", session_id="main")
    store.branch("main", after=0, new_session_id="fork")
    for _ in range(3):
        agent.run("count", session_id="fork")
    agent.run("count", session_id="main")
    store.branch("fork", after=2, new_session_id="twig")
    agent.run("count", session_id="twig")

    assert states(store, "fork") == [1, 2, 3, 4]
    assert states(store, "twig") == [1, 2, 3, 4]
    assert agent.get_session_state("twig")["seen"] == {f"at {n}": True for n in (1, 2, 3, 4)}
    store.branch("fork", before=1, new_session_id="stump")
    assert agent.get_session_state("stump") == {"n": 1, "seen": {"at 1": True}}


def test_branch_within_run_has_state_before_run(db):
    """A part of a run has no end whose state could be had."""
    agent = counting(db)
    for _ in range(3):
        agent.run("count", session_id="main")

    assert db.branch("main", after=(1, 1)).session_state["n"] == 1
    assert db.branch("main", after=(0, 1)).session_state.get("n") is None


def test_branch_after_failure_has_state_at_failure(db):
    """A run that failed left a state, too."""
    agent = counting(db)
    agent.run("count", session_id="main")

    def mark(session_state):
        session_state["mark"] = True

    failing = Agent(RecordingModel([call("mark"), ValueError("boom")]), db=db, tools=[mark])
    with pytest.raises(RuntimeError):
        failing.run("x", session_id="main")
    agent.run("count", session_id="main")

    assert db.branch("main", after=1).session_state == {"n": 1, "seen": {"at 1": True}, "mark": True}


def test_manual_state_update_survives_next_run(db):
    """update_session_state is no run: a branch sees it once a run has gone on from it, or at the end."""
    agent = counting(db)
    agent.run("count", session_id="main")
    agent.update_session_state({"n": 10}, "main")
    assert db.branch("main").session_state["n"] == 10
    assert db.branch("main", after=0).session_state["n"] == 1
    agent.run("count", session_id="main")
    assert db.branch("main", after=1).session_state["n"] == 11


class Together:
    """Runs of one session, each with a tool that begins, waits until it may end, and sets a key of its own."""

    def __init__(self, db, **options):
        self.begun = {name: threading.Event() for name in "ab"}
        self.end = {name: threading.Event() for name in "ab"}
        self._db, self._options = db, options

    def run(self, name, change):
        """A run that sets the state so, once it may."""

        def work(session_state):
            self.begun[name].set()
            assert self.end[name].wait(WAIT_S)
            change(session_state)

        model = calls_once("work")
        return Agent(model, db=self._db, session_id="chat", tools=[work], **self._options).run(name)

    def both(self, of_a, of_b, last="a"):
        """Run a and b at once; the named one ends last."""
        first = "b" if last == "a" else "a"
        with ThreadPoolExecutor(2) as pool:
            running = {"a": pool.submit(self.run, "a", of_a), "b": pool.submit(self.run, "b", of_b)}
            assert all(event.wait(WAIT_S) for event in self.begun.values())
            self.end[first].set()
            assert running[first].result(WAIT_S).status == "COMPLETED"
            self.end[last].set()
            assert running[last].result(WAIT_S).status == "COMPLETED"
        return self._db.get_session("chat").session_state


def setting(**values):
    """A change of the state: these keys get these values."""
    return lambda session_state: session_state.update(values)


@pytest.mark.parametrize("last", ["a", "b"])
@pytest.mark.every_engine
def test_concurrent_runs_merge_state_keys(store, last):
    """On every engine, whichever ends last; and below one key, too."""
    store.update_session_state("chat", {"n": 0, "user": {"name": "Ann"}})

    def of_a(session_state):
        session_state["a"] = 1
        session_state["user"]["age"] = 3

    def of_b(session_state):
        session_state["n"] = 5
        session_state["user"]["city"] = "Rome"

    found = Together(store).both(of_a, of_b, last)
    assert found == {"n": 5, "a": 1, "user": {"name": "Ann", "age": 3, "city": "Rome"}}


@pytest.mark.parametrize("last", ["a", "b"])
def test_concurrent_first_runs_merge_state(db, last):
    """The agent's own state is where they start from, not what they set."""
    together = Together(db, session_state={"n": 0, "m": 0, "user": {"name": "?"}})

    def of_b(session_state):
        session_state["n"] = 5
        session_state["user"]["name"] = "Ann"

    assert together.both(setting(m=1), of_b, last) == {"n": 5, "m": 1, "user": {"name": "Ann"}}


def test_last_finished_run_wins_per_key(db):
    """And nothing else is lost."""
    db.update_session_state("chat", {"k": 0})

    assert Together(db).both(setting(k="a", a=1), setting(k="b", b=1), last="a") == {"k": "a", "a": 1, "b": 1}


def test_removed_key_stays_removed(db):
    """The other did not touch it."""
    db.update_session_state("chat", {"old": 1, "n": 0})

    found = Together(db).both(setting(n=1), lambda session_state: session_state.pop("old"), last="a")
    assert found == {"n": 1}


def test_manual_update_during_run_is_kept(db):
    """A person and a tool at once."""
    db.update_session_state("chat", {"n": 0})

    def work(session_state):
        db.update_session_state("chat", {"by hand": True})
        session_state["n"] = 1

    Agent(calls_once("work"), db=db, session_id="chat", tools=[work]).run("x")
    assert db.get_session("chat").session_state == {"n": 1, "by hand": True}


def test_many_concurrent_runs_merge_state(db):
    """Twenty of one agent and one session, on one loop."""

    def put(session_state, key: int) -> str:
        session_state[f"key {key}"] = key
        return "set"

    def answer(messages):
        asked = next(m.content for m in reversed(messages) if m.role == "user")
        return "done" if messages[-1].role == "tool" else call("put", key=int(asked))

    async def all_at_once():
        agent = Agent(RecordingModel(answer), db=db, session_id="chat", tools=[put])
        return await asyncio.gather(*(agent.arun(str(n)) for n in range(20)))

    runs = asyncio.run(all_at_once())
    assert {run.run_index for run in runs} == set(range(20))
    assert db.get_session("chat").session_state == {f"key {n}": n for n in range(20)}


def test_sessions_have_separate_state(db):
    """Twenty sessions at once, each counts for itself."""
    agent = counting(db, session_state={"n": 0})

    async def all_at_once():
        for _ in range(2):
            await asyncio.gather(*(agent.arun("count", session_id=f"s{n}") for n in range(20)))

    asyncio.run(all_at_once())
    assert [agent.get_session_state(f"s{n}")["n"] for n in range(20)] == [2] * 20
