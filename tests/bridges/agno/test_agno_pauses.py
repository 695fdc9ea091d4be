"""A paused run of Agno is in the inbox, and is resumed once, by Agno's call or with an answer of the inbox."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.agent import Agent
from agno.team import Team
from agno.tools import tool
from agno.workflow import Step, Workflow
from agno.workflow.types import HumanReview
from agno_agents import Scripted, agent, call

from kern_nb.bridges import attach_agent, detach_agent
from kern_nb.db import InMemoryDb
from kern_nb.errors import AlreadyClaimed, StillWaiting


@pytest.fixture
def store():
    return InMemoryDb()


@pytest.fixture
def deleted():
    return []


@pytest.fixture
def delete(deleted):
    @tool(requires_confirmation=True)
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return f"deleted {path}"

    return delete_file


@pytest.fixture
def attached(store, delete):
    agents = []

    def attach(answers, **options):
        options = {"tools": [delete]} | options
        agents.append(agent(None, answers, **options))
        attach_agent(agents[-1], store)
        return agents[-1]

    yield attach
    for a in agents:
        detach_agent(a)


def test_the_second_of_two_resumes_is_refused(attached, store, deleted):
    """By run id or with the run itself, the tool runs once."""
    a = attached([[call("delete_file", path="x")], "Deleted."])
    run = a.run("Delete x")
    assert [q.tool_name for q in store.requirements()] == ["delete_file"]
    run.requirements[0].confirm()
    second = copy.deepcopy(run)
    done = a.continue_run(run_id=run.run_id, requirements=run.requirements, session_id="s1")
    assert (done.content, deleted) == ("Deleted.", ["x"])
    with pytest.raises(AlreadyClaimed, match="resumed before"):
        a.continue_run(run_id=run.run_id, requirements=run.requirements, session_id="s1")
    with pytest.raises(AlreadyClaimed, match="resumed before"):
        a.continue_run(run_response=second)
    assert deleted == ["x"]
    (requirement,) = store.requirements(status=None)
    assert (requirement.status, requirement.approved) == ("resolved", True)
    assert store.runs_df()["status"].tolist() == ["COMPLETED"]


@pytest.mark.parametrize("approve", [True, False])
def test_an_answer_of_the_inbox(attached, store, deleted, approve):
    """The agent continues with it; a rejection's note is what the model sees."""
    a = attached([[call("delete_file", path="x")], "Done."])
    run = a.run("Delete x")
    store.resolve(store.requirements()[0], approve=approve, note=None if approve else "Not that one.", by="bob")
    done = a.continue_run(run_id=run.run_id, session_id="s1")
    assert deleted == (["x"] if approve else [])
    assert [m.content for m in done.messages if m.role == "tool"] == ["deleted x" if approve else "Not that one."]
    assert [q.resolved_by for q in store.requirements(status=None)] == ["bob"]


def test_edited_arguments_of_the_inbox(attached, store, deleted):
    """The call runs with the arguments of the person."""
    a = attached([[call("delete_file", path="x")], "Done."])
    run = a.run("Delete x")
    store.resolve(store.requirements()[0], args={"path": "y"})
    a.continue_run(run_id=run.run_id, session_id="s1")
    assert deleted == ["y"]


def test_a_value_of_the_inbox(attached, store):
    """User input fills the fields; an external result is the tool's."""
    from agno_agents import run_shell, send

    a = attached([[call("send", text="t")], "Sent."], tools=[send])
    run = a.run("Send it")
    (requirement,) = store.requirements()
    assert (requirement.kind, requirement.extra["required"]) == ("user_input", ["to"])
    store.resolve(requirement, value={"to": "eve"})
    done = a.continue_run(run_id=run.run_id, session_id="s1")
    assert "sent to eve" in [m.content for m in done.messages]
    a = attached([[call("run_shell", command="ls")], "Listed."], tools=[run_shell])
    run = a.run("List it")
    (requirement,) = store.requirements()
    assert requirement.kind == "external_execution"
    store.resolve(requirement, value="a.txt")
    done = a.continue_run(run_id=run.run_id, session_id="s1")
    assert "a.txt" in [m.content for m in done.messages]


def test_without_an_answer(attached, deleted):
    """The resume is refused; the run stays paused."""
    a = attached([[call("delete_file", path="x")], "Done."])
    run = a.run("Delete x")
    with pytest.raises(StillWaiting):
        a.continue_run(run_id=run.run_id, session_id="s1")
    assert (deleted, a.get_session("s1").runs[0].status.value) == ([], "PAUSED")


