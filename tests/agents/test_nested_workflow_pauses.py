"""What pauses within a workflow: another workflow, a team, an agent that a function runs; and the state meanwhile."""

from __future__ import annotations

import threading

import pytest
from pausing_agents import calls, pending_tools
from run_state_keys import without_run_keys
from team_members import crew, member, task, writer
from workflow_steps import Pipeline

from kern_nb.agent import tool
from kern_nb.db import SqliteDb
from kern_nb.errors import AlreadyClaimed, RunFailed
from kern_nb.models.scripted import call
from kern_nb.workflow import Step, Workflow


@pytest.fixture
def pipeline(tmp_path):
    """Workflows in a store of one engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as store:
        yield Pipeline(store)


@pytest.mark.parametrize("approve", [True, False])
def test_nested_workflow_pauses(pipeline, approve):
    """The outer one goes on, or ends, as the inner one does."""

    def made():
        inner = Workflow([pipeline.adds("b"), pipeline.asks("c")], name="Inner")
        return pipeline.made(pipeline.adds("a"), inner, pipeline.adds("d"))

    run = made().run("in")
    assert (pending_tools(run), [r.status for r in made().get_session().runs]) == (
        ["c"],
        ["PAUSED", "COMPLETED", "PAUSED", "COMPLETED"],
    )
    pipeline.answer(approve=approve, note="no")
    done = made().continue_run("chat/0")

    assert (done.status, pipeline.ran) == (("COMPLETED", list("abcd")) if approve else ("CANCELLED", list("ab")))
    assert done.output == ("inabcd" if approve else None)
    assert approve or "no" in done.error


def test_team_step_pauses(pipeline):
    """For its member; each run goes on once."""

    def made():
        team = crew(None, [writer("Ann", pipeline.sent, "x")], task("ann"), "led", session_id=None)
        return pipeline.made(pipeline.adds("a"), team, pipeline.adds("c"))

    run = made().run("in")
    assert pending_tools(run) == ["send"]
    pipeline.answer()
    done = made().continue_run("chat/0")

    assert (done.output, pipeline.sent, pipeline.ran) == ("ledc", [("x", 1)], ["a", "c"])
    runs = made().get_session().runs
    assert [r.run_type for r in runs] == ["workflow", "workflow", "team", "agent", "workflow"]
    assert calls(runs[2]) == [("delegate_task_to_member", "completed", "Ann is done")]


def test_state_survives_workflow_pause(pipeline):
    """What finished steps set is there, what others set meanwhile is not lost."""

    def put(key):
        def step(given):
            given.session_state[key] = sorted(without_run_keys(given.session_state))

        return Step(step, name=key)

    made = [put("a"), pipeline.asks("b"), put("c")]
    pipeline.made(*made, session_state={"start": 1}).run("in")
    pipeline.made(*made).update_session_state({"other": 5})
    pipeline.answer()
    done = pipeline.made(*made).continue_run("chat/0")

    assert done.session_state.items() >= {"start": 1, "a": ["start"]}.items()
    assert {"start", "a"} <= set(done.session_state["c"])
    assert set(pipeline.made(*made).get_session_state()) == {"start", "a", "c", "other"}


def test_paused_agent_inside_function_step(pipeline):
    """Nobody would go on with it: the step fails, and says what to do instead."""
    ann = writer("Ann", pipeline.sent, "x", db=pipeline.store)
    flow = pipeline.made(Step(lambda given: ann.run(given.input, session_id="side"), name="f"), pipeline.adds("z"))
    with pytest.raises(RunFailed, match="PAUSED") as caught:
        flow.run("in")

    assert (pipeline.ran, bool(caught.value.hint)) == ([], True)
    assert [r.status for r in flow.get_session().runs] == ["ERROR", "ERROR"]
    pipeline.store.resolve("side/0", approve=True)
    assert ann.continue_run("side/0").status == "COMPLETED"


@pytest.mark.parametrize("kind", ["team", "workflow"])
def test_agent_step_continued_directly(pipeline, kind):
    """Whoever would go on with the run above it meanwhile is told so, and can later."""
    inside, leave = threading.Event(), threading.Event()

    @tool(requires_confirmation=True)
    def work() -> str:
        """Work."""
        pipeline.ran.append("work")
        inside.set()
        assert leave.wait(20)
        return "worked"

    ann = member("Ann", call("work"), "Ann is done", tools=[work], db=pipeline.store)
    runner = (
        crew(pipeline.store, [ann], task("ann"), "led") if kind == "team" else pipeline.made(ann, pipeline.adds("!"))
    )
    runner.run("in")
    pipeline.answer()
    first = threading.Thread(target=lambda: ann.continue_run("chat/1"))
    first.start()
    try:
        assert inside.wait(20)
        with pytest.raises(AlreadyClaimed):
            runner.continue_run("chat/0")
        status = pipeline.runs()[0].status
    finally:
        leave.set()
        first.join()
    assert status == "PAUSED"
    assert runner.continue_run("chat/0").output == ("led" if kind == "team" else "Ann is done!")
    assert pipeline.ran.count("work") == 1
