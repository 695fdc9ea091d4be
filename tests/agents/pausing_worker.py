"""An agent, a team and workflows that are told alike in any process; as a script, a process that goes on with a run.

    python pausing_worker.py TARGET KIND run|continue EFFECTS

EFFECTS is a file to which each tool and step appends a line when it runs. The environment's KERN_TEST_DIE is the line
at which the process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pausing_agents import by_turn
from run_state_keys import without_run_keys

from kern_nb.agent import Agent, RunContext, tool
from kern_nb.db import SessionStore, open_store
from kern_nb.models.scripted import call
from kern_nb.team import Team
from kern_nb.workflow import Condition, Loop, Router, Step, StepInput, Workflow

DELEGATE = "delegate_task_to_member"


class Noted:
    """Tools and steps that note in a file that they ran, and are killed where a test wants that."""

    def __init__(self, effects: Path) -> None:
        self._effects = effects

    def _happened(self, what: str) -> None:
        with self._effects.open("a", encoding="utf-8") as file:
            file.write(what + "\n")
        if what == os.environ.get("KERN_TEST_DIE"):
            os.kill(os.getpid(), signal.SIGKILL)

    def put(self, session_state: dict, key: str) -> str:
        """Set a key of the state."""
        self._happened(f"put {key}")
        session_state[key] = True
        return f"put {key}"

    def see(self, run_context: RunContext) -> dict:
        """Look at the state."""
        return without_run_keys(run_context.session_state)

    async def send(self, to: str, session_state: dict) -> str:
        """Send."""
        self._happened(f"send {to}")
        session_state["sent"] = to
        return f"sent to {to}"

    def step_put(self, given: StepInput) -> str:
        """A step that sets a key of the state."""
        self._happened("step put")
        given.session_state["step"] = True
        return "put"

    def step_die(self, given: StepInput) -> str:
        """A step in which a process may be killed."""
        self._happened("step die")
        return f"{given.previous_step_content}, alive"

    def select(self, given: StepInput) -> str:
        """Select a step of a router."""
        self._happened("select")
        return "die"

    def step_see(self, given: StepInput) -> Any:
        """A step that looks at the state."""
        return {"before": given.previous_step_content, "state": without_run_keys(given.session_state)}


def made(kind: str, store: SessionStore, effects: Path) -> Any:
    """The agent, team or workflow of this name."""
    noted = Noted(effects)
    options: dict[str, Any] = {"db": store, "session_id": "chat", "user_id": "alice"}
    turns = by_turn(call("put", key="a"), call("send", to="bob"), call("see"), "done")
    tools = [noted.put, tool(noted.send, requires_confirmation=True), noted.see]
    ann = Agent(turns, name="Ann", tools=tools, **(options if kind == "agent" else {}))
    if kind == "agent":
        return ann
    if kind == "team":
        leader = by_turn(call(DELEGATE, member_id="ann", task="write"), call("see"), "led")
        return Team([ann], leader, tools=[noted.see], **options)
    router = Router([Step(noted.step_die, name="die"), noted.step_see], noted.select, requires_output_review=True)
    middle = {
        "workflow": ann,
        "function": noted.step_die,
        "inner": Workflow([noted.step_die], name="Inner"),
        "nodes": Loop([Condition(True, [router])], max_iterations=1),
    }[kind]
    return Workflow([noted.step_put, middle, noted.step_see], **options)


def main(target: str, kind: str, verb: str, effects: str) -> None:
    """Make the run, or go on with it; what became of it as one line of JSON."""
    with open_store(target) as store:
        runner = made(kind, store, Path(effects))
        run = runner.run("go") if verb == "run" else runner.continue_run("chat/0")
    sys.stdout.write(json.dumps({"status": run.status, "output": run.output}))


if __name__ == "__main__":
    main(*sys.argv[1:])
