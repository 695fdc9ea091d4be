"""Further input, a regenerated answer, another way from a message on: a new run in a branch; the original stays."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel

from kern_nb import Agent, Workflow
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, RunClosed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message


def shop(heard=None):
    """An agent with a tool that counts, whose model answers a number."""
    numbers = iter(range(1, 100))

    def answer(messages: list[Message]):
        if heard is not None:
            heard.append([(m.role, m.content or [c.tool_name for c in m.tool_calls]) for m in messages])
        if messages[-1].role == "user" and "count" in messages[-1].content:
            return call("count")
        return f"answer {next(numbers)}"

    def count(session_state: dict) -> int:
        """Count."""
        session_state["n"] = session_state.get("n", 0) + 1
        return session_state["n"]

    return Agent(ScriptedModel(answer), db=InMemoryDb(), tools=[count], session_id="chat", instructions="Be brief.")


def contents(run):
    return [(m.role, m.content) for m in run.messages if m.role in ("user", "assistant") and m.content]


def test_input_continues_completed_run_in_branch():
    """The model is told the continued run, also without a history; the session itself is unchanged."""
    heard = []
    agent = shop(heard)
    agent.run("Earlier")
    first = agent.run("Hello")
    more = agent.continue_run(run_id=first.run_id, input="And?")

    assert heard[-1] == [
        ("system", "Be brief."), ("user", "Hello"), ("assistant", "answer 2"), ("user", "And?"),
    ]  # fmt: skip
    assert (more.session_id, more.content) != ("chat", first.content)
    branch = agent.store.get_session(more.session_id)
    assert (branch.parent_session_id, branch.fork_run_index) == ("chat", 1)
    assert [run.input for run in branch.runs] == ["Earlier", "Hello", "And?"]
    assert len(agent.get_session().runs) == 2
    assert [contents(run) for run in branch.runs][-1] == [("user", "And?"), ("assistant", "answer 3")]


def test_regenerated_answer_keeps_tool_results():
    """The tool does not run again, and the branch has what it changed."""
    heard = []
    agent = shop(heard)
    first = agent.run("count")
    again = agent.continue_run(first, regenerate=True)

    assert [role for role, _ in heard[-1]] == ["system", "user", "assistant", "tool"]
    assert (first.content, again.content) == ("answer 1", "answer 2")
    assert [(m.role, m.content) for m in again.messages] == [("system", "Be brief."), ("assistant", "answer 2")]
    branch = agent.store.get_session(again.session_id)
    assert (branch.session_state, agent.get_session_state()) == ({"n": 1}, {"n": 1})
    assert [m.role for m in agent.store.history(again.session_id)] == ["user", "assistant", "tool", "assistant"]
    assert agent.store.get_run(first.run_id).status == "COMPLETED"
    assert len(agent.store.tool_calls_df(again.session_id)) == 0


def test_run_continues_from_message():
    """A number of messages, or up to the last user's."""
    heard = []
    agent = shop(heard)
    first = agent.run("count")  # system, user, assistant, tool, assistant
    forked = agent.continue_run(first.run_id, continue_from="last_user", fork=True)
    assert [role for role, _ in heard[-2]] == ["system", "user"]  # then the tool again
    assert agent.store.get_session(forked.session_id).session_state == {"n": 1}

    other = agent.continue_run(first.run_id, continue_from=4, input="Double it")
    assert [role for role, _ in heard[-1]] == ["system", "user", "assistant", "tool", "user"]
    assert other.session_id not in (forked.session_id, "chat")
    start = agent.continue_run(first.run_id, continue_from=1, input="Anew")
    assert heard[-1] == [("system", "Be brief."), ("user", "Anew")]
    assert agent.store.get_session(start.session_id).fork_run_index == -1
    assert agent.continue_run(other, regenerate=True).content != other.content


def test_failed_run_is_resumed_or_continued_in_branch():
    """Without input it is the same row; with input a new one, which is told what the failed one had."""
    heard = []
    agent = shop(heard)
    good, agent.model = agent.model, ScriptedModel([RuntimeError("down")])
    with pytest.raises(Exception, match="down"):
        agent.run("Hello")
    [failed] = agent.get_session().runs
    agent.model = good
    other = agent.continue_run(failed, input="Still there?")
    assert heard[-1] == [("system", "Be brief."), ("user", "Hello"), ("user", "Still there?")]
    assert agent.get_last_run_output().status == "ERROR"
    assert agent.continue_run(failed).run_id == failed.run_id
    assert agent.get_last_run_output().status == "COMPLETED"
    assert agent.store.get_session(other.session_id).runs[-1].input == "Still there?"


def test_what_cannot_be_continued_is_refused():
    """And leaves no branch."""
    agent = shop()
    run = agent.run("Hello")
    for options, match in (
        ({}, "has ended"),
        ({"fork": True}, "nothing to answer"),
        ({"regenerate": True, "fork": True}, "neither"),
        ({"continue_from": "start"}, "continue_from must be"),
        ({"continue_from": -1}, "continue_from must be"),
        ({"run_response": run, "input": "x"}, "not both"),
    ):
        with pytest.raises((BadUsage, RunClosed), match=match):
            agent.continue_run(run.run_id, **options)
    agent.model = "unknown:model"
    with pytest.raises(BadUsage):
        agent.continue_run(run.run_id, input="x")
    assert [session.session_id for session in agent.store.list_sessions()] == ["chat"]

    flow = Workflow([lambda step: step.input], db=agent.store, session_id="flow")
    with pytest.raises(TypeError):
        flow.continue_run(flow.run("x").run_id, input="y")
    with pytest.raises(BadUsage, match="belongs to the workflow"):
        Agent(RecordingModel(), db=agent.store).continue_run(flow.get_last_run_output(), input="y")
