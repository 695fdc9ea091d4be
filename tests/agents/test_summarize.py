"""`summarize` with a model: each session's summary is brought up to date and stored; a run's is not."""

from __future__ import annotations

import asyncio
import json

import pytest
from recording_models import RecordingModel

from kern_nb import Agent, Workflow
from kern_nb.agent import SessionSummaryManager
from kern_nb.analysis.digest import Digest
from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound
from kern_nb.operations.summarize import summarize
from kern_nb.records import Message, Run, Session, SessionSummary

ANSWER = json.dumps({"summary": "They met.", "topics": ["names", "greetings"]})


def say(store, session_id, *questions, **fields):
    """A run for each question; its answer is "re: " and the question."""
    for question in questions:
        said = [Message(role="user", content=question), Message(role="assistant", content=f"re: {question}")]
        store.append_run(session_id, Run(input=question, output=f"re: {question}", messages=said, **fields))


def asked(model, at=-1):
    """What the model was asked."""
    return model.heard(at)[-1][1]


def test_summarize_returns_and_stores_summary(store):
    """On every engine: text, topics, time, the model, and up to which run it goes; an agent has the same."""
    say(store, "chat", "q0", "q1")
    found = summarize("chat", store=store, model=RecordingModel([ANSWER]))

    assert isinstance(found, SessionSummary)
    assert (found.summary, found.topics, found.model) == ("They met.", ["names", "greetings"], "listener")
    assert (found.session_id, found.run_index, found.last_run_index, found.runs_since) == ("chat", None, 1, 0)
    kept = Agent(RecordingModel(), db=store, session_id="chat").get_session_summary()
    assert kept == found.model_copy(update={"runs_since": None})
    assert store.get_session("chat").summary["last_run_index"] == 1


def test_summarize_sends_only_new_runs(store):
    """On every engine: the old summary and the runs since, and no model is asked where there are none."""
    say(store, "chat", "q0", "q1")
    model = RecordingModel(["FIRST", "SECOND"])
    summarize("chat", store=store, model=model)
    say(store, "chat", "q2")
    second = summarize("chat", store=store, model=model)
    again = summarize("chat", store=store, model=model)

    assert all(word in asked(model, 0) for word in ("q0", "re: q0", "q1"))
    assert all(word in asked(model, 1) for word in ("FIRST", "q2", "re: q2"))
    assert not any(word in asked(model, 1) for word in ("q0", "q1"))
    assert len(model.told) == 2
    assert again == second
    assert (second.summary, second.last_run_index) == ("SECOND", 2)


def test_summarize_extends_agent_summary(db):
    """There is one summary of a session, whoever asks for it."""
    mine = RecordingModel(["FIRST"])
    agent = Agent(RecordingModel(), db=db, session_id="chat", enable_session_summaries=True)
    agent._summaries().model = mine
    agent.run("q0")
    assert agent.get_session_summary().summary == "FIRST"
    say(db, "chat", "q1")
    model = RecordingModel(["SECOND"])
    summarize("chat", store=db, model=model)

    assert "FIRST" in asked(model)
    assert "q0" not in asked(model)
    assert agent.get_session_summary().summary == "SECOND"


def test_branch_has_own_summary(db):
    """With what it inherits; its parent's stays."""
    say(db, "chat", "q0", "q1")
    summarize("chat", store=db, model=RecordingModel(["of the parent"]))
    db.branch("chat", after=0, new_session_id="what-if")
    say(db, "what-if", "else")
    model = RecordingModel(["of the branch"])
    summarize("what-if", store=db, model=model)

    assert all(word in asked(model) for word in ("q0", "else"))
    assert "q1" not in asked(model)
    assert db.get_session("chat").summary["summary"] == "of the parent"
    assert db.get_session("what-if").summary["summary"] == "of the branch"


def test_run_summary_is_not_stored(store):
    """On every engine: of a run that is named, only what was said in it is told, and the session keeps its summary."""
    say(store, "chat", "q0", "q1")
    model = RecordingModel([ANSWER])
    found = summarize("chat/1", store=store, model=model)

    assert (found.summary, found.run_index, found.last_run_index) == ("They met.", 1, None)
    assert "q1" in asked(model)
    assert "q0" not in asked(model)
    assert "not stored" in repr(found)
    assert store.get_session("chat").summary is None


