"""Parameters of steps, loops, routers and workflows, and what functions receive and return."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from workflow_steps import Pipeline

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import ScriptedModel
from kern_nb.workflow import Condition, Loop, Parallel, Router, Step, StepOutput, Steps, Workflow


@pytest.fixture
def pipeline(tmp_path):
    """Workflows in a store of one engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as store:
        yield Pipeline(store)


def agent(name, told):
    """An agent that notes what it is told."""

    def say(messages):
        told.append(messages[-1].content)
        return f"{name} answers"

    return Agent(ScriptedModel(say), name=name)


def stops(_step):
    """Stop the workflow."""
    return StepOutput(content="stopped", stop=True)


@pytest.mark.parametrize("place", ["step", "loop", "condition", "router", "steps", "parallel"])
def test_step_stops_workflow(pipeline, place):
    """As completed, with its output; a run that is continued still stops there."""
    asks = pipeline.asks("a")
    node = {
        "step": lambda: [asks, stops, pipeline.adds("never")],
        "loop": lambda: [Loop([asks, stops, pipeline.adds("never")])],
        "condition": lambda: [Condition(True, [asks, stops, pipeline.adds("never")])],
        "router": lambda: [Router([[asks, stops, pipeline.adds("never")]], lambda _: "steps_group_0")],
        "steps": lambda: [Steps([asks, stops, pipeline.adds("never")])],
        "parallel": lambda: [Parallel([stops, pipeline.adds("never")], asks)],
    }[place]()
    flow = pipeline.made(*node, pipeline.adds("never"))
    assert flow.run("in").status == "PAUSED"
    pipeline.answer()
    done = flow.continue_run("chat/0")

    assert (done.status, pipeline.ran) == ("COMPLETED", ["a"])
    assert done.output == ({"steps": "stopped", "a": "ina"} if place == "parallel" else "stopped")


def test_reported_failure(pipeline):
    """It is stored, and the next step runs; with ``on_error="fail"``, the run fails."""

    def report(_step):
        return StepOutput(content="partial", success=False, error="no data")

    seen = []
    flow = pipeline.made(Steps([report], name="s"), lambda step: seen.append(step.previous_step_outputs["s"]) or "end")
    assert flow.run("in").output == "end"
    assert (seen[0].success, seen[0].error, seen[0].content) == (False, "no data", "partial")
    assert pipeline.runs()[1].error == "no data"

    with pytest.raises(RunFailed, match="no data"):
        pipeline.made(Step(report, on_error="fail"), session_id="other").run("in")


@pytest.mark.parametrize("kind", ["function", "agent"])
def test_retries(pipeline, kind):
    """Each attempt of a function is a run; an agent continues its run, with the tools that have run."""
    failures = [2]

    def flaky(_messages_or_step):
        failures[0] -= 1
        if failures[0] >= 0:
            raise ConnectionError("down")
        return "up"

    executor = flaky if kind == "function" else Agent(ScriptedModel(flaky), name="flaky")
    assert pipeline.made(Step(executor, max_retries=2)).run("in").output == "up"
    assert [run.status for run in pipeline.runs()[1:]] == (
        ["ERROR", "ERROR", "COMPLETED"] if kind == "function" else ["COMPLETED"]
    )
    failures[0] = 2
    with pytest.raises(RunFailed, match="down"):
        pipeline.made(Step(executor, max_retries=1), session_id="other").run("in")


@pytest.mark.parametrize("options", [{"skip_on_failure": True}, {"on_error": "skip"}])
@pytest.mark.parametrize("place", ["step", "inherited"])
def test_failed_step_is_skipped(pipeline, options, place):
    """The next step learns it; a run that is continued does not run it again."""
    pipeline.down.add("b")
    seen = []

    def look(step):
        seen.append(step.previous_step_content)
        return "looked"

    def make():
        node = pipeline.adds("b", max_retries=1, **options)
        if place == "inherited":
            node = Condition(True, [pipeline.adds("b", max_retries=1), pipeline.adds("never")], on_error="skip")
        return pipeline.adds("a"), node, look, pipeline.asks("z")

    assert pipeline.made(*make()).run("in").status == "PAUSED"
    pipeline.down.clear()
    pipeline.answer()
    done = pipeline.made(*make()).continue_run("chat/0")

    assert (done.output, pipeline.ran) == ("lookedz", ["a", "b", "b", "z"])
    assert "failed" in seen[0] or "b is down" in seen[0]


