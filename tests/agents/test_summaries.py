"""Session summaries: made after a run from the old summary and what is new, by a model of their own, delaying nobody."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial

import pytest
from recording_models import RecordingModel

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import SessionSummaryManager, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import RunFailed, SessionNotFound
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run
from kern_nb.runtime import summaries

WAIT_S = 30
ANSWER = json.dumps({"summary": "They met.", "topics": ["names", "greetings"]})


def summarizing(db, summary, model=None, **options):
    """An agent in the session "chat" whose summaries this model makes."""
    given = {"session_summary_manager": SessionSummaryManager(summary)} | options
    return Agent(model or RecordingModel(), db=db, session_id="chat", enable_session_summaries=True, **given)


def asked(summary, at=-1):
    """What the summary's model was asked."""
    return summary.heard(at)[-1][1]


def test_summary_is_stored_with_session(store):
    """On every engine: text, topics and time, from the agent as from the store."""
    before = datetime.now(UTC)
    agent = summarizing(store, RecordingModel([ANSWER]))
    agent.run("I am Ann")
    found = agent.get_session_summary()

    assert (found.summary, found.topics) == ("They met.", ["names", "greetings"])
    assert before <= found.updated_at <= datetime.now(UTC)
    assert store.get_session("chat").summary["summary"] == "They met."


def test_summaries_are_off_by_default(db):
    """Summaries are opt-in; telling the model the summary makes none."""
    model = RecordingModel()
    agent = Agent(model, db=db, session_id="chat", add_session_summary_to_context=True)
    agent.run("x")

    assert (agent.get_session_summary(), len(model.told)) == (None, 1)


def test_summary_manager_enables_summaries(db):
    """Of an agent and of a team, with the manager's model and prompt, and of a variant of either."""

    def made(owner, session_id):
        owner.run("x", session_id=session_id)
        return owner.get_session_summary(session_id).summary

    summary = RecordingModel([f"summary {n}" for n in range(3)])
    manager = SessionSummaryManager(summary, prompt="Sum up in Latin.")
    agent = Agent(RecordingModel(), db=db, session_summary_manager=manager)
    team = Team([Agent(RecordingModel(), id="member")], RecordingModel(), db=db, session_summary_manager=manager)

    assert made(agent, "a") == "summary 0"
    assert made(team, "t") == "summary 1"
    assert made(agent.variant(instructions="Be kind."), "v") == "summary 2"
    assert {summary.instructions(at) for at in range(3)} == {"Sum up in Latin."}


def test_workflow_summaries(store):
    """On every engine: by a manager alone; of each run the input and the output, and of the new ones only."""
    summary = RecordingModel(["FIRST", "SECOND"])
    workflow = Workflow(
        [Agent(ScriptedModel(lambda _: "drafted"), id="a"), lambda step: f"{step.previous_step_content} and sent"],
        db=store,
        session_id="w",
        session_summary_manager=SessionSummaryManager(summary),
    )
    workflow.run("q0")
    assert workflow.get_session_summary().summary == "FIRST"
    workflow.variant(timeout_s=60).run("q1")
    assert workflow.get_session_summary().summary == "SECOND"

    assert all(word in asked(summary, 0) for word in ("q0", "drafted and sent"))
    assert all(word in asked(summary, 1) for word in ("FIRST", "q1", "drafted and sent"))
    assert "q0" not in asked(summary, 1)
    assert store.get_session("w").summary["last_run_index"] == max(
        r.run_index for r in store.get_session("w").runs if not r.parent_run_id
    )


def test_workflow_summaries_are_off_by_default(db):
    """Summaries are opt-in."""
    workflow = Workflow([lambda _: "done"], db=db, session_id="w")
    workflow.run("x")
    assert workflow.get_session_summary() is None


def test_summaries_are_incremental(db):
    """The model is given the old summary and the new runs alone, with what tools gave, and no instructions of the agent's."""
    summary = RecordingModel(["FIRST", "SECOND"])
    model = RecordingModel([call("look"), "a0", "a1"])
    agent = summarizing(db, summary, model, tools=[tool(lambda: "the sea", name="look")], instructions="BE KIND")
    agent.run("q0")
    agent.get_session_summary()
    agent.run("q1")
    agent.get_session_summary()

    assert all(word in asked(summary, 0) for word in ("q0", "look", "the sea", "a0"))
    assert all(word in asked(summary, 1) for word in ("FIRST", "q1", "a1"))
    assert not any(word in asked(summary, 1) for word in ("q0", "the sea", "a0"))
    assert "BE KIND" not in str(summary.told)
    assert agent.get_session_summary().summary == "SECOND"


