"""Whatever a summary's model answers, and whatever another program stored as a summary, can be read and gone on from."""

from __future__ import annotations

import json

import pytest
from recording_models import RecordingModel

from kern_nb import Agent
from kern_nb.agent import SessionSummaryManager
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.records import Message, Run, Session


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A store, with a session for each test."""
    with SqliteDb(tmp_path_factory.mktemp("db") / "s.db") as store:
        yield store


@pytest.fixture
def session_id(request):
    """A session of this test alone."""
    return request.node.name.replace("/", " ")[:100]


def answered(db, session_id, answer):
    """The summary that comes of an answer, read by another agent than made it."""
    manager = SessionSummaryManager(RecordingModel([answer]))
    options = {"enable_session_summaries": True, "session_summary_manager": manager}
    Agent(RecordingModel(), db=db, session_id=session_id, **options).run("x")
    manager.wait(db, session_id)
    return Agent(RecordingModel(), db=db, session_id=session_id).get_session_summary()


@pytest.mark.parametrize(
    ("answer", "summary", "topics"),
    [
        ('{"summary": "s", "topics": ["a", "b"]}', "s", ["a", "b"]),
        ('```json\n{"summary": "s", "topics": ["a"]}\n```', "s", ["a"]),
        ('Here you are:\n{"summary": "s", "topics": []}\nAnything else?', "s", []),
        ('Of {this}: {"summary": "s"}', "s", []),
        ('{"summary": "with } and { in it", "topics": null}', "with } and { in it", []),
        ('{"topics": ["a"], "summary": "line\\nbreak"}', "line\nbreak", ["a"]),
        ('{"summary": "s", "topics": "a, b"}', "s", ["a", "b"]),
        ('{"summary": "s", "topics": 5}', "s", []),
        ('{"summary": "s", "topics": ["a", 5, null, {"b": 1}]}', "s", ["a"]),
        ("They met.", "They met.", []),
        ("  They met.\n", "They met.", []),
        ('{"summary": 5}', '{"summary": 5}', []),
        ('{"summary": "cut o', '{"summary": "cut o', []),
        ('["summary"]', '["summary"]', []),
        ("null", "null", []),
        ("nul \x00, half \ud800, escape \x10", "nul \x00, half \ud800, escape \x10", []),
        ('{"summary": "\\u0000\\ud800"}', "\x00\ud800", []),
        ("{" * 20_000, "{" * 20_000, []),
        ("x" * 1_000_000, "x" * 1_000_000, []),
    ],
    ids=range(19),
)
def test_answer_parsing(db, session_id, answer, summary, topics):
    """JSON with summary and topics, wherever in the text; anything else is the summary itself."""
    found = answered(db, session_id, answer)

    assert (found.summary, found.topics) == (summary, topics)


FOREIGN = {
    "a time in seconds": {"summary": "old", "updated_at": 1_700_000_000},
    "a time of its own": {"summary": "old", "updated_at": "yesterday"},
    "a time beyond all": {"summary": "old", "updated_at": 1e300},
    "topics as text": {"summary": "old", "topics": "a, b"},
    "topics as a number": {"summary": "old", "topics": 7},
    "more than we know": {"summary": "old", "topics": ["a"], "sentiment": {"joy": 1}},
    "no summary": {"text": "old"},
    "no text": {"summary": {"text": "old"}},
    "nothing": {},
    "marks of ours that are none": {"summary": "old", "last_run_index": "seven", "unfinished_runs": "none"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_summary_is_extended(db, session_id, name):
    """It is told where it is one; the next one is told all runs, as nobody knows which it told of."""
    stored = FOREIGN[name]
    runs = [Run(messages=[Message(role="user", content="IMPORTED"), Message(role="assistant", content="yes")])]
    db.save_session(Session(session_id=session_id, summary=stored, runs=runs))
    model, summary = RecordingModel(), RecordingModel(["new"])
    manager = SessionSummaryManager(summary)
    options = {"enable_session_summaries": True, "add_session_summary_to_context": True}
    agent = Agent(model, db=db, session_id=session_id, session_summary_manager=manager, **options)
    before = agent.get_session_summary()
    is_one = stored.get("summary") == "old"
    assert (before.summary if before else None) == ("old" if is_one else None)
    agent.run("x")

    assert agent.get_session_summary().summary == "new"
    assert ("old" in model.instructions()) == is_one
    assert "IMPORTED" in summary.heard()[-1][1]


def test_summary_in_bundle(db, session_id):
    """What is saved elsewhere reads the same there."""
    made = answered(db, session_id, json.dumps({"summary": "s", "topics": ["a"]}))
    with InMemoryDb() as other:
        other.save_session(db.get_session(session_id))
        there = Agent(RecordingModel(), db=other, session_id=session_id).get_session_summary()

    assert there == made
