"""A kill at any instant of a run loses at most what was being written, and no tool runs twice because of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from json_processes import JsonProcess
from killed_process import TOOLS

from kern_nb.db import open_store
from kern_nb.errors import RunClosed

KILLS = {"duckdb": 18, "sqlite": 16, "postgres": 16}
INSTANTS = [(False, said) for said in range(9)] + [(True, said) for said in range(7)]
"""Whether the tools are called at once, and how many things are said before the kill: that it begins, that the model is
asked (four times, or two), that the three tools run, that it is done."""


@pytest.fixture(scope="module")
def forking():
    """A process that forks agents."""
    teller = JsonProcess("killed_process.py")
    yield teller
    teller.stop()


class Killed:
    """A run in a session of its own, that is killed, looked at and gone on with."""

    def __init__(self, forking: JsonProcess, target: str, folder: Path, at_once: bool = False, hangs: str = "") -> None:
        folder.mkdir()
        self.forking, self.folder, self.session_id = forking, folder, folder.name
        self.order = {"target": target, "folder": str(folder), "session_id": folder.name, "run_id": None}
        self.order |= {"at_once": at_once, "hangs": hangs}

    def kill_after(self, events: int, delay: float) -> list[dict]:
        """Kill it so long after it said so many things; all it said."""
        self.forking.tell(work=self.order)
        said = [self.forking.hear() for _ in range(events)]
        time.sleep(delay)  # the instant is meant to be any
        self.forking.tell(kill=True)
        return said + self.forking.hear_until("over")

    def go_on(self, run_id: str | None) -> list[dict]:
        """Let another process go on with it; all that one said."""
        self.forking.tell(work=self.order | {"run_id": run_id, "hangs": ""}, wait=True)
        return self.forking.hear_until("over")

    def effects(self) -> Counter:
        """How often each tool took effect."""
        return Counter(path.name for path in self.folder.iterdir() for _ in path.read_text().splitlines())


def as_told(messages) -> list[list]:
    """Messages as the agents' processes say them."""
    return [[m.role, m.content or None, m.tool_call_id] for m in messages]


def look(killed: Killed, store, said: list[dict]):
    """What is left of a killed run; everything that is known to have happened before must be there."""
    asked = [one["asked"] for one in said if "asked" in one]
    ran = [one["ran"] for one in said if "ran" in one]
    report = store.check(repair=True)
    assert report
    session = store.get_session(killed.session_id)
    if session is None:
        assert (asked, ran, killed.effects()) == ([], [], Counter())
        return None
    (run,) = session.runs
    calls = {call.tool_name: call.status for call in run.tool_calls}
    problems = [(found.kind, found.run_id, found.repaired) for found in report.problems]
    assert (run.status, problems) in [("INTERRUPTED", [("interrupted", run.run_id, True)]), ("COMPLETED", [])]
    told = asked[-1] if asked else []
    order = str if killed.order["at_once"] else (lambda _: 0)  # of calls at once, the first to end is stored first
    assert sorted(as_told(run.messages)[: len(told)], key=order) == sorted(told, key=order)
    assert set(ran) <= set(calls)
    assert set(killed.effects()) <= set(calls)
    for name, status in calls.items():
        assert (status, killed.effects()[name]) in [("completed", 1), ("unknown", 0), ("unknown", 1)]
        assert status == "unknown" or session.session_state[name]
    return run


def finish(killed: Killed, store, run) -> None:
    """Another process goes on: the run is completed, and every tool ran at most once over both."""
    before = killed.effects()
    unknown = {call.tool_call_id for call in run.tool_calls if call.status == "unknown"} if run else set()
    called = {call.tool_name for call in run.tool_calls} if run else set()
    store.close()
    said = killed.go_on(run.run_id if run else None)

    assert [one for one in said if "failed" in one] == []
    assert [one["done"] for one in said if "done" in one] == [["COMPLETED", "all done"]]
    assert {one["ran"] for one in said if "ran" in one} == set(TOOLS) - called
    assert killed.effects() == before + Counter(set(TOOLS) - called)
    assert set(killed.effects().values()) <= {1}
    (done,) = store.get_session(killed.session_id).runs
    assert (done.status, done.error) == ("COMPLETED", None)
    assert {call.tool_name for call in done.tool_calls} == set(TOOLS)
    assert run is None or as_told(done.messages)[: len(run.messages)] == as_told(run.messages)
    told = next((one["asked"] for one in said if "asked" in one), [])
    for _, content, _ in (message for message in told if message[2] in unknown):
        assert "not known whether" in content
    assert store.check().problems == []


def test_kill_at_any_instant(persistent_target, forking, tmp_path, request):
    """What was committed is there, the run says that it was interrupted, another process finishes it; no tool runs twice."""
    kills = KILLS[request.node.callspec.params["persistent_target"]]
    chance = random.Random(f"{kills} kills")
    instants = [*INSTANTS, *chance.choices(INSTANTS, k=kills - len(INSTANTS))]
    chance.shuffle(instants)
    found = Counter()
    for number, (at_once, events) in enumerate(instants):
        killed = Killed(forking, persistent_target, tmp_path / f"{number}", at_once)
        said = killed.kill_after(events, chance.uniform(0, 0.03))
        with open_store(persistent_target) as store:
            run = look(killed, store, said)
            found[run.status if run else "nothing stored"] += 1
            if run is None or run.status == "INTERRUPTED":
                finish(killed, store, run)
            else:
                assert killed.effects() == Counter(TOOLS)
                with pytest.raises(RunClosed):
                    store.claim_run(run.run_id)

    assert found["INTERRUPTED"] >= kills // 2, f"too few kills hit a run: {found}"


def test_continue_run_killed_before_first_message(persistent_target, forking, tmp_path):
    """From its input: the row was there before anything else, and holds that."""
    killed = Killed(forking, persistent_target, tmp_path / "chat", hangs="instructions")
    killed.kill_after(2, 0.0)
    with open_store(persistent_target) as store:
        run = look(killed, store, [])
        assert (run.status, run.input, run.messages) == ("INTERRUPTED", "do all", [])
        finish(killed, store, run)


def test_killed_tool_is_unknown_and_not_repeated(persistent_target, forking, tmp_path):
    """It took effect, and nobody knows: the model is told so, and the store goes on saying so."""
    killed = Killed(forking, persistent_target, tmp_path / "chat", hangs="second")
    said = killed.kill_after(5, 0.0)
    with open_store(persistent_target) as store:
        run = look(killed, store, said)
        assert {call.tool_name: call.status for call in run.tool_calls} == {"first": "completed", "second": "unknown"}
        finish(killed, store, run)
        assert killed.effects() == {"first": 1, "second": 1, "third": 1}
        calls = store.tool_calls_df("chat").set_index("tool_name")
        assert calls.status.to_dict() == {"first": "completed", "second": "unknown", "third": "completed"}