def test_summary_includes_runs_of_other_agents(db):
    """The summary is the session's: what was said in it by whomever, imported runs among it."""
    db.append_run("chat", Run(messages=[Message(role="user", content="imported")]))
    summary = RecordingModel(["ONE", "TWO"])
    agent = summarizing(db, summary)
    agent.run("mine")
    agent.get_session_summary()
    Agent(RecordingModel(), db=db, session_id="chat").run("of another")
    agent.run("mine again")
    agent.get_session_summary()

    assert all(word in asked(summary, 0) for word in ("imported", "mine"))
    assert all(word in asked(summary, 1) for word in ("ONE", "of another", "mine again"))


def test_manager_prompt_and_model(db):
    """Without a model it is the agent's, without a prompt ours."""
    model, summary = RecordingModel(), RecordingModel(["short"])
    manager = SessionSummaryManager(summary, prompt="Sum up in Latin.")
    summarizing(db, None, model, session_summary_manager=manager).run("x")
    manager.wait(db, "chat")
    assert (summary.instructions(), len(model.told)) == ("Sum up in Latin.", 1)

    own = RecordingModel(["the answer", "the summary"])
    agent = summarizing(db, None, own, session_summary_manager=None)
    agent.run("y", session_id="other")
    assert agent.get_session_summary("other").summary == "the summary"
    assert "JSON" in own.instructions()


def test_summary_does_not_delay_answer(db):
    """The run has ended, and the next one too, while the summary's model still thinks."""
    thinking, may_go_on = threading.Event(), threading.Event()

    def think(_messages):
        thinking.set()
        assert may_go_on.wait(WAIT_S)
        return "at last"

    agent = summarizing(db, RecordingModel(think), add_session_summary_to_context=False)
    first = agent.run("x")
    assert thinking.wait(WAIT_S)
    assert first.status == "COMPLETED"
    second = agent.run("y")
    third = asyncio.run(agent.arun("z"))
    assert [second.output, third.output] == ["answer 1", "answer 2"]
    assert db.get_session("chat").summary is None  # so nobody has waited
    may_go_on.set()

    assert agent.get_session_summary().summary == "at last"


def test_run_goes_on_without_a_summary_that_takes_long(db, monkeypatch):
    """It waits for the summary that its model is to be sent, but not for long."""
    monkeypatch.setattr(summaries, "MAX_WAIT_S", 0.1)
    may_go_on = threading.Event()

    def think(_messages):
        assert may_go_on.wait(WAIT_S)
        return "at last"

    agent = summarizing(db, RecordingModel(think))
    agent.run("x")
    assert agent.run("y").output == "answer 1"
    assert db.get_session("chat").summary is None
    may_go_on.set()

    assert agent.get_session_summary().summary == "at last"


def test_get_session_summary_waits(db):
    """Also for one that was begun while another was being made; each goes on from the last."""
    may_go_on = threading.Event()
    answers = iter(["FIRST", "SECOND"])

    def think(_messages):
        assert may_go_on.wait(WAIT_S)
        return next(answers)

    summary = RecordingModel(think)
    agent = summarizing(db, summary, add_session_summary_to_context=False)
    agent.run("q0")
    agent.run("q1")
    threading.Timer(0.05, may_go_on.set).start()

    assert agent.get_session_summary().summary in ("FIRST", "SECOND")
    told = "".join(asked(summary, n) for n in range(len(summary.told)))
    assert (told.count("q0"), told.count("q1")) == (1, 1)


def test_summary_is_added_to_context(db):
    """add_session_summary_to_context: after the instructions, with or without history."""
    model = RecordingModel()
    told = {"add_session_summary_to_context": True, "instructions": "Be kind."}
    agent = summarizing(db, RecordingModel([ANSWER]), model, **told)
    agent.run("q0")
    assert model.instructions() == "Be kind."
    agent.get_session_summary()
    agent.run("q1")

    assert model.instructions().startswith("Be kind.")
    assert "They met." in model.instructions()
    assert model.heard() == [("user", "q1")]


def test_enabled_summaries_are_added_by_default(db):
    """A manager alone enables them, of agents and teams; the next run waits for one that is being written."""
    for n, owner in enumerate((Agent, partial(Team, [Agent(RecordingModel(), name="helper")]))):
        release = threading.Event()

        def summarize(_, release=release):
            release.wait(20)
            return ANSWER

        for session_id, options in (
            ("manager", {"session_summary_manager": SessionSummaryManager(RecordingModel(summarize))}),
            ("enabled", {"enable_session_summaries": True}),
            ("off", {"enable_session_summaries": True, "add_session_summary_to_context": False}),
        ):
            model = RecordingModel(lambda ms: ANSWER if "New messages" in str(ms[-1].content) else "hi")
            agent = owner(model=model, db=db, session_id=f"{session_id} {n}", **options)
            agent.run("q0")
            threading.Timer(0.1, release.set).start()
            agent.run("q1")
            last = next(at for at, messages in enumerate(model.told) if messages[-1].content == "q1")
            assert ("They met." in model.instructions(last)) == (session_id != "off")


