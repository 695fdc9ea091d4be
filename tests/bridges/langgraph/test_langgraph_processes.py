"""Processes that invoke a graph on one thread: no run is lost or doubled."""

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
    target = str(tmp_path / "s.db")
    program = Path(__file__).with_name("graph_process.py")
    command = [sys.executable, str(program), target]
    processes = [subprocess.Popen([*command, name, str(RUNS)]) for name in "ab"]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    with SqliteDb(target) as store:
        runs = store.runs_df("chat")
        inputs = sorted(f"{name} {n}" for name in "ab" for n in range(RUNS))
        record_property("suite", f"langgraph {version('langgraph')}: two processes, {RUNS} runs each, one thread")
        record_property("store", "sqlite")
        record_property("passed", len(set(runs["input"]) & set(inputs)))
        record_property("total", len(inputs))
        assert sorted(runs["input"]) == inputs
        assert set(runs["status"]) == {"COMPLETED"}
        assert store.check().problems == []
