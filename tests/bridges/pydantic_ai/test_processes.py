"""Processes that run agents in one conversation: no run is lost or doubled."""

import asyncio
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from kern_nb.bridges.pydantic_ai import KernConversationStore
from kern_nb.db import open_store


def test_two_processes_in_one_conversation(persistent_target, record_property):
    is_sqlite = persistent_target.endswith(".db")
    n_runs = 100 if "KERN_PEERS" in os.environ and is_sqlite else 25
    program = Path(__file__).with_name("pydantic_conversation_process.py")
    processes = [
        subprocess.Popen([sys.executable, str(program), persistent_target, name, str(n_runs)]) for name in ("a", "b")
    ]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    store = open_store(persistent_target)
    runs = store.runs_df("chat")
    turns = sorted(f"{name} {n}" for name in ("a", "b") for n in range(n_runs))
    record_property("suite", f"pydantic-ai {version('pydantic-ai-slim')}: two processes, runs in one conversation")
    record_property("store", "sqlite" if is_sqlite else "postgres" if "://" in persistent_target else "duckdb")
    record_property("passed", len({*runs["input"].dropna()} & {*turns}))
    record_property("total", len(turns))
    assert sorted(runs["input"].dropna()) == turns
    assert set(runs["status"]) == {"COMPLETED"}
    assert store.tool_calls_df("chat")["status"].tolist() == ["completed"] * len(turns)
    loaded = asyncio.run(KernConversationStore(store).load("chat"))
    assert sorted(m.parts[0].content for m in loaded.messages[::4]) == turns
    assert len(loaded.messages) == 4 * len(turns)
    assert not store.check().problems
    store.close()
