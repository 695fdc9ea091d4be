"""`run(stream=True)` of teams and workflows: the events of members and steps among their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pausing_agents import by_turn, sender
from team_members import crew, member, task, writer

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.run.team import RunCompletedEvent as TeamRunCompletedEvent
from kern_nb.run.team import TeamRunEvent
from kern_nb.run.workflow import StepOutputEvent, WorkflowRunEvent
from kern_nb.workflow import Condition, Loop, Parallel, Step, StepInput, Steps, Workflow


def values(events: Any) -> list[str]:
    """Return the values of ``event``, successive parts of an answer as one."""
    found: list[str] = []
    for event in events:
        if not (event.event.endswith("RunContent") and found[-1:] == [event.event]):
            found.append(event.event)
    return found


def answer(events: Any, value: str) -> str:
    """Join the parts of an answer."""
    return "".join(event.content for event in events if event.event == value)


def shout(step_input: StepInput) -> str:
    """Repeat the input, louder."""
    return f"{step_input.previous_step_content or step_input.input}!"


MEMBER = ["RunStarted", "RunContent", "RunCompleted"]
TEAM = ["TeamRunStarted", "TeamToolCallStarted", "TeamToolCallCompleted", "TeamRunContent", "TeamRunCompleted"]


@pytest.mark.every_engine
def test_stream_of_team(store):
    """Members' events come between those of the call that gave them the task; their runs have the leader's as parent."""
    team = crew(store, [member("Ann", "A poem about the sea.")], task("ann"), "Here it is: a poem.")
    events = list(team.run("A poem, please", stream=True))
    assert values(events) == [*TEAM[:2], *MEMBER, *TEAM[2:]]
    assert answer(events, TeamRunEvent.run_content) == "Here it is: a poem."
    assert answer(events, "RunContent") == "A poem about the sea."

    run = events[-1].run
    (member_run,) = store.member_runs(run.run_id)
    own = [event for event in events if event.event.startswith("Team")]
    others = [event for event in events if event not in own]
    assert {(e.run_id, e.team_id, e.team_name, e.parent_run_id) for e in own} == {(run.run_id, "crew", "Crew", None)}
    assert {(e.run_id, e.agent_id, e.agent_name, e.parent_run_id) for e in others} == {
        (member_run.run_id, "ann", "Ann", run.run_id)
    }
    assert isinstance(events[-1], TeamRunCompletedEvent)
    assert own[1].tool.args == {"member_id": "ann", "task": "do it"}


def test_details_of_team():
    """With the finer events, also of members; without members' events, none of theirs."""
    team = crew(InMemoryDb(), [member("Ann", "A poem.")], task("ann"), "Here it is.")
    events = values(team.run("x", stream=True, stream_events=True))
    assert events[2:6] == ["TeamModelRequestCompleted", "TeamToolCallStarted", "RunStarted", "ModelRequestStarted"]
    assert values(team.variant(stream_member_events=False).run("x", stream=True)) == TEAM

    stored = team.variant(store_events=True)
    *_, run = stored.run("x", stream=True, yield_run_output=True)
    assert {"RunStarted", "TeamRunStarted"} < {event.event for event in run.events}
    assert "RunContent" not in {event.event for event in run.events}
    assert "RunStarted" not in {event.event for event in stored.run("x").events}


def test_team_within_team():
    """The events of a member's members are in the stream, too."""
    inner = crew(None, [member("Ann", "A poem.")], task("ann"), "Ann's poem.", name="Poets", session_id=None)
    outer = crew(InMemoryDb(), [inner], task("poets"), "Here it is.")
    events = list(outer.run("x", stream=True))
    assert values(events) == [*TEAM[:2], *TEAM[:2], *MEMBER, *TEAM[2:], *TEAM[2:]]
    assert [e.team_id for e in events if e.event == "TeamRunStarted"] == ["crew", "poets"]


def test_paused_member():
    """The member's pause is an event, and then the team's, with the requirements of both; it continues as a stream."""
    sent: list[Any] = []
    team = crew(InMemoryDb(), [writer("Ann", sent, "Bob")], task("ann"), "All sent.")
    events = list(team.run("x", stream=True))
    assert values(events)[-2:] == ["RunPaused", "TeamRunPaused"]
    assert [event.active_requirements[0].tool_name for event in events[-2:]] == ["send", "send"]

    team.store.resolve(events[-1].requirements[0].requirement_id, approve=True)
    events = list(team.continue_run(events[-1].run_id, stream=True))
    assert values(events) == [
        "TeamRunContinued", "RunContinued", "ToolCallStarted", "ToolCallCompleted", "RunContent", "RunCompleted",
        "TeamRunContent", "TeamRunCompleted",
    ]  # fmt: skip
    assert sent == [("Bob", 1)]


