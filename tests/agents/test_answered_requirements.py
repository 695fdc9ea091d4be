"""A paused run, answered as users of Agno do: on its requirements and tools, stored once by `continue_run`."""

from __future__ import annotations

import asyncio

import pytest
from pausing_agents import clerk, results, sender

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.db import InMemoryDb
from kern_nb.errors import AlreadyResolved, BadUsage, StillWaiting
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.workflow import Step

ASK = call("send", to="Bob")


def test_confirmed_call_runs_once():
    """The answer is in the record until the run is continued; then it is in the store, and a second one is refused."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, ASK, "Done", tools=[sender(sent)])
    run = agent.run("Write to Bob")
    assert run.is_paused
    [requirement] = run.active_requirements
    assert (requirement.needs_confirmation, requirement.needs_user_input) == (True, False)
    assert (requirement.tool_execution.tool_name, requirement.tool_execution.tool_args) == ("send", {"to": "Bob"})

    requirement.confirm()
    assert run.active_requirements == []
    assert db.get_run(run.run_id).requirements[0].status == "pending"
    with pytest.raises(BadUsage, match="is approved"):
        requirement.reject("no")

    other = db.get_run(run.run_id)
    run = agent.continue_run(run_id=run.run_id, requirements=run.requirements)
    assert (run.content, run.is_paused, sent) == ("Done", False, [("Bob", 1)])

    other.requirements[0].reject("too late")
    with pytest.raises(AlreadyResolved):
        agent.continue_run(other)
    assert len(sent) == 1


@pytest.mark.parametrize("way", ["requirement", "tool", "updated_tools"])
def test_rejected_call_does_not_run(way):
    """Whichever object the answer is noted in."""
    sent = []
    agent = clerk(InMemoryDb(), ASK, "Pity", tools=[sender(sent)])
    run = agent.run("Write to Bob")
    if way == "requirement":
        run.requirements[0].reject("not now")
        run = agent.continue_run(run_response=run)
    else:
        [waiting] = run.tools_requiring_confirmation
        waiting.confirmed, waiting.confirmation_note = False, "not now"
        run = (
            agent.continue_run(run_id=run.run_id, updated_tools=run.tools)
            if way == "updated_tools"
            else agent.continue_run(run)
        )

    assert (run.content, sent) == ("Pity", [])
    assert results(run) == ["not now"]
    assert run.requirements[0].confirmation is False


def test_unanswered_requirement_keeps_run_paused():
    """Nothing is stored, and nothing is lost."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, [call("send", to="Bob"), call("send", to="Eve")], "Done", tools=[sender(sent)])
    run = agent.run("Write to both")
    run.requirements[0].confirm()
    with pytest.raises(StillWaiting):
        agent.continue_run(run_id=run.run_id, requirements=run.requirements)
    assert [requirement.status for requirement in db.get_run(run.run_id).requirements] == ["resolved", "pending"]

    run.requirements[1].confirm()
    assert agent.continue_run(run_id=run.run_id, requirements=run.requirements).is_paused is False
    assert sorted(sent) == [("Bob", 1), ("Eve", 1)]


def test_answers_are_stored_together():
    """If another person was faster with one of them, the others are not stored."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, [call("send", to="Bob"), call("send", to="Eve")], "Done", tools=[sender(sent)])
    run = agent.run("Write to both")
    for requirement in run.requirements:
        requirement.confirm()
    db.resolve(run.requirements[1], approve=False)
    with pytest.raises(AlreadyResolved):
        agent.continue_run(requirements=run.requirements)
    assert [requirement.status for requirement in db.get_run(run.run_id).requirements] == ["pending", "resolved"]


def book(destination: str, seats: int) -> str:
    """Book a trip."""
    return f"{seats} to {destination}"


@pytest.mark.parametrize("way", ["values", "fields"])
def test_user_input_is_entered_by_field(way):
    """All at once, or field by field as in a form."""
    asked = tool(book, requires_user_input=True, user_input_fields=["seats"])
    agent = clerk(InMemoryDb(), call("book", destination="Rome"), "Booked", tools=[asked])
    run = agent.run("To Rome")
    [requirement] = run.active_requirements
    assert requirement.needs_user_input
    [field] = requirement.user_input_schema
    assert (field.name, field.value) == ("seats", None)
    with pytest.raises(BadUsage, match="no field 'hotel'"):
        requirement.provide_user_input({"hotel": "x"})

    if way == "values":
        requirement.provide_user_input({"seats": 2})
    else:
        field.value = 2
    assert not requirement.needs_user_input
    assert results(agent.continue_run(run_id=run.run_id, requirements=[requirement])) == ["2 to Rome"]


@pytest.mark.parametrize("way", ["method", "attribute", "tool"])
def test_external_result_is_supplied(way):
    """By the method, or as an attribute."""

    def look_up(key: str) -> str:
        raise AssertionError(key)

    agent = clerk(InMemoryDb(), call("look_up", key="a"), "Known", tools=[tool(look_up, external_execution=True)])
    run = agent.run("Look it up")
    [requirement] = run.active_requirements
    assert requirement.needs_external_execution
    if way == "method":
        requirement.set_external_execution_result("42")
    elif way == "attribute":
        requirement.external_execution_result = "42"
    else:
        run.tools_awaiting_external_execution[0].result = "42"
    run = asyncio.run(agent.acontinue_run(run_id=run.run_id, requirements=run.requirements))
    assert (results(run), run.content) == (["42"], "Known")


def test_members_and_steps_are_answered_alike():
    """The requirement is that of the member's or step's run; the run of the team or workflow goes on."""
    sent = []
    db = InMemoryDb()
    member = clerk(db, ASK, "Sent", tools=[sender(sent)], name="Clerk")
    delegate = call("delegate_task_to_member", member_id="clerk", task="Write to Bob")
    team = Team([member], ScriptedModel([delegate, "All done"]), db=db, session_id="team")
    run = team.run("Write to Bob")
    requirements = run.requirements or db.requirements(run_id=run.run_id)
    requirements[0].confirm()
    assert team.continue_run(requirements=requirements).content == "All done"

    workflow = Workflow([Step(lambda step: f"to {step.input}", name="write", requires_confirmation=True)], db=db)
    run = workflow.run("Bob", session_id="flow")
    assert run.is_paused
    run.active_requirements[0].confirm()
    run = workflow.continue_run(run_id=run.run_id, step_requirements=run.requirements)
    assert (run.content, len(sent)) == ("to Bob", 1)


def test_answer_of_another_run_is_refused():
    """Nothing is stored."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, ASK, "Done", tools=[sender(sent)])
    first, second = agent.run("One", session_id="a"), agent.run("Two", session_id="b")
    second.requirements[0].confirm()
    with pytest.raises(BadUsage, match="belongs to run"):
        agent.continue_run(run_id=first.run_id, requirements=second.requirements)
    assert {r.status for r in db.requirements()} == {"pending"}
    with pytest.raises(BadUsage, match="needs a run"):
        agent.continue_run()
    with pytest.raises(BadUsage, match="not user_input"):
        first.requirements[0].provide_user_input({"to": "Eve"})
    assert isinstance(agent, Agent)
