"""`variant`: a new agent that is like another but for what is given."""

from __future__ import annotations

import inspect

import pytest
from recording_models import RecordingModel
from rerun_shops import add, seller, shop
from team_members import crew, member, task

from kern_nb.agent import Agent, SessionSummaryManager
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import ScriptedModel
from kern_nb.team import Team
from kern_nb.workflow import Workflow


def every_parameter(db):
    """One value for each parameter of an agent, none of them its default."""
    return {
        "model": ScriptedModel("hi"),
        "db": db,
        "session_id": "chat",
        "user_id": "ann",
        "session_state": {"n": 1},
        "metadata": {"env": "test"},
        "description": "You are a clerk.",
        "markdown": True,
        "output_schema": list[int],
        "max_tool_calls_from_history": 2,
        "add_session_state_to_context": True,
        "enable_agentic_state": True,
        "read_tool_call_history": True,
        "num_past_session_runs_in_search": 1,
        "retries": 2,
        "delay_between_retries": 0.5,
        "exponential_backoff": True,
        "instructions": "Be brief.",
        "tools": [add],
        "role": "sells",
        "name": "Shop",
        "id": "shop-1",
        "add_history_to_context": True,
        "num_history_runs": 7,
        "num_history_messages": 9,
        "history_token_budget": 100,
        "read_chat_history": True,
        "search_past_sessions": True,
        "num_past_sessions_to_search": 4,
        "enable_session_summaries": True,
        "add_session_summary_to_context": True,
        "session_summary_manager": SessionSummaryManager(),
        "store_media": False,
        "store_tool_messages": False,
        "store_history_messages": True,
        "cache_session": True,
        "overwrite_db_session_state": True,
        "stream": False,
        "stream_events": True,
        "store_events": True,
        "events_to_skip": ["RunStarted"],
        "timeout_s": 5,
        "max_requests": 6,
        "resolve_in_context": False,
    }


def settings(agent):
    """What an agent keeps of its parameters."""
    own = {"_lock", "_loop", "_output", "_cached", "_memory", "_given"}
    return {name: value for name, value in vars(agent).items() if name not in own}


def test_variant_copies_parameters(db):
    """Every one that the constructor knows; the given ones aside."""
    given = every_parameter(db)
    assert set(given) == set(inspect.signature(Agent).parameters)
    agent = Agent(**given)

    assert settings(agent.variant()) == settings(agent)
    for name, value in given.items():
        plain = Agent(**{key: one for key, one in given.items() if key != name})
        assert settings(plain.variant(**{name: value})) == settings(agent)
        assert settings(agent.variant(**{name: inspect.signature(Agent).parameters[name].default})) == settings(plain)


def test_variant_shares_no_internal_state(db):
    """No lock, cache, loop, memory or list; what one of them does, the other does not see."""
    agent = shop(db, session_id="chat", cache_session=True, session_state={"deep": {"n": 1}})
    agent.run("hi")
    agent.get_session()
    before = dict(vars(agent))
    other = agent.variant(name="Other")

    for name in ("_lock", "_cached", "_tools", "_default_state", "_arguments"):
        assert getattr(other, name) is not getattr(agent, name), name
    assert (other._loop, len(other._cached)) == (None, 0)
    assert other._default_state["deep"] is not agent._default_state["deep"]
    assert vars(agent) == before
    assert (agent.id, other.id) == ("shop", "other")


def test_variant_does_not_copy_generated_session():
    """One that was given is; memory is each one's own."""
    agent = Agent(RecordingModel())
    run = agent.run("hi")
    other = agent.variant(model=RecordingModel())

    assert agent.session_id == run.session_id
    assert other.session_id is None
    assert other.run("hi").session_id != run.session_id
    assert len(agent.store.list_sessions()) == len(other.store.list_sessions()) == 1
    assert Agent(RecordingModel(), session_id="chat").variant().session_id == "chat"


def test_variant_uses_current_attribute_values(db):
    """An agent whose model was exchanged is varied as it is now."""
    agent = shop(db)
    agent.model, agent.instructions, agent.timeout_s = "openai:other", "Be kind.", 3
    other = agent.variant(role="sells")

    assert (other.model, other.instructions, other.timeout_s, other.role) == ("openai:other", "Be kind.", 3, "sells")


def test_variant_copies_constructor_tools(db):
    """A list that its owner changed afterwards is another matter."""
    tools = [add]
    agent = shop(db, tools=tools)
    tools.clear()

    assert list(agent.variant()._model_loop()[1]) == ["add"]
    assert list(shop(db, tools=add).variant()._model_loop()[1]) == ["add"]
    assert list(agent.variant(tools=[])._model_loop()[1]) == []


def test_variant_rejects_unknown_parameter(db):
    """With the nearest one that is; and values that the constructor refuses."""
    agent = shop(db)
    with pytest.raises(BadUsage, match="'modle'") as refused:
        agent.variant(modle="x")
    assert "'model'" in refused.value.hint
    for wrong in ({"tools": [1]}, {"num_history_runs": -1}, {"db": 1}, {"name": ""}, {"session_state": []}):
        with pytest.raises(BadUsage):
            agent.variant(**wrong)


def test_variant_of_team_changes_leader(db):
    """Its members stay, unless others are given."""
    ann, bob = member("Ann", "a"), member("Bob", "b")
    team = crew(db, [ann], task("ann"), "done", instructions="Lead.")
    other = team.variant(model=seller(), instructions="Follow.")

    assert isinstance(other, Team)
    assert (other.members, other.instructions, team.instructions) == ({"ann": ann}, "Follow.", "Lead.")
    assert other.members is not team.members
    assert list(team.variant(members=[ann, bob]).members) == ["ann", "bob"]
    assert list(team.members) == ["ann"]
    with pytest.raises(BadUsage, match="must be an agent or a team"):
        team.variant(members=["ann"])
    assert team.variant(members=[]).members == {}
    assert team.variant(session_id="b").run("go").output == "done"


def test_variant_of_workflow_rejects_step_parameters(db):
    """Nested steps are built as before."""
    flow = Workflow([lambda step: step.input + 1, [lambda step: step.previous_step_content * 2]], db=db, name="Flow")
    other = flow.variant(name="Other", timeout_s=5)

    assert (other.run(1).output, other.id, flow.id) == (4, "other", "flow")
    assert flow.variant(steps=[lambda step: step.input]).run(1).output == 1
    for name in ("model", "instructions", "tools"):
        with pytest.raises(BadUsage, match=name):
            flow.variant(**{name: "x"})
    with pytest.raises(BadUsage):
        flow.variant(store_media=False)


def test_variant_of_subclass(db):
    """Whatever its constructor takes; what it keeps itself, the variant keeps."""

    class Grocer(Agent):
        def __init__(self, stock):
            super().__init__(RecordingModel(), db=db, name="Grocer")
            self.stock = stock

        def _configuration(self):
            return super()._configuration() | {"stock": self.stock}

    grocer = Grocer(["apple"])
    other = grocer.variant(instructions="Sell.")
    assert isinstance(other, Grocer)
    assert (other.stock, other.instructions, grocer.instructions) == (["apple"], "Sell.", None)
    assert other.run("hi").output == "answer 0"
