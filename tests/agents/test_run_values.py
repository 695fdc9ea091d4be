"""The state that tools see has the ids of user, session and run, which are never stored."""

from __future__ import annotations

import copy
import json
import threading

import pytest
from recording_models import RecordingModel, calls_once
from team_members import crew, task

from kern_nb import Agent, Workflow
from kern_nb.agent import RunContext, tool
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.workflow import Parallel

RUN_KEYS = ("current_user_id", "current_session_id", "current_run_id", "workflow_id", "workflow_name")


def stored_states(store, session_id):
    """Every state that is stored of a session: its own, and that of each run and of what a run keeps beside it."""
    session = store.get_session(session_id)
    return json.dumps([session.session_data, *([run.session_state, run.internal, run.extra] for run in session.runs)])


def spy(states: list[dict]):
    """A tool that notes the state that it sees, and changes it."""

    def look(session_state: dict, run_context: RunContext) -> str:
        states.append(copy.deepcopy(session_state))
        assert run_context.session_state is session_state
        session_state["n"] = session_state.get("n", 0) + 1
        return "ok"

    return look


def test_tools_see_the_ids_of_the_run(db):
    """Without a user, there is none; nothing of them is stored."""
    states: list[dict] = []
    agent = Agent(calls_once("look"), db=db, session_state={"a": 1}, tools=[spy(states)])
    first = agent.run("x", session_id="s1", user_id="ann")
    second = agent.run("x", session_id="s2")

    ids = {"current_session_id": "s1", "current_run_id": first.run_id, "current_user_id": "ann"}
    assert states[0] == {"a": 1} | ids
    assert states[1] == {"a": 1, "current_session_id": "s2", "current_run_id": second.run_id}
    for name, run in (("s1", first), ("s2", second)):
        assert run.session_state == db.get_session(name).session_state == {"a": 1, "n": 1}
        assert agent.get_session_state(name) == {"a": 1, "n": 1}
        assert "current_" not in stored_states(db, name)


def test_users_of_one_agent_never_see_each_other(db):
    """Also when they run at once: each tool sees the user, session and run of its own run."""
    barrier, seen = threading.Barrier(4), {}

    def meet(run_context: RunContext) -> str:
        barrier.wait(20)
        state = run_context.session_state
        seen[run_context.user_id] = tuple(state[key] for key in RUN_KEYS[:3])
        return "ok"

    model = calls_once("meet")
    agent = Agent(model, db=db, tools=[meet], instructions="You serve {current_user_id}.")
    users = [f"user {n}" for n in range(4)]
    runs = {}
    threads = [
        threading.Thread(target=lambda u=user: runs.update({u: agent.run("hi", user_id=u, session_id=f"of {u}")}))
        for user in users
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == {user: (user, f"of {user}", runs[user].run_id) for user in users}
    for user in users:
        assert runs[user].messages[0].content == f"You serve {user}."
        others = [other for other in users if other != user]
        assert not any(other in stored_states(db, f"of {user}") for other in others)
    assert len(model.told) == 8


def test_replaced_state_still_has_the_ids(db):
    """A tool that assigns another dict replaces what is stored, not what the run is."""
    states: list[dict] = []

    def reset(run_context: RunContext) -> str:
        run_context.session_state = {"b": 2}
        return "ok"

    model = ScriptedModel([call("reset"), call("look"), "done"])
    Agent(model, db=db, session_id="s", session_state={"a": 1}, user_id="ann", tools=[reset, spy(states)]).run("x")

    assert states[0]["current_user_id"] == "ann"
    assert db.get_session("s").session_state == {"b": 2, "n": 1}


def test_stored_values_under_the_same_keys_are_not_lost(db):
    """A session of another program may have them: they are covered during the run, and stay as they are."""
    db.update_session_state("s", {"current_user_id": "old", "current_run_id": 7, "a": 1})
    states: list[dict] = []
    agent = Agent(calls_once("look"), db=db, session_id="s", tools=[spy(states)])
    agent.run("x", user_id="ann")

    assert states[0]["current_user_id"] == "ann"
    assert db.get_session("s").session_state == {"current_user_id": "old", "current_run_id": 7, "a": 1, "n": 1}


def test_failed_and_paused_runs_store_none(db):
    """A run that fails, one that pauses, and one that is continued by another agent."""
    states: list[dict] = []

    def breaks(run_context: RunContext) -> str:
        run_context.session_state["b"] = 1
        return "ok"

    failing = Agent(ScriptedModel([call("breaks"), ValueError("no")]), db=db, session_id="f", tools=[breaks])
    with pytest.raises(RunFailed):
        failing.run("x", user_id="ann")
    assert db.get_session("f").session_state == {"b": 1}

    careful = tool(spy(states), name="look", requires_confirmation=True)
    paused = Agent(ScriptedModel([call("look")]), db=db, session_id="p", user_id="ann", tools=[careful]).run("x")
    assert "current_" not in stored_states(db, "p")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    run = Agent(ScriptedModel(["done"]), db=db, session_id="p", tools=[careful]).continue_run(paused.run_id)
    assert states[-1] == {
        "current_session_id": "p",
        "current_run_id": paused.run_id,
        "current_user_id": "ann",
    }
    assert run.session_state == {"n": 1}
    for name in "fp":
        assert "current_" not in stored_states(db, name)


def test_teams_and_workflows(db):
    """Members and steps see the ids of the outermost run; a workflow's own are there, too. None is stored."""
    states: list[dict] = []
    look = spy(states)
    member = Agent(calls_once("look"), name="helper", tools=[look])
    team = crew(db, [member], call("look"), task("helper"), "done", tools=[look])
    run = team.run("x", user_id="ann")
    ids = {"current_session_id": "chat", "current_run_id": run.run_id, "current_user_id": "ann"}
    assert states == [ids, ids | {"n": 1}]
    assert db.get_session("chat").session_state == {"n": 2}

    states.clear()
    agents = [Agent(calls_once("look"), name=name, tools=[look]) for name in ("a", "b")]

    def step(step_input):
        states.append(dict(step_input.session_state))
        return step_input.input

    workflow = Workflow([step, Parallel(*agents)], db=db, name="Flow", session_id="w", user_id="ann")
    run = workflow.run("x")
    ids = {"current_session_id": "w", "current_run_id": run.run_id, "current_user_id": "ann"}
    ids |= {"workflow_id": "flow", "workflow_name": "Flow"}
    assert states[0] == ids
    assert all(ids.items() <= state.items() for state in states)
    assert db.get_session("w").session_state == {"n": 2}
    for name in ("chat", "w"):
        assert not any(f'"{key}"' in stored_states(db, name) for key in RUN_KEYS)


def test_members_and_steps_add_their_default_state(db):
    """Keys that the shared state lacks, at every depth; they are stored with it."""
    default = {"own": 5, "k": 9, "d": {"y": 2}}
    member = Agent(RecordingModel(), name="helper", session_state=default, instructions="{k} {own} {d}")
    crew(db, [member], task("helper"), "done", session_state={"k": 1, "d": {"x": 1}}).run("x")
    workflow = Workflow([member], db=db, session_id="w", session_state={"k": 1, "d": {"x": 1}})
    workflow.run("x")

    for at, name in enumerate(("chat", "w")):
        assert member.model.instructions(at) == "1 5 {'x': 1, 'y': 2}"
        assert db.get_session(name).session_state == {"k": 1, "own": 5, "d": {"x": 1, "y": 2}}
    assert default == {"own": 5, "k": 9, "d": {"y": 2}}
