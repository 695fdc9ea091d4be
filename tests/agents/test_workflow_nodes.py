"""Steps at once, steps if, steps again, and any of these within each other."""

from __future__ import annotations

import asyncio

import pytest
from team_members import member

from kern_nb.db import SqliteDb
from kern_nb.models.scripted import call
from kern_nb.workflow import Condition, Loop, Parallel, Step, Steps, Workflow


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


def test_parallel_steps(store):
    """Each is given what the step before them gave; together they give a dict by name, in their order."""
    met = asyncio.Barrier(3)

    async def meet(given):
        async with asyncio.timeout(20):
            await met.wait()
        return given.previous_step_content

    async def wait() -> str:
        """Meet the others."""
        async with asyncio.timeout(20):
            await met.wait()
        return "met"

    ann = member("Ann", call("wait"), "ann", tools=[wait])
    flow = workflow(store, adds("a"), Parallel(Step(meet, name="one"), ann, [adds("x"), Step(meet, name="two")]))
    run = asyncio.run(flow.arun("in"))

    assert list(run.output.items()) == [("one", "ina"), ("Ann", "ann"), ("steps", "inax")]


@pytest.mark.parametrize(("holds", "output"), [(True, "inayz"), (False, "inan"), (1, "inayz"), ("", "inan")])
def test_condition_selects_branch(store, holds, output):
    """What it decided is a run too; what it is given is what a step is given."""

    async def decide(given):
        assert given.previous_step_content == "ina"
        return holds

    flow = workflow(store, adds("a"), Condition(decide, [adds("y"), adds("z")], [adds("n")], name="which"))
    run = flow.run("in")

    assert run.output == output
    assert [gave for name, gave in steps(flow, run) if name == "which: if"] == [bool(holds)]


def test_condition_without_else(store):
    """The next step is given what the condition was given."""
    assert (
        workflow(store, adds("a"), Condition(lambda _given: False, [adds("y")]), adds("b")).run("in").output == "inab"
    )


@pytest.mark.parametrize(("most", "output"), [(5, "inaaa"), (2, "inaa"), (3, "inaaa")])
def test_loop_ends_at_condition(store, most, output):
    """Or after so many rounds; each round is given what the one before gave, each step of each round is a run."""
    loop = Loop(
        [adds("a")],
        lambda given: given.previous_step_content.count("a") == 3,
        max_iterations=most,
        forward_iteration_output=True,
    )
    flow = workflow(store, loop)
    run = flow.run("in")

    assert run.output == output
    assert [gave for name, gave in steps(flow, run) if name == "a"] == [output[: i + 3] for i in range(len(output) - 2)]


def test_loop_ends_at_max_iterations(store):
    """Three times, where it says nothing; an agent in it has a run each time."""
    flow = workflow(store, Loop([member("Ann", "a")]))
    run = flow.run("in")

    assert [one.agent_id for one in flow.steps_of(run.run_id)] == ["ann"] * 3


def test_nested_steps(store):
    """Whatever holds steps holds any of them."""
    deep = Loop(
        [Condition(lambda _given: True, [Parallel([adds("a"), Steps([adds("b")], name="inner")], adds("c"))])],
        max_iterations=1,
    )

    assert workflow(store, [deep]).run("in").output == {"steps": "inab", "c": "inc"}
