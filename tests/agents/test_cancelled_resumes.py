"""A run that goes on is cancelled at any statement that it writes: it can still be gone on with, and nothing runs twice."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import sqlalchemy as sa
from team_members import crew, task, writer
from workflow_steps import Pipeline

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import RunClosed

WRITES = ("INSERT", "UPDATE")


def made(kind, pipeline):
    """Who goes on, made anew each time."""
    ann = writer("Ann", pipeline.sent, "x")
    if kind == "agent":
        return Agent(ann.model, db=pipeline.store, session_id="chat", tools=ann._tools)
    if kind == "team":
        return crew(pipeline.store, [ann], task("ann"), "led")
    return pipeline.made(pipeline.adds("a"), ann, pipeline.adds("b"))


async def cancelled_at(place, runner):
    """Whether going on was cancelled, when it wrote for the n-th time."""
    loop, written = asyncio.get_running_loop(), itertools.count(1)

    def listen(_connection, _cursor, statement, *_others):
        if statement.startswith(WRITES) and next(written) == place:
            loop.call_soon_threadsafe(running.cancel)

    engine = runner.store.engine
    sa.event.listen(engine, "before_cursor_execute", listen)
    running = asyncio.ensure_future(runner.acontinue_run("chat/0"))
    try:
        await running
    except asyncio.CancelledError:
        return True
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)
    return False


@pytest.mark.parametrize("kind", ["agent", "team", "workflow"])
def test_cancel_resumed_run(tmp_path, kind):
    """Wherever that happens, no run is left RUNNING; who goes on afterwards ends it, and each tool and step ran once."""
    for place in itertools.count(1):
        with SqliteDb(db_file=tmp_path / f"{place}.db") as store:
            pipeline = Pipeline(store)
            made(kind, pipeline).run("in")
            store.resolve("chat/0", approve=True)
            was_cancelled = asyncio.run(cancelled_at(place, made(kind, pipeline)))
            statuses = [run.status for run in pipeline.runs()]
            assert "RUNNING" not in statuses, (place, statuses)
            again = {"rerun_interrupted": True} if kind == "workflow" else {}
            if statuses[0] == "COMPLETED":
                with pytest.raises(RunClosed):
                    made(kind, pipeline).continue_run("chat/0", **again)
            else:
                assert made(kind, pipeline).continue_run("chat/0", **again).status == "COMPLETED", place

            assert (pipeline.sent, pipeline.ran) == ([("x", 1)], ["a", "b"] if kind == "workflow" else []), place
            assert {run.status for run in pipeline.runs()} <= {"COMPLETED", "CANCELLED"}
        if not was_cancelled:
            assert place > 3
            break