def test_failed_run_summary_includes_error(db):
    """Why it failed is what one would like to know; a session's summary waits for runs that end well."""
    said = [Message(role="system", content="BE KIND"), Message(role="user", content="q0")]
    db.append_run("chat", Run(input="q0", messages=said, status="ERROR", error="out of luck"))
    model = RecordingModel(["It failed."])
    summarize("chat/0", store=db, model=model)

    assert all(word in asked(model) for word in ("q0", "ERROR", "out of luck"))
    assert "BE KIND" not in asked(model)
    with pytest.raises(BadUsage, match="No finished run"):
        summarize("chat", store=db, model=model)


def test_summarize_inherited_or_member_run(db):
    """By the branch's name; a step without messages by what it was given and gave."""
    say(db, "chat", "q0")
    leader = db.get_session("chat").runs[0]
    db.append_run("chat", Run(input="upper", output={"said": "UPPER"}, parent_run_id=leader.run_id))
    db.branch("chat", new_session_id="what-if")
    model = RecordingModel()
    summarize("what-if/0", store=db, model=model)
    assert "re: q0" in asked(model)
    summarize("what-if/1", store=db, model=model)
    assert all(word in asked(model) for word in ("upper", "UPPER"))


def test_long_run_is_summarized_in_batches(db):
    """None longer than a model takes; each goes on from the one before, and only the end is stored."""
    said = [Message(role="user", content=f"m{n}. " + "x" * 3_900) for n in range(60)]
    db.append_run("chat", Run(input="q", messages=said))
    model = RecordingModel()
    found = summarize("chat", store=db, model=model)

    pieces = [asked(model, n) for n in range(len(model.told))]
    assert len(pieces) > 2
    assert max(map(len, pieces)) < 100_000
    assert [sum(f"m{n}." in piece for piece in pieces) for n in range(60)] == [1] * 60
    assert all(f"answer {n}" in piece for n, piece in enumerate(pieces[1:]))
    assert found.summary == f"answer {len(pieces) - 1}"


def test_summarize_several_sessions(store):
    """On every engine: each session's summary is stored, the text over all is not."""
    say(store, "a", "apples")
    say(store, "b", "pears", "plums")
    store.save_session(Session(session_id="new"))

    def answer(messages):
        told = messages[-1].content
        return "ALL" if told.startswith("Summaries") else f"of {[w for w in ('apples', 'plums') if w in told]}"

    model = RecordingModel(answer)
    found = summarize("a", "b", "b/0", "new", store=store, model=model)

    assert (found.summary, found.without, found.model) == ("ALL", ("new",), "listener")
    assert [(one.session_id, one.run_index) for one in found.summaries] == [("a", None), ("b", None), ("b", 0)]
    assert [one.summary for one in found.summaries] == ["of ['apples']", "of ['plums']", "of []"]
    [over_all] = [told[-1].content for told in model.told if told[-1].content.startswith("Summaries")]
    assert all(one.summary in over_all for one in found.summaries)
    kept = {name: (store.get_session(name).summary or {}).get("summary") for name in ("a", "b", "new")}
    assert kept == {"a": "of ['apples']", "b": "of ['plums']", "new": None}
    assert found.df[["session_id", "summary"]].to_numpy().tolist()[0] == ["a", "of ['apples']"]


def test_current_summaries_are_not_repeated(db):
    """Of several, only those with new runs are told, and then the text over all."""
    say(db, "a", "apples")
    say(db, "b", "pears")
    summarize("a", "b", store=db, model=RecordingModel())
    say(db, "b", "plums")
    model = RecordingModel()
    summarize("a", "b", store=db, model=model)

    assert len(model.told) == 2
    assert "plums" in asked(model, 0)
    assert not any("apples" in asked(model, n) for n in range(2))


