"""A paused or killed run is gone on with in another process, which knows of it what is in the store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pausing_agents import results
from pausing_worker import made

import kern_nb
from kern_nb.db import SqliteDb, open_store
from kern_nb.errors import RunClosed, RunFailed

HERE = Path(__file__).parent
ROOT = Path(kern_nb.__file__).parents[1]


@pytest.fixture
def effects(tmp_path):
    """Where every process notes what ran in it."""
    file = tmp_path / "effects"
    file.touch()
    return file


@pytest.fixture
def sqlite(tmp_path):
    """A store that the other process opens too."""
    with SqliteDb(db_file=tmp_path / "s.db") as store:
        yield store


def elsewhere(target, kind, verb, effects, *, die=""):
    """What another process says of the run ``chat/0``; it is to be killed when ``die`` happens."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, HERE / "pausing_worker.py", target, kind, verb, effects],
        env=os.environ | {"PYTHONPATH": path, "KERN_TEST_DIE": die},
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if die else 0)
    return None if die else json.loads(done.stdout)


def lines(effects):
    """What ran, in order."""
    return effects.read_text(encoding="utf-8").splitlines()


def goes_on_elsewhere(target, store, kind, effects):
    """Make a run here, approve it with another argument, and go on with it in another process."""
    runner = made(kind, store, effects)
    assert runner.run("go").status == "PAUSED"
    (waiting,) = store.requirements(user_id="alice")
    assert waiting.args == {"to": "bob"}
    store.resolve("chat/0", args={"to": "eve"})
    done = elsewhere(target, kind, "continue", effects)
    with pytest.raises(RunClosed):
        runner.continue_run("chat/0")
    return done


def test_resume_run_in_another_process(persistent_target, effects):
    """What had run does not run again, what was approved runs once, and the state is as it was."""
    with open_store(persistent_target) as store:
        done = goes_on_elsewhere(persistent_target, store, "agent", effects)

        assert (done["status"], done["output"]) == ("COMPLETED", "done")
        assert lines(effects) == ["put a", "send eve"]
        (run,) = store.get_session("chat").runs
        assert results(run) == ["put a", "sent to eve", {"a": True, "sent": "eve"}]
        assert run.session_state == store.get_session("chat").session_state == {"a": True, "sent": "eve"}


def test_resume_team_in_another_process(sqlite, effects, tmp_path):
    """The member's run first, and then the leader's, which is told the member's answer."""
    done = goes_on_elsewhere(str(tmp_path / "s.db"), sqlite, "team", effects)

    assert (done["status"], done["output"]) == ("COMPLETED", "led")
    assert lines(effects) == ["put a", "send eve"]
    leader, member = sqlite.get_session("chat").runs
    assert (member.parent_run_id, member.status) == (leader.run_id, "COMPLETED")
    assert results(leader) == ["done", {"a": True, "sent": "eve"}]


def test_resume_workflow_in_another_process(sqlite, effects, tmp_path):
    """At the step that paused; finished steps do not run again."""
    done = goes_on_elsewhere(str(tmp_path / "s.db"), sqlite, "workflow", effects)

    state = {"step": True, "a": True, "sent": "eve"}
    assert (done["status"], done["output"]) == ("COMPLETED", {"before": "done", "state": state})
    assert lines(effects) == ["step put", "put a", "send eve"]
    assert sqlite.get_session("chat").session_state == state


@pytest.mark.parametrize("kind", ["agent", "team", "workflow"])
def test_resume_after_approved_tool_was_killed(sqlite, effects, tmp_path, kind):
    """The tool is not run again, nobody knows whether it took effect, and nothing that was set of the state is lost."""
    runner = made(kind, sqlite, effects)
    runner.run("go")
    sqlite.resolve("chat/0", approve=True)
    elsewhere(str(tmp_path / "s.db"), kind, "continue", effects, die="send bob")
    done = runner.continue_run("chat/0")

    state = {"a": True} | ({"step": True} if kind == "workflow" else {})
    assert (done.status, done.session_state) == ("COMPLETED", state)
    assert sqlite.get_session("chat").session_state == state
    assert lines(effects) == ["step put"] * (kind == "workflow") + ["put a", "send bob"]
    runs = sqlite.get_session("chat").runs
    assert {run.status for run in runs} == {"COMPLETED"}
    (ann,) = (run for run in runs if run.agent_id == "ann")
    assert [(call.tool_name, call.status) for call in ann.tool_calls] == [
        ("put", "completed"),
        ("send", "unknown"),
        ("see", "completed"),
    ]
    assert "not known" in results(ann)[1]
    assert sqlite.runs_df()["n_tool_errors"].sum() == 0


@pytest.mark.parametrize("kind", ["function", "inner"])
def test_killed_function_step_needs_rerun_interrupted(sqlite, effects, tmp_path, kind):
    """It may have taken effect. Finished steps do not run again, and what they set of the state is there."""
    elsewhere(str(tmp_path / "s.db"), kind, "run", effects, die="step die")
    workflow = made(kind, sqlite, effects)
    for _ in range(2):
        with pytest.raises(RunFailed, match="interrupted") as caught:
            workflow.continue_run("chat/0")
        assert "rerun_interrupted=True" in caught.value.hint
    assert lines(effects) == ["step put", "step die"]
    done = workflow.continue_run("chat/0", rerun_interrupted=True)

    assert (done.status, done.output["state"]) == ("COMPLETED", {"step": True})
    assert lines(effects) == ["step put", "step die", "step die"]
    assert sqlite.get_session("chat").session_state == {"step": True}
    tries = [run.status for run in sqlite.get_session("chat").runs if run.extra.get("step") == "step_die"]
    assert tries == ["INTERRUPTED", "COMPLETED"]


def test_killed_step_within_nodes(sqlite, effects, tmp_path):
    """What a router selected is stored; its review is answered once, and the run goes on in another process."""
    elsewhere(str(tmp_path / "s.db"), "nodes", "run", effects, die="step die")
    run = made("nodes", sqlite, effects).continue_run("chat/0", rerun_interrupted=True)
    assert (run.status, run.requirements[0].args) == ("PAUSED", {"output": "put, alive"})
    sqlite.resolve("chat/0", args={"output": "edited"})
    done = elsewhere(str(tmp_path / "s.db"), "nodes", "continue", effects)

    assert (done["status"], done["output"]) == ("COMPLETED", {"before": "edited", "state": {"step": True}})
    assert lines(effects) == ["step put", "select", "step die", "step die"]