def test_values_are_filled_in_by_name(pipeline):
    """``run_context``, ``session_state``, ``workflow`` and ``execution_input``; also of a condition and a router."""
    seen = []

    def put(step_input, session_state):
        session_state["n"] = step_input.input

    async def look(session_state, run_context, step_input, workflow, execution_input):
        seen.append(
            (session_state["n"], run_context.run_id, step_input.input, workflow.name, execution_input.additional_data)
        )
        return "looked"

    def holds(step_input, run_context):
        return run_context.session_state["n"] == step_input.input

    def select(step_input, session_state, step_choices):
        return step_choices[int("n" in session_state)]

    choices = [pipeline.adds("x"), look]
    flow = pipeline.made(put, Condition(holds, [Router(choices, select)]), name="Flow")
    run = flow.run("in", additional_data={"k": [1]})

    assert seen == [("in", run.run_id, "in", "Flow", {"k": [1]})]
    assert run.output == "looked"


def test_one_function_is_a_workflow(pipeline):
    """It gets the workflow and its input, and is a step."""
    told = []
    writer = agent("Writer", told)

    def write(workflow, execution_input, session_state):
        session_state["topic"] = execution_input.input
        yield f"{workflow.name}: "
        yield writer.run(f"about {execution_input.input}", session_id="side").output

    flow = Workflow(steps=write, db=pipeline.store, session_id="chat", name="Flow")
    run = flow.run("roses")

    assert (run.output, told) == ("Flow: Writer answers", ["about roses"])
    assert flow.get_session_state()["topic"] == "roses"
    assert [step.extra["step"] for step in flow.steps_of(run.run_id)] == ["write"]


def sync_texts(_step):
    yield "Hel"
    yield "lo"


async def async_texts(_step):
    yield "Hel"
    yield "lo"


def sync_output(_step):
    yield "thinking"
    yield StepOutput(content="answer", stop=True)


async def async_output(_step):
    yield "thinking"
    yield StepOutput(content="answer", stop=True)


def returned_output(_step):
    yield "thinking"
    return StepOutput(content="answer", stop=True)


def values(_step):
    yield 1
    yield {"n": 2}


@pytest.mark.parametrize(
    ("function", "output"),
    [
        *((sync_texts, "Hello!"), (async_texts, "Hello!"), (sync_output, "answer"), (async_output, "answer")),
        *((returned_output, "answer"), (values, "[1, {'n': 2}]!")),
    ],
)
def test_generator_steps(pipeline, function, output):
    """Their texts together, or the `StepOutput` among them, are the output."""
    assert pipeline.made(function, lambda step: f"{step.previous_step_content}!").run("in").output == output


def test_contents_of_steps(pipeline):
    """By name, at any depth; the one before; all of them."""
    seen = []
    both = Parallel(pipeline.adds("p"), pipeline.adds("q"), name="both")
    flow = pipeline.made(Steps([Condition(True, [pipeline.adds("deep")])], name="outer"), both, seen.append)
    flow.run("in")

    (step,) = seen
    assert (step.get_step_content("deep"), step.get_step_content("outer"), step.get_step_content("none")) == (
        "indeep",
        "indeep",
        None,
    )
    assert step.get_step_output("q").content == "indeepq"
    assert step.get_step_output("deep").step_run_id == pipeline.runs()[1].run_id
    assert step.get_step_content("both") == step.get_last_step_content() == {"p": "indeepp", "q": "indeepq"}
    assert (
        step.get_all_previous_content()
        == "=== outer ===\nindeep\n\n=== both ===\n=== p ===\nindeepp\n\n=== q ===\nindeepq"
    )
    assert step.workflow_session.session_id == "chat"


def test_agent_is_told_all_parallel_contents(pipeline):
    """Each below the name of its step."""
    told = []
    pipeline.made(Parallel("gather", pipeline.adds("p"), pipeline.adds("q")), agent("Ann", told)).run("in")

    assert told == ["=== p ===\ninp\n\n=== q ===\ninq"]


def test_loop_argument(pipeline):
    """A list of outputs that is also a step's input; an iteration starts with the input of the loop."""
    seen = []

    def ends(outputs):
        seen.append(
            (
                [output.content for output in outputs],
                outputs[-1].step_name,
                outputs.previous_step_content,
                outputs.input,
            )
        )
        return len(seen) == 2

    assert pipeline.made(Loop([pipeline.adds("a"), pipeline.adds("b")], ends)).run("in").output == "inab"
    assert seen == [(["ina", "inab"], "b", "inab", "in")] * 2


@pytest.mark.parametrize(
    ("selection", "output"),
    [("a", "ina!"), (["a", "b"], "inab!"), (None, "in!"), ([], "in!"), ("steps_group_2", "inxy!")],
)
def test_router(pipeline, selection, output):
    """By name or by object, one or several; a run that is continued does not select again."""
    calls = []
    choices = [pipeline.adds("a"), pipeline.adds("b"), [pipeline.adds("x"), pipeline.adds("y")]]

    def select(_step):
        calls.append(1)
        return selection

    flow = pipeline.made(Router(choices, select), pipeline.asks("!"))
    flow.run("in")
    pipeline.answer()
    assert (flow.continue_run("chat/0").output, len(calls)) == (output, 1)

    objects = Router(choices, lambda _: [choices[1], choices[2]])
    assert pipeline.made(objects, session_id="other").run("in").output == "inbxy"


