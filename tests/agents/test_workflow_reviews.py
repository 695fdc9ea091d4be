"""People review the nodes of a workflow: before they run, with values that they enter, and their outputs."""

from __future__ import annotations

import time

import pytest
from workflow_steps import Pipeline

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import AlreadyResolved, BadUsage, RunClosed
from kern_nb.models.scripted import ScriptedModel
from kern_nb.workflow import Condition, HumanReview, Loop, OnReject, Parallel, Router, Step, StepOutput, Steps, pause


@pytest.fixture
def pipeline(tmp_path):
    """Workflows in a store of one engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as store:
        yield Pipeline(store)


def answer(pipeline, make, **values):
    """Answer what is pending, and continue with a workflow that is constructed again."""
    pipeline.answer(**values)
    return pipeline.made(*make()).continue_run("chat/0")


def agent(name, told, *answers):
    """An agent that notes what it is told."""
    script = list(answers)

    def say(messages):
        told.append(messages[-1].content)
        return script.pop(0) if script else f"{name} answers"

    return Agent(ScriptedModel(say), name=name)


@pytest.mark.parametrize(
    ("on_reject", "output", "status"),
    [("skip", "inac", "COMPLETED"), (OnReject.cancel, None, "CANCELLED"), ("else_branch", "inac", "COMPLETED")],
)
@pytest.mark.parametrize("place", ["step", "steps", "loop", "router", "nested"])
def test_rejected_node(pipeline, place, on_reject, output, status):
    """It does not run; the next one has the output of the one before it."""
    review = HumanReview(requires_confirmation=True, on_reject=on_reject)

    def make():
        node = {
            "step": lambda: pipeline.adds("b", human_review=review),
            "steps": lambda: Steps([pipeline.adds("b")], human_review=review),
            "loop": lambda: Loop([pipeline.adds("b")], human_review=review),
            "router": lambda: Router([pipeline.adds("b")], lambda _: "b", human_review=review),
            "nested": lambda: Steps([Loop([pipeline.adds("b", human_review=review)], max_iterations=1)]),
        }[place]()
        return pipeline.adds("a"), node, pipeline.adds("c")

    assert pipeline.made(*make()).run("in").status == "PAUSED"
    done = answer(pipeline, make, approve=False, note="no")

    assert (done.output, done.status) == (output, status)
    assert "b" not in pipeline.ran
    assert status == "COMPLETED" or "no" in done.error


@pytest.mark.parametrize(
    ("approve", "options", "output"), [(True, {}, "iny"), (False, {}, "inn"), (False, {"on_reject": "skip"}, None)]
)
def test_condition_is_confirmed(pipeline, approve, options, output):
    """A rejection takes the other branch; without a function, an approval takes the first."""

    def make():
        return [
            Condition(
                steps=[pipeline.adds("y")], else_steps=[pipeline.adds("n")], requires_confirmation=True, **options
            )
        ]

    pipeline.made(*make()).run("in")

    assert answer(pipeline, make, approve=approve).output == output


SCHEMA = [
    {"name": "city", "description": "Where"},
    {"name": "days", "field_type": "int", "required": False},
    {"name": "how", "required": False, "allowed_values": ["train", "ship"]},
]


def test_person_enters_values(pipeline):
    """An agent is told them, a function has them; what does not fit is asked for again, nothing runs twice."""
    told, seen = [], []

    def look(step):
        seen.append(step.additional_data)
        return "looked"

    def make():
        review = {"requires_user_input": True, "user_input_message": "Where to?", "user_input_schema": SCHEMA}
        ann = agent("Ann", told)
        return pipeline.adds("a"), Step(agent=ann, **review), Step(look, **review, assignee="carol")

    run = pipeline.made(*make()).run("in", additional_data={"k": 1})
    (requirement,) = run.requirements
    assert (requirement.kind, requirement.tool_name, requirement.prompt) == ("user_input", "Ann", "Where to?")
    assert requirement.extra["fields"] == ["city", "days", "how"]
    with pytest.raises(BadUsage, match="city"):
        pipeline.store.resolve(requirement, value={"days": 3})
    for wrong, problem in [
        ({"city": "Oslo", "days": "x"}, "days"),
        ({"city": "Oslo", "how": "car"}, "car"),
        ({"city": 3}, "city"),
    ]:
        run = answer(pipeline, make, value=wrong)
        pending = [r for r in run.requirements if r.status == "pending"]
        assert (run.status, told, len(pending)) == ("PAUSED", [], 1)
        assert problem in pending[0].prompt
        assert "Where to?" in pending[0].prompt
    run = answer(pipeline, make, value={"city": "Oslo", "days": 3})
    assert told == ["ina\n\nUser preferences:\n- city: Oslo\n- days: 3"]
    assert run.requirements[-1].assignee == "carol"
    done = answer(pipeline, make, value={"city": "Rome"})

    assert (done.output, seen, pipeline.ran) == ("looked", [{"k": 1, "user_input": {"city": "Rome"}}], ["a"])
    assert len(told) == 1


def test_confirmation_and_input_at_once(pipeline):
    """Both are asked in one pause; a rejection needs no input."""

    def make():
        return [
            pipeline.adds("a", requires_confirmation=True, requires_user_input=True, on_reject="skip"),
            pipeline.adds("b"),
        ]

    run = pipeline.made(*make()).run("in")
    confirmation, entry = run.requirements
    assert (confirmation.kind, entry.kind) == ("confirmation", "user_input")
    pipeline.store.resolve(confirmation, approve=False)
    pipeline.store.resolve(entry, value="text")

    assert pipeline.made(*make()).continue_run("chat/0").output == "inb"


def test_output_is_reviewed(pipeline):
    """A rejection with its note starts another attempt, an edit replaces the output; each step is a run, made once."""
    told = []

    def make():
        ann = agent("Ann", told, *["draft 1", "draft 2"][len(told) :])
        review = {"requires_output_review": True, "output_review_message": "Good?", "on_reject": "retry"}
        return pipeline.adds("a"), Step(ann, **review), pipeline.adds("c")

    run = pipeline.made(*make()).run("in")
    (requirement,) = run.requirements
    assert (requirement.prompt, requirement.args) == ("Good?", {"output": "draft 1"})
    run = answer(pipeline, make, approve=False, note="too long")
    assert told == ["ina", "ina\n\nYour previous output:\ndraft 1\n\nFeedback from reviewer:\ntoo long"]
    assert [r.args for r in run.requirements] == [{"output": "draft 1"}, {"output": "draft 2"}]
    done = answer(pipeline, make, args={"output": "edited"})

    assert (done.output, pipeline.ran, len(told)) == ("editedc", ["a", "c"], 2)
    with pytest.raises(AlreadyResolved):
        pipeline.store.resolve(done.requirements[-1], approve=False)
    with pytest.raises(RunClosed):
        pipeline.made(*make()).continue_run("chat/0")


@pytest.mark.parametrize("place", ["step", "loop", "parallel", "condition"])
@pytest.mark.parametrize(("on_reject", "output"), [("skip", None), ("cancel", None), ("retry", "inb")])
def test_output_review_within_nodes(pipeline, place, on_reject, output):
    """At any depth; an output that is rejected and skipped is nobody's input."""

    def make():
        step = pipeline.adds("b", requires_output_review=lambda output: output.content == "inb", on_reject=on_reject)
        return {
            "step": [step],
            "loop": [Loop([step], max_iterations=1)],
            "parallel": [Parallel(step, pipeline.adds("p")), lambda given: given.previous_step_content.get("b")],
            "condition": [Condition(True, [Steps([step])])],
        }[place]

    assert pipeline.made(*make()).run("in").status == "PAUSED"
    run = answer(pipeline, make, approve=False)
    if on_reject == "retry":
        run = answer(pipeline, make)
    assert (run.status, run.output) == ("CANCELLED" if on_reject == "cancel" else "COMPLETED", output)
    assert pipeline.ran.count("b") == (2 if on_reject == "retry" else 1)
    assert pipeline.ran.count("p") == (place == "parallel")


