"""A workflow: steps of agents, teams and functions, each of which is a run of the session."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass

import pytest
from pausing_agents import by_turn, said
from pydantic import BaseModel
from run_state_keys import without_run_keys
from team_members import member, task

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Session
from kern_nb.team import Team
from kern_nb.text import formatting
from kern_nb.views.stream import RunStream, stream_html, stream_text
from kern_nb.workflow import Condition, Loop, Parallel, Router, Step, Workflow


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def workflow(store, *steps, **options):
    """A workflow in the session ``chat``."""
    return Workflow(list(steps), db=store, **{"session_id": "chat"} | options)


def adds(letter):
    """A step that adds a letter to what the step before gave, or to the input."""

    def add(given):
        return f"{given.previous_step_content or given.input}{letter}"

    return Step(add, name=letter)


def steps(runner, run):
    """What each step gave, by name, in the order in which they began."""
    return [(one.extra["step"], one.output) for one in runner.steps_of(run.run_id)]


def test_steps_run_in_sequence(store):
    """Functions, plain and async, and an agent: each is given what the one before gave; the last one's is the run's."""

    async def exclaim(given):
        await asyncio.sleep(0)
        return given.previous_step_content + "!"

    ann = Agent(ScriptedModel(lambda messages: f"Ann heard {messages[-1].content}"), name="Ann")
    flow = workflow(store, adds("a"), exclaim, ann, lambda given: len(given.previous_step_outputs), name="Flow")
    run = flow.run("in")

    assert (run.status, run.output, run.input) == ("COMPLETED", 3, "in")
    assert (run.run_type, run.workflow_id, run.agent_id) == ("workflow", "flow", None)
    assert steps(flow, run) == [("a", "ina"), ("exclaim", "ina!"), ("Ann", "Ann heard ina!"), ("<lambda>", 3)]


def test_steps_are_runs_of_session(store):
    """With its parent, input, output, status and times; the session says that it is a workflow's."""
    flow = workflow(store, adds("a"), member("Ann", "ann"), name="Flow", user_id="alice")
    run = flow.run("in")
    session = flow.get_session()

    assert isinstance(session, Session)
    assert (session.session_type, session.workflow_id, session.user_id) == ("workflow", "flow", "alice")
    assert session == store.get_session("chat")
    assert flow.get_session(user_id="bob") is None
    own, first, ann = session.runs
    assert own.run_id == run.run_id
    assert [(r.run_type, r.workflow_id, r.agent_id) for r in (first, ann)] == [
        ("workflow", "flow", None),
        ("agent", None, "ann"),
    ]
    assert [(r.parent_run_id, r.input, r.output, r.status, r.user_id) for r in (first, ann)] == [
        (run.run_id, "in", "ina", "COMPLETED", "alice"),
        (run.run_id, "ina", "ann", "COMPLETED", "alice"),
    ]
    assert (
        own.created_at <= first.created_at <= first.finished_at <= ann.created_at <= ann.finished_at <= own.finished_at
    )
    assert all(r.duration_s >= 0 for r in session.runs)
    assert said(ann) == [("user", "ina"), ("assistant", "ann")]


def test_step_input(store):
    """The input, what the step before gave, what every step gave, and the run it is in."""
    seen = []

    def look(given):
        seen.append(given)

    flow = workflow(store, adds("a"), adds("b"), look)
    run = flow.run({"question": [1, None]})

    (given,) = seen
    assert (given.input, given.previous_step_content) == ({"question": [1, None]}, "{'question': [1, None]}ab")
    assert list(given.previous_step_outputs) == ["a", "b"]
    assert (given.run_context.run_id, given.run_context.session_id) == (run.run_id, "chat")
    assert run.output is None


def test_steps_share_state(store):
    """Functions, agents, conditions and steps at once see what was set before, and all that they set is stored."""

    def put(key):
        def step(given):
            given.session_state[key] = sorted(without_run_keys(given.session_state))

        return Step(step, name=key)

    def note(session_state: dict) -> str:
        """Note it."""
        session_state["ann"] = sorted(without_run_keys(session_state))
        return "noted"

    ann = member("Ann", call("note"), "ann", tools=[note], session_state={"of ann": 1})
    flow = workflow(
        store,
        put("first"),
        ann,
        Condition(
            lambda given: given.session_state["ann"] == ["first", "of ann", "start"], [Parallel(put("p"), put("q"))]
        ),
        session_state={"start": 1},
    )
    run = flow.run("in")

    assert run.session_state == flow.get_session_state() == store.get_session("chat").session_state
    assert set(run.session_state) == {"start", "first", "of ann", "ann", "p", "q"}
    again = flow.run("in", session_state={"given": True})
    assert set(again.session_state) == {*run.session_state, "given"}


