"""`run_context.workspace.path()`: a session's files in a folder, for tools that need paths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kern_nb.agent import Agent, RunContext, tool
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.workflow import Step, StepInput, Workflow

_FOLDERS: list[Path] = []


def shell(run_context: RunContext, code: str) -> str:
    """Run Python in the folder, as a program of its own."""
    folder = run_context.workspace.path()
    _FOLDERS.append(folder)
    return subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def write(run_context: RunContext, path: str, text: str) -> None:
    """Write a file without the folder."""
    run_context.workspace.write(path, text)


def agent_that_runs(store, *codes, **options) -> Agent:
    """An agent that calls `shell` with each code, in runs of its own."""
    answers = [answer for code in codes for answer in (call("shell", code=code), "done")]
    return Agent(ScriptedModel(answers), db=store, session_id="chat", tools=[shell], **options)


def put(path: str, text: str) -> str:
    return f"import pathlib as p; f = p.Path({path!r}); f.parent.mkdir(exist_ok=True); f.write_text({text!r})"


def files_of(workspace) -> dict[str, str]:
    return {path: workspace.read_text(path) for path in workspace.paths()}


def test_files_are_stored_when_a_tool_ends_and_restored_in_later_runs(db):
    """New, changed, unchanged and deleted ones; by another agent, too."""
    agent = agent_that_runs(db, put("a.txt", "one"), put("sub/b.txt", "two"))
    agent.run("1")
    agent.run("2")
    other = agent_that_runs(
        db, "print(open('sub/b.txt').read(), end='')", put("a.txt", "ONE"), "import os; os.remove('a.txt')"
    )

    assert other.run("3").tool_calls[0].result == "two"
    other.run("4")
    assert files_of(agent.get_workspace()) == {"a.txt": "ONE", "sub/b.txt": "two"}
    other.run("5")
    assert files_of(agent.get_workspace()) == {"sub/b.txt": "two"}
    assert [sorted(run.session_state["workspace"]) for run in db.get_session("chat").runs] == [
        ["a.txt"], *[["a.txt", "sub/b.txt"]] * 3, ["sub/b.txt"],
    ]  # fmt: skip
    assert not any(folder.exists() for folder in _FOLDERS)


def test_branch_has_the_files_of_its_branch_point(db):
    agent = agent_that_runs(db, put("a.txt", "one"), put("a.txt", "two"))
    agent.run("1")
    agent.run("2")
    db.branch("chat", after=0, new_session_id="what-if")

    reader = agent_that_runs(db, "print(open('a.txt').read(), end='')")
    assert reader.run("3", session_id="what-if").tool_calls[0].result == "one"


def test_changes_in_the_folder_and_beside_it_are_both_stored(db):
    """Within one run: a file that one tool writes without the folder is in it for the next."""
    answers = [
        call("shell", code=put("a.txt", "one")),
        call("write", path="b.txt", text="two"),
        call("shell", code="import os; os.rename('b.txt', 'c.txt')"),
        call("write", path="a.txt", text="ONE"),
        call("shell", code="print(open('a.txt').read(), open('c.txt').read(), end='')"),
        "done",
    ]
    agent = Agent(ScriptedModel(answers), db=db, session_id="chat", tools=[shell, write])
    run = agent.run("go")

    assert run.tool_calls[-1].result == "ONE two"
    assert files_of(agent.get_workspace()) == {"a.txt": "ONE", "c.txt": "two"}


def test_same_size_change_at_once_is_stored(db):
    """Time stamps do not tell it from the first one."""

    def twice(run_context: RunContext, text: str) -> None:
        path = run_context.workspace.path() / "a.txt"
        path.write_text(text)
        os.utime(path, ns=(0, 0))

    agent = Agent(
        ScriptedModel([call("twice", text="one"), call("twice", text="two"), "ok"]),
        db=db,
        session_id="chat",
        tools=[twice],
    )
    agent.run("go")

    assert files_of(agent.get_workspace()) == {"a.txt": "two"}


def test_files_of_a_failed_tool_and_of_a_failed_run_are_stored(db):
    def broken(run_context: RunContext) -> None:
        (run_context.workspace.path() / "a.txt").write_text("half")
        raise ValueError("broken")

    agent = Agent(ScriptedModel([call("broken"), RuntimeError("down")]), db=db, session_id="chat", tools=[broken])
    with pytest.raises(RunFailed):
        agent.run("go")

    assert files_of(agent.get_workspace()) == {"a.txt": "half"}


def test_paused_run_has_its_files_when_it_continues(db):
    """In a folder of its own: another process may continue it."""
    send = tool(
        lambda run_context: (run_context.workspace.path() / "a.txt").read_text(),
        name="send",
        requires_confirmation=True,
    )
    model = ScriptedModel([call("shell", code=put("a.txt", "one")), call("send"), "done"])
    agent = Agent(model, db=db, session_id="chat", tools=[shell, send])
    run = agent.run("go")
    assert not _FOLDERS[-1].exists()
    db.resolve(run.requirements[0], approve=True)

    assert agent.continue_run(run).tool_calls[-1].result == "one"


def test_links_are_refused(db):
    """They might lead out of the folder; the files are stored as they were before."""
    agent = agent_that_runs(db, put("a.txt", "one"), "import os; os.symlink('/etc/passwd', 'b.txt')")
    agent.run("1")
    with pytest.raises(RunFailed, match=r"b\.txt.*link"):
        agent.run("2")

    assert files_of(agent.get_workspace()) == {"a.txt": "one"}
    assert not _FOLDERS[-1].exists()


def test_steps_of_a_workflow_share_the_folder(db):
    def first(step: StepInput) -> str:
        (step.run_context.workspace.path() / "a.txt").write_text("one")
        return "written"

    def second(step: StepInput) -> str:
        return (step.run_context.workspace.path() / "a.txt").read_text()

    flow = Workflow([Step(first, name="first"), Step(second, name="second")], db=db, session_id="flow")

    assert flow.run("go").output == "one"
    assert files_of(flow.get_workspace()) == {"a.txt": "one"}


def test_folder_needs_a_run(db):
    agent_that_runs(db, "pass").run("1")
    with pytest.raises(BadUsage, match="only in a run"):
        agent_that_runs(db).get_workspace().path()
