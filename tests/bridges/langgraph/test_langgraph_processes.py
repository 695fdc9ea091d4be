"""Processes that invoke a graph on one thread: no input is lost."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("langgraph.graph", reason="needs langgraph")

from kern_nb.db import SqliteDb

RUNS = 100 if "KERN_PEERS" in os.environ else 10


def test_two_processes_on_one_thread(tmp_path, record_property):
    """LangGraph continues the latest checkpoint, which may be one of the other's run: then the runs are branches."""
    target = str(tmp_path / "s.db")
    program = Path(__file__).with_name("graph_process.py")
    command = [sys.executable, str(program), target]
    processes = [subprocess.Popen([*command, name, str(RUNS)]) for name in "ab"]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    with SqliteDb(target) as store:
        runs = store.runs_df()
    inputs = {f"{name} {n}" for name in "ab" for n in range(RUNS)}
    counts = runs["input"].dropna().value_counts()
    record_property("suite", f"langgraph {version('langgraph')}: two processes, {RUNS} runs each, one thread")
    record_property("store", "sqlite")
    record_property(
        "note", f"{len(inputs & {*counts.index})} inputs of {len(inputs)}, {(counts > 1).sum()} of them twice"
    )
    assert {*counts.index} == inputs
