"""A generator function runs to its end, wherever a function may be given: the result is the list of what it yields."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import time

import pytest
from recording_models import RecordingModel, calls_once, results

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import call
from kern_nb.workflow import Condition, Loop

WAIT_S = 30
PAGES = ["page 0", "page 1"]


async def pages():
    """Read pages."""
    for number in range(2):
        await asyncio.sleep(0)
        yield f"page {number}"


def sync_pages():
    """Read pages."""
    for number in range(2):
        yield f"page {number}"


class Reader:
    """Functions of an object, in each form that Python has."""

    async def method(self):
        """Read pages."""
        async for page in pages():
            yield page

    async def __call__(self):
        """Read pages."""
        async for page in pages():
            yield page

    @staticmethod
    async def static():
        """Read pages."""
        async for page in pages():
            yield page

    @classmethod
    async def of_class(cls):
        """Read pages."""
        async for page in pages():
            yield page


class Cursor:
    """An async iterator that is no generator, and that can be awaited as well."""

    def __init__(self):
        self.left = list(PAGES)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


class Promise:
    """An awaitable that is no coroutine."""

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return PAGES


def decorated(function):
    """A decorator as most are written."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def returns_a_generator():
    """Read pages."""
    return pages()


async def yields_awaitables():
    """Read pages."""

    async def page(number):
        return f"page {number}"

    yield page(0)
    yield page(1)


FUNCTIONS = {
    "async generator": pages,
    "generator": sync_pages,
    "method": Reader().method,
    "callable object": Reader(),
    "static method": Reader.static,
    "class method": Reader.of_class,
    "decorated": decorated(pages),
    "decorated generator": decorated(sync_pages),
    "partial": functools.partial(pages),
    "partial of a method": functools.partial(Reader().method),
    "coroutine that returns a generator": returns_a_generator,
    "function that returns an async iterator": Cursor,
    "function that returns an awaitable": Promise,
    "function that returns a coroutine": lambda: asyncio.sleep(0, PAGES),
    "awaitables that are yielded": yields_awaitables,
    "iterator": lambda: map(str, PAGES),
    "list of coroutines": lambda: [asyncio.sleep(0, page) for page in PAGES],
    "tool of a tool": tool(pages, name="inner"),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_generator_result_is_list_of_values(db, function):
    """For the model, in the row, and in no other form than a function that returns the list."""
    model = calls_once("read")
    run = Agent(model, db=db, tools=[tool(function, name="read")]).run("go")

    [read] = run.tool_calls
    assert (read.status, read.result) == ("completed", PAGES)
    assert results(model) == [PAGES]


def test_callable_object_attributes_do_not_change_tool(db):
    """An object that is called may have a name and a timeout of its own."""

    class Named(Reader):
        def __init__(self):
            self.name, self.kind, self.timeout_s, self.function = "other", "external_execution", 0, None

    [read] = Agent(calls_once("read"), db=db, tools=[tool(Named(), name="read")]).run("go").tool_calls
    assert (read.status, read.result) == ("completed", PAGES)


def test_nested_awaitables_and_iterators_are_resolved(db):
    """A generator nested in what a function returns has its values in the result."""
    function = tool(lambda: {"a": pages(), "b": [sync_pages(), 1], "c": (asyncio.sleep(0, 2),)}, name="read")
    [read] = Agent(calls_once("read"), db=db, tools=[function]).run("go").tool_calls
    assert read.result == {"a": PAGES, "b": [PAGES, 1], "c": [2]}


def test_pydantic_ai_toolset_results_are_resolved(db):
    """What the user gives as a toolset goes the same way."""
    from pydantic_ai.toolsets import FunctionToolset

    [read] = Agent(calls_once("pages"), db=db, tools=[FunctionToolset([pages])]).run("go").tool_calls
    assert (read.status, read.result) == ("completed", PAGES)


def broken(error):
    """Generators of both kinds that raise midway."""

    async def in_loop():
        yield "page 0"
        raise error

    def in_thread():
        yield "page 0"
        raise error

    return in_loop, in_thread


@pytest.mark.parametrize("at", [0, 1], ids=["async", "sync"])
@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), StopIteration(), asyncio.CancelledError()])
def test_failing_generator_stores_yielded_values(db, error, at):
    """The call is failed, not the run; the text says what went wrong and what came before."""
    run = Agent(calls_once("read"), db=db, tools=[tool(broken(error)[at], name="read")]).run("go")

    [read] = run.tool_calls
    assert (run.status, read.status) == ("COMPLETED", "failed")
    assert isinstance(error, asyncio.CancelledError) or "page 0" in read.result
    name = "RuntimeError" if isinstance(error, StopIteration) else type(error).__name__
    assert read.result.startswith(f"{name}: ")


def test_failing_nested_generators_store_yielded_values(db):
    """What the inner one yielded is told with what the outer one did."""

    async def outer():
        yield "first"
        yield broken(ValueError("boom"))[0]()

    [read] = Agent(calls_once("read"), db=db, tools=[tool(outer, name="read")]).run("go").tool_calls
    assert read.status == "failed"
    assert read.result == 'ValueError: boom (after 2 values: ["first", ["page 0"]])'


