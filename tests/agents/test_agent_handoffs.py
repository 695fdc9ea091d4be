"""A conversation is handed to a person and back: by the model with a tool, or by anybody with the store."""

from __future__ import annotations

import pytest
from pausing_agents import calls, clerk, requirement_id, results, said
from recording_models import RecordingModel
from team_members import crew, member
from workflow_steps import Pipeline

from kern_nb.agent import Agent, handoff, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, RequirementNotFound, SessionHandedOff, StillWaiting
from kern_nb.models.scripted import call


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


ANGRY = call("hand_to_human", reason="she is angry")


def test_model_hands_off_to_assignee(store):
    """Who finds it among their own, with the reason; what they answer is what the model is told."""
    heard = []
    agent = clerk(store, ANGRY, "she is content", tools=[handoff(to="carol")], heard=heard)
    run = agent.run("I want my money back")

    (one,) = store.requirements(assignee="carol")
    assert (run.status, run.requirements) == ("PAUSED", [one])
    assert (one.kind, one.prompt, one.args) == ("handoff", "she is angry", {"reason": "she is angry"})
    assert store.requirements(assignee="dan") == []
    store.resolve("chat/0", value="I gave it back", by="carol")
    done = agent.continue_run("chat/0")
    assert (done.status, done.output) == ("COMPLETED", "she is content")
    assert calls(done) == [("hand_to_human", "completed", "I gave it back")]
    assert results(heard[-1]) == ["I gave it back"]


def test_model_hands_off_again(store):
    """To whoever is there; each time is a question of its own."""
    agent = clerk(store, ANGRY, ANGRY, "done", tools=[handoff()])
    run = agent.run("help")
    assert run.requirements[0].assignee is None
    store.resolve("chat/0", value="first")
    run = agent.continue_run("chat/0")
    assert run.status == "PAUSED"
    store.resolve("chat/0", approve=False, note="not again")
    done = agent.continue_run("chat/0")

    assert results(done) == ["first", "not again"]
    assert [one.approved for one in done.requirements] == [True, False]


def test_pending_requirement_is_reassigned(store):
    """To another person, with a word; what the first one does not answer, the second does."""
    agent = clerk(store, ANGRY, "done", tools=[handoff(to="carol")])
    run = agent.run("help")
    handed = store.handoff("chat", to="dan", note="I am on leave", by="carol")

    assert (handed.requirement_id, handed.assignee, handed.note) == (requirement_id(run), "dan", "I am on leave")
    assert (store.requirements(assignee="carol"), len(store.requirements(assignee="dan"))) == ([], 1)
    store.resolve("chat/0", value="done", by="dan")
    assert results(agent.continue_run("chat/0")) == ["done"]


def test_custom_handoff_tool(store):
    """Its function is never called."""

    @tool(handoff=True, assignee="carol", prompt="Please call back", description="Give up.")
    def give_up(customer: str) -> str:
        """Not this."""
        raise AssertionError(customer)

    agent = clerk(store, call("give_up", customer="W1"), "done", tools=[give_up])
    run = agent.run("help")

    assert [(one.kind, one.prompt, one.assignee) for one in run.requirements] == [
        ("handoff", "Please call back", "carol")
    ]
    store.resolve("chat/0", value={"called": True})
    assert results(agent.continue_run("chat/0")) == [{"called": True}]


def test_session_handoff_and_return(store):
    """A run of its own waits for them; the agent goes on from what they said, and remembers it."""
    heard = []
    agent = clerk(store, "noted", heard=heard, add_history_to_context=True, session_state={"n": 1})
    agent.run("hello")
    one = store.handoff("chat", to="carol", note="please look", by="me")

    run = store.get_run(one.run_id)
    assert (run.run_index, run.status, run.input, run.agent_id) == (1, "PAUSED", "please look", "agent")
    with pytest.raises(StillWaiting, match="handoff"):
        agent.continue_run("chat/1")
    store.resolve("chat/1", value="the answer is 42", by="carol")
    done = agent.continue_run("chat/1")
    exchange = [("user", "please look"), ("user", "carol: the answer is 42")]
    assert (done.status, done.output, done.session_state) == ("COMPLETED", "noted", {"n": 1})
    assert said(done) == [*exchange, ("assistant", "noted")]
    assert said(heard[-1]) == [("user", "hello"), ("assistant", "noted"), *exchange]
    agent.run("and now?")
    assert said(heard[-1])[2:] == [*exchange, ("assistant", "noted"), ("user", "and now?")]


def test_declined_session_handoff(store):
    """With their reason, where they gave one."""
    agent = clerk(store, "I see")
    agent.run("hello")
    for index, (note, told) in enumerate([("on leave", "carol: on leave"), (None, "carol: declined to answer.")], 1):
        store.handoff("chat", to="carol", note="please look")
        store.resolve(f"chat/{index}", approve=False, note=note)
        assert said(agent.continue_run(f"chat/{index}"))[1] == ("user", told)


