"""A workflow that is cancelled, or out of time: all its runs end, and it goes on when it is asked to."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from team_members import crew, member, task
from workflow_steps import Pipeline

from kern_nb.db import SqliteDb
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import call
from kern_nb.workflow import Parallel, Step, Workflow


@pytest.fixture
def pipeline(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield Pipeline(opened)


def everything_at_once(pipeline, begun, leave, *, hold):
    """A workflow whose steps at once are one of each kind; those that hold wait until they may leave."""

    async def wait(given=None) -> str:
        """Wait."""
        begun.set()
        if hold():
            await leave.wait()
        return "waited"

    ann = member("Ann", call("wait"), "ann", tools=[wait])
    team = crew(None, [member("Cat", call("wait"), "cat", tools=[wait])], task("cat"), "led", session_id=None)
    inner = Workflow([wait], name="Inner")
    return pipeline.made(pipeline.adds("a"), Parallel(Step(wait, name="f"), ann, team, inner, pipeline.adds("quick")))


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancel_workflow_cancels_steps(pipeline, how):
    """Of a workflow that is cancelled, or out of time, every run has ended; what had ended before stays."""

    async def main():
        begun, leave = asyncio.Event(), asyncio.Event()
        flow = everything_at_once(pipeline, begun, leave, hold=lambda: True)
        flow.timeout_s = 0.5 if how == "timeout" else None
        running = asyncio.ensure_future(flow.arun("in"))
        await begun.wait()
        if how == "cancel":
            running.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else RunFailed):
            await running

    asyncio.run(main())
    runs = pipeline.runs()
    assert (runs[0].status, runs[1].status) == ("CANCELLED" if how == "cancel" else "ERROR", "COMPLETED")
    assert {run.status for run in runs[2:]} <= {"CANCELLED", "COMPLETED"}
    assert all(run.finished_at is not None for run in runs)
    assert pipeline.store.check()


def test_cancelled_workflow_is_continued(pipeline):
    """Functions that were cancelled may have taken effect: they run again only with rerun_interrupted."""

    async def main():
        begun, leave, hold = asyncio.Event(), asyncio.Event(), [True]
        flow = everything_at_once(pipeline, begun, leave, hold=lambda: hold[0])
        running = asyncio.ensure_future(flow.arun("in"))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        hold[0] = False
        with pytest.raises(RunFailed, match="interrupted"):
            await flow.acontinue_run("chat/0")
        return await flow.acontinue_run("chat/0", rerun_interrupted=True)

    done = asyncio.run(main())
    assert done.output == {"f": "waited", "Ann": "ann", "Crew": "led", "Inner": "waited", "quick": "inaquick"}
    assert pipeline.ran.count("a") == 1


@pytest.mark.parametrize("at", range(1, 5))
def test_cancel_workflow_during_write(pipeline, at):
    """At the workflow's own row, a step's, or those of steps at once: none is left RUNNING."""
    store = pipeline.store
    store.list_sessions()

    async def main():
        loop, seen = asyncio.get_running_loop(), []

        def cancel(_connection, _cursor, statement, *_others):
            if statement.startswith("INSERT INTO agno_sessions_runs"):
                seen.append(statement)
                if len(seen) == at:
                    loop.call_soon_threadsafe(running.cancel)

        sa.event.listen(store.engine, "before_cursor_execute", cancel)
        running = asyncio.ensure_future(
            pipeline.made(pipeline.adds("a"), Parallel(pipeline.adds("b"), member("Ann", "x"))).arun("in")
        )
        with pytest.raises(asyncio.CancelledError):
            await running
        sa.event.remove(store.engine, "before_cursor_execute", cancel)
        assert len(seen) >= at

    asyncio.run(main())
    assert "RUNNING" not in [run.status for run in pipeline.runs()]