def test_a_resume_that_fails_is_released(attached, store, deleted, monkeypatch):
    """The run is resumed again; its answer is kept."""
    a = attached([[call("delete_file", path="x")], "Done."])
    run = a.run("Delete x")
    store.resolve(store.requirements()[0], approve=True)
    with monkeypatch.context() as patch:
        patch.setattr(a, "get_tools", fail)
        with pytest.raises(OSError, match="unplugged"):
            a.continue_run(run_id=run.run_id, session_id="s1")
    assert store.runs_df()["status"].tolist() == ["PAUSED"]
    a.continue_run(run_id=run.run_id, session_id="s1")
    assert deleted == ["x"]


def fail(*args, **kwargs):
    raise OSError("unplugged")


def test_streams_and_coroutines(attached, store, deleted):
    """A stream is claimed when it is asked for, and so is an async resume."""
    import asyncio

    a = attached([[call("delete_file", path="x")], "Done."])
    run = a.run("Delete x")
    store.resolve(store.requirements()[0], approve=True)
    events = a.continue_run(run_id=run.run_id, session_id="s1", stream=True)
    with pytest.raises(AlreadyClaimed):
        a.continue_run(run_id=run.run_id, session_id="s1", requirements=run.requirements)
    list(events)
    a = attached([[call("delete_file", path="y")], "Done."], session_id="s2")
    run = a.run("Delete y")
    store.resolve(store.requirements()[0], approve=True)
    asyncio.run(resume(a, run.run_id))
    assert deleted == ["x", "y"]


async def resume(a, run_id):
    return await a.acontinue_run(run_id=run_id, session_id="s2")


def test_a_member_of_a_team(store, delete, deleted):
    """The requirement is the member's, is listed once, and the team is resumed."""
    answers = [[call("delete_file", path="x")], "Deleted."]
    member = Agent(id="m", name="M", model=Scripted(answers=answers), tools=[delete], telemetry=False)
    leader = Scripted(answers=[[call("delegate_task_to_member", member_id="m", task="x")], "The team's answer."])
    t = Team(id="t", name="T", members=[member], model=leader, session_id="t1", telemetry=False)
    attach_agent(t, store)
    run = t.run("Go")
    (requirement,) = store.requirements(session_id="t1")
    assert store.get_run(requirement.run_id).agent_id == "m"
    run.requirements[0].confirm()
    done = t.continue_run(run_id=run.run_id, requirements=run.requirements, session_id="t1")
    assert (done.content, deleted) == ("The team's answer.", ["x"])
    assert store.runs_df("t1")["status"].tolist() == ["COMPLETED", "COMPLETED"]
    detach_agent(t)


def test_a_step_of_a_workflow(store):
    """A step that is to be confirmed is in the inbox."""
    step = Agent(id="a", name="A", model=Scripted(answers=["One."]), telemetry=False)
    review = HumanReview(requires_confirmation=True, confirmation_message="Run it?")
    w = Workflow(
        id="w", name="W", session_id="w1", steps=[Step(name="first", agent=step, human_review=review)], telemetry=False
    )
    attach_agent(w, store)
    run = w.run("Go")
    (requirement,) = store.requirements(session_id="w1")
    assert (requirement.kind, requirement.prompt) == ("confirmation", "Run it?")
    store.resolve(requirement, approve=True)
    done = w.continue_run(run_id=run.run_id, session_id="w1")
    assert (done.status.value, done.content) == ("COMPLETED", "One.")
    detach_agent(w)


def test_a_call_of_a_steps_agent(store, delete, deleted):
    """Its requirement is listed once, as the step's, and the workflow is resumed."""
    step = Agent(id="a", name="A", model=Scripted(answers=[[call("delete_file", path="x")], "One."]), tools=[delete])
    w = Workflow(id="w", name="W", session_id="w1", steps=[Step(name="first", agent=step)], telemetry=False)
    attach_agent(w, store)
    run = w.run("Go")
    (requirement,) = store.requirements(session_id="w1")
    assert store.get_run(requirement.run_id).parent_run_id == run.run_id
    store.resolve(requirement, approve=True)
    done = w.continue_run(run_id=run.run_id, session_id="w1")
    assert (done.content, deleted) == ("One.", ["x"])
    assert [q.status for q in store.requirements(session_id="w1", status=None)] == ["resolved"]
    assert store.runs_df("w1")["status"].tolist() == ["COMPLETED", "COMPLETED"]
    detach_agent(w)