def test_teams_and_workflows_as_steps(store):
    """Their own members and steps have them as their parent."""
    zoo = Team([member("Cat", "meow")], by_turn(task("cat"), "the cat said meow"), name="Zoo")
    inner = Workflow([adds("x"), adds("y")], name="Inner")
    flow = workflow(store, zoo, inner, name="Outer")
    run = flow.run("in")

    assert run.output == "the cat said meowxy"
    runs = {r.run_id: r for r in flow.get_session().runs}
    parents = [
        (r.agent_id or r.team_id or r.extra.get("step"), runs[r.parent_run_id].extra.get("step"))
        for r in runs.values()
        if r.parent_run_id
    ]
    assert parents == [("zoo", None), ("cat", "Zoo"), ("Inner", None), ("x", "Inner"), ("y", "Inner")]


def test_step_output_is_stored_as_json(store):
    """Models and dataclasses as objects; what has no such form as text. The next step is given what is stored."""

    class Model(BaseModel):
        name: str

    @dataclass
    class Data:
        number: int

    seen = []
    given = [Model(name="m"), Data(3), {"a": (1, None)}, b"bytes", float("inf"), "\ud800\x00", None, 0]
    flow = workflow(
        store, *(Step(lambda _given, one=one: one, name=f"s{i}") for i, one in enumerate(given)), seen.append
    )
    run = flow.run("in")

    assert run.status == "COMPLETED"
    outputs = [gave for _, gave in steps(flow, run)]
    assert outputs[:3] == [{"name": "m"}, {"number": 3}, {"a": [1, None]}]
    assert outputs[5:8] == ["\ud800\x00", None, 0]
    assert [one.content for one in seen[0].previous_step_outputs.values()] == outputs[: len(given)]


def test_function_returns_run(store):
    """It stands for the answer; the run itself is where the agent's session is."""
    ann = member("Ann", "ann's answer", db=store)
    flow = workflow(store, lambda given: ann.run(given.input, session_id="side"), adds("!"))

    assert flow.run("in").output == "ann's answer!"
    assert store.get_session("side").runs[0].output == "ann's answer"


def test_callables_are_steps(store):
    """A partial, an object that is called, an async one of them."""

    class Async:
        async def __call__(self, given):
            return given.previous_step_content + "b"

    def add(letter, given):
        return given.input + letter

    assert workflow(store, functools.partial(add, "a"), Async(), Step(print, name="p")).run("in").output is None


def test_consecutive_workflow_runs(store):
    """Each with its own steps; one definition serves several sessions at once."""
    flow = workflow(store, adds("a"), adds("b"))

    async def twice():
        return await asyncio.gather(*(flow.arun(name, session_id=name) for name in ("s1", "s2")))

    assert [run.output for run in asyncio.run(twice())] == ["s1ab", "s2ab"]
    first, second = flow.run("one"), flow.run("two")
    assert (steps(flow, first)[-1], steps(flow, second)[-1]) == (("b", "oneab"), ("b", "twoab"))
    assert [r.run_index for r in flow.get_session().runs] == list(range(6))


@pytest.mark.parametrize(
    "steps",
    [
        *(list, lambda: [3], lambda: ["x"], lambda: [None], lambda: [Step("x")], lambda: [Step(None)]),
        *(lambda: [Agent], lambda: [Parallel(print, print)], lambda: [[print, {"b"}]]),
        *(lambda: [Condition("input == 1", [print])], lambda: [Condition(1, [print])], lambda: [Loop([print], True)]),
        *(lambda: [Loop([print], max_iterations=0)], lambda: [Router([print])], lambda: [Router([print], "a == b")]),
        *(lambda: [Router([print, print], print)], lambda: [Step(print, agent=print)], lambda: [Step(agent=None)]),
        *(
            lambda: [Step(print, max_retries=-1)],
            lambda: [Step(print, on_reject="never")],
            lambda: Step(print, other=1),
        ),
        *(lambda: [Parallel(print, requires_confirmation=True)], lambda: [Loop([print], requires_output_review=True)]),
    ],
)
def test_invalid_step_is_rejected(steps):
    """Before anything runs."""
    with pytest.raises(BadUsage):
        Workflow(steps())


@pytest.mark.parametrize("output", ["roses", {"n": [1]}])
def test_workflow_output_is_printed(store, output, capsys):
    """Nothing of it is streamed: what the last step gave stands below the steps, a text or a value."""
    poems = workflow(store, Step(lambda _: output, name="give"))
    poems.print_response("x")
    printed = capsys.readouterr().out
    shown = RunStream()
    shown.end(poems.get_session().runs[0])

    seen = output if isinstance(output, str) else formatting.format_value(output)
    assert printed == f"✓ give()\n{seen}\n"
    assert stream_text(shown) == seen
    assert ("roses" if output == "roses" else "&quot;n&quot;") in stream_html(shown)
