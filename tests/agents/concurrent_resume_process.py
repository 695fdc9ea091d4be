"""Eight processes that resume a run at one instant: importing an agent takes a second, so one process does, and forks.

Orders: ``{"resume": {...}}`` says which run, and each process says that it is ready; ``{"go": true}`` lets all of them
begin. The tool of the one that wins takes effect by a line in a file, says so, and ends when ``{"release": 1}`` comes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from json_processes import say

from kern_nb.agent import Agent, tool
from kern_nb.db import SessionStore, open_store
from kern_nb.errors import KernError
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message

PROCESSES = 8


def answer(messages: list[Message]) -> object:
    """Pay once, then say what came of it."""
    return messages[-1].content if messages[-1].role == "tool" else call("pay", amount=7)


def an_agent(store: SessionStore, paid: Path, release: int = 0) -> Agent:
    """An agent that may pay once it is allowed to."""

    def pay(amount: int) -> str:
        """Pay."""
        with paid.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {amount}\n")
            file.flush()
            os.fsync(file.fileno())
        say(ran=os.getpid())
        os.read(release, 1)
        return f"paid {amount}"

    return Agent(ScriptedModel(answer), db=store, tools=[tool(pay, requires_confirmation=True)])


def resume(agent: Agent, store: SessionStore, run_id: str, requirement_id: str) -> dict[str, str]:
    """Answer and go on; what came of each."""
    found = {}
    try:
        store.resolve(requirement_id, approve=True, by=f"{os.getpid()}")
        found["answered"] = "first"
    except KernError as error:
        found["answered"] = type(error).__name__
    try:
        found["output"] = agent.continue_run(run_id).output
    except KernError as error:
        found["error"] = type(error).__name__
    return found


def child(orders: int, go: int, release: int) -> None:
    """One of the eight."""
    stores: dict[str, SessionStore] = {}
    for line in os.fdopen(orders):
        order = json.loads(line)
        target = order.pop("target")
        store = stores[target] = stores.get(target) or open_store(target)
        agent = an_agent(store, Path(order.pop("paid")), release)
        say(ready=True)
        os.read(go, 1)
        say(tried=resume(agent, store, **order))


if __name__ == "__main__":
    for name in ("db.duckdb", "db.sqlite", "db.postgres", "runtime.engine", "runtime.settings"):
        importlib.import_module(f"kern_nb.{name}")  # what is imported at first use is used by every child
    go, release, orders = os.pipe(), os.pipe(), []
    for _ in range(PROCESSES):
        theirs, ours = os.pipe()
        if not os.fork():
            for end in (0, ours, *orders):
                os.close(end)
            child(theirs, go[0], release[0])
            os._exit(0)
        os.close(theirs)
        orders.append(ours)
    for line in sys.stdin:
        order = json.loads(line)
        if "resume" in order:
            for ours in orders:
                os.write(ours, (json.dumps(order["resume"]) + "\n").encode())
        if "go" in order:
            os.write(go[1], bytes(PROCESSES))
        if "release" in order:
            os.write(release[1], bytes(order["release"]))
    for ours in orders:
        os.close(ours)
    for _ in orders:
        os.wait()
