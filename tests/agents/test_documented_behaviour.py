"""What the documentation promises of sessions, for agents, teams and workflows alike, on every engine."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from recording_models import RecordingModel

from kern_nb.agent import Agent, RunContext, SessionSummaryManager, handoff, tool
from kern_nb.errors import AlreadyResolved, RunClosed, StillWaiting
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.team import Team
from kern_nb.workflow import HumanReview, Step, Workflow

pytestmark = pytest.mark.every_engine

WAIT_S = 30


def lead(messages):
    """The answer of a leader: it passes the input on, and then the member's answer back."""
    last = messages[-1]
    return (
        call("delegate_task_to_member", member_id="worker", task=last.content) if last.role == "user" else last.content
    )


def agent(db, model, *, tools=(), history=False, **options):
    options = {"db": db, "session_id": "agent", **options}
    return Agent(model, tools=tools, add_history_to_context=history, **options)


def team(db, model, *, tools=(), history=False, leader=None, **options):
    options = {"db": db, "session_id": "team", **options}
    members = [Agent(model, name="Worker", tools=tools)]
    return Team(members, leader or RecordingModel(lead), add_history_to_context=history, **options)


def workflow(db, model, *, tools=(), history=False, **options):
    options = {"db": db, "session_id": "workflow", **options}
    return Workflow([Agent(model, name="Worker", tools=tools)], add_workflow_history_to_steps=history, **options)


def text(messages):
    """All that a model was told."""
    return "\n".join(str(message.content) for message in messages)


def test_alice_is_remembered(store_factory):
    """By a new object on another connection, as in another process; not in another session, nor for another user."""
    first, second = store_factory(), store_factory()
    for create in (agent, team, workflow):
        name, model, leader = create.__name__, RecordingModel(["Alice."] * 2), RecordingModel(lead)
        options = {"leader": leader} if create is team else {}
        run = create(first, RecordingModel(["Hello Alice."]), user_id="alice").run("My name is Alice")
        again = create(second, model, history=True, user_id="alice", **options)
        told = leader.told if create is team else model.told

        assert (run.status, again.run("What's my name?").output) == ("COMPLETED", "Alice.")
        assert "My name is Alice" in text(told[-1])
        assert "Hello Alice." in text(told[-1])
        again.run("What's my name?", session_id=f"another {name}")
        assert "Hello" not in text(told[-1])

        session = again.get_session(name)
        assert (session.session_id, session.session_type, session.user_id) == (name, name, "alice")
        runs = [run for run in session.runs if run.parent_run_id is None]
        assert [(run.input, run.output) for run in runs] == [
            ("My name is Alice", "Hello Alice."),
            ("What's my name?", "Alice."),
        ]
        assert again.get_session(name, user_id="bob") is None
        assert {item.session_id for item in second.list_sessions(user_id="alice", session_type=name)} == {
            name,
            f"another {name}",
        }


def pausing_tools(executed):
    """A tool of each kind that pauses a run, and the calls of all."""

    def delete(path: str) -> str:
        executed.append(path)
        return f"deleted {path}"

    def send(to: str = "") -> str:
        executed.append(to)
        return f"sent to {to}"

    def measure() -> int:
        raise AssertionError("is executed elsewhere")

    tools = [
        tool(delete, requires_confirmation=True),
        tool(send, requires_user_input=True),
        tool(measure, external_execution=True),
        handoff(),
    ]
    calls = [call("delete", path="a"), call("send"), call("measure"), call("hand_to_human", reason="unsure")]
    return tools, calls


def test_pauses_of_every_kind(store_factory):
    """Answered in another object and connection, each once, and the tools run once."""
    answers = {
        "confirmation": {"approve": True},
        "user_input": {"value": {"to": "bob"}},
        "external_execution": {"value": 7},
        "handoff": {"value": "go on"},
    }
    first, second = store_factory(), store_factory()
    for create in (agent, team, workflow):
        executed = []
        tools, calls = pausing_tools(executed)
        model = RecordingModel([calls, "done"])
        run = create(first, model, tools=tools).run("work")

        assert (run.status, executed) == ("PAUSED", [])
        again = create(second, model, tools=tools)
        pending = second.requirements(run_id=run.run_id)
        assert {requirement.kind for requirement in pending} == set(answers)
        for requirement in pending:
            with pytest.raises(StillWaiting):
                again.continue_run(run.run_id)
            second.resolve(requirement.requirement_id, **answers[requirement.kind])
            with pytest.raises(AlreadyResolved):
                first.resolve(requirement.requirement_id, **answers[requirement.kind])
        done = again.continue_run(run.run_id)

        assert (done.status, done.output, sorted(executed)) == ("COMPLETED", "done", ["a", "bob"])
        results = {message.tool_name: message.content for message in model.told[-1] if message.role == "tool"}
        assert results.keys() == {"delete", "send", "measure", "hand_to_human"}
        assert (results["delete"], results["send"], str(results["measure"])) == ("deleted a", "sent to bob", "7")
        with pytest.raises(RunClosed):
            create(first, model, tools=tools).continue_run(run.run_id)
        assert sorted(executed) == ["a", "bob"]


