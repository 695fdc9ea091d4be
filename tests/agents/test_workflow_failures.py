"""A step of a workflow fails: what had ended stays, and the run goes on at that step once it is mended."""

from __future__ import annotations

import threading

import pytest
from pausing_agents import calls, pending_tools
from team_members import member, writer
from workflow_steps import Pipeline

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, KernError, RunFailed
from kern_nb.models.scripted import ScriptedModel
from kern_nb.workflow import Condition, Loop, Parallel, Step, Workflow


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


@pytest.fixture
def pipeline(store):
    """Workflows in that store."""
    return Pipeline(store)


def places(pipeline, failing):
    """Workflows in which the step ``b`` (a function, or an agent's step) stands somewhere."""
    a, b, c = pipeline.adds("a"), pipeline.agent("b") if failing == "agent" else pipeline.adds("b"), pipeline.adds("c")
    return {
        "sequence": lambda: pipeline.made(a, b, c),
        "parallel": lambda: pipeline.made(Parallel(a, b), c),
        "condition": lambda: pipeline.made(Condition(lambda _given: True, [a, b]), c),
        "loop": lambda: pipeline.made(Loop([a, b], max_iterations=1), c),
        "workflow": lambda: pipeline.made(a, Workflow([b], name="Inner"), c),
    }


@pytest.mark.parametrize("failing", ["function", "agent"])
@pytest.mark.parametrize("place", ["sequence", "parallel", "condition", "loop", "workflow"])
def test_workflow_resumes_at_failed_step(pipeline, place, failing):
    """The run is ERROR, with the step's error; once it is mended, finished steps and finished tools do not run again."""
    made = places(pipeline, failing)[place]
    pipeline.down.add("b")
    for _ in range(2):
        with pytest.raises(RunFailed, match="b is down"):
            made().continue_run("chat/0") if pipeline.ran else made().run("in")
        run = pipeline.store.get_session("chat").runs[0]
        assert (run.status, run.output, "b is down" in run.error) == ("ERROR", None, True)
    pipeline.down.clear()
    done = made().continue_run("chat/0")

    assert (done.status, done.error, pipeline.ran.count("a"), pipeline.ran.count("c")) == ("COMPLETED", None, 1, 1)
    assert pipeline.ran.count("b") == (3 if failing == "function" else 0)
    assert pipeline.sent == ([("b", 1)] if failing == "agent" else [])
    assert done.output.endswith("c")
    assert {run.status for run in pipeline.runs()} <= (
        {"COMPLETED", "ERROR"} if failing == "function" else {"COMPLETED"}
    )
    assert made().run("next").status == "COMPLETED"


def test_each_attempt_is_stored(pipeline):
    """With its error; the last one's output counts."""
    flow = pipeline.made(pipeline.adds("a"), pipeline.adds("b"))
    pipeline.down.add("b")
    with pytest.raises(RunFailed):
        flow.run("in")
    pipeline.down.clear()
    flow.continue_run("chat/0")

    tries = [(one.status, one.output, one.error) for one in flow.steps_of("chat/0") if one.extra["step"] == "b"]
    assert tries == [("ERROR", None, "ConnectionError: b is down"), ("COMPLETED", "inab", None)]


@pytest.mark.parametrize("way", [SystemExit("bye"), KeyboardInterrupt(), ValueError(), AssertionError("no")], ids=repr)
@pytest.mark.parametrize("place", ["step", "async step", "condition", "parallel"])
def test_any_exception_of_step(store, way, place):
    """Of the step and of the workflow; the next run works."""

    def leave(given):
        if given.input == "leave":
            raise way
        return given.input

    async def leave_later(given):
        return leave(given)

    steps = {
        "step": [leave],
        "async step": [leave_later],
        "condition": [Condition(leave, [leave])],
        "parallel": [Parallel(leave, Step(leave_later, name="other")), lambda given: given.input],
    }
    flow = Workflow(steps[place], db=store, session_id="chat")
    with pytest.raises(RunFailed, match=type(way).__name__):
        flow.run("leave")

    runs = flow.get_session().runs
    assert {run.status for run in runs} == {"ERROR"}
    assert all(type(way).__name__ in run.error for run in runs)
    assert flow.run("stay").output == "stay"


