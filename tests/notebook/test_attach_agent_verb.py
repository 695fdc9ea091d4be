"""`%kern attach-agent` and `%kern detach-agent`: the agent of a variable writes to the store in use."""

from __future__ import annotations

import pytest

import kern_nb
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import ScriptedModel


@pytest.fixture
def agent():
    return kern_nb.Agent(model=ScriptedModel(["One.", "Two.", "Three."]), session_id="chat", db=InMemoryDb())


def test_an_attached_agent_writes_to_the_store_in_use_and_a_detached_one_to_its_own(notebook, attached_stores, agent):
    notebook.shell.user_ns["clerk"] = agent
    own, store = agent.db, kern_nb.attach(":memory:", name="notebook")
    notebook.run("%kern attach-agent clerk")
    agent.run("First")
    notebook.run("%kern detach-agent clerk")
    agent.run("Second")
    assert list(store.runs_df()["output"]) == ["One."]
    assert list(own.runs_df()["output"]) == ["Two."]


def test_attached_to_another_store_it_writes_there_and_detached_to_the_first(agent):
    own, first, second = agent.db, InMemoryDb(), InMemoryDb()
    kern_nb.attach_agent(agent, first)
    kern_nb.attach_agent(agent, second)
    agent.run("Hello")
    assert (len(first.runs_df()), len(second.runs_df())) == (0, 1)
    kern_nb.detach_agent(agent)
    kern_nb.detach_agent(agent)  # a second time is harmless
    assert agent.db is own


def test_what_is_no_agent_is_refused(notebook, attached_stores):
    kern_nb.attach(":memory:", name="notebook")
    notebook.shell.user_ns["number"] = 42
    error, lines = notebook.fails("%kern attach-agent number")
    assert isinstance(error, BadUsage)
    assert "int is not an agent" in lines[0]
    assert "no variable 'missing'" in notebook.fails("%kern attach-agent missing")[1][0]
