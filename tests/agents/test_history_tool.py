"""`read_chat_history`: a model reads what was said in its session, by a tool, when it wants to."""

from __future__ import annotations

import json

import pytest
from recording_models import RecordingModel, calls_once, results

from kern_nb import Agent
from kern_nb.models.scripted import call
from kern_nb.records import Message, Run


def turn(n):
    """What run n of a `RecordingModel` says."""
    return [("user", f"q{n}"), ("assistant", f"answer {n}")]


def read(db, **args):
    """What a model reads of the session "chat"."""
    model = calls_once("get_chat_history", **args)
    Agent(model, db=db, session_id="chat", read_chat_history=True).run("what was said?")
    return json.loads(results(model)[0])


def test_history_tool_reads_whole_history(db):
    """read_chat_history gives a tool; the run that asks is not part of what it reads."""
    model = RecordingModel(
        ["answer 0", "answer 1", call("get_chat_history"), "done", call("get_chat_history", num_runs=1)]
    )
    agent = Agent(model, db=db, session_id="chat", read_chat_history=True)
    for n in range(3):
        agent.run(f"q{n}")
    (read,) = results(model)
    assert [(line["role"], line["content"]) for line in json.loads(read)] == [*turn(0), *turn(1)]

    agent.run("only the last")
    latest = json.loads(results(model)[0])
    assert [line["role"] for line in latest] == ["user", "assistant", "tool", "assistant"]
    assert (latest[0]["content"], latest[-1]["content"]) == ("q2", "done")


def test_history_tool_reads_lineage(db):
    """The tool sees what the session sees."""
    agent = Agent(RecordingModel(), db=db)
    for n in range(3):
        agent.run(f"q{n}", session_id="main")
    db.branch("main", after=0, new_session_id="fork")
    model = calls_once("get_chat_history")
    Agent(model, db=db, session_id="fork", read_chat_history=True).run("what was said?")

    assert [(line["role"], line["content"]) for line in json.loads(results(model)[0])] == turn(0)


def test_history_tool_reads_long_messages(db):
    """Or the model can see that there is more."""
    said = [Message(role="user", content="x" * 3_000 + " THE END"), Message(role="assistant", content="ok")]
    db.append_run("chat", Run(messages=said))
    (asked, _) = read(db)

    assert "THE END" in asked["content"] or "…" in asked["content"]


def test_history_tool_reads_any_result(db):
    """Objects too, and what a tool was asked."""
    model = calls_once("look")
    Agent(model, db=db, session_id="chat", tools=[look]).run("where?")
    lines = read(db)

    assert [line["role"] for line in lines] == ["user", "assistant", "tool", "assistant"]
    assert "Rome" in json.dumps(lines[2]["content"])
    assert "look" in json.dumps(lines[1]["calls"])


def look() -> dict:
    """A tool that gives an object."""
    return {"city": "Rome"}


@pytest.mark.parametrize("wrong", [-1, 0, "two", 10**30])
def test_history_tool_accepts_any_num_runs(db, wrong):
    """The model is told nothing, or what is wrong; the run goes on."""
    Agent(RecordingModel(), db=db, session_id="chat").run("q0")
    model = RecordingModel([call("get_chat_history", num_runs=wrong), "done"])
    run = Agent(model, db=db, session_id="chat", read_chat_history=True).run("x")

    assert (run.status, run.output) == ("COMPLETED", "done")
