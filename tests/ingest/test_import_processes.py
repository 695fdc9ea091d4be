"""Imports by several processes, and by a process that is killed: whole sessions only, and none twice."""

from __future__ import annotations

import signal
import subprocess
import sys

import pandas as pd
import pytest
import small_files

from kern_nb.db import SqliteDb, open_store

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df")
IMPORT = "import sys; from kern_nb.db import open_store; print(open_store(sys.argv[1]).ingest(sys.argv[2]))"
# Ends in the middle of the nth transaction, before or after its commit.
KILLED = """
import os, signal, sys
from kern_nb.db import open_store
from kern_nb.ingest import writer

writer._BATCH_SESSIONS = 2
store = open_store(sys.argv[1])
write, count = store.write, 0

def killed(function):
    global count
    count += 1
    if count < int(sys.argv[3]):
        return write(function)
    if sys.argv[4] == "after":
        write(function)
    else:
        write(lambda connection: (function(connection), os.kill(os.getpid(), signal.SIGKILL)))
    os.kill(os.getpid(), signal.SIGKILL)

store.write = killed
store.ingest(sys.argv[2], progress=False)
"""


def conversation(n, n_turns=3, fork_of=None):
    """A Claude Code session; a fork repeats the first two turns of another one under its own id."""
    transcript = small_files.claude_code.Transcript(f"5e55104e-0000-4000-8000-{n:012}")
    for turn in range(n_turns):
        owner = fork_of if fork_of is not None and turn < 2 else n
        transcript.user(f"u{owner}-{turn}", f"prompt {owner}-{turn}")
        transcript.answer(f"a{owner}-{turn}", f"m{owner}-{turn}", f"answer {owner}-{turn}")
    return transcript


def write_pair(folder):
    """A session and a fork of it, in two files."""
    folder.mkdir()
    for name, transcript in {"one": conversation(1), "two": conversation(2, fork_of=1)}.items():
        (folder / f"{name}.jsonl").write_text(transcript.text())
    return folder / "one.jsonl", folder / "two.jsonl"


def write_many(folder):
    """Ten sessions, every second one a fork of the one before, and files of other formats."""
    folder.mkdir()
    for n in range(1, 11):
        fork_of = n - 1 if n % 2 == 0 else None
        (folder / f"{n:02}.jsonl").write_text(conversation(n, fork_of=fork_of).text())
    for file in small_files.json_files():
        if file.importer in ("codex", "chat", "pi", "tau2"):
            (folder / file.name).write_bytes(file.data)
    return folder


def histories(store):
    return {
        name: [m.content for run in store.get_session(name).runs for m in run.messages]
        for name in store.sessions_df()["session_id"]
    }


def test_a_session_and_its_fork_imported_at_once_are_stored_once(persistent_target, tmp_path):
    """Whichever comes first, one of them inherits what they share from the other."""
    pair = write_pair(tmp_path / "pair")
    commands = [[sys.executable, "-W", "error", "-c", IMPORT, persistent_target, str(path)] for path in pair * 2]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate(timeout=100)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, outputs
    with open_store(persistent_target) as store, SqliteDb(tmp_path / "expected.db") as expected:
        expected.ingest(tmp_path / "pair", progress=False)
        assert histories(store) == histories(expected)
        assert len(store.messages_df()) == len(expected.messages_df()) == 8
        assert store.sessions_df()["parent_session_id"].notna().sum() == 1
        assert store.check().problems == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_import_leaves_whole_sessions(persistent_target, tmp_path, when):
    """Importing again adds the rest: the rows are those of an import that nothing disturbed."""
    folder = write_many(tmp_path / "many")
    with SqliteDb(tmp_path / "expected.db") as expected:
        expected.ingest(folder, progress=False)
        frames = {name: getattr(expected, name)() for name in FRAMES}
        stories = histories(expected)
    for n in (1, 4):
        command = [sys.executable, "-c", KILLED, persistent_target, str(folder), str(n), when]
        assert subprocess.run(command, check=False, timeout=100).returncode == -signal.SIGKILL
        with open_store(persistent_target) as store:
            assert store.check().problems == []
            for name, texts in (histories(store) if store.exists() else {}).items():
                assert texts == stories[name]
    with open_store(persistent_target) as store:
        store.ingest(folder, progress=False)
        assert store.check().problems == []
        for name, frame in frames.items():
            keys = [key for key in ("session_id", "run_index", "message_index", "tool_call_id") if key in frame]
            stored, expected_rows = (
                f.sort_values(keys).reset_index(drop=True) for f in (getattr(store, name)(), frame)
            )
            pd.testing.assert_frame_equal(stored, expected_rows, obj=name)
