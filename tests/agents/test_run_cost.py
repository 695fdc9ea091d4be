"""Run 200 of a session costs what run 2 did, apart from the history that was asked for."""

from __future__ import annotations

import pytest
from run_cost import counted

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb, heartbeats
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message
from kern_nb.runtime import cancellation

RUNS = 200


@pytest.fixture(autouse=True)
def _no_timers(monkeypatch):
    """A run that takes long on a busy machine has a heartbeat, in a thread of its own, and looks for a request to end."""
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 3600.0)
    monkeypatch.setattr(cancellation, "_CHECK_S", 3600.0)


def answer(messages: list[Message]) -> object:
    """A tool call, then what it gave."""
    last = messages[-1]
    return f"The answer is {last.content}" if last.role == "tool" else call("look_up", number=str(last.content)[-3:])


def look_up(session_state: dict, number: str) -> str:
    """Look a number up, and remember it."""
    session_state["latest"] = number
    return f"found {number} " + "x" * 200


def an_agent(store, **options) -> Agent:
    return Agent(
        ScriptedModel(answer), db=store, tools=[look_up], session_id="chat", instructions="Be brief.", **options
    )


def lengthen(store, length: int) -> None:
    """Bring the session to so many runs, many at a time: copies of its first with ids of their own."""
    session = store.get_session("chat")
    first = session.runs[1]
    more = [
        first.model_copy(update={"run_id": f"{first.run_id[:-4]}-{i:03}"}) for i in range(len(session.runs), length)
    ]
    store.save_session(session.model_copy(update={"runs": more}))


def costs(store, agent: Agent) -> dict[int, dict[str, int]]:
    """What runs cost, by their number: of the first ten and of the last two."""
    found = {}
    for number in (*range(1, 11), RUNS - 1, RUNS):
        if number == RUNS - 1:
            lengthen(store, RUNS - 2)
        with counted(store) as cost:
            run = agent.run(f"What is number {number:03}?")
        assert (run.status, run.run_index) == ("COMPLETED", number - 1)
        found[number] = dict(cost)
    return found


def require_the_same(found: dict[int, dict[str, int]]) -> None:
    """That no run cost more than the second one, nor less."""
    assert {number: cost for number, cost in found.items() if number > 1 and cost != found[2]} == {}
    assert found[2]["statements"] <= 60
    assert found[2]["rows"] <= 30


def test_run_200_has_statements_of_run_2(store):
    """Statements, bytes sent, rows and bytes read: exactly the same, where no history is asked for."""
    require_the_same(costs(store, an_agent(store)))


def test_unused_history_options_cost_nothing():
    """A tool that reads the history and is not called; a cache of sessions."""
    with InMemoryDb() as store:
        agent = an_agent(store, read_chat_history=True, search_past_sessions=True, cache_session=True)
        require_the_same(costs(store, agent))


def test_run_200_with_history_has_statements_of_run_5(store):
    """The three runs that were asked for are read, and no others."""
    found = costs(store, an_agent(store, add_history_to_context=True, num_history_runs=3))

    assert {number: cost for number, cost in found.items() if number >= 5 and cost != found[5]} == {}
    more = {key: found[5][key] - found[4][key] for key in found[5]}
    assert more["rows"] == more["heard"] == 0  # three runs at run 4, too
    assert found[4]["rows"] > found[3]["rows"] > found[2]["rows"]
