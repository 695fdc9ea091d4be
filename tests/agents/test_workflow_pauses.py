"""A workflow pauses at a step that a person must confirm, or whose agent waits, and goes on there."""

from __future__ import annotations

import pytest
from pausing_agents import pending_tools, requirement_id, results
from team_members import member, writer
from workflow_steps import Pipeline

from kern_nb.agent import handoff
from kern_nb.db import SqliteDb
from kern_nb.errors import AlreadyResolved, RunClosed, StillWaiting
from kern_nb.models.scripted import call
from kern_nb.workflow import Condition, Loop, Parallel, Step, Steps


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


@pytest.fixture
def pipeline(store):
    """Workflows in that store."""
    return Pipeline(store)


def test_step_pauses_for_confirmation(pipeline, store):
    """The steps before it have run, it has not; the question says what it would be given."""
    flow = pipeline.made(pipeline.adds("a"), pipeline.asks("b", prompt="Sure?", assignee="carol"), pipeline.adds("c"))
    run = flow.run("in")

    assert (run.status, run.output, pipeline.ran) == ("PAUSED", None, ["a"])
    (one,) = run.requirements
    assert (one.kind, one.tool_name, one.prompt, one.assignee) == ("confirmation", "b", "Sure?", "carol")
    assert one.args == {"previous_step_content": "ina"}
    assert store.requirements(assignee="carol") == flow.get_session().runs[0].requirements == [one]
    with pytest.raises(StillWaiting, match="b"):
        flow.continue_run("chat/0")
    assert [r.status for r in flow.get_session().runs] == ["PAUSED", "COMPLETED"]


def test_confirmed_step_and_following_steps_run(pipeline):
    """Those before it do not run again; each step is one run of the session."""
    made = [pipeline.adds("a"), pipeline.asks("b"), pipeline.adds("c")]
    pipeline.made(*made).run("in")
    pipeline.answer(approve=True, by="carol")
    done = pipeline.made(*made).continue_run("chat/0")

    assert (done.status, done.output, pipeline.ran) == ("COMPLETED", "inabc", ["a", "b", "c"])
    runs = pipeline.store.get_session("chat").runs
    assert [(r.status, r.output) for r in runs] == [("COMPLETED", text) for text in ("inabc", "ina", "inab", "inabc")]
    with pytest.raises(RunClosed):
        pipeline.made(*made).continue_run("chat/0")


def test_rejected_step_ends_workflow(pipeline):
    """As cancelled, with the reason; neither it nor those after it run, then or later."""
    flow = pipeline.made(pipeline.adds("a"), pipeline.asks("b"), pipeline.adds("c"))
    flow.run("in")
    pipeline.answer(approve=False, note="too dear")
    done = flow.continue_run("chat/0")

    assert (done.status, done.output, pipeline.ran) == ("CANCELLED", None, ["a"])
    assert "too dear" in done.error
    with pytest.raises(AlreadyResolved):
        pipeline.store.resolve(requirement_id(done), approve=True)
    assert flow.continue_run("chat/0").status == "CANCELLED"
    assert pipeline.ran == ["a"]
    assert flow.run("next").status == "PAUSED"


def test_step_input_is_edited(pipeline):
    """By who confirms it."""
    flow = pipeline.made(pipeline.adds("a"), pipeline.asks("b"), pipeline.adds("c"))
    flow.run("in")
    pipeline.answer(args={"previous_step_content": "edited"})

    assert flow.continue_run("chat/0").output == "editedbc"


@pytest.mark.parametrize("kind", ["confirmation", "handoff"])
def test_agent_step_pauses(pipeline, kind):
    """So does the workflow, whose requirements are the agent's; its run is the same one when it goes on."""
    if kind == "handoff":
        ann = member("Ann", call("hand_to_human", reason="?"), "Ann is done", tools=[handoff(to="carol")])
    else:
        ann = writer("Ann", pipeline.sent, "bob")
    flow = pipeline.made(pipeline.adds("a"), ann, pipeline.adds("c"))
    run = flow.run("in")
    assert (run.status, [one.kind for one in run.requirements]) == ("PAUSED", [kind])
    with pytest.raises(StillWaiting):
        flow.continue_run("chat/0")
    pipeline.answer(**({"value": "do it"} if kind == "handoff" else {"approve": True}))
    done = flow.continue_run("chat/0")

    assert (done.status, done.output, pipeline.ran) == ("COMPLETED", "Ann is donec", ["a", "c"])
    assert pipeline.sent == ([("bob", 1)] if kind == "confirmation" else [])
    assert [r.agent_id for r in pipeline.store.get_session("chat").runs] == [None, None, "ann", None]


