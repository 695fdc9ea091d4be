"""`history_token_budget`: runs that do not fit are told by the session's summary; a run never fails for its past."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls_once, said

from kern_nb import Agent
from kern_nb.agent import SessionSummaryManager
from kern_nb.records import Message, Run, ToolCall
from kern_nb.runtime.history import estimate_tokens

LONG = "word " * 400  # about 500 tokens


def remembering(model, db, summary, **options):
    """An agent in the session "chat" with a budget of about two long runs, and this model for its summary."""
    given = {"history_token_budget": 1_200, "num_history_runs": 100, "add_history_to_context": True} | options
    manager = SessionSummaryManager(summary) if summary else None
    return Agent(model, db=db, session_id="chat", session_summary_manager=manager, **given)


def fill(db, runs, text=LONG):
    """Runs of about 500 tokens each, named by what was asked first."""
    for n in range(runs):
        messages = [Message(role="user", content=f"q{n} {text}"), Message(role="assistant", content=f"a{n}")]
        db.append_run("chat", Run(messages=messages))


def names(messages):
    """The first word of each message."""
    return [str(m.content).split()[0] for m in messages if m.role != "system"]


def test_history_within_budget_is_sent_in_full(db):
    """The summary's model is not even asked."""
    fill(db, 2)
    model, summary = RecordingModel(), RecordingModel()
    remembering(model, db, summary).run("now")

    assert names(model.told[-1]) == ["q0", "a0", "q1", "a1", "now"]
    assert (model.instructions(), summary.told, db.get_session("chat").summary) == ("", [], None)


def test_summary_replaces_runs_over_budget(db):
    """The newest that fit are told as they were; the summary is told what it has to hold, and kept with the session."""
    fill(db, 5)
    model, summary = RecordingModel(), RecordingModel(['{"summary": "They counted to two.", "topics": ["counting"]}'])
    remembering(model, db, summary, instructions="Be kind.").run("now")

    assert names(model.told[-1]) == ["q3", "a3", "q4", "a4", "now"]
    assert model.instructions().startswith("Be kind.")
    assert "They counted to two." in model.instructions()
    assert all(f"q{n}" in summary.heard()[-1][1] for n in (0, 1, 2))
    assert db.get_session("chat").summary["summary"] == "They counted to two."


def test_covering_summary_is_reused(db):
    """Only what it lacks is summarized, when it has to be."""
    fill(db, 5)
    model, summary = RecordingModel(), RecordingModel(["first", "second"])
    agent = remembering(model, db, summary)
    agent.run("now")
    agent.run("and now")
    assert len(summary.told) == 1
    assert "first" in model.instructions()

    fill(db, 3)
    agent.run("later")
    assert len(summary.told) == 2
    assert "first" in summary.heard()[-1][1]
    assert "second" in model.instructions()


def test_failing_budget_summary_does_not_fail_run(db, caplog):
    """The run is told what fits; the next run has the summary."""
    fill(db, 5)
    model, summary = RecordingModel(), RecordingModel([ValueError("no summary today"), "at last"])
    agent = remembering(model, db, summary)
    run = agent.run("now")

    assert (run.status, names(model.told[-1])) == ("COMPLETED", ["q3", "a3", "q4", "a4", "now"])
    assert model.instructions() == ""
    assert "no summary today" in caplog.text
    agent.run("and now")
    assert "at last" in model.instructions()


def test_old_summary_is_used_when_update_fails(db, caplog):
    """Better half of the past than none."""
    fill(db, 5)
    model, summary = RecordingModel(), RecordingModel(["they counted", ValueError("no")])
    agent = remembering(model, db, summary)
    agent.run("now")
    fill(db, 5)
    agent.run("and now")

    assert "they counted" in model.instructions()
    assert "The summary of" in caplog.text


def test_budget_summary_uses_agent_model_by_default(db):
    """A budget alone is enough."""
    fill(db, 5)
    model = RecordingModel(["The past in short.", "answer"])
    run = remembering(model, db, None).run("now")

    assert run.output == "answer"
    assert "The past in short." in model.instructions()


@pytest.mark.parametrize("budget", [0, 1])
def test_zero_budget_sends_only_summary(db, budget):
    """The new input is always told, however long it is."""
    fill(db, 2)
    model, summary = RecordingModel(), RecordingModel(["short"])
    run = remembering(model, db, summary, history_token_budget=budget).run(LONG)

    assert (run.status, names(model.told[-1])) == ("COMPLETED", ["word"])
    assert "short" in model.instructions()


def test_budget_keeps_runs_whole(db):
    """A long result takes its call and its question along."""

    def read() -> str:
        return LONG * 10

    remembering(calls_once("read"), db, None, history_token_budget=None, tools=[read]).run("read it")
    fill(db, 1)
    model, summary = RecordingModel(), RecordingModel(["It was read."])
    remembering(model, db, summary).run("now")

    assert names(model.told[-1]) == ["q0", "a0", "now"]
    assert "It was read." in model.instructions()
    assert "read it" in summary.heard()[-1][1]


def test_budget_applies_to_selected_history(db):
    """Limits on runs and messages come first: what they leave out needs no summary."""
    fill(db, 10)
    model, summary = RecordingModel(), RecordingModel()
    remembering(model, db, summary, num_history_runs=2).run("now")
    assert (names(model.told[-1]), summary.told) == (["q8", "a8", "q9", "a9", "now"], [])
    remembering(model, db, summary, num_history_messages=3).run("and now")
    assert (names(model.told[-1]), summary.told) == (["a9", "now", "answer", "and"], [])


def test_budget_without_history_has_no_effect(db):
    """Nothing told, nothing to fit."""
    fill(db, 5)
    model, summary = RecordingModel(), RecordingModel()
    remembering(model, db, summary, add_history_to_context=False).run("now")

    assert (said(model.told[-1]), summary.told) == ([("user", "now")], [])


def test_branch_budget_summary_covers_lineage(db):
    """What the parent said after the fork is in no summary of the branch."""
    fill(db, 6)
    parent = RecordingModel(["of all six"])
    remembering(RecordingModel(), db, parent).run("now")
    db.branch("chat", after=4, new_session_id="fork")
    model, summary = RecordingModel(), RecordingModel(["of the fork"])
    remembering(model, db, summary).run("go on", session_id="fork")

    assert "of the fork" in model.instructions()
    assert "q5" not in summary.heard()[-1][1]
    assert db.get_session("chat").summary["summary"] == "of all six"


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user", content="x" * 4_000),
        Message(role="user", content=[{"type": "text", "text": "x" * 4_000}]),
        Message(role="tool", content={"rows": "x" * 4_000}),
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", tool_name="t", args={"text": "x" * 4_000})]),
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", tool_name="t", args="x" * 4_000)]),
    ],
    ids=["text", "parts", "a value", "arguments", "arguments that are no JSON"],
)
def test_token_estimate_counts_all_content(message):
    """Four characters are about a token."""
    assert estimate_tokens(message) == pytest.approx(1_000, rel=0.05)
