"""`%kern continue`: which run is meant, by which agent of the notebook, in which store."""

from __future__ import annotations

import pytest
from scripted_agents import Shredder, parrot, shredding

import kern_nb
from kern_nb import errors
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.operations import agent_registry
from kern_nb.records import Message


def two_lines(notebook, cell, kind=errors.BadUsage):
    """A cell that must fail; its two lines."""
    error, lines = notebook.fails(cell)
    assert type(error) is kind, error
    assert len(lines) == 2
    return lines


@pytest.fixture
def approved(notebook, clerk, memory):
    """A run of the agent that has its answer."""
    notebook.run("%%kern run boss\nDelete x.txt")
    notebook.run("%kern approve chat")
    (run,) = memory.get_session("chat").runs
    return run


@pytest.mark.parametrize(
    "line", ["chat/0", "chat", "cha", "$run", "$asked", "chat/0 --agent clerk-1", "chat --agent boss"]
)
def test_a_run_is_resumed_by_any_reference(notebook, approved, line):
    """By reference, by its session if one run is unfinished, by a variable, by a requirement; with or without --agent."""
    notebook.shell.user_ns |= {"run": approved, "asked": approved.requirements[0].requirement_id}

    assert notebook.run(f"%kern continue {line}").status == "COMPLETED"


def test_an_interrupted_run_is_resumed(notebook, memory):
    """One that was cut off before the model answered."""
    parrot(notebook, "bird", id="parrot")
    run = memory.start_run("chat", input="hello", agent_id="parrot")
    memory.append_messages(run.run_id, [Message(role="user", content="hello")])
    memory.finish_run(run.run_id, status="INTERRUPTED")

    gone_on = notebook.run("%kern continue chat")

    assert (gone_on.run_id, gone_on.status, gone_on.output) == (run.run_id, "COMPLETED", "You said 'hello'.")


def test_the_store_defaults_to_the_agents_own(notebook, tmp_path, shredder):
    """An agent with its own db is found whatever is attached, named or not; also without attached stores."""
    own = shredding(shredder, *"abcd", id="clerk", session_id="chat", db=SqliteDb(tmp_path / "own.db"))
    notebook.shell.user_ns["clerk"] = own
    for attach, line in (
        ("", "chat/0"),
        ("%kern attach :memory: --as other", "chat/1 --agent clerk"),
        ("", "chat/2"),
        (f"%kern attach {tmp_path}/own.db --as own", "chat/3"),
    ):
        notebook.run(attach)
        notebook.run("%%kern run clerk\nx")
        own.store.resolve("chat", approve=True)

        assert notebook.run(f"%kern continue {line}").status == "COMPLETED"
    assert shredder.shredded == list("abcd")


def test_an_agent_resumes_only_in_its_own_store(notebook, approved, clerk, memory, shredder):
    """A run of one store is not handed to an agent of another; nothing is claimed."""
    kern_nb.attach(InMemoryDb(), name="other")
    two_lines(notebook, "%kern continue chat", errors.SessionNotFound)

    notebook.shell.user_ns["boss"] = shredding(shredder, id="clerk-1", db=InMemoryDb())
    lines = two_lines(notebook, "%kern continue chat --store memory")
    assert "uses" in lines[0]
    assert "--agent" in lines[1]

    notebook.run("%kern use memory")
    lines = two_lines(notebook, "%kern continue chat")
    assert "--agent" in lines[1]
    assert memory.get_run(approved.run_id).status == "PAUSED"


def test_an_agent_without_a_store_resumes_in_the_store_option(notebook, clerk, memory, shredder):
    """The suggested line resumes in the store of --store, whatever store is in use."""
    notebook.run("%%kern run boss\nDelete x.txt")
    kern_nb.attach(InMemoryDb(), name="other")

    answered = notebook.run("%kern approve chat --store memory")
    line = str(answered).rpartition("Resume it: ")[2].strip()
    assert "--store memory" in line
    assert notebook.run(line).status == "COMPLETED"
    assert (shredder.shredded, memory.get_session("chat").runs[0].status) == (["x.txt"], "COMPLETED")
    assert kern_nb.store_registry.current_store().get_session("chat") is None