def test_router_rejects_other_steps(pipeline):
    """A step that is not a choice could not be found again."""
    for selection in ("z", 3, pipeline.adds("a")):
        with pytest.raises((RunFailed, BadUsage), match="not one of its choices: a"):
            pipeline.made(Router([pipeline.adds("a")], lambda _, selection=selection: selection)).run("in")


class Request(BaseModel):
    """An input."""

    topic: str
    n: int = 2


def test_input_schema(pipeline):
    """Steps have an instance of it, also when the run is continued; an agent is told its JSON."""
    seen, told = [], []
    steps = [
        pipeline.adds("a"),
        lambda step: seen.append(step.input),
        pipeline.asks("b"),
        lambda step: seen.append(step.input),
    ]
    flow = pipeline.made(*steps, input_schema=Request)
    for value in ({"topic": "t"}, Request(topic="t"), '{"topic": "t"}'):
        flow.run(value)
    pipeline.answer()
    flow.continue_run("chat/0")
    assert seen == [Request(topic="t")] * 4
    for wrong in ({"n": 1}, "text", None, 3):
        with pytest.raises(BadUsage, match="Request"):
            flow.run(wrong)
    pipeline.made(agent("Ann", told), session_id="other", input_schema=Request).run({"topic": "t"})
    assert told == ['{\n  "topic": "t",\n  "n": 2\n}']
    with pytest.raises(BadUsage):
        Workflow([print], input_schema="Request")


def test_workflow_history(pipeline):
    """Agents are told the latest runs of the session, where the workflow or the step says so."""
    told, plain, pairs = [], [], []

    def look(step):
        pairs.append((step.get_workflow_history(), step.get_workflow_history(num_runs=1)))
        return step.input

    steps = [look, agent("Ann", told), Step(agent=agent("Bob", plain), add_workflow_history=False)]
    flow = pipeline.made(*steps, add_workflow_history_to_steps=True, num_history_runs=1)
    for question in ("q1", "q2", "q3"):
        flow.run(question)

    assert (
        told[2]
        == "<workflow_history_context>\n[Workflow Run-1]\nUser input: q2\nWorkflow output: Bob answers\n\n</workflow_history_context>\nq3"
    )
    assert (told[0], plain) == ("q1", ["Ann answers"] * 3)
    assert pairs[2] == ([("q1", "Bob answers"), ("q2", "Bob answers")], [("q2", "Bob answers")])


def test_strict_input_validation(pipeline):
    """Without an input, such a step fails."""
    flow = pipeline.made(Step(lambda step: step.input, name="s", strict_input_validation=True))
    assert flow.run("in").output == "in"
    with pytest.raises((BadUsage, RunFailed), match="no input"):
        flow.run(None)


def test_workflow_is_described():
    """Metadata and description are stored with the session, which the first agent's model can title."""
    ann = Agent(ScriptedModel(["an answer", "A title", "Another title"]), name="Ann")
    flow = Workflow(
        [ann], db=InMemoryDb(), session_id="chat", metadata={"team": "a"}, description="Writes.", cache_session=True
    )
    flow.run("in")
    session = flow.get_session()

    assert (session.metadata, session.workflow_data["description"]) == ({"team": "a"}, "Writes.")
    assert flow.set_session_name(autogenerate=True) == "A title"
    assert flow.get_session().session_data["session_name"] == "A title"


def test_name_can_be_first():
    """As a text before ``agent=`` or ``executor=``."""
    assert Step("look", agent=Agent(name="Ann")).title == "look"
    assert Step(executor=print).title == "print"


@pytest.mark.parametrize("is_async", [True, False])
def test_generator_step_passes_events_on(pipeline, is_async):
    """The parts of an agent's answer are its output, and part of the stream as they come."""
    writer = Agent(ScriptedModel(["a b"]), name="Writer", db=pipeline.store)

    def write(step):
        yield from writer.run(step.input, session_id="side", stream=True)

    async def awrite(step):
        async for event in writer.arun(step.input, session_id="side", stream=True):
            yield event

    flow = pipeline.made(awrite if is_async else write, lambda step: f"{step.previous_step_content}!")
    events = list(flow.run("in", stream=True, stream_events=True))

    assert [event.content for event in events if event.event == "RunContent"] == ["a ", "b"]
    assert events[-1].content == "a b!"
