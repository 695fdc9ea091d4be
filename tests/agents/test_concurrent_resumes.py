"""A pause is answered once and gone on with once, however many processes try at the same instant."""

from __future__ import annotations

from collections import Counter

import pytest
from concurrent_resume_process import PROCESSES, an_agent
from json_processes import JsonProcess

from kern_nb.db import open_store

ROUNDS = {"postgres": 40, "sqlite": 20, "duckdb": 4}
"""PostgreSQL lets all of them work at the same time, where a file admits one writer: there the promise is hardest to keep."""


@pytest.fixture(scope="module")
def crowd():
    """Eight processes that do the same at one instant."""
    teller = JsonProcess("concurrent_resume_process.py")
    yield teller
    teller.stop()


def resumed(crowd: JsonProcess, *, held: bool, **order: str) -> list[dict]:
    """Let all of them answer a pause and go on; what each met. ``held``: no tool ends before all others have tried."""
    crowd.tell(resume=order)
    for _ in range(PROCESSES):
        assert "ready" in crowd.hear()
    crowd.tell(go=True) if held else crowd.tell(go=True, release=1)
    ran, tried = 0, []
    while len(tried) < PROCESSES:
        said = crowd.hear()
        ran += "ran" in said
        tried += [said["tried"]] if "tried" in said else []
        if held and len(tried) + ran == PROCESSES:
            crowd.tell(release=ran)
            held = False
    assert ran == 1
    return tried


def test_one_of_eight_processes_resumes(persistent_target, crowd, request, tmp_path):
    """Each time the tool runs once, one process has the answer, one finishes the run; the others are told they were late."""
    rounds = ROUNDS[request.node.callspec.params["persistent_target"]]
    paid = tmp_path / "paid"
    with open_store(persistent_target) as store:
        agent = an_agent(store, paid)
        paused = [agent.run("pay 7", session_id=f"chat {number}") for number in range(rounds)]
    for number, run in enumerate(paused):
        held = number % 2 == 0
        asked = {"run_id": run.run_id, "requirement_id": run.requirements[0].requirement_id}
        tried = resumed(crowd, held=held, target=persistent_target, paid=str(paid), **asked)

        assert Counter(one["answered"] for one in tried) == {"first": 1, "AlreadyResolved": PROCESSES - 1}
        assert [one["output"] for one in tried if "output" in one] == ["paid 7"]
        errors = [one["error"] for one in tried if "error" in one]
        assert len(errors) == PROCESSES - 1
        # While the run is under way, they are told that another goes on with it; once it has ended, that it has.
        assert set(errors) <= ({"AlreadyClaimed"} if held else {"AlreadyClaimed", "RunClosed"})
        assert len(paid.read_text().splitlines()) == number + 1

    with open_store(persistent_target) as store:
        runs, calls = store.runs_df(), store.tool_calls_df()
        assert runs.status.tolist() == ["COMPLETED"] * rounds
        assert runs.n_messages.tolist() == [4] * rounds
        assert calls.status.tolist() == ["completed"] * rounds
        assert calls.result.tolist() == ["paid 7"] * rounds
        assert store.requirements() == []
        assert store.check()