def test_failing_summary_keeps_run_and_old_summary(db, caplog):
    """It is logged; the next one is told what the failed one was to tell."""
    summary = RecordingModel(["FIRST", ValueError("no summary today"), "THIRD"])
    agent = summarizing(db, summary)
    agent.run("q0")
    agent.get_session_summary()
    assert agent.run("q1").status == "COMPLETED"
    assert agent.get_session_summary().summary == "FIRST"
    assert "no summary today" in caplog.text
    agent.run("q2")

    assert agent.get_session_summary().summary == "THIRD"
    assert all(word in asked(summary) for word in ("FIRST", "q1", "q2"))


def test_summary_excludes_runs_without_answer(db):
    """Failed ones never, paused ones once they have ended, though later ones were summarized before."""
    model = RecordingModel([call("look"), ValueError("boom"), "two", "the answer to ONE"])
    summary = RecordingModel(["FIRST", "SECOND"])
    agent = summarizing(db, summary, model, tools=[tool(lambda: 1, name="look", requires_confirmation=True)])
    paused = agent.run("ONE")
    with pytest.raises(RunFailed):
        agent.run("LOST")
    agent.run("TWO")
    agent.get_session_summary()
    assert len(summary.told) == 1
    assert "TWO" in asked(summary)
    assert "ONE" not in asked(summary)
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent.continue_run(paused.run_id)

    assert agent.get_session_summary().summary == "SECOND"
    assert all(word in asked(summary) for word in ("FIRST", "ONE", "the answer to ONE"))
    assert not any(word in asked(summary) for word in ("TWO", "LOST"))


def test_long_history_is_summarized_in_batches(db):
    """None longer than a model takes; each goes on from the one before, and together they tell all."""
    for n in range(60):
        text = f"q{n}. " + "x" * 3_900
        db.append_run("chat", Run(messages=[Message(role="user", content=text)]))
    summary = RecordingModel()
    agent = summarizing(db, summary)
    agent.run("the last")
    agent.get_session_summary()

    portions = [asked(summary, n) for n in range(len(summary.told))]
    assert len(portions) > 1
    assert max(map(len, portions)) < 100_000
    assert [sum(f"q{n}." in portion for portion in portions) for n in range(60)] == [1] * 60
    assert all(f"answer {n}" in portion for n, portion in enumerate(portions[1:]))


def test_summaries_create_no_runs(db):
    """What they took is not the session's."""
    agent = summarizing(db, RecordingModel([ANSWER]))
    run = agent.run("x")
    agent.get_session_summary()
    metrics = agent.get_session_metrics()

    assert (metrics.n_runs, metrics.n_messages) == (1, 2)
    assert metrics.total_tokens == run.usage.total_tokens


def test_sessions_have_separate_summaries(db):
    """One manager serves many sessions and agents; nobody is told of another's."""
    summary = RecordingModel(lambda messages: f"of {messages[-1].content.split()[-3]}")
    manager = SessionSummaryManager(summary)
    for name in ("ann", "bob"):
        agent = summarizing(db, None, session_summary_manager=manager, user_id=name)
        agent.run(f"{name} speaks", session_id=f"of {name}")
        manager.wait(db, f"of {name}")
    assert "ann" not in asked(summary)
    with pytest.raises(SessionNotFound):
        agent.get_session_summary("of ann")
    with pytest.raises(SessionNotFound):
        agent.get_session_summary("of nobody")


def test_summary_does_not_recreate_deleted_session(db):
    """A summary that comes late makes no session."""
    thinking, may_go_on = threading.Event(), threading.Event()

    def think(_messages):
        thinking.set()
        assert may_go_on.wait(WAIT_S)
        return "too late"

    manager = SessionSummaryManager(RecordingModel(think))
    agent = summarizing(db, None, session_summary_manager=manager)
    agent.run("x")
    assert thinking.wait(WAIT_S)
    agent.delete_session()
    may_go_on.set()
    manager.wait(db, "chat")

    assert db.get_session("chat") is None


def test_summary_is_finished_at_exit(tmp_path):
    """Python ends when the summary is there, not before."""
    program = """
import sys, threading
from kern_nb import Agent, Team, Workflow
from kern_nb.agent import SessionSummaryManager
from kern_nb.db import SqliteDb
from kern_nb.models.scripted import ScriptedModel

ended = threading.Event()
def think(messages):
    ended.wait()
    return "made at the end"

manager = SessionSummaryManager(ScriptedModel(think))
agent = Agent(ScriptedModel(["hi"]), db=SqliteDb(db_file=sys.argv[1]), session_id="chat",
              enable_session_summaries=True, session_summary_manager=manager)
agent.run("x")
threading.Timer(0.2, ended.set).start()
"""
    path = tmp_path / "s.db"
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=60)
    with SqliteDb(db_file=path) as store:
        assert store.get_session("chat").summary["summary"] == "made at the end"
