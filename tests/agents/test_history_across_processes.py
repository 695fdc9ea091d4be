"""The same session goes on tomorrow, in another process."""

from __future__ import annotations

from conversation_process import an_agent
from json_processes import run_script

from kern_nb.db import open_store


def said(target: str, text: str) -> str:
    """What an agent in a new process answers."""
    done = run_script("conversation_process.py", target, text, "conversation_123")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_history_is_shared_between_processes(persistent_target):
    """By the session_id alone; and not in another session. The model answers from what it is told."""
    assert said(persistent_target, "My name is Alice") == "Nice to meet you.\n"
    assert said(persistent_target, "What's my name?") == "Your name is Alice.\n"

    with open_store(persistent_target) as store:
        other = an_agent("conversation_124", store)
        assert other.run("What's my name?").output == "I do not know your name."
        runs = store.runs_df("conversation_123")
        assert runs.input.tolist() == ["My name is Alice", "What's my name?"]
        assert runs.output.tolist() == ["Nice to meet you.", "Your name is Alice."]
        assert runs.status.tolist() == ["COMPLETED", "COMPLETED"]
        assert runs.n_messages.tolist() == [2, 2]  # the history that was told is not written again
        assert store.check()