def test_failing_member():
    """The error of a member is an event, and a result for the leader."""
    team = crew(InMemoryDb(), [member("Ann", ValueError("no idea"))], task("ann"), "Ann has no idea.")
    events = list(team.run("x", stream=True))
    assert values(events) == [*TEAM[:2], "RunStarted", "RunError", *TEAM[2:]]
    assert events[-1].run.status == "COMPLETED"


def flow(db: Any) -> Workflow:
    """Create a workflow with a step of each kind."""
    steps = [
        shout,
        Step(Agent(by_turn("A poem."), name="Ann"), "write"),
        Parallel(Step(shout, "left"), Step(shout, "right"), name="both"),
        Condition(lambda _: True, [Step(shout, "then")], name="if"),
        Condition(lambda _: False, [Step(shout, "never")], name="unless"),
        Loop([Step(shout, "again")], end_condition=lambda step: step.previous_step_content.endswith("!!"), name="loop"),
        Steps([Step(shout, "last")], name="end"),
    ]
    return Workflow(steps, db=db, name="Flow", session_id="chat")


def test_stream_of_workflow():
    """Without the finer events: the output of functions, the events of agents, the end."""
    db = InMemoryDb()
    events = list(flow(db).run("go", stream=True))
    run = db.get_session("chat").runs[0]
    assert values(events)[:6] == ["WorkflowStarted", "StepOutput", *MEMBER, "StepOutput"]
    outputs = [event for event in events if isinstance(event, StepOutputEvent)]
    assert {event.step_name for event in outputs} == {"shout", "left", "right", "then", "again", "last"}
    assert (events[-1].event, events[-1].content, events[-1].run.run_id) == (
        WorkflowRunEvent.workflow_completed, run.output, run.run_id,
    )  # fmt: skip
    content = next(event for event in events if event.event == "RunContent")
    assert (content.workflow_id, content.workflow_run_id, content.step_name, content.step_index, content.agent_id) == (
        "flow", run.run_id, "write", 1, "ann",
    )  # fmt: skip
    assert {event.run_id for event in events if event.event.startswith(("Workflow", "Step"))} == {run.run_id}


def test_details_of_workflow():
    """Each group of steps starts before its steps, and is completed after them."""
    events = list(flow(InMemoryDb()).run("go", stream=True, stream_events=True))
    found = [(event.event, event.step_name) for event in events if event.event.startswith(("Workflow", "Step"))]
    assert found[0] == ("WorkflowStarted", None)
    assert found[1:4] == [(value, "shout") for value in ("StepStarted", "StepOutput", "StepCompleted")]
    names = [event.event for event in events]
    assert names.count("StepStarted") == names.count("StepCompleted") == 7
    groups = [event for event in events if "Execution" in event.event or "Iteration" in event.event]
    assert [(event.event, event.step_name, event.step_index) for event in groups] == [
        ("ParallelExecutionStarted", "both", 2),
        ("ParallelExecutionCompleted", "both", 2),
        ("ConditionExecutionStarted", "if", 3),
        ("ConditionExecutionCompleted", "if", 3),
        ("ConditionExecutionStarted", "unless", 4),
        ("ConditionExecutionCompleted", "unless", 4),
        ("LoopExecutionStarted", "loop", 5),
        ("LoopIterationStarted", "loop", 5),
        ("LoopIterationCompleted", "loop", 5),
        ("LoopExecutionCompleted", "loop", 5),
        ("StepsExecutionStarted", "end", 6),
        ("StepsExecutionCompleted", "end", 6),
    ]
    assert sorted(groups[1].content) == ["left", "right"]
    assert [(event.condition_result, event.branch) for event in groups[3:6:2]] == [(True, "if"), (False, "else")]
    assert (groups[8].iteration, groups[8].should_continue, groups[9].total_iterations) == (1, False, 1)
    positions = [names.index(name) for name in ("ParallelExecutionStarted", "ParallelExecutionCompleted")]
    inside = [event.step_name for event in events[positions[0] + 1 : positions[1]]]
    assert sorted(set(inside)) == ["left", "right"]
    assert [event.step_index for event in events if event.step_name == "left"] == [(2, 0)] * 3


