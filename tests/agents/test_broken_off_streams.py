"""A stream that is not read to its end: its run is cancelled, and stored with what the consumer has seen."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from breaking_models import HELD, Breaking
from failing_agents import left_running, require_the_next_works

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb, open_store
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.team import Team
from kern_nb.workflow import Workflow


def teller(db: Any, **options: Any) -> Agent:
    """Create an agent that tells a story."""
    return Agent(ScriptedModel("Once upon a time."), db=db, session_id="chat", **options)


def require_cancelled(db: Any, partial: str | None = "Once upon ") -> None:
    """Check that the last run is cancelled, with this partial answer."""
    run = db.get_session("chat").runs[-1]
    assert (run.status, run.error, run.output) == ("CANCELLED", "cancelled", None)
    assert [m.content for m in run.messages if m.is_partial] == ([partial] if partial else [])
    assert left_running(db) == []


@pytest.mark.every_engine
def test_loop_that_ends_early(store):
    """`break` after two parts of the answer."""
    for event in teller(store).run("Tell me", stream=True):
        if event.content == "upon ":
            break
    require_cancelled(store)
    require_the_next_works(store)


def test_exception_in_loop():
    """What the consumer raises passes through, once the run is stored."""
    db = InMemoryDb()

    def read() -> None:
        for event in teller(db).run("Tell me", stream=True):
            if event.content == "upon ":
                raise LookupError(event.content)

    with pytest.raises(LookupError, match="upon"):
        read()
    require_cancelled(db)


def test_closed_and_freed_streams():
    """A stream in a variable ends with `close`, or with the variable; one that has not started stores nothing."""
    db = InMemoryDb()
    agent = teller(db)
    agent.run("Tell me", stream=True).close()
    assert db.list_sessions() == []

    stream = agent.run("Tell me", stream=True)
    assert [next(stream).content for _ in range(3)] == [None, "Once ", "upon "]
    assert db.get_session("chat").runs[-1].status == "RUNNING"
    stream.close()
    require_cancelled(db)
    with pytest.raises(StopIteration):
        next(stream)

    stream = agent.run("Tell me", stream=True)
    next(stream)
    del stream
    gc.collect()
    require_cancelled(db, None)


def test_interrupted_cell():
    """The stop button, while the consumer waits for the model."""
    db, model = InMemoryDb(), Breaking(["Once ", "upon ", HELD])

    def interrupt() -> None:
        model.held.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    agent = Agent(model.model, db=db, session_id="chat")
    with pytest.raises(KeyboardInterrupt):
        list(agent.run("Tell me", stream=True))
    thread.join()
    require_cancelled(db)


def test_break_before_tool():
    """A consumer that stops at the event of a call has prevented it."""
    db, ran = InMemoryDb(), []

    def remove(path: str) -> str:
        """Remove a file."""
        ran.append(path)
        return "removed"

    agent = Agent(ScriptedModel([call("remove", path="x")]), db=db, tools=[remove], session_id="chat")
    for event in agent.run("x", stream=True):
        if event.event == "ToolCallStarted":
            break
    assert ran == []
    require_cancelled(db, None)


async def _break(agent: Agent) -> None:
    async for event in agent.arun("Tell me", stream=True):
        if event.content == "upon ":
            break
    for _ in range(100):  # Python closes the generator in a task of its own
        if agent.store.get_session("chat").runs[-1].status != "RUNNING":
            break
        await asyncio.sleep(0.02)


async def _close(agent: Agent) -> None:
    stream = agent.arun("Tell me", stream=True)
    while (await anext(stream)).content != "upon ":
        pass
    await stream.aclose()


async def _cancel(agent: Agent) -> None:
    seen = asyncio.Event()

    async def read() -> None:
        async for event in agent.arun("Tell me", stream=True):
            if event.content == "upon ":
                seen.set()
                await asyncio.sleep(60)

    task = asyncio.ensure_future(read())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("way", [_break, _close, _cancel])
def test_broken_off_async_stream(way):
    """`break`, `aclose`, or a cancelled task."""
    db = InMemoryDb()
    asyncio.run(way(teller(db)))
    require_cancelled(db)


def test_async_stream_cancelled_while_it_waits():
    """The consumer is cancelled while the model takes its time."""
    db, model = InMemoryDb(), Breaking(["Once ", "upon ", HELD])
    agent = Agent(model.model, db=db, session_id="chat")

    async def work() -> None:
        async def read() -> None:
            async for _ in agent.arun("Tell me", stream=True):
                pass

        task = asyncio.ensure_future(read())
        await asyncio.to_thread(model.held.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    require_cancelled(db)


def test_broken_off_member_and_step():
    """The runs of a member and of a step are cancelled with the one that made them."""
    for make in (
        lambda db, agent: Team(
            [agent], ScriptedModel([call("delegate_task_to_member", member_id="teller", task="x")]), db=db
        ),
        lambda db, agent: Workflow([agent], db=db),
    ):
        db = InMemoryDb()
        owner = make(db, Agent(ScriptedModel("Once upon a time."), name="Teller"))
        for event in owner.run("x", session_id="chat", stream=True):
            if event.content == "upon ":
                break
        runs = db.runs_df()
        assert runs.status.tolist() == ["CANCELLED", "CANCELLED"]
        assert left_running(db) == []
        partial = [m.content for run_id in runs.run_id for m in db.get_run(run_id).messages if m.is_partial]
        assert partial == ["Once upon "]


def test_stream_at_exit(tmp_path):
    """A stream that a script leaves open is closed when the process ends."""
    path = tmp_path / "sessions.db"
    script = f"""
from kern_nb import Agent
from kern_nb.models.scripted import ScriptedModel
stream = Agent(ScriptedModel("Once upon a time."), db={str(path)!r}, session_id="chat").run("x", stream=True)
for _ in range(3):
    next(stream)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with open_store(path) as store:
        require_cancelled(store)