def test_without_attached_stores_the_agents_store_is_used(notebook, tmp_path, shredder):
    """Its own db, or the one in memory: requirements are listed and resolved, and the run resumes."""
    for db in (SqliteDb(tmp_path / "own.db"), None):
        notebook.shell.user_ns["clerk"] = shredding(shredder, "x", id="clerk", session_id="chat", db=db)
        notebook.run("%%kern run clerk\nx")
        (requirement,) = notebook.run("%kern inbox")
        notebook.run(f"%kern approve {requirement.requirement_id[:8]}")
        assert notebook.run("%kern continue chat").status == "COMPLETED"

    notebook.shell.user_ns["other"] = shredding(shredder, id="clerk", db=SqliteDb(tmp_path / "own.db"))
    lines = two_lines(notebook, "%kern inbox", errors.NoStore)
    assert "%kern attach" in lines[1]


def test_an_ambiguous_agent_is_refused(notebook, approved, memory, clerk):
    """No matching agent, or several: the hint is a line with an agent. Any agent may be named."""
    variables = notebook.shell.user_ns
    variables["twin"] = shredding(Shredder(), id="clerk-1")
    lines = two_lines(notebook, "%kern continue chat")
    assert "Several agents have the id or name 'clerk-1': boss, twin." in lines[0]
    assert "%kern continue chat/0 --agent boss" in lines[1]

    del variables["boss"], variables["twin"]
    lines = two_lines(notebook, "%kern continue chat")
    assert "belongs to 'clerk-1'; this notebook has no agent" in lines[0]

    clerk.id = clerk.name = "somebody"
    variables["else_"] = clerk
    lines = two_lines(notebook, "%kern continue chat")
    assert "the agents of this notebook are: else_" in lines[0]
    assert "%kern continue chat/0 --agent else_" in lines[1]
    two_lines(notebook, "%kern continue chat --agent els")
    assert notebook.run("%kern continue chat --agent else_").status == "COMPLETED"


def test_a_session_reference_means_its_only_unfinished_run(notebook, clerk, memory):
    """For none, several, or an inherited run, the hint names the next step."""
    clerk.model = ScriptedModel([call("delete_file", path="x"), call("delete_file", path="y")])
    for text in ("x", "y"):
        notebook.run(f"%%kern run boss --session a\n{text}")
    notebook.run("%kern branch a --as b")
    memory.append_run("c", kern_nb.Run(input="x", agent_id="clerk-1"))

    for line, message, hint in (
        ("a", "a/0 PAUSED, a/1 PAUSED", "%kern continue a/1"),
        ("b", "b has no paused or interrupted run", "%kern show b"),
        ("b/0", "inherited from a", "%kern continue a/0"),
        ("c", "c has no paused or interrupted run", "%kern show c"),
    ):
        lines = two_lines(notebook, f"%kern continue {line}")
        assert message in lines[0]
        assert hint in lines[1]
    two_lines(notebook, "%kern continue nobody", errors.SessionNotFound)
    two_lines(notebook, "%kern continue a/7", errors.RunNotFound)


def test_without_store_and_agent_the_hint_is_to_attach(notebook):
    """The first line of a new user."""
    assert "%kern attach" in two_lines(notebook, "%kern continue chat", errors.NoStore)[1]


def test_outside_of_ipython_there_are_no_agents(clerk):
    """The same calls in a script: the agent is an object there, and needs no name."""
    from IPython.core.interactiveshell import InteractiveShell

    assert list(agent_registry.notebook_agents()) == ["boss"]
    InteractiveShell.clear_instance()

    assert agent_registry.notebook_agents() == {}
    assert agent_registry.find_variable("clerk-1") is None