def test_rejected_outputs_end(pipeline):
    """After ``max_retries`` further attempts, the workflow is cancelled."""

    def make():
        return [
            pipeline.adds("a", human_review=HumanReview(requires_output_review=True, on_reject="retry", max_retries=1))
        ]

    pipeline.made(*make()).run("in")
    assert answer(pipeline, make, approve=False).status == "PAUSED"
    done = answer(pipeline, make, approve=False, note="still bad")

    assert (done.status, pipeline.ran, "still bad" in done.error) == ("CANCELLED", ["a", "a"], True)


def test_iterations_are_reviewed(pipeline):
    """An approval ends the loop with its output, a rejection starts the next iteration; the last one is not reviewed."""
    told = []

    def make():
        ann = agent("Ann", told, *["v1", "v2", "v3"][len(told) :])
        return Loop([ann], requires_iteration_review=True, on_reject="retry", max_iterations=3), pipeline.adds("!")

    pipeline.made(*make()).run("in")
    assert answer(pipeline, make, approve=False, note="more").status == "PAUSED"
    assert told[1] == "in\n\nYour previous output:\nv1\n\nFeedback from reviewer:\nmore"
    assert answer(pipeline, make, approve=True).output == "v2!"

    told.clear()
    flow = pipeline.made(*make(), session_id="other")
    flow.run("in")
    for _ in range(2):
        pipeline.answer(approve=False)
        run = flow.continue_run("other/0")
    assert (run.output, len(told)) == ("v3!", 3)


@pytest.mark.parametrize(("selection", "output"), [("b", "inb"), ({"choice": ["a", "b"]}, "inab")])
def test_person_selects_route(pipeline, selection, output):
    """The question lists the choices; another name is asked for again."""

    def make():
        choices = [pipeline.adds("a"), pipeline.adds("b")]
        return [Router(choices, requires_user_input=True, allow_multiple_selections=True)]

    run = pipeline.made(*make()).run("in")
    assert "a, b" in run.requirements[0].prompt
    assert answer(pipeline, make, value="c").status == "PAUSED"

    assert answer(pipeline, make, value=selection).output == output