def endless(closed, started):
    """Generators that never end, some without ever waiting, and say when they are closed."""

    async def waits():
        try:
            for number in itertools.count():
                started.set()
                await asyncio.sleep(0.001)
                yield number
        finally:
            closed.set()

    async def never_waits():
        try:
            for number in itertools.count():
                started.set()
                yield number
        finally:
            closed.set()

    def in_thread():
        try:
            for number in itertools.count():
                started.set()
                time.sleep(0.001)
                yield number
        finally:
            closed.set()

    return {"waits": waits, "never_waits": never_waits, "in_thread": in_thread}


@pytest.mark.parametrize("kind", ["waits", "never_waits", "in_thread"])
def test_cancelled_run_closes_endless_generator(db, kind):
    """Stop ends it, its `finally` runs, and the run is stored as cancelled."""
    closed, started = threading.Event(), threading.Event()
    function = endless(closed, started)[kind]
    agent = Agent(calls_once("read"), db=db, session_id="chat", tools=[tool(function, name="read")])

    async def cancelled():
        task = asyncio.ensure_future(agent.arun("go"))
        await asyncio.to_thread(started.wait, WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), WAIT_S))
    assert closed.wait(WAIT_S)
    assert db.get_session("chat").runs[0].status == "CANCELLED"


@pytest.mark.parametrize("kind", ["waits", "never_waits", "in_thread"])
def test_tool_timeout_applies_to_generators(db, kind):
    """`timeout_s` counts the values, not only the call that makes the generator."""
    closed, started = threading.Event(), threading.Event()
    model = RecordingModel([call("read"), "gave up"])
    function = tool(endless(closed, started)[kind], name="read", timeout_s=0.5)
    run = Agent(model, db=db, tools=[function]).run("go")

    assert run.status == "COMPLETED"
    assert run.tool_calls[0].status == "failed"
    assert not started.is_set() or closed.wait(WAIT_S)


def test_confirmed_generator_runs_after_approval(db):
    """Nothing of its body runs before, all of it after."""
    agent = Agent(
        calls_once("read"), db=db, session_id="chat", tools=[tool(pages, name="read", requires_confirmation=True)]
    )
    paused = agent.run("go")
    db.resolve(paused.requirements[0].requirement_id, approve=True)

    [read] = agent.continue_run(paused.run_id).tool_calls
    assert (read.status, read.result) == ("completed", PAGES)


def test_generators_in_team_members(db):
    """A member's tool is an agent's tool."""
    member = Agent(calls_once("pages"), id="member", tools=[pages])
    script = RecordingModel([call("delegate_task_to_member", member_id="member", task="read"), "done"])
    team = Team([member], script, db=db, session_id="chat")
    run = team.run("go")

    [of_member] = db.member_runs(run.run_id)
    assert of_member.tool_calls[0].result == PAGES


@pytest.mark.parametrize("function", [lambda _: pages(), lambda _: sync_pages(), lambda _: Cursor()])
def test_generators_as_workflow_steps(db, function):
    """The step's output is what it yields, and the next step is given it."""
    seen = []
    workflow = Workflow([function, lambda step: seen.append(step.previous_step_content) or "end"], db=db)
    run = workflow.run("go")

    assert (run.output, seen) == ("end", [PAGES])
    assert db.member_runs(run.run_id)[0].output == PAGES


def test_failing_generator_step_fails_like_function(db):
    """Its own error is what is stored."""
    for function in broken(ValueError("boom")):
        workflow = Workflow([lambda _, function=function: function()], db=db)
        with pytest.raises(RunFailed, match="ValueError: boom"):
            workflow.run("go")


def test_condition_rejects_generator(db):
    """A generator is true whatever it would yield; the wrong branch would be taken silently."""
    for make in (
        lambda function: Condition(evaluator=function, steps=[lambda _: "yes"]),
        lambda function: Loop(steps=[lambda _: "again"], end_condition=function, max_iterations=2),
    ):
        for function in (lambda _: pages(), lambda _: sync_pages()):
            with pytest.raises(RunFailed, match="got a generator"):
                Workflow([make(function)], db=db).run("go")


@pytest.mark.parametrize("kind", ["async", "sync", "coroutine"])
def test_generators_as_instructions(db, kind):
    """The lines that a function yields are the instructions."""

    async def in_loop():
        yield "Be kind."
        yield "Be brief."

    def in_thread():
        yield "Be kind."
        yield "Be brief."

    async def returned():
        return ["Be kind.", "Be brief."]

    model = RecordingModel(["ok"])
    Agent(model, db=db, instructions={"async": in_loop, "sync": in_thread, "coroutine": returned}[kind]).run("go")
    assert model.instructions() == "- Be kind.\n- Be brief."


def test_instructions_generator_must_yield_text(db):
    """With an error of ours, before the model is asked."""

    async def numbers():
        yield 1

    model = RecordingModel(["ok"])
    with pytest.raises(RunFailed, match="must return a text"):
        Agent(model, db=db, instructions=numbers).run("go")
    assert model.told == []
