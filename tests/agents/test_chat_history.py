"""`get_chat_history`: what users and assistants said; of a workflow, the inputs and outputs. And the history of members."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls_once, said
from team_members import task

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.errors import RunFailed, SessionNotFound
from kern_nb.models.scripted import call
from kern_nb.operations.summarize import summarize
from kern_nb.workflow import WorkflowExchange


def look() -> str:
    """Look."""
    return "seen"


def test_chat_history_is_what_was_said(db):
    """Without the results of tools, unless they are asked for; of all runs or the latest."""
    agent = Agent(calls_once("look"), db=db, session_id="chat", tools=[look], instructions="Be brief.")
    agent.run("one")
    agent.run("two")
    exchange = [("assistant", "look()"), ("assistant", "done")]

    assert said(agent.get_chat_history()) == [("user", "one"), *exchange, ("user", "two"), *exchange]
    assert said(agent.get_chat_history("chat", 1)) == [("user", "two"), *exchange]
    assert said(agent.get_chat_history(last_n_runs=1)) == said(agent.get_chat_history(last_runs=1))
    assert agent.get_chat_history(last_n_runs=0) == []
    with_tools = [m.role for m in agent.get_chat_history(tool_messages=True)]
    assert with_tools == ["user", "assistant", "tool", "assistant"] * 2
    with pytest.raises(SessionNotFound):
        agent.get_chat_history("unknown")


def test_chat_history_includes_runs_of_every_status(db):
    """What was asked in a run that failed or is paused was said; a model is not told it."""
    careful = tool(look, requires_confirmation=True)
    model = RecordingModel([ValueError("no"), call("look"), "third"])
    agent = Agent(model, db=db, session_id="chat", tools=[careful], add_history_to_context=True)
    with pytest.raises(RunFailed):
        agent.run("fails")
    agent.run("pauses")
    agent.run("works")

    expected = ["fails", "pauses", None, "works", "third"]
    assert [m.content for m in agent.get_chat_history()] == expected
    assert model.heard() == [("user", "works")]
    branch = db.branch("chat", new_session_id="branch")
    assert [m.content for m in agent.get_chat_history(branch.session_id)] == expected


def test_chat_history_of_a_team_is_the_leaders(db):
    """Its members' messages are in their own runs, and so is their history."""
    member = Agent(calls_once("look"), name="helper", tools=[look], add_history_to_context=True)
    answers = [task("helper", "first"), "one", task("helper", "second"), "two"]
    team = Team([member], RecordingModel(answers), db=db, session_id="chat", add_history_to_context=True)
    team.run("q1")
    team.run("q2")

    chat = [(m.role, m.content) for m in team.get_chat_history()]
    assert chat == [
        *[("user", "q1"), ("assistant", None), ("assistant", "one")],
        *[("user", "q2"), ("assistant", None), ("assistant", "two")],
    ]
    first = [("user", "first"), ("assistant", "look()"), ("tool", "seen"), ("assistant", "done")]
    assert member.model.heard() == [*first, ("user", "second"), ("assistant", "look()"), ("tool", "seen")]


def test_history_of_a_member_is_its_own(db):
    """Of one with the same session, neither the leader's nor another member's; within its limits, also in a branch."""
    members = [
        Agent(RecordingModel(), name=name, add_history_to_context=True, num_history_runs=n)
        for name, n in (("one", 1), ("two", 3))
    ]
    inner_model = RecordingModel(lambda ms: "in" if ms[-1].role == "tool" else task("one", ms[-1].content))
    inner = Team(members[:1], inner_model, name="inner")
    delegates = [item for n in range(3) for item in (task("inner", f"i{n}"), task("two", f"t{n}"), f"answer {n}")]
    team = Team([inner, members[1]], RecordingModel(delegates), db=db, session_id="chat")
    for n in range(3):
        team.run(f"q{n}")

    assert members[0].model.heard() == [("user", "i1"), ("assistant", "answer 1"), ("user", "i2")]
    assert [text for role, text in members[1].model.heard() if role == "user"] == ["t0", "t1", "t2"]
    db.branch("chat", after=0, new_session_id="branch")
    Team([inner, members[1]], RecordingModel([task("two", "new"), "ok"]), db=db, session_id="branch").run("q")
    assert members[1].model.heard() == [("user", "t0"), ("assistant", "answer 0"), ("user", "new")]


def test_chat_history_of_a_workflow(db):
    """The input and output of each run; the agents of its steps have no history of their own."""
    agent = Agent(RecordingModel(), name="last", add_history_to_context=True)
    workflow = Workflow([lambda step: f"about {step.input}", agent], db=db, session_id="flow")
    workflow.run("roses")
    workflow.run({"topic": "tulips"})

    first, second = WorkflowExchange("roses", "answer 0"), WorkflowExchange({"topic": "tulips"}, "answer 1")
    assert workflow.get_chat_history() == [first, second]
    assert workflow.get_chat_history("flow", 1) == workflow.get_chat_history(last_runs=1) == [second]
    assert [m.content for m in db.history("flow")] == ["roses", "answer 0", {"topic": "tulips"}, "answer 1"]
    assert agent.model.heard() == [("user", "about {'topic': 'tulips'}")]
    db.branch("flow", after=0, new_session_id="branch")
    assert workflow.get_chat_history("branch") == [first]
    other = Agent(RecordingModel(), db=db, session_id="flow", add_history_to_context=True)
    other.run("hi")
    assert [text for _, text in other.model.heard()] == ["roses", "answer 0", '{"topic": "tulips"}', "answer 1", "hi"]


def test_summary_of_a_workflow(db):
    """Of a session and of one run, by a model: from the inputs and outputs."""
    workflow = Workflow([lambda step: f"about {step.input}"], db=db, session_id="flow")
    workflow.run("roses")
    workflow.run("tulips")
    model = RecordingModel(lambda _: '{"summary": "Flowers.", "topics": []}')

    assert summarize("flow", store=db, model=model).summary == "Flowers."
    assert str(model.told[-1][-1].content).endswith(
        "user: roses\nassistant: about roses\nuser: tulips\nassistant: about tulips"
    )
    assert summarize("flow/2", store=db, model=model).summary == "Flowers."
    assert "roses" not in str(model.told[-1][-1].content)