def test_route_is_selected_again(pipeline):
    """After its output was rejected, a person selects another one."""

    def make():
        choices = [pipeline.adds("a"), pipeline.adds("b")]
        return [Router(choices, lambda _: "a", requires_output_review=True, on_reject="retry"), pipeline.adds("c")]

    pipeline.made(*make()).run("in")
    run = answer(pipeline, make, approve=False)
    assert run.requirements[-1].kind == "user_input"
    run = answer(pipeline, make, value="b")
    assert run.requirements[-1].args == {"output": "inb"}

    assert answer(pipeline, make).output == "inbc"
    assert pipeline.ran == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("on_timeout", "status", "output"),
    [("approve", "COMPLETED", "inab"), ("skip", "COMPLETED", "ina"), ("cancel", "CANCELLED", None)],
)
def test_nobody_answers_in_time(pipeline, on_timeout, status, output):
    """The workflow goes on, or ends, as its node says."""
    review = HumanReview(requires_confirmation=True, timeout=0.01, on_timeout=on_timeout)
    flow = pipeline.made(pipeline.adds("a"), pipeline.adds("b", human_review=review))
    flow.run("in")
    time.sleep(0.05)
    done = flow.continue_run("chat/0")

    assert (done.status, done.output) == (status, output)


def test_person_decides_about_error(pipeline):
    """An approval tries again, a rejection continues with the next step; after each error they are asked once."""
    pipeline.down.add("b")

    def make():
        return (
            pipeline.adds("a"),
            Parallel(pipeline.adds("b", on_error="pause"), pipeline.adds("p")),
            pipeline.adds("c"),
        )

    run = pipeline.made(*make()).run("in")
    assert "b is down" in run.requirements[0].prompt
    run = answer(pipeline, make)
    assert (run.status, len(run.requirements)) == ("PAUSED", 2)
    pipeline.down.clear()
    done = answer(pipeline, make)
    assert done.status == "COMPLETED"
    assert (pipeline.ran[0], sorted(pipeline.ran[1:3]), pipeline.ran[3:]) == ("a", ["b", "p"], ["b", "b", "c"])

    pipeline.down.add("b")
    flow = pipeline.made(
        pipeline.adds("a"), pipeline.adds("b", on_error="pause"), pipeline.adds("c"), session_id="other"
    )
    flow.run("in")
    pipeline.answer(approve=False)
    assert flow.continue_run("other/0").output == "inac"


def test_pause_marks_function(pipeline):
    """As the parameters of its step would."""

    @pause(name="sender", requires_confirmation=True, confirmation_message="Send?")
    def send(_step):
        return StepOutput(content="sent")

    flow = pipeline.made(send)
    run = flow.run("in")
    assert (run.requirements[0].prompt, run.requirements[0].tool_name) == ("Send?", "sender")
    pipeline.answer()
    assert flow.continue_run("chat/0").output == "sent"


@pytest.mark.parametrize(
    "options",
    [
        {"requires_confirmation": True, "on_reject": "retry"},
        {"human_review": HumanReview(), "requires_confirmation": True},
        {"human_review": {"requires_confirmation": True}},
        {"requires_iteration_review": True},
        {"on_error": "ignore"},
        {"confirmation": True},
    ],
)
def test_invalid_review_is_rejected(options):
    """A step that a person rejected before it ran is never run; a parameter that would do nothing is refused."""
    with pytest.raises(BadUsage):
        Step(print, **options)


def test_answers_under_names_of_agno(pipeline):
    """They are marks on the requirement that a run has; a question takes only its own answer, and once."""
    pipeline.down.add("e")
    flow = pipeline.made(
        Parallel(
            pipeline.asks("c"),
            pipeline.adds("u", requires_user_input=True, user_input_schema=SCHEMA),
            pipeline.adds("o", requires_output_review=True),
            Router([pipeline.adds("a"), pipeline.adds("b")], requires_user_input=True),
            pipeline.adds("e", on_error="pause"),
        )
    )
    run = flow.run("in")
    (entry,) = run.steps_requiring_user_input
    (review,) = run.steps_requiring_output_review
    (route,) = run.steps_requiring_route
    (error,) = run.active_error_requirements
    assert [r.step_name for r in run.steps_requiring_confirmation] == ["c"]
    assert (len(run.active_step_requirements), len(run.step_requirements)) == (4, 4)
    assert (route.available_choices, error.error_message) == (["a", "b"], "e is down")
    assert review.needs_output_review
    for wrong in (entry.retry, review.skip, lambda: error.edit("x"), lambda: entry.select("a"), entry.set_user_input):
        with pytest.raises(BadUsage):
            wrong()
    entry.set_user_input(city="Oslo")
    review.edit("edited")
    route.select("b")
    error.retry()
    answers = [(r.approved, r.answer) for r in (entry, review, route, error)]
    assert answers == [(True, {"city": "Oslo"}), (True, {"output": "edited"}), (True, {"choice": "b"}), (True, None)]
    assert len(run.active_step_requirements) == 1
    with pytest.raises(BadUsage, match="has an answer"):
        review.edit("again")