def test_step_fails_beside_paused_step(pipeline):
    """The failure is what is said; what waits can be answered, and both go on."""
    flow = pipeline.made(Parallel(pipeline.adds("b"), writer("Ann", pipeline.sent, "x"), pipeline.asks("p")))
    pipeline.down.add("b")
    with pytest.raises(RunFailed, match="b is down"):
        flow.run("in")
    pipeline.down.clear()
    run = None
    for _ in range(3):
        pipeline.answer()
        run = flow.continue_run("chat/0")
        if run.status != "PAUSED":
            break

    assert (run.status, run.output) == ("COMPLETED", {"b": "inb", "Ann": "Ann is done", "p": "inp"})
    assert (pipeline.ran, pipeline.sent) == (["b", "b", "p"], [("x", 1)])


EDITS = {
    "a step before": lambda p: [p.adds("new"), p.adds("a"), p.adds("b")],
    "another name": lambda p: [p.adds("z"), p.adds("b")],
    "an agent in its place": lambda p: [member("a", "I am a"), p.adds("b")],
    "a loop around it": lambda p: [Loop([p.adds("a"), p.adds("b")])],
}


@pytest.mark.parametrize("edit", EDITS)
def test_changed_step_is_rejected(pipeline, edit):
    """It is refused, or the changed step runs: what one step gave is not what another one gives."""
    pipeline.down.add("b")
    with pytest.raises(RunFailed):
        pipeline.made(pipeline.adds("a"), pipeline.adds("b")).run("in")
    pipeline.down.clear()
    pipeline.ran.clear()
    try:
        done = pipeline.made(*EDITS[edit](pipeline)).continue_run("chat/0")
    except KernError:
        assert pipeline.ran == []
        assert pipeline.made(pipeline.adds("a"), pipeline.adds("b")).continue_run("chat/0").output == "inab"
    else:
        fresh = pipeline.made(*EDITS[edit](pipeline), session_id="fresh").run("in")
        assert done.output == fresh.output


OTHERS = {
    "an agent": lambda _pipeline: member("Bob", "bob"),
    "an agent of its name": lambda _pipeline: Agent(ScriptedModel(["bob"]), name="Ann", id="bob"),
    "a function": lambda pipeline: pipeline.adds("f"),
    "a function of its name": lambda pipeline: pipeline.adds("Ann"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_step_of_other_executor_is_rejected(pipeline, other):
    """It is refused, and the one whose run it is goes on with it."""
    pipeline.made(writer("Ann", pipeline.sent, "x")).run("in")
    pipeline.answer()
    with pytest.raises((RunFailed, BadUsage)):
        pipeline.made(OTHERS[other](pipeline)).continue_run("chat/0")
    assert (pipeline.sent, pipeline.ran) == ([], [])

    assert pipeline.made(writer("Ann", pipeline.sent, "x")).continue_run("chat/0").output == "Ann is done"
    assert pipeline.sent == [("x", 1)]


def test_appended_steps_run(pipeline):
    """A workflow that is continued may have got longer: its finished steps are the same ones."""
    pipeline.down.add("b")
    with pytest.raises(RunFailed):
        pipeline.made(pipeline.adds("a"), pipeline.adds("b")).run("in")
    pipeline.down.clear()

    assert (
        pipeline.made(pipeline.adds("a"), pipeline.adds("b"), pipeline.adds("c")).continue_run("chat/0").output
        == "inabc"
    )


def test_concurrent_step_state_changes(pipeline):
    """Steps at once share one dict; each end stores it as it is then."""
    leave = threading.Event()

    def busy(given):
        count = 0
        while not leave.wait(0) and count < 2_000_000:
            count += 1
            given.session_state[f"key {count % 2000}"] = count
            if count % 2000 == 0:
                given.session_state.clear()

    quick = [Step(pipeline.adds(f"q{i}").executor, name=f"q{i}") for i in range(15)]

    def release(_given):
        leave.set()

    run = pipeline.made(Parallel(busy, [*quick, release])).run("in")

    assert (run.status, len(pipeline.ran)) == ("COMPLETED", 15)


def test_failed_workflow_has_no_requirements(pipeline):
    """A workflow that failed waits for nobody."""
    pipeline.down.add("b")
    with pytest.raises(RunFailed):
        pipeline.made(pipeline.adds("b")).run("in")
    run = pipeline.store.get_session("chat").runs[0]

    assert (pending_tools(run), calls(run), pipeline.store.requirements()) == ([], [], [])
