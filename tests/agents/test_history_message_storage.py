"""`store_history_messages`: a run keeps a copy of what it was told of earlier runs; copies are marked, and counted nowhere."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls_once, said

from kern_nb import Agent
from kern_nb.db import InMemoryDb


def look() -> str:
    """A tool."""
    return "the sea"


def talk(store, *, keeps, runs=3, **options):
    """Some runs of an agent that is told of its past; the last run as stored."""
    given = {"add_history_to_context": True, "num_history_runs": 10, "tools": [look], "instructions": "Be kind."}
    agent = Agent(calls_once("look"), db=store, session_id="chat", store_history_messages=keeps, **given | options)
    return [agent.run(f"q{n}") for n in range(runs)][-1]


ONE_RUN = ["user", "assistant", "tool", "assistant"]


def test_history_messages_are_not_stored_by_default(db):
    """What it was told stands where it was said."""
    run = talk(db, keeps=False)

    assert [m.role for m in run.messages] == ["system", *ONE_RUN]
    assert not any(m.from_history for m in run.messages)


def test_history_copies_precede_own_messages(store):
    """On every engine: after the instructions, in the order they were told, marked."""
    run = talk(store, keeps=True)

    assert [m.role for m in run.messages] == ["system", *ONE_RUN * 3]
    assert [m.content for m in run.messages if m.role == "user"] == ["q0", "q1", "q2"]
    assert [bool(m.from_history) for m in run.messages] == [False, *[True] * 8, *[False] * 4]
    assert [m.extra["tool_calls"][0]["tool_name"] for m in run.messages[1:9] if "tool_calls" in m.extra] == ["look"] * 2


def test_history_copies_do_not_count_tokens_and_calls(db):
    """With copies or without, a session took what it took."""
    with InMemoryDb() as other:
        talk(other, keeps=False)
        expected = Agent(RecordingModel(), db=other, session_id="chat").get_session_metrics()
    talk(db, keeps=True)
    found = Agent(RecordingModel(), db=db, session_id="chat").get_session_metrics()

    counted = {"n_runs", "n_tool_calls", "n_tool_errors", "input_tokens", "output_tokens", "total_tokens"}
    assert found.model_dump(include=counted) == expected.model_dump(include=counted)


def test_history_copies_do_not_count_as_messages(db):
    """A copy of a message is not another one."""
    with InMemoryDb() as other:
        talk(other, keeps=False)
        expected = Agent(RecordingModel(), db=other, session_id="chat").get_session_metrics()
    talk(db, keeps=True)

    assert Agent(RecordingModel(), db=db, session_id="chat").get_session_metrics().n_messages == expected.n_messages


def test_history_copies_are_not_repeated(db):
    """Of the history, of the chat's history, and of a branch."""
    talk(db, keeps=True)
    agent = Agent(RecordingModel(), db=db, session_id="chat")

    assert [m.role for m in agent.get_chat_history(tool_messages=True)] == ONE_RUN * 3
    assert [m.role for m in agent.get_chat_history(last_runs=1, tool_messages=True)] == ONE_RUN
    db.branch("chat", after=1, new_session_id="fork")
    assert [m.role for m in agent.get_chat_history("fork", tool_messages=True)] == ONE_RUN * 2
    model = RecordingModel()
    Agent(model, db=db, session_id="fork", add_history_to_context=True, store_history_messages=True).run("q3")
    assert [line for line in said(model.told[-1]) if line[0] == "user"] == [("user", q) for q in ("q0", "q1", "q3")]


@pytest.mark.parametrize("at", range(1, 14))
def test_branch_of_run_with_copies_has_no_duplicates(db, at):
    """Wherever it is cut, copies are not told again."""
    talk(db, keeps=True)
    db.branch("chat", after=(2, at - 1), new_session_id="fork")
    model = RecordingModel()
    Agent(model, db=db, session_id="fork", add_history_to_context=True, num_history_runs=10).run("now")

    asked = [text for role, text in model.heard() if role == "user"]
    assert asked == ["q0", "q1", *(["q2"] if at > 9 else []), "now"]


def test_history_limits_apply_to_copies(db):
    """A run keeps what it was told, not more."""
    run = talk(db, keeps=True, runs=4, num_history_runs=1)

    assert [m.content for m in run.messages if m.role == "user"] == ["q2", "q3"]


def test_last_messages_skip_copies(db):
    """num_history_messages counts messages, and copies are none."""
    talk(db, keeps=True)
    model = RecordingModel()
    Agent(model, db=db, session_id="chat", add_history_to_context=True, num_history_messages=5).run("now")

    assert [m.role for m in model.told[-1]] == ["assistant", *ONE_RUN, "user"]