def test_paused_step():
    """A step that waits for a person pauses the workflow, which continues as a stream."""
    steps = [shout, Step(shout, "send", requires_confirmation=True, prompt="Send it?")]
    workflow = Workflow(steps, db=InMemoryDb(), name="Flow", session_id="chat")
    events = list(workflow.run("go", stream=True, stream_events=True))
    assert values(events)[-2:] == ["StepPaused", "WorkflowPaused"]
    assert (events[-2].step_name, events[-2].content) == ("send", "Send it?")
    assert [requirement.tool_name for requirement in events[-1].requirements] == ["send"]

    workflow.store.resolve(events[-1].requirements[0].requirement_id, approve=True)
    events = list(workflow.continue_run(events[-1].run_id, stream=True))
    assert values(events) == ["WorkflowContinued", "StepOutput", "WorkflowCompleted"]
    assert events[-1].content == "go!!"

    events = list(workflow.run("go", stream=True))
    workflow.store.resolve(events[-1].requirements[0].requirement_id, approve=False, note="not today")
    events = list(workflow.continue_run(events[-1].run_id, stream=True))
    assert values(events) == ["WorkflowContinued", "WorkflowCancelled"]
    assert (events[-1].is_cancelled, events[-1].reason) == (True, "step send was rejected: not today")


def test_paused_agent_in_step():
    """The agent's pause, the step's, the workflow's; then it continues, in the caller's loop."""
    sent: list[Any] = []
    agent = Agent(by_turn(call("send", to="Ann"), "Sent."), tools=[sender(sent)], name="Clerk")
    workflow = Workflow([agent, shout], db=InMemoryDb(), name="Flow", session_id="chat")

    async def work() -> None:
        events = [event async for event in workflow.arun("go", stream=True, stream_events=True)]
        assert values(events)[-3:] == ["RunPaused", "StepPaused", "WorkflowPaused"]
        workflow.store.resolve(events[-1].requirements[0].requirement_id, approve=True)
        events = [event async for event in workflow.acontinue_run(events[-1].run_id, stream=True)]
        assert values(events) == [
            "WorkflowContinued", "RunContinued", "ToolCallStarted", "ToolCallCompleted", "RunContent", "RunCompleted",
            "StepOutput", "WorkflowCompleted",
        ]  # fmt: skip

    asyncio.run(work())
    assert sent == [("Ann", 1)]


def test_failing_step():
    """The step's error, the workflow's, then the exception."""

    def fail(_: StepInput) -> str:
        raise ValueError("no paper")

    workflow = Workflow([shout, fail], db=InMemoryDb(), session_id="chat", store_events=True)
    events: list[Any] = []

    def read() -> None:
        for event in workflow.run("go", stream=True, stream_events=True):
            events.append(event)  # noqa: PERF402 - those before the error

    with pytest.raises(RunFailed, match="no paper"):
        read()
    assert values(events)[-3:] == ["StepStarted", "StepError", "WorkflowError"]
    assert events[-2].error == "no paper"
    assert [event.event for event in workflow.get_session().runs[0].events] == values(events)


def test_workflow_without_events_of_agents():
    """``stream_executor_events=False``."""
    workflow = Workflow([Agent(by_turn("A poem."), name="Ann")], db=InMemoryDb(), stream_executor_events=False)
    assert values(workflow.run("x", stream=True)) == ["WorkflowStarted", "WorkflowCompleted"]


def test_parallel_agents_in_one_stream():
    """Each answer is complete, whatever the order of its parts among the others."""
    agents = [Agent(ScriptedModel(f"{name} tells a long story"), name=name) for name in ("Ann", "Bob", "Cy")]
    workflow = Workflow([Parallel(*agents)], db=InMemoryDb(), session_id="chat")
    events = list(workflow.run("x", stream=True))
    for agent in agents:
        own = [event for event in events if getattr(event, "agent_id", None) == agent.id]
        assert values(own) == MEMBER
        assert answer(own, "RunContent") == own[-1].content == f"{agent.name} tells a long story"


def test_stream_parameters_of_workflow():
    """The constructor's are the defaults; events to skip are checked."""
    workflow = Workflow([shout], db=InMemoryDb(), stream=True, stream_events=True)
    assert values(workflow.run("x")) == [
        "WorkflowStarted", "StepStarted", "StepOutput", "StepCompleted", "WorkflowCompleted",
    ]  # fmt: skip
    assert workflow.run("x", stream=False).output == "x!"
    with pytest.raises(BadUsage, match="not an event"):
        workflow.variant(events_to_skip=["Unknown"]).run("x", stream=False)
