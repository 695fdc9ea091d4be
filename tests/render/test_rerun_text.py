"""A rerun as plain text: its headline, requirements or errors, and the comparison."""

from __future__ import annotations

from hostile_reruns import failed, paused

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.models.scripted import ScriptedModel
from kern_nb.operations.rerun import rerun


def test_hostile_text_is_escaped():
    """Control characters are visible, and each part is on its own line."""
    for shown in (repr(failed()), repr(paused())):
        assert all(c == "\n" or c.isprintable() or c == "\u00a0" for c in shown)
        assert "and 4 more" in shown
        assert "Skipped, no input: a<script>" in shown


def test_rerun_headline():
    """It names the original, the new run, the agent, the changes and the status; the comparison follows."""
    with InMemoryDb() as store:
        agent = Agent(ScriptedModel("hi"), db=store, name="Clerk", session_id="chat")
        agent.run("hello")
        done = rerun("chat/0", agent, model=ScriptedModel("ho", id="b"), tools=[], message="Hello", name="what-if")
        lines = repr(done).splitlines()
        assert lines[0] == (
            "✓ Rerun of chat/0 as what-if/0, by Clerk, with model b, without tools, with a new message: COMPLETED"
        )
        assert lines[1].startswith("chat/0 and what-if/0 have no turns in common")
        assert "<table" in done._repr_html_()
        titles = store.sessions_df()["session_name"].fillna("").tolist()
        assert "what-if" in titles

        store.delete_session("what-if")
        gone = rerun("chat/0", agent, name="gone")
        store.delete_session("gone")
        assert "No comparison: " in repr(gone)
        assert "No comparison: " in gone._repr_html_()
