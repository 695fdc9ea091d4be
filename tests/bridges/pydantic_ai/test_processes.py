"""Processes that run agents in one conversation: no run is lost or doubled."""

import asyncio
import subprocess
import sys
from pathlib import Path

from kern_nb.bridges.pydantic_ai import KernConversationStore
from kern_nb.db import open_store

RUNS = 25


def test_two_processes_in_one_conversation(persistent_target):
    program = Path(__file__).with_name("pydantic_conversation_process.py")
    processes = [
        subprocess.Popen([sys.executable, str(program), persistent_target, name, str(RUNS)]) for name in ("a", "b")
    ]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    store = open_store(persistent_target)
    runs = store.runs_df("chat")
    turns = sorted(f"{name} {n}" for name in ("a", "b") for n in range(RUNS))
    assert sorted(runs["input"].dropna()) == turns
    assert set(runs["status"]) == {"COMPLETED"}
    assert store.tool_calls_df("chat")["status"].tolist() == ["completed"] * len(turns)
    loaded = asyncio.run(KernConversationStore(store).load("chat"))
    assert sorted(m.parts[0].content for m in loaded.messages[::4]) == turns
    assert len(loaded.messages) == 4 * len(turns)
    assert not store.check().problems
    store.close()