def test_session_handoff_during_pause(store):
    """What waits is handed over then: there is one place to answer, and one run goes on."""
    agent = clerk(store, ANGRY, "done", tools=[handoff()])
    agent.run("help")
    store.handoff("chat", to="carol")

    assert len(store.get_session("chat").runs) == 1
    assert [one.assignee for one in store.requirements()] == ["carol"]


def test_handoff_of_unknown_reference(store):
    """And no session is made."""
    with pytest.raises(RequirementNotFound, match="nowhere"):
        store.handoff("nowhere", to="carol")
    assert store.list_sessions() == []


def test_handoff_answer_of_any_type(store):
    """The agent is told JSON."""
    agent = clerk(store, "noted")
    agent.run("hello")
    store.handoff("chat", to="carol")
    store.resolve("chat/1", value={"paid": True, "by": None}, by="carol")

    assert said(agent.continue_run("chat/1"))[1] == ("user", 'carol: {"paid": true, "by": null}')


@pytest.mark.parametrize("kind", ["agent", "team"])
def test_resumed_handoff_has_instructions(store, kind):
    """As in any run of its own; a team's leader knows its members."""
    heard = []
    options = {"heard": heard, "instructions": "Be kind."}
    runner = clerk(store, "ok", **options) if kind == "agent" else crew(store, [member("Ann", "a")], "ok", **options)
    runner.run("hello")
    store.handoff("chat", to="carol", note="please look")
    store.resolve("chat/1", value="42", by="carol")
    done = runner.continue_run("chat/1")

    first, second = ([m.content for m in told if m.role == "system"] for told in heard)
    assert len(first) == 1
    assert "Be kind." in first[0]
    assert second == first
    assert [m.content for m in done.messages if m.role == "system"] == first


def test_session_handoff_of_workflow(store):
    """There is no agent to go on: what they say is the run's output; no step runs. Or it is refused at once."""
    pipeline = Pipeline(store)
    flow = pipeline.made(pipeline.adds("a"))
    flow.run("in")
    try:
        store.handoff("chat", to="carol", note="please look")
    except BadUsage:
        assert len(pipeline.runs()) == 2
    else:
        store.resolve("chat/2", value="42", by="carol")
        assert flow.continue_run("chat/2").output == "42"
    assert pipeline.ran == ["a"]


@pytest.mark.parametrize("kind", ["agent", "team", "workflow"])
def test_agent_does_not_run_while_a_person_has_the_session(store, kind):
    """It is refused before a model is called, and goes on when the session is back."""
    if kind == "workflow":
        pipeline = Pipeline(store)
        owner = pipeline.made(pipeline.adds("a"))
    else:
        answers = ["noted"] * 4
        owner = clerk(store, *answers) if kind == "agent" else crew(store, [member("Ann", "a")], *answers)
    owner.run("hello")
    requirement = store.handoff("chat", to="carol")
    n_runs = len(store.runs_df())
    with pytest.raises(SessionHandedOff, match="carol"):
        owner.run("and now?")

    assert len(store.runs_df()) == n_runs
    store.resolve(requirement, value="all settled", by="carol")
    assert owner.continue_run(requirement.run_id).status == "COMPLETED"
    assert owner.run("and now?").status == "COMPLETED"


def test_agent_reads_what_the_person_wrote(store):
    """After the result of the call that handed the conversation over, as providers require it, in later runs, too."""
    model = RecordingModel([ANGRY, "thank you", "yes"])
    options = {"tools": [handoff(to="carol")], "add_history_to_context": True}
    agent = Agent(model, db=store, session_id="chat", **options)
    agent.run("help")
    store.reply("chat", "I am on it", files={"refund.txt": "90.00"})
    store.reply("chat", "She gets 90")
    store.resolve("chat", approve=True, by="carol")
    done = agent.continue_run("chat/0")

    replies = "carol: I am on it\n\ncarol: She gets 90"
    assert done.output == "thank you"
    assert model.heard()[-2:] == [("tool", "The person handed the session back."), ("user", replies)]
    assert [m.content for m in done.messages if m.role == "user"] == ["help", *replies.split("\n\n")]
    assert agent.get_workspace().read_text("refund.txt") == "90.00"
    agent.run("really?")
    roles = [role for role, _ in model.heard()]
    assert roles == ["user", "assistant", "tool", "user", "user", "assistant", "user"]


def test_agent_reads_the_replies_of_a_session_handoff(store):
    """In the order in which they were written; an approval alone hands the session back."""
    heard = []
    agent = clerk(store, "noted", "ok", heard=heard)
    agent.run("hello")
    store.handoff("chat", to="carol", note="please look")
    store.reply("chat", "I am on it")
    store.resolve("chat", approve=True, by="carol")
    agent.continue_run("chat/1")

    told = ["please look", "carol: I am on it", "carol: handed the session back."]
    assert [m.content for m in heard[-1] if m.role == "user"] == told
