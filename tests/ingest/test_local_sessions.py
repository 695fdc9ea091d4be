"""The sessions that programs keep on this machine: listed, imported, followed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

import kern_nb
from kern_nb.errors import BadUsage, RecordsNotFound
from kern_nb.operations import local_import

PROMPT = {"type": "user", "message": {"role": "user", "content": "hello"}}
ANSWER = {"role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}]}


def transcript(session, n=1):
    """The lines of a transcript of Claude Code with so many turns."""
    shared = {"sessionId": session, "timestamp": "2026-05-01T10:00:00Z", "version": "2.1", "cwd": "/x"}
    lines = []
    for i in range(n):
        prompt, answer = f"{session}-p{i}", f"{session}-a{i}"
        parent = f"{session}-a{i - 1}" if i else None
        lines.append(shared | PROMPT | {"uuid": prompt, "parentUuid": parent})
        usage = {"input_tokens": 5, "output_tokens": 2}
        message = ANSWER | {"id": answer, "usage": usage}
        lines.append(shared | {"type": "assistant", "uuid": answer, "parentUuid": prompt, "message": message})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's folder with transcripts of two sessions, and nothing of this machine's."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.endswith(("_HOME", "_DIR", "_DB")) and name != "HOME"]:
        monkeypatch.delenv(name)
    project = home / ".claude" / "projects" / "x"
    project.mkdir(parents=True)
    for session in ("s1", "s2"):
        (project / f"{session}.jsonl").write_text(transcript(session))
    return home


@pytest.fixture
def project(home):
    return home / ".claude" / "projects" / "x"


def test_folders_are_listed_with_counts_and_dates(home):
    """Nothing is imported; the user's folder is a tilde."""
    listed = kern_nb.local_sessions()

    assert listed.df[["format", "n_files"]].to_dict("records") == [{"format": "claude_code", "n_files": 2}]
    assert listed.df["size"].iloc[0] > 100
    assert "~/.claude" in repr(listed)
    assert str(home) not in repr(listed)


def test_import_adds_only_what_is_new(store, home, project):
    first = kern_nb.import_local(store=store, progress=False)
    (project / "s1.jsonl").write_text(transcript("s1", 2))
    again = kern_nb.import_local(store=store, progress=False)

    assert (first.sessions, first.runs) == (2, 2)
    assert (again.sessions, again.runs, again.skipped) == (0, 1, 1)


def test_programs_and_times_select(store, home, project):
    old = time.time() - 10 * 86_400
    os.utime(project / "s1.jsonl", (old, old))

    assert [len(f.files) for f in kern_nb.local_sessions("claude-code", since="2026-01-01")] == [2]
    week_ago = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 7 * 86_400))
    assert [len(f.files) for f in kern_nb.local_sessions(since=week_ago)] == [1]
    with pytest.raises(RecordsNotFound, match="no sessions of codex"):
        kern_nb.import_local("codex", store=store)
    with pytest.raises(BadUsage, match="codecs"):
        kern_nb.import_local("codecs", store=store)


def test_environment_variables_move_folders(tmp_path, home, monkeypatch):
    moved = tmp_path / "moved" / "projects" / "y"
    moved.mkdir(parents=True)
    (moved / "s3.jsonl").write_text(transcript("s3"))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "moved"))

    assert [len(f.files) for f in kern_nb.local_sessions()] == [1]


def test_since_leaves_out_older_sessions_of_a_file(store, tmp_path):
    path = tmp_path / "s1.jsonl"
    path.write_text(transcript("s1"))

    assert store.ingest(path, since="2026-06-01", progress=False).sessions == 0
    assert store.ingest(path, since="2026-04-01", progress=False).sessions == 1


def test_followed_folder_is_imported_as_it_changes(store, home, project, monkeypatch, capsys):
    """Until Ctrl-C, which ends it without an error; each change is a line."""
    monkeypatch.setattr(local_import, "INTERVAL_S", 0.05)

    def change():
        wait_for(lambda: len(store.runs_df()) == 2)
        for session, n in (("s1", 3), ("s4", 1)):  # at once: a part of a file would be imported, and completed later
            (project / "new").write_text(transcript(session, n))
            (project / "new").replace(project / f"{session}.jsonl")
        wait_for(lambda: len(store.runs_df()) == 5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=change)
    thread.start()
    report = kern_nb.follow(project, store=store)
    thread.join()

    assert (report.sessions, report.runs) == (3, 5)
    assert "1 session, 3 runs" in capsys.readouterr().out or len(store.runs_df()) == 5


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()