def test_rejected_calls_and_steps(store_factory):
    """A rejected call does not run, and the model is told the note; a rejected step is skipped."""
    store = store_factory()
    for create in (agent, team, workflow):
        executed = []
        tools, calls = pausing_tools(executed)
        model = RecordingModel([calls[:1], "kept"])
        run = create(store, model, tools=tools).run("work")
        (requirement,) = run.active_requirements
        requirement.reject("still in use")
        done = create(store, model, tools=tools).continue_run(requirements=[requirement])

        assert (done.status, done.output, executed) == ("COMPLETED", "kept", [])
        assert "still in use" in text(model.told[-1])

    for answer, output in (("confirm", "Published."), ("reject", "draft")):
        review = HumanReview(requires_confirmation=True, confirmation_message="Publish?")
        publish = Step(name="publish", agent=Agent(ScriptedModel("Published.")), human_review=review)
        flow = Workflow([lambda _: "draft", publish], db=store, session_id=f"step {answer}")
        run = flow.run("news")
        (requirement,) = run.active_step_requirements
        getattr(requirement, answer)()
        assert flow.continue_run(run).output == output


def test_summaries(store_factory):
    """Each run extends the summary, which is stored with the session; agents and teams are told it."""
    first, second = store_factory(), store_factory()
    for create in (agent, team, workflow):
        name = create.__name__
        texts = [f'{{"summary": "{name} {n}", "topics": ["names", "{n}"]}}' for n in (1, 2)]
        writer, model, leader = (
            RecordingModel(texts),
            RecordingModel(["Hello Alice.", "You are Alice."]),
            RecordingModel(lead),
        )
        options = {"session_summary_manager": SessionSummaryManager(writer)} | (
            {"leader": leader} if create is team else {}
        )
        create(first, model, **options).run("My name is Alice")

        again = create(second, model, **options)
        options["session_summary_manager"].wait(first, name)
        assert (again.get_session_summary().summary, again.get_session_summary().topics) == (
            f"{name} 1",
            ["names", "1"],
        )
        again.run("Who am I?")
        assert again.get_session_summary().summary == f"{name} 2"
        assert (second.get_session(name).summary or {})["summary"] == f"{name} 2"
        assert "My name is Alice" in text(writer.told[0])
        assert f"{name} 1" in text(writer.told[1])
        if create is not workflow:
            told = leader.told if create is team else model.told
            assert f"{name} 1" in text(told[-1])


def test_state_with_two_writers(store_factory):
    """Two runs of one session at once, on two connections, that set different keys: both are kept, in memory and stored."""
    stores = [store_factory(), store_factory()]
    for create in (agent, team, workflow):
        name, together = create.__name__, threading.Barrier(2)

        def remember(run_context: RunContext, key: str, *, together=together) -> str:
            together.wait(WAIT_S)  # both have read the state
            run_context.session_state[key] = True
            run_context.session_state["list"] = [*run_context.session_state["list"], key]
            together.wait(WAIT_S)
            return key

        stores[0].update_session_state(name, {"list": [], "kept": 1})
        with ThreadPoolExecutor(2) as pool:
            runs = []
            for store, key in zip(stores, ("a", "b"), strict=True):
                model = RecordingModel([call("remember", key=key), "done"])
                runs.append(pool.submit(partial(create(store, model, tools=[remember]).run, key)))
            assert [run.result(2 * WAIT_S).status for run in runs] == ["COMPLETED"] * 2

        state = create(stores[1], RecordingModel()).get_session_state()
        assert {key: state[key] for key in ("a", "b", "kept")} == {"a": True, "b": True, "kept": 1}
        assert state["list"] in (["a"], ["b"])  # one key of both: the last to end wins
        assert create(stores[0], RecordingModel()).update_session_state({"kept": 2}, name)["a"] is True
