"""`cancel_run`: a run of another thread is returned as CANCELLED with what it had; a paused one ends at once."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pausing_agents import clerk, sender

from kern_nb import Agent, Team, Workflow
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, RunClosed, RunNotFound
from kern_nb.models.scripted import ScriptedModel, call


class Waiting:
    """A tool that waits until the run is cancelled."""

    def __init__(self):
        self.started = threading.Event()

    async def wait(self, session_state: dict) -> str:
        """Wait."""
        session_state["waiting"] = True
        self.started.set()
        await asyncio.Event().wait()


def in_thread(owner, results):
    thread = threading.Thread(target=lambda: results.append(owner.run("Go")))
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["agent", "team", "workflow"])
def test_run_of_another_thread_is_cancelled(kind):
    """The run is returned, not raised; members and steps end with it; it can be continued."""
    waiting, results, db = Waiting(), [], InMemoryDb()
    worker = Agent(ScriptedModel([call("wait"), "never"]), db=db, tools=[waiting.wait], name="Worker")
    leader = ScriptedModel([call("delegate_task_to_member", member_id="worker", task="Go"), "never"])
    owners = {"agent": worker, "team": Team([worker], leader, db=db), "workflow": Workflow([worker], db=db)}
    owner = owners[kind]
    owner.session_id = "chat"
    thread = in_thread(owner, results)
    assert waiting.started.wait(20)
    [top] = [run for run in db.get_session("chat").runs if run.parent_run_id is None]
    for member in db.member_runs(top.run_id):
        with pytest.raises(BadUsage, match="member or a step"):
            owner.cancel_run(member.run_id)
    assert owner.cancel_run(top.run_id) is True
    thread.join(20)

    [run] = results
    assert (run.run_id, run.status, run.error) == (top.run_id, "CANCELLED", "cancelled")
    assert run.is_cancelled
    assert {r.status for r in db.get_session("chat").runs} == {"CANCELLED"}
    assert [c.status for r in db.get_session("chat").runs for c in r.tool_calls if c.tool_name == "wait"] == ["unknown"]
    assert owner.cancel_run(top.run_id) is False


def test_task_goes_on_after_its_run_is_cancelled():
    """Only the run is cancelled, not the caller's task; its own cancellation still is one."""
    waiting, db = Waiting(), InMemoryDb()
    agent = Agent(ScriptedModel(lambda _: call("wait")), db=db, tools=[waiting.wait], session_id="chat")

    async def main():
        task = asyncio.create_task(agent.arun("Go"))
        await asyncio.to_thread(waiting.started.wait, 20)
        [run] = await asyncio.to_thread(lambda: db.get_session("chat").runs)
        assert await agent.acancel_run(run.run_id)
        cancelled = await task
        assert task.cancelling() == 0
        waiting.started.clear()
        task = asyncio.create_task(agent.arun("Go"))
        await asyncio.to_thread(waiting.started.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return cancelled

    assert asyncio.run(main()).status == "CANCELLED"
    assert [run.status for run in db.get_session("chat").runs] == ["CANCELLED", "CANCELLED"]


def test_paused_run_is_cancelled_with_its_requirements():
    """A person's answer comes too late."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, call("send", to="Bob"), "Done", tools=[sender(sent)])
    run = agent.run("Write")
    assert agent.cancel_run(run) is True
    stored = db.get_run(run.run_id)
    assert (stored.status, stored.usage) == ("CANCELLED", run.usage)
    assert [requirement.status for requirement in stored.requirements] == ["expired"]
    assert db.requirements() == []
    with pytest.raises(RunNotFound):
        agent.cancel_run("unknown")
    with pytest.raises(RunNotFound):
        agent.cancel_run(run.run_id, user_id="somebody else")


def test_cancellation_while_run_pauses():
    """A request between the last message and the pause is not lost."""
    db, sent = InMemoryDb(), []
    letter = sender(sent)
    agent = clerk(db, call("send", to="Bob"), "Done", tools=[letter])
    pause = db.pause_run

    def request_then_pause(run_id, *args, **options):
        db.cancel_run(run_id)
        return pause(run_id, *args, **options)

    db.pause_run = request_then_pause
    run = agent.run("Write")
    assert (run.status, db.requirements(), sent) == ("CANCELLED", [], [])
    db.pause_run = pause
    with pytest.raises(RunClosed):
        db.append_messages(run.run_id, [])
