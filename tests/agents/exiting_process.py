"""A program with agents that comes to its end while something is going on. `exiting_process.py TARGET WHAT`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

WHAT = sys.argv[2]


def last() -> None:
    """What an exit handler does that runs after those of kern_nb."""
    print(agent.run("from an exit handler").output, flush=True)


if WHAT == "exit handler":
    atexit.register(last)

from kern_nb.agent import Agent  # noqa: E402 - exit handlers run in the reverse order
from kern_nb.db import open_store  # noqa: E402
from kern_nb.models.scripted import ScriptedModel  # noqa: E402

begun = threading.Event()


def script(_messages: object) -> str:
    """Say that it begins, take a moment."""
    begun.set()
    time.sleep(0.2)
    return "done"


agent = Agent(ScriptedModel(script), db=open_store(sys.argv[1]), session_id="chat")


def several() -> None:
    """A few runs."""
    for _ in range(3):
        agent.run("x")


def in_child() -> None:
    """A run in a forked child, which ends as a program does."""
    if not os.fork():
        print(agent.run("from a child").output, flush=True)
        agent.db.close()
        os._exit(0)
    assert os.wait()[1] == 0


agent.run("first")
if WHAT in ("threads", "daemon threads"):
    begun.clear()
    for _ in range(4):
        threading.Thread(target=several, daemon=WHAT == "daemon threads").start()
    begun.wait()
if WHAT == "fork":
    in_child()
    print(agent.run("from the parent").output, flush=True)
