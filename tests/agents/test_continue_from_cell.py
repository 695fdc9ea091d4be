"""`%kern continue` and the inbox, of teams and workflows: what is written in a cell means the run that goes on."""

from __future__ import annotations

import contextlib

import pytest
from pausing_agents import pending_tools
from team_members import crew, task, writer
from workflow_steps import Pipeline

from kern_nb import store_registry
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, StillWaiting
from kern_nb.operations import agent_registry, inbox, resume


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The store in use."""
    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    with SqliteDb(db_file=tmp_path / "s.db") as opened, contextlib.ExitStack() as stack:
        store_registry.attach(opened, name="work")
        stack.callback(store_registry.detach, "work")
        yield opened


@pytest.fixture
def variables(monkeypatch):
    """The notebook's variables."""
    found: dict = {}
    monkeypatch.setattr(agent_registry, "variables", lambda: found)
    return found


def paused(kind, pipeline):
    """A run that waits for a letter to be allowed, and who makes it."""
    ann = writer("Ann", pipeline.sent, "x")
    runner = (
        crew(None, [ann], task("ann"), "done")
        if kind == "team"
        else pipeline.made(pipeline.adds("a"), ann, name="Flow")
    )
    return runner, ann, runner.run("in")


@pytest.mark.parametrize("kind", ["team", "workflow"])
@pytest.mark.parametrize("named", ["place", "session", "requirement", "agent"])
def test_continue_team_or_workflow_from_cell(store, variables, kind, named):
    """By whichever name: what the member waits for stands for the run above it, which is what goes on."""
    pipeline = Pipeline(store)
    runner, ann, run = paused(kind, pipeline)
    variables |= {"helper": ann, "boss": runner}
    (waiting,) = run.requirements
    reference = {"place": "chat/0", "session": "chat", "requirement": waiting.requirement_id, "agent": "chat/0"}[named]
    options = {"agent": "boss"} if named == "agent" else {}
    with pytest.raises(StillWaiting):
        resume.continue_run(reference, **options)
    assert [row.run for row in inbox.inbox().rows] == ["chat/0"]
    store.resolve(waiting.requirement_id, approve=True)
    done = resume.continue_run(reference, **options)

    assert (done.run_id, done.status, pending_tools(done)) == (run.run_id, "COMPLETED", [])
    assert pipeline.sent == [("x", 1)]
    assert len(inbox.inbox()) == 0


@pytest.mark.parametrize("kind", ["team", "workflow"])
def test_member_cannot_continue_team_run(store, variables, kind):
    """It is told whose run it is; nothing is changed."""
    pipeline = Pipeline(store)
    runner, ann, run = paused(kind, pipeline)
    variables["helper"] = ann
    store.resolve("chat/0", approve=True)
    for options in ({}, {"agent": "helper"}):
        with pytest.raises(BadUsage):
            resume.continue_run("chat/0", **options)
    assert (pipeline.sent, store.get_run(run.run_id).status) == ([], "PAUSED")

    variables["boss"] = runner
    assert resume.continue_run("chat/0").status == "COMPLETED"


def test_continue_failed_workflow_by_reference(store, variables):
    """It waits for nobody, so it is named itself."""
    pipeline = Pipeline(store)
    pipeline.down.add("b")
    flow = variables["flow"] = pipeline.made(pipeline.adds("a"), pipeline.adds("b"), name="Flow")
    with pytest.raises(RuntimeError, match="b is down"):
        flow.run("in")
    pipeline.down.clear()

    assert resume.continue_run("chat/0").output == "inab"
    assert pipeline.ran == ["a", "b", "b"]


def test_continue_streaming_agent(store, variables):
    """Who streams by default returns the run here, too."""
    boss = writer("Ann", [], "x", db=store, session_id="chat", stream=True)
    *_, event = boss.run("in")
    variables["boss"] = boss
    store.resolve(event.requirements[0].requirement_id, approve=True)
    assert resume.continue_run("chat/0").output == "Ann is done"
