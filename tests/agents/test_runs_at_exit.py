"""A program with agents ends, whatever is going on; and while it lives, runs leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections import Counter

import psutil
import pytest
from failing_agents import an_agent
from json_processes import run_script

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb, open_store
from kern_nb.models.openai import OpenAIResponses

QUIET = (0, "")


def exiting(tmp_path, what: str, name: str = "s.db") -> tuple[tuple[int, str], list[str], Counter]:
    """Run such a program to its end: how it ended, what it printed, and the statuses of its runs."""
    target = str(tmp_path / name)
    done = run_script("exiting_process.py", target, what)
    with open_store(target) as store:
        assert store.check(repair=True)
        return (done.returncode, done.stderr), done.stdout.splitlines(), Counter(store.runs_df().status)


def test_non_daemon_threads_finish_runs_at_exit(tmp_path):
    """Python waits for them, so their runs are whole."""
    assert exiting(tmp_path, "threads") == (QUIET, [], {"COMPLETED": 13})


def test_daemon_threads_end_quietly_at_exit(tmp_path):
    """Python does not wait for them: the program ends, what they were at was interrupted, the store is well."""
    how, _, statuses = exiting(tmp_path, "daemon threads")

    assert how == QUIET
    assert set(statuses) <= {"COMPLETED", "INTERRUPTED", "CANCELLED", "ERROR"}
    assert 1 <= statuses["COMPLETED"] < 13


def test_run_in_exit_handler(tmp_path):
    """Even in one that runs after those of kern_nb."""
    assert exiting(tmp_path, "exit handler") == (QUIET, ["done"], {"COMPLETED": 2})


@pytest.mark.parametrize("name", ["s.db", "s.duckdb"])
def test_run_in_forked_child(tmp_path, name):
    """It has no thread of its parent's, and makes its own."""
    assert exiting(tmp_path, "fork", name) == (QUIET, ["done", "done"], {"COMPLETED": 3})


def tool() -> str:
    """A tool that runs in a thread."""
    return "x"


def test_runs_leak_no_threads_or_objects():
    """In whatever loop they were made: agents and models that nobody has any more are gone."""
    with InMemoryDb() as store:
        an_agent(store, tool).run("x")
        before = threading.active_count()
        kept = []
        for _ in range(5):
            agent = an_agent(store, tool)
            agent.run("x")
            asyncio.run(agent.arun("x"))
            kept.append(weakref.ref(agent))
        del agent
        gc.collect()

        assert [ref for ref in kept if ref() is not None] == []
        for thread in threading.enumerate():
            if "AnyIO" in thread.name:  # it was told to end
                thread.join(10)
        assert threading.active_count() <= before


def test_runs_leak_no_connections(openai_server):
    """To a model's server, nor warnings of any that were not closed."""
    agent = Agent(OpenAIResponses(id="gpt-5.2"), db=InMemoryDb(), session_id="chat")
    agent.run("x")
    before = connections()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            agent.run("x")
            asyncio.run(agent.arun("x"))
        gc.collect()

    assert connections() <= before
    agent.store.close()


def connections() -> int:
    """How many sockets this process has."""
    gc.collect()
    return len(psutil.Process().net_connections("tcp"))
