"""Forks agents that work and kills them as it is told: importing them takes a second, forking a moment.

Orders: ``{"work": {...}}`` begins, ``{"kill": true}`` kills -9, ``{"wait": true}`` waits. What the agent does is said as it happens.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from json_processes import say

from kern_nb.agent import Agent
from kern_nb.db import open_store
from kern_nb.models.scripted import Call, ScriptedModel, call
from kern_nb.records import Message

TOOLS = ("first", "second", "third")


class Work:
    """An agent with three tools, each of which takes effect by a line in a file."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order

    def take_effect(self, name: str) -> str:
        """Append a line, which is on the disk before anything else happens."""
        with Path(self.order["folder"], name).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
            file.flush()
            os.fsync(file.fileno())
        say(ran=name)
        if self.order["hangs"] == name:
            threading.Event().wait()
        return f"{name} took effect"

    def first(self, session_state: dict[str, Any]) -> str:
        """The first tool."""
        session_state["first"] = True
        return self.take_effect("first")

    async def second(self, session_state: dict[str, Any]) -> str:
        """The second tool."""
        session_state["second"] = True
        return self.take_effect("second")

    def third(self, session_state: dict[str, Any]) -> str:
        """The third tool."""
        session_state["third"] = True
        return self.take_effect("third")

    def answer(self, messages: list[Message]) -> str | list[Call]:
        """Call what was not called yet: one after the other, or all at once."""
        say(asked=[[m.role, m.content or None, m.tool_call_id] for m in messages])
        called = {one.tool_name for message in messages for one in message.tool_calls}
        left = [call(name) for name in TOOLS if name not in called]
        return (left if self.order["at_once"] else left[:1]) or "all done"

    async def instructions(self) -> str | None:
        """None; or none for ever."""
        if self.order["hangs"] == "instructions":
            say(instructing=True)
            await asyncio.Event().wait()
        return None

    def do(self) -> None:
        """Make a run, or go on with one."""
        order = self.order
        with open_store(order["target"]) as store:
            tools = [self.first, self.second, self.third]
            agent = Agent(ScriptedModel(self.answer), db=store, tools=tools, instructions=self.instructions)
            say(began=True)
            if order["run_id"] is None:
                run = agent.run("do all", session_id=order["session_id"])
            else:
                run = agent.continue_run(order["run_id"], session_id=order["session_id"])
        say(done=[run.status, run.output])


def forked(order: dict[str, Any]) -> int:
    """A child at work."""
    child = os.fork()
    if child:
        return child
    try:
        Work(order).do()
    except BaseException as error:  # noqa: BLE001 - a child must not go on as the one that forks
        say(failed=f"{type(error).__name__}: {error}")
    os._exit(0)


if __name__ == "__main__":
    for name in ("db.duckdb", "db.sqlite", "db.postgres", "runtime.engine", "runtime.settings", "db.frame_queries"):
        importlib.import_module(f"kern_nb.{name}")  # what is imported at first use is used by every child
    importlib.import_module("pandas")
    process = 0
    for line in sys.stdin:
        order = json.loads(line)
        if "work" in order:
            process = forked(order["work"])
        if "kill" in order:
            os.kill(process, signal.SIGKILL)
        if "kill" in order or "wait" in order:
            say(over=os.waitpid(process, 0)[1])
