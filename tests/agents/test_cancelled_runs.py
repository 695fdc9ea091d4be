"""A run that is cancelled, at whatever statement, is stored as such and leaves nothing that says it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from failing_agents import an_agent, calls_in_turn, left_running, require_the_next_works

from kern_nb.agent import Agent
from kern_nb.db import SessionStore
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.team import Team
from kern_nb.workflow import Parallel, Step, Workflow


class Statements:
    """The statements of a store, counted; some of them do something besides."""

    def __init__(self) -> None:
        self.n = 0
        self.acts: Callable[[], object] | None = None
        self.at: range = range(0)

    def listen(self, *_: object) -> None:
        """Called before each statement, in the thread that makes it."""
        self.n += 1
        if self.acts is not None and self.n in self.at:
            self.acts()


@contextlib.contextmanager
def counted(store: SessionStore) -> Iterator[Statements]:
    """Listen to a store."""
    statements = Statements()
    sa.event.listen(store.engine, "before_cursor_execute", statements.listen)
    try:
        yield statements
    finally:
        sa.event.remove(store.engine, "before_cursor_execute", statements.listen)


def one() -> int:
    """One."""
    return 1


async def two() -> int:
    """Two."""
    await asyncio.sleep(0)
    return 2


def a_team(store: SessionStore) -> Team:
    member = an_agent(store, one, id="member", session_id=None)
    script = [call("delegate_task_to_member", member_id="member", task="t"), "ok"]
    return Team([member], ScriptedModel(lambda messages: script[messages[-1].role == "tool"]), db=store)


def a_workflow(store: SessionStore) -> Workflow:
    agent = an_agent(store, one, session_id=None, name="agent")
    steps = [Step(lambda _: "f", "f"), Parallel(agent, Step(lambda _: "p", "p"), Step(lambda _: "q", "q"))]
    return Workflow(steps=steps, db=store)


MAKES = {"agent": lambda store: an_agent(store, one, two), "team": a_team, "workflow": a_workflow}


async def cancelled_at(runner, statements: Statements, at: range, session_id: str) -> type[BaseException] | None:
    """Run, and cancel the task when those statements begin; what the caller gets for an error."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(runner.arun("x", session_id=session_id))
    statements.n, statements.at = 0, at
    statements.acts = lambda: loop.call_soon_threadsafe(task.cancel)
    try:
        await task
    except BaseException as error:  # noqa: BLE001 - whatever comes is looked at
        return type(error)
    finally:
        statements.acts = None
    return None


async def settled(store: SessionStore) -> list[tuple[str, int]]:
    """What still runs once the threads of this loop had their time."""
    for _ in range(200):
        left = await asyncio.to_thread(left_running, store)
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


@pytest.mark.parametrize(
    ("kind", "times", "step"),
    [("agent", 1, 1), ("team", 1, 2), ("workflow", 1, 2), ("agent", 2, 2), ("workflow", 3, 4)],
)
def test_cancel_run_at_any_statement(kind, times, step, store, caplog):
    """Once, or again while it is being dealt with: the caller gets CancelledError, the run is CANCELLED, no thread complains."""
    found: Counter = Counter()
    runner = MAKES[kind](store)

    async def at_every_statement() -> None:
        await runner.arun("x", session_id="whole")
        at = 1
        with counted(store) as statements:
            while at == 1 or at <= statements.n:
                session_id = f"chat {at}"
                found[await cancelled_at(runner, statements, range(at, at + times), session_id)] += 1
                assert await settled(store) == [], f"cancelled at statement {at}"
                at += step

    asyncio.run(at_every_statement())
    # The last statements may be too late for a cancellation: the run is done.
    assert set(found) <= {asyncio.CancelledError, None}
    assert found[asyncio.CancelledError] > found.total() // 2
    runs = store.runs_df()
    assert set(runs.status) == {"CANCELLED", "COMPLETED"}
    assert set(store.tool_calls_df().status) <= {"completed", "failed", "unknown"}
    assert [record.message for record in caplog.records] == []
    require_the_next_works(store)


@pytest.mark.every_engine
def test_cancel_run_on_each_engine(store):
    """At every second statement; a run that was cancelled can be gone on with."""
    agent = Agent(ScriptedModel(calls_in_turn("one", "two")), db=store, tools=[one, two])

    async def at_some_statements() -> None:
        await agent.arun("x", session_id="whole")
        with counted(store) as statements:
            for at in range(1, 30, 2):
                await cancelled_at(agent, statements, range(at, at + 1), f"chat {at}")
                assert await settled(store) == [], f"cancelled at statement {at}"

    asyncio.run(at_some_statements())
    runs = store.runs_df()
    cancelled = runs[runs.status == "CANCELLED"]
    assert len(cancelled) >= 5
    assert set(cancelled.error) == {"cancelled"}
    for run_id in cancelled.run_id:
        assert agent.continue_run(run_id).status == "COMPLETED"
    require_the_next_works(store)