def test_rejection_inside_agent_step(pipeline):
    """It is told, and the workflow goes on with what it says then."""
    flow = pipeline.made(writer("Ann", pipeline.sent, "x", "y"), pipeline.adds("!"))
    flow.run("in")
    pipeline.answer(approve=False, note="not x")
    assert flow.continue_run("chat/0").status == "PAUSED"
    pipeline.answer(approve=True)
    done = flow.continue_run("chat/0")

    assert (done.output, pipeline.sent) == ("Ann is done!", [("y", 1)])
    assert results(flow.steps_of("chat/0")[0]) == ["not x", "sent 1 to y"]


def test_parallel_steps_all_end_or_pause(pipeline):
    """Those that need nobody are not run again; answers may come one by one."""
    made = [
        Parallel(
            pipeline.asks("p"),
            pipeline.adds("q"),
            writer("Ann", pipeline.sent, "x"),
            [pipeline.adds("r"), pipeline.asks("s")],
        ),
        Step(lambda given: sorted(given.previous_step_content.items()), name="end"),
    ]
    run = pipeline.made(*made).run("in")
    assert (sorted(pending_tools(run)), sorted(pipeline.ran)) == (["p", "s", "send"], ["q", "r"])
    for left in (2, 1):
        pipeline.store.resolve(next(r for r in run.requirements if r.status == "pending").requirement_id, approve=True)
        run = pipeline.store.get_run(run.run_id)
        with pytest.raises(StillWaiting, match=f"has {left} pending"):
            pipeline.made(*made).continue_run("chat/0")
    pipeline.answer()
    done = pipeline.made(*made).continue_run("chat/0")

    assert done.output == [["Ann", "Ann is done"], ["p", "inp"], ["q", "inq"], ["steps", "inrs"]]
    assert (sorted(pipeline.ran), pipeline.sent) == (["p", "q", "r", "s"], [("x", 1)])


def test_parallel_step_pauses_again(pipeline):
    """The others go on meanwhile, and do not run again."""
    flow = pipeline.made(Parallel(writer("Ann", pipeline.sent, "a1", "a2"), [pipeline.asks("p"), pipeline.adds("q")]))
    flow.run("in")
    pipeline.answer()
    run = flow.continue_run("chat/0")
    assert (run.status, pending_tools(run), pipeline.ran) == ("PAUSED", ["send"], ["p", "q"])
    pipeline.answer()
    done = flow.continue_run("chat/0")

    assert (done.status, done.output) == ("COMPLETED", {"Ann": "Ann is done", "steps": "inpq"})
    assert (pipeline.sent, pipeline.ran) == ([("a1", 1), ("a2", 1)], ["p", "q"])


def test_rejection_among_parallel_steps(pipeline):
    """The others have ended by then."""
    flow = pipeline.made(Parallel(pipeline.asks("p"), pipeline.adds("q")), pipeline.adds("z"))
    flow.run("in")
    pipeline.answer(approve=False, note="no")
    done = flow.continue_run("chat/0")

    assert (done.status, pipeline.ran) == ("CANCELLED", ["q"])


def test_each_loop_iteration_pauses(pipeline):
    """Rounds that ended do not run again; the loop's end is decided once a round."""
    decided = []

    def enough(given):
        decided.append(given.previous_step_content)
        return given.previous_step_content == "inaaa"

    made = [Loop([pipeline.asks("a")], enough, max_iterations=9, forward_iteration_output=True), pipeline.adds("z")]
    run = pipeline.made(*made).run("in")
    for content in (None, "ina", "inaa"):
        assert run.requirements[-1].args == {"previous_step_content": content}
        pipeline.answer()
        run = pipeline.made(*made).continue_run("chat/0")

    assert (run.status, run.output) == ("COMPLETED", "inaaaz")
    assert (pipeline.ran, decided) == (["a", "a", "a", "z"], ["ina", "inaa", "inaaa"])


@pytest.mark.parametrize("first", [True, False])
def test_condition_result_is_stored(pipeline, first):
    """The run that goes on takes the same way, though the function would decide otherwise now."""
    decisions = [first]

    def decide(_given):
        return decisions[-1]

    made = [Condition(decide, [pipeline.asks("y")], [pipeline.asks("n")]), pipeline.adds("z")]
    pipeline.made(*made).run("in")
    decisions.append(not first)
    pipeline.answer()

    assert pipeline.made(*made).continue_run("chat/0").output == ("inyz" if first else "innz")


def test_nested_steps_pause(pipeline):
    """A step in a condition in a loop in steps at once."""
    condition = Condition(lambda _given: True, [Steps([pipeline.asks("a")])])
    loop = Loop([condition], max_iterations=2, forward_iteration_output=True)
    flow = pipeline.made(Parallel(loop, pipeline.asks("p")))
    run = flow.run("in")
    rounds = 0
    while run.status == "PAUSED":
        rounds += 1
        pipeline.answer()
        run = flow.continue_run("chat/0")

    assert (run.output, rounds, sorted(pipeline.ran)) == ({"loop": "inaa", "p": "inp"}, 2, ["a", "a", "p"])
