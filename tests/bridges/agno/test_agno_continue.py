"""Paused runs of attached agents, teams and workflows of Agno, answered and continued by magics."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.agent import Agent
from agno.team import Team
from agno.tools import tool
from agno.tools.user_feedback import UserFeedbackTools
from agno.workflow import Step, Workflow
from agno.workflow.types import HumanReview
from agno_agents import Scripted, agent, call, run_shell, send

import kern_nb
from kern_nb.bridges import detach_agent
from kern_nb.errors import BadUsage, RunClosed

QUESTIONS = [
    {
        "question": "Which city?",
        "header": "City",
        "options": [{"label": "Rome", "description": "warm"}, {"label": "Oslo"}],
    },
    {
        "question": "Which days?",
        "header": "Days",
        "options": [{"label": "Mon"}, {"label": "Tue"}, {"label": "Wed"}],
        "multi_select": True,
    },
]


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
def adelete(deleted):
    @tool(requires_confirmation=True)
    async def adelete_file(path: str) -> str:
        """Delete a file later."""
        await asyncio.sleep(0)
        deleted.append(path)
        return f"deleted {path} later"

    return adelete_file


@pytest.fixture
def attached(notebook):
    """Attach an agent that is in the variable ``clerk`` to a store in memory."""
    agents = []

    def attach(owner):
        notebook.shell.user_ns["clerk"] = owner
        store = kern_nb.attach(":memory:", name=f"desk{len(agents)}")
        notebook.run("%kern attach-agent clerk")
        agents.append(owner)
        return store

    yield attach
    for owner in agents:
        detach_agent(owner)


def test_a_requirement_of_each_kind_is_answered_and_the_run_continues(notebook, attached, delete, adelete, deleted):
    calls = [
        call("delete_file", "c1", path="x"),
        call("adelete_file", "c2", path="y"),
        call("delete_file", "c3", path="z"),
        call("send", "c4", text="t"),
        call("run_shell", "c5", command="ls"),
        call("ask_user", "c6", questions=QUESTIONS),
    ]
    tools = [delete, adelete, send, run_shell, UserFeedbackTools()]
    clerk = agent(None, [calls, "Done."], tools=tools)
    store = attached(clerk)
    asyncio.run(clerk.arun("Go"))
    asked = {str(r.tool_call_id): r for r in store.requirements()}
    assert {name: r.kind for name, r in asked.items()} == dict(zip(
        ["c1", "c2", "c3", "c4", "c5", "c6"],
        ["confirmation"] * 3 + ["user_input", "external_execution", "user_feedback"], strict=True,
    ))  # fmt: skip
    ids = {name: r.requirement_id for name, r in asked.items()}
    notebook.run(f'%kern approve {ids["c1"]} --args \'{{"path": "edited"}}\'')
    notebook.run(f"%kern approve {ids['c2']}")
    notebook.run(f"%kern reject {ids['c3']} --note 'Keep that one.'")
    notebook.run(f"%kern answer {ids['c4']} to=eve")
    notebook.run(f"%kern answer {ids['c5']} a.txt")
    for words, message in (
        ("City=Paris Days=Mon", "'Paris' is not an option of 'City'"),
        ("City=Rome", "No choice for 'Days'"),
        ("City=Rome,Oslo Days=1", "is not an option of 'City'"),
        ("""City='["Rome","Oslo"]' Days=1""", "'City' takes one choice, got 2"),
        ("City=1 Days=1 Month=May", "Unknown question 'Month'"),
        ("Rome", "needs a choice for each question"),
    ):
        error, lines = notebook.fails(f"%kern answer {ids['c6']} {words}")
        assert isinstance(error, BadUsage)
        assert message in lines[0]
    answered = notebook.run(f"%kern answer {ids['c6']} City=2 Days=mon,Wed")
    assert "City: Oslo; Days: Mon, Wed" in repr(answered)
    assert "%kern continue s1/0 --agent clerk" in repr(answered)

    run = notebook.run("%kern continue s1")

    assert (run.status, run.output) == ("COMPLETED", "Done.")
    assert deleted == ["edited", "y"]
    results = {m.tool_call_id: m.content for m in run.messages if m.role == "tool"}
    assert results["c6"] == (
        'User feedback received: [{"question": "Which city?", "selected": ["Oslo"]},'
        ' {"question": "Which days?", "selected": ["Mon", "Wed"]}]'
    )
    assert {name: results[name] for name in ("c1", "c2", "c3", "c4", "c5")} == {
        "c1": "deleted edited", "c2": "deleted y later", "c3": "Keep that one.", "c4": "sent to eve", "c5": "a.txt",
    }  # fmt: skip
    error, _ = notebook.fails("%kern continue s1/0 --agent clerk")
    assert isinstance(error, RunClosed)
    assert len(deleted) == 2


def test_it_continues_inside_a_running_event_loop_and_pauses_again(notebook, attached, delete, deleted):
    answers = [[call("delete_file", "c1", path="x")], [call("delete_file", "c2", path="y")], "Done."]
    clerk = agent(None, answers, tools=[delete])
    store = attached(clerk)
    clerk.run("Go")
    cell = "import asyncio\nasync def go():\n    return get_ipython().run_line_magic('kern', 'continue s1')\n"
    for status in ("PAUSED", "COMPLETED"):
        notebook.run("%kern approve s1")
        assert notebook.run(f"{cell}asyncio.run(go())").status == status
    assert deleted == ["x", "y"]
    assert len(store.get_session("s1").runs) == 1


def test_a_team_and_a_workflow_continue(notebook, attached, delete, deleted):
    """The requirement is the member's, or the step's."""
    answers = [[call("delete_file", path="x")], "Deleted."]
    member = Agent(id="m", name="M", model=Scripted(answers=answers), tools=[delete], telemetry=False)
    leader = Scripted(answers=[[call("delegate_task_to_member", member_id="m", task="x")], "The team's answer."])
    team = Team(id="t", name="T", members=[member], model=leader, session_id="t1", telemetry=False)
    attached(team)
    team.run("Go")
    assert "--agent clerk" in repr(notebook.run("%kern approve t1"))
    run = notebook.run("%kern continue t1")
    assert (run.status, run.output, deleted) == ("COMPLETED", "The team's answer.", ["x"])

    step = Agent(id="a", name="A", model=Scripted(answers=["One."]), telemetry=False)
    review = HumanReview(requires_confirmation=True, confirmation_message="Run it?")
    steps = [Step(name="first", agent=step, human_review=review)]
    workflow = Workflow(id="w", name="W", session_id="w1", steps=steps, telemetry=False)
    attached(workflow)
    workflow.run("Go")
    notebook.run("%kern approve w1")
    run = notebook.run("%kern continue w1")
    assert (run.status, run.output) == ("COMPLETED", "One.")


def test_questions_are_shown_with_their_options(notebook, attached):
    clerk = agent(None, [[call("ask_user", "c6", questions=QUESTIONS)], "Done."], tools=[UserFeedbackTools()])
    store = attached(clerk)
    clerk.run("Go")
    (asked,) = store.requirements()
    shown = notebook.run("%kern show s1")
    text, html = repr(shown), shown._repr_html_()
    assert "user_feedback “Which city? Which days?”" in text
    assert "City: 1 Rome, 2 Oslo" in text
    assert "Days: 1 Mon, 2 Tue, 3 Wed (several can be chosen)" in text
    assert f"%kern answer {asked.requirement_id[:8]} City=CHOICE Days=CHOICE" in text
    assert "<li><strong>" in html
    assert "warm" in html
    assert "1 Rome, 2 Oslo" in repr(notebook.run("%kern inbox"))
