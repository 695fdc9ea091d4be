"""A session's files: written by tools, kept per run, inherited by branches, apart from any other session's."""

from __future__ import annotations

import pytest

from kern_nb.agent import Agent, RunContext
from kern_nb.errors import BadUsage, FileNotInWorkspace
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.runtime.workspace import Workspace


def note(run_context: RunContext, text: str) -> str:
    """Write a note."""
    run_context.workspace.write("notes/today.txt", text)
    return "written"


def noting(store, *texts):
    answers = [answer for text in texts for answer in (call("note", text=text), "done")]
    return Agent(ScriptedModel(answers), db=store, tools=[note])


def test_workspace_file_is_there_in_next_run(store):
    """It is part of the session, whoever opens the store."""
    noting(store, "bread").run("note bread", session_id="chat")

    found = Agent(db=store).get_workspace("chat")

    assert found.paths() == ["notes/today.txt"]
    assert found.read_text("notes/today.txt") == "bread"


def test_branch_has_files_at_branch_point(store):
    """What either side writes afterwards is its own."""
    agent = noting(store, "bread", "milk", "eggs")
    agent.run("1", session_id="chat")
    agent.run("2", session_id="chat")
    store.branch("chat", after=0, new_session_id="what-if")

    assert agent.get_workspace("what-if").read_text("notes/today.txt") == "bread"

    agent.run("3", session_id="what-if")

    assert agent.get_workspace("what-if").read_text("notes/today.txt") == "eggs"
    assert agent.get_workspace("chat").read_text("notes/today.txt") == "milk"


def test_sessions_have_separate_files(store):
    """Another session of the same agent has none of them, though it may have written the same bytes."""
    agent = noting(store, "bread", "bread")
    agent.run("1", session_id="a")

    assert agent.get_workspace("b").paths() == []

    agent.run("1", session_id="b")
    with store.read_connection() as connection:
        assert len(connection.execute(store.tables.blobs.select()).all()) == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", ".", "a\x00b", "a\\b"])
def test_path_traversal_is_rejected(path, tmp_path):
    """Neither when it is written nor, where a store's rows say so, when it is exported."""
    from kern_nb.db import InMemoryDb

    store = InMemoryDb()
    with pytest.raises(BadUsage, match="not a path"):
        Workspace(store, {}).write(path, "x")

    hostile = Workspace(store, {"workspace": {path: {"sha256": store.put_blob(b"x"), "size": 1}}})
    with pytest.raises(BadUsage, match="not a path"):
        hostile.export(tmp_path / "out")


def test_missing_file_error_lists_files():
    """Reading or deleting it changes nothing."""
    from kern_nb.db import InMemoryDb

    files = Workspace(InMemoryDb(), {})
    files.write("a.txt", "x")

    with pytest.raises(FileNotInWorkspace) as caught:
        files.read_text("b.txt")

    assert "a.txt" in caught.value.hint
    with pytest.raises(FileNotInWorkspace):
        files.delete("b.txt")
    files.delete("a.txt")
    assert files.paths() == []


def test_export_does_not_overwrite_database(tmp_path):
    """A workspace's file may have the name of the store that it lies in."""
    from kern_nb.db import SqliteDb
    from kern_nb.records import Run

    with SqliteDb(tmp_path / "agent.db") as store:
        store.append_run("chat", Run())
        files = Workspace(store, {"workspace": {"agent.db": {"sha256": store.put_blob(b"not a store"), "size": 11}}})
        with pytest.raises(BadUsage, match="is a database"):
            files.export(tmp_path)

        assert len(store.runs_df()) == 1