def test_single_summary_of_several_sessions(db):
    """Nothing is there to put together, so nothing is asked."""
    say(db, "a", "apples")
    db.save_session(Session(session_id="new"))
    model = RecordingModel(["of a"])
    found = summarize("a", "new", store=db, model=model)

    assert (found.summary, len(model.told)) == ("of a", 1)


def test_summarize_group(db):
    """By what its sessions say of themselves."""
    for n, domain in enumerate(("air", "shop", "air")):
        db.save_session(Session(session_id=f"s{n}", metadata={"domain": domain}, created_at=n))
        say(db, f"s{n}", f"q{n}")
    found = summarize(where={"domain": "air"}, store=db, model=RecordingModel())

    assert [one.session_id for one in found.summaries] == ["s0", "s2"]


def test_summarize_without_model_is_digest(db):
    """The same call, computed."""
    say(db, "chat", "q0")

    assert isinstance(summarize("chat", store=db), Digest)
    assert summarize(where={}, store=db).items["item"].tolist() == ["chat"]


def test_summarize_rejects_empty_session(db):
    """With what can be done; and nothing is stored, no model asked."""
    db.save_session(Session(session_id="new"))
    db.start_run("going", input="q")
    model = RecordingModel()
    for name in ("new", "going"):
        with pytest.raises(BadUsage, match="No finished run") as refused:
            summarize(name, store=db, model=model)
        assert "digest" in refused.value.hint
    with pytest.raises(BadUsage, match="any of the 2 sessions"):
        summarize("new", "going", store=db, model=model)
    assert model.told == []
    assert db.get_session("new").summary is None


@pytest.mark.parametrize("kind", ["agent", "manager", "name of an agent's model"])
def test_summarize_with_agent_or_manager(db, kind):
    """An agent stands for its model; a manager has a prompt of its own."""
    say(db, "chat", "q0")
    model = RecordingModel(["made"])
    agent = Agent(model, db=db, instructions="BE KIND")
    given = {"agent": agent, "manager": SessionSummaryManager(model, prompt="In Latin.")}.get(kind, agent.model)

    assert summarize("chat", store=db, model=given).summary == "made"
    assert model.instructions() == "In Latin." if kind == "manager" else "JSON" in model.instructions()


def test_summarize_rejects_invalid_model(db):
    """Before anything is stored."""
    say(db, "chat", "q0")
    for model, says in (
        (5, "model must be a name or a model object, got 5"),
        ("nope", "nope"),
        (Workflow([lambda step: 1], db=db), "has no model"),
    ):
        with pytest.raises(BadUsage, match=says) as refused:
            summarize("chat", store=db, model=model)
        assert refused.value.hint
    assert db.get_session("chat").summary is None


def test_summarize_rejects_unknown_references(db):
    """Before a model is asked."""
    say(db, "chat", "q0")
    model = RecordingModel()
    for names, error in ((("nope",), SessionNotFound), (("chat", "nope"), SessionNotFound), (("chat/0.1",), BadUsage)):
        with pytest.raises(error):
            summarize(*names, store=db, model=model)
    with pytest.raises(RunNotFound):
        summarize("chat/7", store=db, model=model)
    with pytest.raises(BadUsage, match="No session or run"):
        summarize(store=db, model=model)
    assert model.told == []


def test_summarize_hides_sessions_of_other_users(store):
    """On every engine: for a user, only their own are told, by name or all of them."""
    for name in ("ann", "bob"):
        say(store, f"of {name}", f"{name} speaks", user_id=name)
    model = RecordingModel()
    with pytest.raises(SessionNotFound, match="of ann"):
        summarize("of ann", store=store, model=model, user_id="bob")
    assert model.told == []
    summarize(store=store, model=model, user_id="bob")

    assert "bob speaks" in asked(model)
    assert "ann" not in asked(model)
    assert store.get_session("of ann").summary is None


def test_summarize_inside_running_loop(store):
    """On every engine: as in a notebook's cell."""
    say(store, "chat", "q0")

    async def cell():
        return summarize("chat", store=store, model=RecordingModel([ANSWER]))

    assert asyncio.run(cell()).summary == "They met."
